//! in-toto statements, whatever they state (<https://github.com/in-toto/attestation>, `spec/v1`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::STATEMENT;
use super::digests::{Digests, Sha256};

/// What is stated of some files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement<P> {
    #[serde(rename = "_type")]
    pub of_type: String,
    pub subject: Vec<Resource>,
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    pub predicate: P,
}

/// in-toto's `ResourceDescriptor`: a thing, by its digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    pub digest: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Resource {
    pub fn new(name: impl Into<String>, digests: &Digests) -> Self {
        Self {
            name: name.into(),
            digest: digests.set(),
            ..Self::default()
        }
    }

    /// Of something that the farm does not store.
    pub fn measured(name: impl Into<String>, sha256: Sha256) -> Self {
        Self {
            name: name.into(),
            digest: BTreeMap::from([("sha256".to_owned(), sha256.to_string())]),
            ..Self::default()
        }
    }

    pub fn sha256(&self) -> Option<Sha256> {
        self.digest.get("sha256")?.parse().ok()
    }
}

impl<P: Serialize> Statement<P> {
    pub fn new(subject: Vec<Resource>, predicate_type: &str, predicate: P) -> Self {
        Self {
            of_type: STATEMENT.to_owned(),
            subject,
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    /// The bytes that are signed.
    ///
    /// # Errors
    /// Never for what this crate states: it has no map whose keys are no text.
    pub fn to_payload(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

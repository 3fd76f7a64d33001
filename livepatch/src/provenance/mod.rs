//! What a codestream's sources were made from, in a form that anybody can check: in-toto statements in signed envelopes.
//!
//! The main path: a worker measures what goes into an extraction ([`origin`]); of that and of what it stored, the coordinator
//! makes an [`extraction`] statement for each architecture that was extracted, and a [`codestream`] statement of all that its
//! tasks found; each goes into an [`envelope`], which is signed. Whoever has the sources reads them back with [`read`].
//!
//! Same input, same bytes: fields are written in a fixed order, and nothing here looks at a clock.

pub mod codestream;
pub mod digests;
pub mod envelope;
pub mod extraction;
pub mod origin;
pub mod statement;
pub mod timestamp;

#[cfg(test)]
mod tests;

pub use codestream::{Codestream, TaskFindings};
pub use digests::{Digests, Sha256};
pub use envelope::{Envelope, Signature, pre_authentication};
pub use extraction::Slsa;
pub use origin::Origin;
pub use statement::{Resource, Statement};

/// The type of every statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// What an envelope holds.
pub const PAYLOAD: &str = "application/vnd.in-toto+json";

/// The largest envelope, and the most that one file of them holds.
pub const MAX_ENVELOPE: usize = 48 << 20;
pub const MAX_ENVELOPES: usize = 16;

/// Where a codestream's statements are, in its folder.
pub const FOLDER: &str = "provenance";
/// The statements, an envelope a line; below [`FOLDER`] like all that follows.
pub const STATEMENTS: &str = "provenance.intoto.jsonl";
/// The certificate of the key that signed them, or where there is no CA the key itself.
pub const SIGNER: &str = "signer.pem";
/// What whoever wrote the folder chose: whose name is on it. Not signed.
pub const WRITTEN_BY: &str = "written-by.json";

/// A statement of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Signed {
    Extraction(Box<Statement<Slsa>>),
    Codestream(Box<Statement<Codestream>>),
}

/// Why a text is no statement of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

impl Unreadable {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Reads the statement in an envelope, whose signature says nothing yet.
///
/// # Errors
/// It is none that this program knows.
pub fn read(payload: &[u8]) -> Result<Signed, Unreadable> {
    /// What tells statements apart.
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "_type")]
        of: String,
        #[serde(rename = "predicateType")]
        predicate: String,
    }
    let bad = |error: serde_json::Error| Unreadable::new(format!("this is no in-toto statement: {error}"));
    let kind: Kind = serde_json::from_slice(payload).map_err(bad)?;
    if kind.of != STATEMENT {
        let is = crate::names::quoted(&kind.of);
        return Err(Unreadable::new(format!(
            "the statement's type is {is}, this program reads {STATEMENT}"
        )));
    }
    match kind.predicate.as_str() {
        extraction::PREDICATE => {
            let statement: Statement<Slsa> = serde_json::from_slice(payload).map_err(bad)?;
            let build = &statement.predicate.build_definition.build_type;
            if build != extraction::BUILD {
                let is = crate::names::quoted(build);
                return Err(Unreadable::new(format!(
                    "the statement is about a build of type {is}, not {}",
                    extraction::BUILD
                )));
            }
            Ok(Signed::Extraction(Box::new(statement)))
        }
        codestream::PREDICATE => {
            let statement = serde_json::from_slice(payload).map_err(bad)?;
            Ok(Signed::Codestream(Box::new(statement)))
        }
        other => Err(Unreadable::new(format!(
            "the statement's predicate is {}, which this program does not know",
            crate::names::quoted(other)
        ))),
    }
}

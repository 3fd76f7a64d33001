//! What `get` writes beside a codestream's sources, so that they can be checked offline.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use klp_livepatch::Codestream;
use klp_livepatch::names::LivepatchName;
use klp_livepatch::provenance::extraction::subject_name;
use klp_livepatch::provenance::{FOLDER, SIGNER, STATEMENTS, WRITTEN_BY};
use klp_livepatch::render::Author;
use klp_proto::v1;
use serde::{Deserialize, Serialize};
use tonic::Code;

use crate::client::{Client, by_name};
use crate::cmd::get::write_file;
use crate::output::{self, Failed};
use crate::results::Sources;

/// What is stated of a livepatch's codestreams.
pub struct Statements(BTreeMap<String, v1::CodestreamProvenance>);

impl Statements {
    /// # Errors
    /// The coordinator can't be reached or can't state anything. One of a former version states nothing, which is told.
    pub async fn fetch(client: &Client, name: &LivepatchName) -> Result<Self, Failed> {
        let request = v1::ProvenanceRequest {
            livepatch: Some(by_name(name)),
        };
        let mut answers = match client.livepatches().provenance(request).await {
            Ok(answers) => answers.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                output::tell(
                    "the coordinator is of a version that states no provenance: what is written can't be verified",
                );
                return Ok(Self(BTreeMap::new()));
            }
            Err(status) => return Err(client.explain(status)),
        };
        let mut all = BTreeMap::new();
        while let Some(answer) = answers.message().await.map_err(|s| client.explain(s))? {
            all.insert(answer.codestream.clone(), answer);
        }
        Ok(Self(all))
    }

    pub fn of(&self, codestream: &Codestream) -> Option<&v1::CodestreamProvenance> {
        self.0.get(codestream.as_str())
    }
}

/// What whoever wrote a folder chose. It is not signed: nothing but names in comments depends on it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenBy {
    /// The version that rendered it: another one may render otherwise.
    pub version: String,
    pub author: Author,
    /// Sources that did not pass the compile check were asked for, too.
    pub include_failed: bool,
}

impl WrittenBy {
    pub fn new(author: &Author, include_failed: bool) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            author: author.clone(),
            include_failed,
        }
    }
}

/// Writes what is stated of a codestream into its folder, with the sources as they are stated. What a former call wrote goes
/// if nothing can be stated now.
///
/// # Errors
/// The disk's.
pub fn write(
    codestream: &Path,
    stated: Option<&v1::CodestreamProvenance>,
    sources: &Sources,
    by: &WrittenBy,
) -> anyhow::Result<()> {
    let folder = codestream.join(FOLDER);
    let Some(stated) = stated.filter(|stated| !stated.envelopes.is_empty()) else {
        if let Some(stated) = stated {
            let why = match stated.pending.as_str() {
                "" => "nothing was extracted",
                why => why,
            };
            output::tell(&format!("{}: no provenance is stated yet: {why}", stated.codestream));
        }
        return match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("can't remove {}", folder.display()))
            }
            _ => Ok(()),
        };
    };
    let lines: String = stated
        .envelopes
        .iter()
        .map(|envelope| format!("{envelope}\n"))
        .collect();
    write_file(&folder.join(STATEMENTS), lines.as_bytes())?;
    write_file(&folder.join(SIGNER), stated.signer_pem.as_bytes())?;
    let by = serde_json::to_string_pretty(by)? + "\n";
    write_file(&folder.join(WRITTEN_BY), by.as_bytes())?;
    for (arch, sources) in sources {
        for (name, bytes) in sources {
            // Artifacts' names are relative and plain.
            write_file(&folder.join(subject_name(*arch, name)), bytes)?;
        }
    }
    Ok(())
}

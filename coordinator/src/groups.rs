//! The groups of a livepatch that has ended: which codestreams one source serves.

use std::collections::{BTreeMap, HashMap};

use klp_livepatch::grouping::{self, Group};
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::report::Report;
use klp_livepatch::task::{Platform, TaskKind};

use crate::blobs::{BlobError, Blobs};
use crate::lifecycle::State;
use crate::store::TaskRow;

/// Groups the platforms whose extraction succeeded by the sources that its newest round gave; what the tool wrote beside
/// them, such as its log, makes no other code. One platform's sources are in memory at a time, and sources that are equal
/// byte for byte are read once.
///
/// # Errors
/// An artifact can't be read.
pub async fn of_tasks(blobs: &Blobs, tasks: &[TaskRow]) -> Result<Vec<Group>, BlobError> {
    let mut known: HashMap<Vec<(&str, Digest)>, Digest> = HashMap::new();
    let mut outputs = Vec::new();
    let mut newest: BTreeMap<&Platform, &TaskRow> = BTreeMap::new();
    for task in tasks.iter().filter(|t| t.key.kind == TaskKind::Extract) {
        let kept = newest.entry(&task.key.platform).or_insert(task);
        if kept.key.round < task.key.round {
            *kept = task;
        }
    }
    for task in newest.into_values().filter(|t| t.status.state == State::Succeeded) {
        let sources = sources(task);
        let content = sources.iter().map(|a| (a.name.as_str(), a.digest)).collect();
        let digest = match known.get(&content) {
            Some(digest) => *digest,
            None => {
                let texts = read(blobs, &sources).await?;
                // Normalising is work for a thread that may be busy.
                let computed = blobs.aside().run(move || grouping::digest(texts)).await;
                let digest = computed.map_err(|error| BlobError::Io {
                    what: "can't normalise the outputs of",
                    path: task.key.to_string().into(),
                    error: std::io::Error::other(error),
                })?;
                known.insert(content, digest);
                digest
            }
        };
        outputs.push((task.key.platform.clone(), digest));
    }
    Ok(grouping::group_digests(outputs))
}

/// The artifacts that are a target's source.
fn sources(task: &TaskRow) -> Vec<&Artifact> {
    let names: Vec<&str> = match &task.report {
        Some(Report::Extract(report)) => report.targets.iter().map(|t| t.source_artifact.as_str()).collect(),
        _ => Vec::new(),
    };
    task.artifacts
        .iter()
        .filter(|a| names.contains(&a.name.as_str()))
        .collect()
}

async fn read(blobs: &Blobs, artifacts: &[&Artifact]) -> Result<Vec<(String, String)>, BlobError> {
    let mut texts = Vec::with_capacity(artifacts.len());
    for artifact in artifacts {
        let failed = |error| BlobError::Io {
            what: "can't read the artifact",
            path: artifact.digest.to_string().into(),
            error,
        };
        let Some(content) = blobs.read(&artifact.digest).await? else {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        };
        let bytes = content.all().await?;
        texts.push((artifact.name.clone(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(texts)
}

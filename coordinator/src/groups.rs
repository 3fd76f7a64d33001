//! The groups of a livepatch that has ended: which codestreams one source serves.

use std::collections::HashMap;

use klp_livepatch::grouping::{self, Group};
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::task::TaskKind;
use tokio::io::AsyncReadExt;

use crate::blobs::{BlobError, Blobs};
use crate::lifecycle::State;
use crate::store::TaskRow;

/// Groups the platforms whose extraction succeeded by what it gave. One platform's outputs are in memory at a time, and
/// outputs that are equal byte for byte are read once.
///
/// # Errors
/// An artifact can't be read.
pub async fn of_tasks(blobs: &Blobs, tasks: &[TaskRow]) -> Result<Vec<Group>, BlobError> {
    let mut known: HashMap<Vec<(&str, Digest)>, Digest> = HashMap::new();
    let mut outputs = Vec::new();
    let extracted = |t: &&TaskRow| t.key.kind == TaskKind::Extract && t.status.state == State::Succeeded;
    for task in tasks.iter().filter(extracted) {
        let content = task.artifacts.iter().map(|a| (a.name.as_str(), a.digest)).collect();
        let digest = match known.get(&content) {
            Some(digest) => *digest,
            None => {
                let texts = read(blobs, &task.artifacts).await?;
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

async fn read(blobs: &Blobs, artifacts: &[Artifact]) -> Result<Vec<(String, String)>, BlobError> {
    let mut texts = Vec::with_capacity(artifacts.len());
    for artifact in artifacts {
        let failed = |error| BlobError::Io {
            what: "can't read the artifact",
            path: artifact.digest.to_string().into(),
            error,
        };
        let Some(mut file) = blobs.read(&artifact.digest).await? else {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await.map_err(failed)?;
        texts.push((artifact.name.clone(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(texts)
}

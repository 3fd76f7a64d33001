//! The groups of a livepatch that has ended: which codestreams one source serves.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use klp_livepatch::grouping::{self, Group};
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::report::Report;
use klp_livepatch::task::{Platform, TaskKind};

use crate::blobs::{BlobError, Blobs};
use crate::lifecycle::State;
use crate::store::TaskRow;

/// The most sources whose normal form's digest is remembered: a few MiB.
const MOST: usize = 50_000;

/// What the sources of a platform are when they are normalised, by what they are: contents never change, and reading them
/// again may be a matter of many round trips.
#[derive(Debug, Default)]
pub struct Normalised(Mutex<HashMap<Digest, Digest>>);

impl Normalised {
    fn all(&self) -> MutexGuard<'_, HashMap<Digest, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is looked up: a digest over the sources' names and digests, in their order.
    fn key(sources: &[&Artifact]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for source in sources {
            // A name has no end of its own.
            hasher.update(&(source.name.len() as u64).to_le_bytes());
            hasher.update(source.name.as_bytes());
            hasher.update(source.digest.to_string().as_bytes());
        }
        Digest::from_hasher(&hasher)
    }

    fn get(&self, key: &Digest) -> Option<Digest> {
        self.all().get(key).copied()
    }

    fn note(&self, key: Digest, digest: Digest) {
        let mut all = self.all();
        // It only saves reading.
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, digest);
    }
}

/// Groups the platforms whose extraction succeeded by the sources that its newest round gave; what the tool wrote beside
/// them, such as its log, makes no other code. One platform's sources are in memory at a time, and sources that are equal
/// byte for byte are read once.
///
/// # Errors
/// An artifact can't be read.
pub async fn of_tasks(blobs: &Blobs, known: &Normalised, tasks: &[TaskRow]) -> Result<Vec<Group>, BlobError> {
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
        let key = Normalised::key(&sources);
        let digest = match known.get(&key) {
            Some(digest) => digest,
            None => {
                let texts = read(blobs, &sources).await?;
                // Normalising is work for a thread that may be busy.
                let computed = blobs.aside().run(move || grouping::digest(texts)).await;
                let digest = computed.map_err(|error| BlobError::Io {
                    what: "can't normalise the outputs of",
                    path: task.key.to_string().into(),
                    error: std::io::Error::other(error),
                })?;
                known.note(key, digest);
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

//! Outcomes on this worker's disk, kept until the coordinator has acknowledged them.
//!
//! `<data-dir>/outbox/<task>-<attempt>/outcome.json` beside `blobs/<digest>`, one for each artifact. A folder is made
//! under another name and renamed when it is whole, so what is found here after a crash is complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use klp_livepatch::outcome::{Artifact, Digest, Ending, Failure, Outcome};
use klp_livepatch::report::Report;
use klp_livepatch::task::{AttemptId, Incarnation};
use klp_telemetry::TraceParent;
use serde::{Deserialize, Serialize};

/// What an attempt made, before it is stored: the files' bytes are still in memory.
#[derive(Clone, Debug)]
pub struct Product {
    pub ending: Ending,
    pub report: Option<Report>,
    /// Name and bytes of each artifact.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Product {
    /// The outcome of a product that has no files.
    pub fn into_outcome_without_files(self) -> Outcome {
        Outcome {
            ending: self.ending,
            report: self.report,
            artifacts: Vec::new(),
        }
    }

    pub fn failed(failure: Failure) -> Self {
        Self {
            ending: Ending::Failed(failure),
            report: None,
            files: Vec::new(),
        }
    }
}

/// One outcome that waits to be delivered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parcel {
    pub attempt: AttemptId,
    /// The incarnation that ran the attempt: the lease was given to it.
    pub incarnation: Incarnation,
    pub outcome: Outcome,
    /// It answers a tryout, as far as the process that ran it knows; it is no longer of interest once that is over.
    #[serde(skip)]
    pub tryout: bool,
    /// The span that the attempt is below, as the coordinator named it.
    #[serde(default)]
    pub traceparent: String,
}

impl Parcel {
    /// Whether work was done in vain if the farm has moved on.
    pub fn holds_work(&self) -> bool {
        !self.tryout && !matches!(self.outcome.ending, Ending::HandedBack { .. })
    }

    /// The span that the attempt is below; one that can't be read is as good as none.
    pub fn parent(&self) -> Option<TraceParent> {
        self.traceparent.parse().ok()
    }
}

#[derive(Clone, Debug)]
pub struct Outbox {
    dir: PathBuf,
}

const OUTCOME: &str = "outcome.json";
const BLOBS: &str = "blobs";
const PARTIAL: &str = ".partial-";

impl Outbox {
    /// Opens the outbox below `data_dir`, and removes what a crash left half-made.
    ///
    /// # Errors
    /// The folder can't be made or read.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("outbox");
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { dir })
    }

    /// Stores a product; when this returns, it survives a crash.
    ///
    /// # Errors
    /// The disk refused.
    pub fn put(
        &self,
        attempt: AttemptId,
        incarnation: Incarnation,
        traceparent: &str,
        product: Product,
    ) -> io::Result<Parcel> {
        let name = folder_name(attempt);
        let partial = self.dir.join(format!("{PARTIAL}{name}"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        let parcel = Self::fill(&partial, attempt, incarnation, traceparent, product).inspect_err(|_| {
            // What is half-made must not take room on a disk that may be full.
            let _ = fs::remove_dir_all(&partial);
        })?;
        fs::rename(&partial, self.dir.join(name))?;
        sync_dir(&self.dir)?;
        Ok(parcel)
    }

    fn fill(
        partial: &Path,
        attempt: AttemptId,
        incarnation: Incarnation,
        traceparent: &str,
        product: Product,
    ) -> io::Result<Parcel> {
        let blobs = partial.join(BLOBS);
        fs::create_dir_all(&blobs)?;
        let mut artifacts = Vec::with_capacity(product.files.len());
        for (name, bytes) in product.files {
            let digest = Digest::of(&bytes);
            write_durably(&blobs.join(digest.to_string()), &bytes)?;
            artifacts.push(Artifact {
                name,
                digest,
                size: bytes.len() as u64,
            });
        }
        sync_dir(&blobs)?;
        let outcome = Outcome {
            ending: product.ending,
            report: product.report,
            artifacts,
        };
        let parcel = Parcel {
            attempt,
            incarnation,
            outcome,
            tryout: false,
            traceparent: traceparent.to_owned(),
        };
        write_durably(&partial.join(OUTCOME), &serde_json::to_vec(&parcel)?)?;
        sync_dir(partial)?;
        Ok(parcel)
    }

    /// All parcels. A folder that can't be read is reported and left alone.
    ///
    /// # Errors
    /// The outbox itself can't be read.
    pub fn list(&self) -> io::Result<Vec<Parcel>> {
        let mut parcels = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path().join(OUTCOME);
            match fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
                Ok(parcel) => parcels.push(parcel),
                Err(error) => tracing::error!(path = %path.display(), %error, "can't read this outcome; skipping it"),
            }
        }
        Ok(parcels)
    }

    /// Where an artifact's bytes are.
    pub fn blob_path(&self, attempt: AttemptId, digest: Digest) -> PathBuf {
        self.dir.join(folder_name(attempt)).join(BLOBS).join(digest.to_string())
    }

    /// Forgets an acknowledged outcome.
    ///
    /// # Errors
    /// The disk refused.
    pub fn remove(&self, attempt: AttemptId) -> io::Result<()> {
        // Renamed first: a crash in the middle of the removal must not leave half a parcel.
        let name = folder_name(attempt);
        let partial = self.dir.join(format!("{PARTIAL}{name}"));
        fs::rename(self.dir.join(name), &partial)?;
        fs::remove_dir_all(partial)
    }
}

fn folder_name(attempt: AttemptId) -> String {
    format!("{}-{}", attempt.task, attempt.number)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use klp_livepatch::task::TaskId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_parcel_comes_back_whole_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = AttemptId {
            task: TaskId(Uuid::from_u128(3)),
            number: 1,
        };
        let outbox = Outbox::open(dir.path()).unwrap();
        let product = Product {
            ending: Ending::Succeeded,
            report: None,
            files: vec![("a/b.c".into(), b"int x;".to_vec())],
        };
        let traceparent = "00-11111111111111111111111111111111-2222222222222222-01";
        let incarnation = Incarnation(Uuid::from_u128(9));
        let parcel = outbox.put(attempt, incarnation, traceparent, product).unwrap();
        fs::create_dir(dir.path().join("outbox").join(".partial-x")).unwrap();

        let again = Outbox::open(dir.path()).unwrap();
        let found = again.list().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].outcome, parcel.outcome);
        assert_eq!(found[0].parent(), traceparent.parse().ok());
        let digest = found[0].outcome.artifacts[0].digest;
        assert_eq!(fs::read(again.blob_path(attempt, digest)).unwrap(), b"int x;");

        again.remove(attempt).unwrap();
        assert!(again.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("outbox")).unwrap().count(), 0);
    }

    #[test]
    fn only_what_was_worked_out_for_a_task_is_lost_when_the_farm_has_moved_on() {
        let parcel = |ending, tryout| Parcel {
            traceparent: String::new(),
            attempt: AttemptId {
                task: TaskId(Uuid::from_u128(3)),
                number: 1,
            },
            incarnation: Incarnation(Uuid::from_u128(9)),
            outcome: Outcome {
                ending,
                report: None,
                artifacts: Vec::new(),
            },
            tryout,
        };
        let back = Ending::HandedBack { reason: String::new() };
        assert!(parcel(Ending::Succeeded, false).holds_work());
        assert!(!parcel(Ending::Succeeded, true).holds_work());
        assert!(!parcel(back, false).holds_work());
    }
}

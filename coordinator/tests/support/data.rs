//! Data folders with something in them, and ways to spoil them.
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::path::Path;
use std::process::Command;

use klp_livepatch::outcome::Artifact;
use klp_proto::v1::{self, Disposition};
use uuid::Uuid;

use super::{Farm, Worker, config};

pub fn sql(data_dir: &Path, statements: &str) {
    let db = rusqlite::Connection::open(data_dir.join("farm.db")).unwrap();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    db.execute_batch(statements).unwrap();
}

/// A livepatch that succeeds on the platform `a`, with this source and a log for each attempt.
pub async fn complete(farm: &Farm, worker: &mut Worker, name: &str, source: &[u8]) -> Artifact {
    farm.submit(name).await;
    let check = worker.take(1).await.remove(0);
    worker.log(&check, 0, b"checked\n").await.unwrap();
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    worker.state.attempts.clear();
    worker.say().await;
    let extract = worker.take(1).await.remove(0);
    worker.log(&extract, 0, b"extracted\n").await.unwrap();
    let artifact = worker.upload(source).await;
    let success = worker.success(&extract, std::slice::from_ref(&artifact));
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    worker.state.attempts.clear();
    worker.say().await;
    artifact
}

/// A data folder with two livepatches that ended; answers their sources.
pub async fn two_ended(data_dir: &Path) -> [Artifact; 2] {
    let farm = Farm::start(config(data_dir)).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    let one = complete(&farm, &mut worker, "one", b"int one;").await;
    let two = complete(&farm, &mut worker, "two", b"int two;").await;
    farm.coordinator.shutdown().await;
    // All of it in the database's own file, so that damage there is not mended from the log of changes.
    sql(data_dir, "PRAGMA wal_checkpoint(TRUNCATE)");
    [one, two]
}

pub fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg("-a")
            .args([from, to])
            .status()
            .unwrap()
            .success()
    );
}

pub fn submission(name: &str) -> v1::SubmitRequest {
    v1::SubmitRequest {
        id: Uuid::now_v7().to_string(),
        spec: Some(super::spec(name)),
        share: None,
        fix_contents: Vec::new(),
        ..Default::default()
    }
}

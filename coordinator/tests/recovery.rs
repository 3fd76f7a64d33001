//! What a coordinator makes of data that a crash has torn or a disk has spoiled.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use klp_proto::v1;
use support::data::{copy, sql, submission, two_ended};
use support::process::{Process, run};
use support::{Farm, config};
use tokio::sync::mpsc;

/// Kills a coordinator in the middle of submissions; answers those it acknowledged.
async fn killed_under_load(dir: &Path) -> Vec<v1::SubmitRequest> {
    let process = Process::start(dir);
    support::process::announce_a_tree(&process.url).await;
    let client = klp_proto::v1::livepatch_service_client::LivepatchServiceClient::connect(process.url.clone());
    let client = client.await.unwrap();
    let (acknowledged, mut heard) = mpsc::unbounded_channel();
    for who in 0..4 {
        let (mut client, acknowledged) = (client.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for n in 0.. {
                let request = submission(&format!("lp{who}-{n}"));
                if client.submit(request.clone()).await.is_err() || acknowledged.send(request).is_err() {
                    return;
                }
            }
        });
    }
    drop(acknowledged);
    let mut requests = Vec::new();
    while requests.len() < 100 {
        requests.push(heard.recv().await.unwrap());
    }
    process.kill();
    while let Some(request) = heard.recv().await {
        requests.push(request);
    }
    requests
}

#[tokio::test]
async fn a_torn_tail_of_the_log_of_changes_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let acknowledged = killed_under_load(&dir).await;
    let wal = fs::read(dir.join("farm.db-wal")).unwrap();
    assert!(wal.len() > 100_000, "{}", wal.len());
    let torn = |name: &str, tail: &dyn Fn(&mut Vec<u8>)| {
        let torn = folder.path().join(name);
        copy(&dir, &torn);
        let mut wal = wal.clone();
        tail(&mut wal);
        fs::write(torn.join("farm.db-wal"), wal).unwrap();
        // What indexes it is made anew after a crash of the machine.
        fs::remove_file(torn.join("farm.db-shm")).unwrap();
        fs::create_dir_all(torn.join("blobs/tmp")).unwrap();
        fs::write(torn.join("blobs/tmp/half"), "an upl").unwrap();
        torn
    };
    let frame = 4096 + 24;
    let last = wal[wal.len() - frame..].to_vec();
    // Each with how many of what was acknowledged may be gone: none if the tail came after the last commit.
    let cases = [
        (torn("garbage", &|wal| wal.extend([0xa5; 10_000])), true),
        (torn("zeroes", &|wal| wal.extend([0; 50_000])), true),
        (torn("repeated", &|wal| wal.extend(&last)), true),
        (torn("cut", &|wal| wal.truncate(wal.len() - 1000)), false),
        (
            torn("flipped", &|wal| {
                let at = wal.len() - 2000;
                wal[at] ^= 1;
            }),
            false,
        ),
    ];
    for (dir, whole) in cases {
        let (code, out, err) = run(&dir, &["check"]).await;
        assert_eq!(code, 0, "{}: {out}{err}", dir.display());
        let farm = Farm::start(config(&dir)).await;
        assert!(!dir.join("blobs/tmp/half").exists());
        let mut there = 0;
        for request in &acknowledged {
            let livepatch = Some(v1::LivepatchRef {
                r#ref: Some(v1::livepatch_ref::Ref::Id(request.id.clone())),
            });
            let got = farm
                .livepatches
                .clone()
                .get(v1::GetRequest {
                    livepatch,
                    ..Default::default()
                })
                .await;
            there += usize::from(got.is_ok());
        }
        let lost = acknowledged.len() - there;
        // At most the last transaction is torn, and four clients wait for it.
        assert!(lost == 0 || (!whole && lost <= 4), "{}: {lost}", dir.display());
        farm.submit("afterwards").await;
        farm.coordinator.shutdown().await;
        let (code, out, err) = run(&dir, &["check"]).await;
        assert_eq!(code, 0, "{}: {out}{err}", dir.display());
    }
}

#[tokio::test]
async fn data_that_can_not_be_used_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound");
    two_ended(&sound).await;
    let newer = folder.path().join("newer");
    copy(&sound, &newer);
    sql(&newer, "PRAGMA user_version = 99");
    let corrupt = folder.path().join("corrupt");
    copy(&sound, &corrupt);
    let mut db = File::options().write(true).open(corrupt.join("farm.db")).unwrap();
    db.write_all(&[0xa5; 4096]).unwrap();
    let torn = folder.path().join("torn");
    copy(&sound, &torn);
    let mut db = File::options().write(true).open(torn.join("farm.db")).unwrap();
    let length = db.metadata().unwrap().len();
    db.seek(SeekFrom::Start(4096)).unwrap();
    db.write_all(&vec![0xa5; length as usize - 4096]).unwrap();
    let cases: [(&Path, &[&str]); 3] = [
        (&newer, &["has schema 99", "newer coordinator", "restore a backup"]),
        (
            &corrupt,
            &[
                "farm.db is corrupt",
                "klp-coordinator check --data-dir",
                "Restore a backup",
            ],
        ),
        (
            &torn,
            &[
                "farm.db is corrupt",
                "klp-coordinator check --data-dir",
                "Restore a backup",
            ],
        ),
    ];
    for (dir, said) in cases {
        let (code, out, err) = run(dir, &["--insecure", "--listen", "127.0.0.1:0"]).await;
        assert!(code == 1 && out.is_empty(), "{code} {out}");
        for text in said {
            assert!(err.contains(text), "{err}");
        }
    }
    for command in [&["check"][..], &["gc"], &["backup", "/tmp/never-made"]] {
        let (code, _, err) = run(&newer, command).await;
        assert!(code == 2 && err.contains("newer"), "{command:?}: {code} {err}");
    }
}

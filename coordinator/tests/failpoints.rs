//! The coordinator dies at each of its commit points in turn, as by a power cut, and is started again. What comes out
//! must be what comes out undisturbed.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
// Release builds have no failpoints.
#![cfg(debug_assertions)]

#[path = "../../tests/src/s3.rs"]
mod s3;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use klp_proto::v1;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use support::data::{sql, two_ended};
use support::process::{Process, dies, run as run_command};
use support::steady::{free_address, insist, sound, work};
use support::{by_name, soon, spec};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// How a task ended: its state, its newest attempt's number, and what it made.
type Ends = BTreeMap<String, (i32, u32, Vec<String>)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_any_commit_point_changes_no_outcome() {
    die_at_each(
        "",
        &[
            "before-commit",
            "after-commit",
            "before-answer",
            "before-rename",
            "after-rename",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_beside_an_upload_to_a_bucket_changes_no_outcome() {
    let Some(server) = s3::S3::start() else { return };
    die_at_each(&server.settings("klp"), &["before-rename", "after-rename"]).await;
    let probes = server.keys().into_iter().filter(|key| key.contains("probe"));
    assert_eq!(probes.count(), 0);
}

/// Each life has a data folder of its own, and settings like these.
async fn die_at_each(settings: &str, points: &[&str]) {
    let undisturbed = run(settings, None).await;
    assert_eq!(undisturbed.deaths, 0);
    assert_eq!(undisturbed.ends.len(), 5, "{:?}", undisturbed.ends);
    for point in points {
        let mut died = 0;
        for count in 1.. {
            let failpoint = format!("{point}:{count}");
            let disturbed = run(settings, Some(&failpoint)).await;
            assert_eq!(disturbed.ends, undisturbed.ends, "killed at {failpoint}");
            died += disturbed.deaths;
            // It never got there so often: all places have had their turn.
            if disturbed.deaths == 0 {
                break;
            }
        }
        assert!(died > 0, "nobody ever got to {point}");
    }
}

#[tokio::test]
async fn whoever_forgets_may_die_before_or_after_and_be_run_again() {
    for (failpoint, left) in [("before-commit:2", 1), ("after-commit:2", 0)] {
        let folder = tempfile::tempdir().unwrap();
        two_ended(folder.path()).await;
        sql(
            folder.path(),
            "UPDATE livepatches SET ended_ms = ended_ms - 3 * 86400000",
        );
        let settings = folder.path().join("c.toml");
        std::fs::write(&settings, "retain_ended_days = 2\n").unwrap();
        let gc = ["gc", "--output", "json", "--config", settings.to_str().unwrap()];
        dies(folder.path(), &gc, failpoint).await;
        let (code, out, err) = run_command(folder.path(), &["check"]).await;
        assert_eq!(code, 0, "{failpoint}: {out}{err}");
        let (code, out, err) = run_command(folder.path(), &gc).await;
        assert_eq!(code, 0, "{failpoint}: {out}{err}");
        let cleared: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            cleared["livepatches"].as_array().unwrap().len(),
            left,
            "{failpoint}: {out}"
        );
        let (code, out, err) = run_command(folder.path(), &["check"]).await;
        assert_eq!(code, 0, "{failpoint}: {out}{err}");
    }
}

struct Run {
    deaths: u32,
    ends: Ends,
}

/// One life of a small farm: a livepatch that succeeds, one that is cancelled, and a worker that outlives its
/// coordinator's deaths. What is asked for is asked again until it is answered.
async fn run(settings: &str, failpoint: Option<&str>) -> Run {
    let folder = tempfile::tempdir().unwrap();
    // A place of its own, too.
    let own = format!("{}/{}\"", s3::S3::BUCKET, Uuid::now_v7());
    let settings = settings.replace(&format!("{}/klp\"", s3::S3::BUCKET), &own);
    std::fs::write(folder.path().join("c.toml"), settings).unwrap();
    let address = free_address();
    let deaths = Arc::new(AtomicU32::new(0));
    let keeper = tokio::spawn(keep(
        folder.path().to_owned(),
        address.clone(),
        failpoint.map(str::to_owned),
        Arc::clone(&deaths),
    ));
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let worker = tokio::spawn(work(channel.clone(), "w1", 8));
    let ends = soon("the farm to be done", use_it(channel)).await;
    worker.abort();
    keeper.abort();
    let _ = keeper.await;
    sound(folder.path());
    Run {
        deaths: deaths.load(Ordering::SeqCst),
        ends,
    }
}

/// Keeps a coordinator running: one that is to die, and after its death another.
async fn keep(data_dir: std::path::PathBuf, address: String, failpoint: Option<String>, deaths: Arc<AtomicU32>) {
    let config = data_dir.join("c.toml");
    let mut process = Process::start_by(&config, &data_dir, &address, failpoint.as_deref());
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if process.child.try_wait().unwrap().is_some() {
            deaths.fetch_add(1, Ordering::SeqCst);
            process = Process::start_by(&config, &data_dir, &address, None);
        }
    }
}

async fn use_it(channel: Channel) -> Ends {
    let client = LivepatchServiceClient::new(channel).max_decoding_message_size(64 << 20);
    // The worker must be known first.
    let kept = submission("kept");
    insist(|| {
        let (mut client, request) = (client.clone(), kept.clone());
        async move { client.submit(request).await }
    })
    .await;
    let pause = v1::PauseRequest {
        livepatch: by_name("gone"),
        reason: String::new(),
    };
    let gone = submission("gone");
    insist(|| {
        let (mut client, request) = (client.clone(), gone.clone());
        async move { client.submit(request).await }
    })
    .await;
    insist(|| {
        let (mut client, request) = (client.clone(), pause.clone());
        async move { client.pause(request).await }
    })
    .await;
    let cancel = v1::CancelRequest {
        livepatch: by_name("gone"),
        reason: String::new(),
    };
    insist(|| {
        let (mut client, request) = (client.clone(), cancel.clone());
        async move { client.cancel(request).await }
    })
    .await;
    let mut ends = Ends::new();
    for name in ["kept", "gone"] {
        let request = v1::GetRequest {
            livepatch: by_name(name),
            ..Default::default()
        };
        let ended = loop {
            let got = insist(|| {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.get(request).await }
            })
            .await;
            if got.livepatch.as_ref().unwrap().ended_ms > 0 {
                break got;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        ends.insert(name.to_owned(), (ended.livepatch.unwrap().state, 0, vec![]));
        for task in ended.tasks {
            let key = format!(
                "{name} {:?} {}",
                task.kind(),
                task.platform.as_ref().unwrap().codestream
            );
            let artifacts = task.artifacts.iter().map(|a| a.digest.clone()).collect();
            // How far a cancelled task had come is up to chance.
            let known = match task.state() {
                v1::TaskState::Cancelled => continue,
                _ if name == "gone" => continue,
                _ => (task.state, task.attempt, artifacts),
            };
            ends.insert(key, known);
        }
    }
    ends.remove("gone");
    ends
}

fn submission(name: &str) -> v1::SubmitRequest {
    v1::SubmitRequest {
        id: Uuid::now_v7().to_string(),
        spec: Some(spec(name)),
        share: None,
        fix_contents: Vec::new(),
        ..Default::default()
    }
}

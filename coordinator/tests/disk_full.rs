//! A disk that fills up under a coordinator, and has room again. Each test mounts a small tmpfs, for which it must be root.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

#[path = "../../tests/src/disk.rs"]
mod disk;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use disk::Disk;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::{self, Disposition, LivepatchState};
use support::data::submission;
use support::{Farm, Worker, config, soon, spec};
use tonic::Code;

const MIB: u64 = 1 << 20;

fn data_dir(disk: &Disk) -> PathBuf {
    disk.path().join("data")
}

fn settings(data_dir: &Path, min_free_bytes: u64) -> klp_coordinator::Config {
    klp_coordinator::Config {
        min_free_bytes,
        ..config(data_dir)
    }
}

/// Submits until the disk is full; answers what was acknowledged, and the first that was not.
async fn submit_until_full(farm: &Farm, disk: &Disk) -> (Vec<v1::SubmitRequest>, v1::SubmitRequest) {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        assert!(n < 10_000, "the disk never fills");
        let request = submission(&format!("full{n}"));
        match farm.livepatches.clone().submit(request.clone()).await {
            Ok(_) => acknowledged.push(request),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                assert!(
                    status.message().contains("disk") && status.message().contains("data_dir"),
                    "{status:?}"
                );
                return (acknowledged, request);
            }
        }
        // Whatever is freed meanwhile is taken.
        disk.fill(0);
    }
    unreachable!()
}

#[tokio::test]
async fn on_a_full_disk_everything_is_refused_and_nothing_lost_and_with_room_it_goes_on() {
    let Some(disk) = Disk::mount(16) else { return };
    let farm = Farm::start(settings(&data_dir(&disk), 0)).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("one").await;
    let check = worker.take(1).await.remove(0);
    worker.log(&check, 0, b"begun\n").await.unwrap();
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    worker.state.attempts.clear();
    worker.say().await;
    let extract = worker.take(1).await.remove(0);
    worker.log(&extract, 0, b"begun\n").await.unwrap();

    disk.fill(0);
    let (acknowledged, refused) = submit_until_full(&farm, &disk).await;
    // Nothing of the running attempt can be stored, and its worker is told so each time.
    let big = vec![b'x'; 300_000];
    let digest = klp_livepatch::outcome::Digest::of(&big);
    let source = klp_livepatch::outcome::Artifact {
        name: "sound/core/pcm.c".into(),
        digest,
        size: 300_000,
    };
    for _ in 0..3 {
        let status = worker.log(&extract, 6, &[b'y'; 100_000]).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let status = worker.upload_as(digest, 300_000, &big).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let failure = worker.failure(&extract, v1::Cause::Codestream, &"long ".repeat(2_000));
        let status = worker.commit(failure).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let status = farm.livepatches.clone().submit(refused.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    // What is there can be read.
    assert_eq!(farm.get("one").await.tasks.len(), 2);

    disk.make_room();
    // The same coordinator takes all of it now, and the log has no gap.
    assert_eq!(worker.log(&extract, 6, &[b'y'; 100_000]).await.unwrap(), 100_006);
    worker.upload_as(digest, 300_000, &big).await.unwrap();
    let success = worker.success(&extract, &[source]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    let mut client = farm.livepatches.clone();
    client.submit(refused.clone()).await.unwrap();
    let all: Vec<String> = acknowledged
        .iter()
        .chain([&refused])
        .map(|request| request.spec.clone().unwrap().name)
        .chain(["one".to_owned()])
        .collect();
    for name in &all {
        worker.work(&farm, name).await;
        let ended = farm.get(name).await.livepatch.unwrap();
        assert_eq!(ended.state(), LivepatchState::Succeeded, "{name}");
    }
    farm.coordinator.shutdown().await;
    let (code, out, err) = support::process::run(&data_dir(&disk), &["check"]).await;
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test]
async fn the_last_room_is_for_what_runs() {
    let Some(disk) = Disk::mount(32) else { return };
    let farm = Farm::start(settings(&data_dir(&disk), 8 * MIB)).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    let first = submission("one");
    farm.livepatches.clone().submit(first.clone()).await.unwrap();
    let check = worker.take(1).await.remove(0);

    disk.fill(6 * MIB);
    let status = farm.submit_spec(spec("two")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("below 8 MiB (min_free_bytes)"), "{status:?}");
    // One that is stored is answered as ever.
    farm.livepatches.clone().submit(first).await.unwrap();
    worker.log(&check, 0, b"one\n").await.unwrap();

    disk.fill(3 * MIB);
    let status = worker.log(&check, 4, b"two\n").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    // Repeating what is there is no new line.
    assert_eq!(worker.log(&check, 0, b"one\n").await.unwrap(), 4);
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    worker.work(&farm, "one").await;
    assert_eq!(
        farm.get("one").await.livepatch.unwrap().state(),
        LivepatchState::Succeeded
    );

    disk.make_room();
    worker.log(&check, 4, b"two\n").await.unwrap();
    farm.submit("two").await;
    worker.work(&farm, "two").await;
}

#[tokio::test]
async fn what_was_acknowledged_on_a_disk_that_filled_up_survives_a_kill() {
    let Some(disk) = Disk::mount(16) else { return };
    let file = disk.path().join("c.toml");
    fs::write(&file, "min_free_bytes = 0\ntryout_ms = 0\n").unwrap();
    let start = || support::process::Process::start_with(&data_dir(&disk), &["--config", file.to_str().unwrap()]);
    let process = start();
    support::process::announce_a_tree(&process.url).await;
    let client = LivepatchServiceClient::connect(process.url.clone()).await.unwrap();
    disk.fill(MIB);
    // Many at once, so that transactions of many fail as one.
    let clients: Vec<_> = (0..8)
        .map(|who| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let (mut acknowledged, mut refusals) = (Vec::new(), 0);
                for n in 0.. {
                    assert!(n < 10_000, "the disk never fills");
                    let request = submission(&format!("lp{who}-{n}"));
                    match client.submit(request.clone()).await {
                        Ok(_) => acknowledged.push(request),
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                            refusals += 1;
                        }
                    }
                    if refusals > 20 {
                        break;
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(soon("the disk to fill", client).await.unwrap());
    }
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    process.kill();
    disk.make_room();
    let process = start();
    let mut client = LivepatchServiceClient::connect(process.url.clone()).await.unwrap();
    for request in acknowledged {
        let livepatch = Some(v1::LivepatchRef {
            r#ref: Some(v1::livepatch_ref::Ref::Id(request.id.clone())),
        });
        let request = v1::GetRequest {
            livepatch,
            ..Default::default()
        };
        client.get(request).await.unwrap();
    }
    client.submit(submission("after")).await.unwrap();
    process.kill();
    let (code, out, err) = support::process::run(&data_dir(&disk), &["check"]).await;
    assert_eq!(code, 0, "{out}{err}");
}

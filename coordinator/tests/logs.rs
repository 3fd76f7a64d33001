//! Logs of attempts over real sockets: followed, compressed, and read by those who do not keep up.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use klp_proto::v1::{self, Disposition};
use support::{Farm, Worker, config, soon};
use tonic::Streaming;

const CHUNK: usize = 256 << 10;

async fn logs(farm: &Farm, of: &v1::Assignment, offset: u64, follow: bool) -> Streaming<v1::LogChunk> {
    let attempt = of.attempt.clone().unwrap();
    let request = v1::LogsRequest {
        task_id: attempt.task_id,
        attempt: attempt.number,
        offset,
        follow,
    };
    farm.livepatches.clone().logs(request).await.unwrap().into_inner()
}

/// All that a stream brings until it ends, checked to be gapless from `offset` on.
async fn rest(mut stream: Streaming<v1::LogChunk>, mut offset: u64) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(chunk) = soon("more of the log", stream.message()).await.unwrap() {
        assert_eq!(chunk.offset, offset);
        offset += chunk.data.len() as u64;
        text.extend(chunk.data);
    }
    text
}

fn lines(bytes: usize) -> Vec<u8> {
    let lines = (0u32..).flat_map(|n| format!("{n}: {:x}\n", n.wrapping_mul(2_654_435_761)).into_bytes());
    lines.take(bytes).collect()
}

fn plain(data_dir: &Path, of: &v1::Assignment) -> PathBuf {
    let attempt = of.attempt.clone().unwrap();
    data_dir
        .join("logs")
        .join(attempt.task_id)
        .join(format!("{}.log", attempt.number))
}

async fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "still waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_watcher_that_never_reads_holds_up_nobody_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    // Watchers on connections of their own, so that only what the coordinator does is tested.
    let channel = support::connect(&farm.coordinator).await;
    let attempt = check.attempt.clone().unwrap();
    let mut idle = Vec::new();
    for _ in 0..8 {
        let request = v1::LogsRequest {
            task_id: attempt.task_id.clone(),
            follow: true,
            ..Default::default()
        };
        let mut client = v1::livepatch_service_client::LivepatchServiceClient::new(channel.clone());
        idle.push(client.logs(request).await.unwrap().into_inner());
    }
    let all = lines(4 << 20);
    for (n, chunk) in all.chunks(CHUNK).enumerate() {
        let sent = soon("an append", worker.log(&check, (n * CHUNK) as u64, chunk)).await;
        assert_eq!(sent.unwrap(), (n * CHUNK + chunk.len()) as u64);
    }
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    // Now they read, side by side as they share a connection's window: everything, to the end of the attempt.
    let reading: Vec<_> = idle.into_iter().map(|stream| tokio::spawn(rest(stream, 0))).collect();
    for read in reading {
        assert!(read.await.unwrap() == all);
    }
}

#[tokio::test]
async fn a_log_is_compressed_after_its_attempt_and_reads_the_same_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.log_compact_ms = 10;
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    let follower = logs(&farm, &check, 0, true).await;
    let all = lines(700_000);
    for (n, chunk) in all.chunks(CHUNK).enumerate() {
        worker.log(&check, (n * CHUNK) as u64, chunk).await.unwrap();
    }
    let plain = plain(folder.path(), &check);
    let packed = plain.with_extension("log.gz");
    // It is live: many sweeps later still as it was.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(plain.exists() && !packed.exists());

    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    assert!(rest(follower, 0).await == all);
    wait_until("the log to be compressed", || packed.exists() && !plain.exists()).await;
    assert!(packed.metadata().unwrap().len() < all.len() as u64 * 2 / 3);
    for offset in [0, 1, 65_535, 65_536, 300_000, 699_999, 700_000, 1 << 40] {
        let read = rest(logs(&farm, &check, offset, false).await, offset).await;
        let expected = all.get(offset as usize..).unwrap_or_default();
        assert!(read == expected, "from {offset}");
    }
    // Lines that were on their way are taken, and in time compressed too.
    let late = [&all[600_000..], b"the end\n"].concat();
    assert_eq!(worker.log(&check, 600_000, &late).await.unwrap(), 700_008);
    let whole = [&all[..], b"the end\n"].concat();
    assert!(rest(logs(&farm, &check, 0, true).await, 0).await == whole);
    wait_until("the log to be compressed again", || !plain.exists()).await;
    assert!(rest(logs(&farm, &check, 0, false).await, 0).await == whole);
}

#[tokio::test]
async fn logs_left_by_a_coordinator_that_was_killed_are_compressed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    worker.log(&check, 0, b"hello\n").await.unwrap();
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    let plain = plain(folder.path(), &check);
    assert!(plain.exists());
    farm.coordinator.shutdown().await;
    // As if it had been killed while compressing.
    std::fs::write(plain.with_extension("log.gz.tmp"), b"half").unwrap();
    let farm = Farm::start(config(folder.path())).await;
    wait_until("the log to be compressed", || !plain.exists()).await;
    assert_eq!(rest(logs(&farm, &check, 0, false).await, 0).await, b"hello\n");
    assert!(!plain.with_extension("log.gz.tmp").exists());
}

#[tokio::test]
async fn a_worker_that_sends_more_than_the_bound_is_answered_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    let chunk = lines(CHUNK);
    for n in 0..20u64 {
        let offset = n * CHUNK as u64;
        assert_eq!(worker.log(&check, offset, &chunk).await.unwrap(), offset + CHUNK as u64);
    }
    let text = rest(logs(&farm, &check, 0, false).await, 0).await;
    assert!(text[..4 << 20] == chunk.repeat(16));
    assert_eq!(
        String::from_utf8_lossy(&text[4 << 20..]),
        "\n[log cut here: only 4194304 bytes are kept]\n"
    );
}

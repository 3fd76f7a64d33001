//! What no worker should send: refused with a status that says what was wrong, while those beside it go on.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::path::Path;

use klp_livepatch::outcome::Digest;
use klp_proto::convert::violations_of;
use klp_proto::v1::{self, Disposition};
use klp_proto::{MAX_ARTIFACT, MAX_CHUNK};
use prost::Message;
use support::{Farm, Worker, config, raw, soon, spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use uuid::Uuid;

/// A farm in good order: a worker that runs a check while others misbehave.
struct Busy {
    farm: Farm,
    worker: Worker,
    check: v1::Assignment,
    folder: tempfile::TempDir,
}

impl Busy {
    async fn start() -> Busy {
        let folder = tempfile::tempdir().unwrap();
        let farm = Farm::start(config(folder.path())).await;
        let mut worker = Worker::connected(&farm, "good", &["a"]).await;
        farm.submit("bsc1").await;
        let check = worker.take(1).await.remove(0);
        Busy {
            farm,
            worker,
            check,
            folder,
        }
    }

    /// That the worker's session and attempt stood it all, and the coordinator serves as ever.
    async fn goes_on(mut self) {
        let success = self.worker.success(&self.check, &[]);
        assert_eq!(self.worker.committed(success).await, Disposition::Committed);
        self.worker.work(&self.farm, "bsc1").await;
        let tasks = self.farm.get("bsc1").await.tasks;
        assert!(tasks.iter().all(|task| task.attempt == 1), "{tasks:?}");
        self.farm.submit("bsc2").await;
        self.worker.work(&self.farm, "bsc2").await;
    }
}

fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    violations_of(status).into_iter().map(|v| v.field).collect()
}

fn running(number: u32, progress: &str) -> v1::RunningAttempt {
    v1::RunningAttempt {
        attempt: Some(v1::Attempt {
            task_id: Uuid::from_u128(7).to_string(),
            number,
        }),
        progress: progress.to_owned(),
        waiting: false,
    }
}

#[tokio::test]
async fn each_field_of_a_state_that_is_out_of_bounds_is_named() {
    let busy = Busy::start().await;
    let long = "x".repeat(201);
    let tool = |backend: &str, version: &str| v1::Tool {
        backend: backend.to_owned(),
        version: version.to_owned(),
    };
    type Spoil<'a> = Box<dyn Fn(&mut v1::WorkerState) + 'a>;
    let cases: Vec<(&str, Spoil<'_>)> = vec![
        ("worker", Box::new(|s| s.worker = "w".repeat(65))),
        ("worker", Box::new(|s| s.worker = "a\0b".into())),
        ("incarnation", Box::new(|s| s.incarnation.clear())),
        ("version", Box::new(|s| s.version = long.clone())),
        ("slots", Box::new(|s| s.slots = u32::MAX)),
        ("tools[1]", Box::new(|s| s.tools.push(tool("native", &long)))),
        ("tools[1]", Box::new(|s| s.tools.push(tool(&long, "1")))),
        ("tools", Box::new(|s| s.tools = vec![tool("native", "1"); 33])),
        ("trees", Box::new(|s| s.trees = vec![support::platform("a"); 10_001])),
        (
            "trees[1].codestream",
            Box::new(|s| s.trees.push(v1::Platform::default())),
        ),
        (
            "attempts[0].progress",
            Box::new(|s| s.attempts = vec![running(1, &long)]),
        ),
        ("attempt.number", Box::new(|s| s.attempts = vec![running(0, "")])),
        (
            "attempt",
            Box::new(|s| s.attempts = vec![v1::RunningAttempt::default()]),
        ),
        (
            "attempts[1]",
            Box::new(|s| s.attempts = vec![running(1, "one"), running(1, "two")]),
        ),
        ("attempts", Box::new(|s| s.attempts = vec![running(1, ""); 10_001])),
        ("unready[0].reason", Box::new(|s| s.unready = vec![unready("b", &long)])),
        (
            "unready[0].tree",
            Box::new(|s| s.unready = vec![unready("a", "broken")]),
        ),
    ];
    for (field, spoil) in cases {
        let mut bad = Worker::new(&busy.farm, "bad", &["a"]);
        spoil(&mut bad.state);
        bad.open().await;
        let status = bad.hear().await.unwrap_err();
        assert!(fields(&status).iter().any(|f| f == field), "{field}: {status:?}");
    }
    // Numbers that can't be wrong are taken, however large.
    let mut odd = Worker::new(&busy.farm, "odd", &["a"]);
    odd.state.draining = true;
    odd.state.memory = u64::MAX;
    odd.state.attempts = vec![running(u32::MAX, "")];
    odd.open().await;
    assert!(odd.hear().await.unwrap().assignments.is_empty());
    busy.goes_on().await;
}

fn unready(codestream: &str, reason: &str) -> v1::Unready {
    v1::Unready {
        what: Some(v1::unready::What::Tree(support::platform(codestream))),
        reason: reason.to_owned(),
    }
}

#[tokio::test]
async fn a_session_that_goes_wrong_later_is_told_so_and_its_worker_can_come_back() {
    let mut busy = Busy::start().await;
    busy.worker.state.version = "x".repeat(1000);
    busy.worker.say().await;
    let status = busy.worker.hear().await.unwrap_err();
    assert_eq!(fields(&status), ["version"]);
    busy.worker.state.version = "0.1.0".into();
    busy.worker.open().await;
    // What it ran is still its own.
    assert_eq!(busy.worker.hear().await.unwrap().assignments, [busy.check.clone()]);
    busy.goes_on().await;
}

#[tokio::test]
async fn messages_that_can_not_be_read_are_told_so() {
    let busy = Busy::start().await;
    let good = Worker::new(&busy.farm, "bad", &["a"]).state.encode_to_vec();
    // Field 2 is a text; here it is a number. The next ends in the middle of a field.
    let other = v1::Attempt {
        task_id: "bad".into(),
        number: 7,
    };
    let cut = good[..good.len() - 3].to_vec();
    let noise = vec![0xff; 1000];
    let not_utf8 = vec![0x0a, 0x02, 0xff, 0xfe];
    for bad in [other.encode_to_vec(), cut, noise, not_utf8] {
        let (_open, mut answers) = raw::session(&busy.farm.channel, std::slice::from_ref(&bad))
            .await
            .unwrap();
        let status = soon("an answer", answers.message()).await.unwrap_err();
        assert!(status.message().contains("decode"), "{status:?}");
        // After a good one too.
        let (_open, mut answers) = raw::session(&busy.farm.channel, &[good.clone(), bad]).await.unwrap();
        let status = soon("the end", async {
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the session ended without a word"),
                    Err(status) => return status,
                }
            }
        });
        assert!(status.await.message().contains("decode"));
    }
    let huge = v1::WorkerState {
        version: "x".repeat(17 << 20),
        ..Default::default()
    };
    let (_open, mut answers) = raw::session(&busy.farm.channel, &[huge.encode_to_vec()]).await.unwrap();
    let status = soon("an answer", answers.message()).await.unwrap_err();
    assert!(status.message().contains("too large"), "{status:?}");
    // No word at all is no state, and no harm.
    let (open, mut answers) = raw::session(&busy.farm.channel, &[]).await.unwrap();
    drop(open);
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
    busy.goes_on().await;
}

#[tokio::test]
async fn bytes_that_are_no_grpc_end_their_connection_alone() {
    let busy = Busy::start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let garbage: Vec<u8> = (0u32..5000)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [
        garbage.clone(),
        b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n".to_vec(),
        [&preface[..], &garbage].concat(),
        // A frame that announces 16 MiB.
        [&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        vec![0x16, 0x03, 0x01, 0x02, 0x00],
    ] {
        let mut socket = tokio::net::TcpStream::connect(busy.farm.coordinator.local_addr())
            .await
            .unwrap();
        // It may be closed on us while we write.
        let _ = socket.write_all(&bytes).await;
        let _ = socket.shutdown().await;
        let _ = soon("the connection's end", socket.read_to_end(&mut Vec::new())).await;
    }
    // One that says nothing more after its first bytes is left open.
    let mut idle = tokio::net::TcpStream::connect(busy.farm.coordinator.local_addr())
        .await
        .unwrap();
    idle.write_all(&preface[..9]).await.unwrap();
    busy.goes_on().await;
}

fn header(digest: &str, size: u64) -> v1::UploadArtifactRequest {
    use v1::upload_artifact_request::Part;
    let header = v1::UploadHeader {
        digest: digest.to_owned(),
        size,
    };
    v1::UploadArtifactRequest {
        part: Some(Part::Header(header)),
    }
}

fn data(bytes: &[u8]) -> v1::UploadArtifactRequest {
    v1::UploadArtifactRequest {
        part: Some(v1::upload_artifact_request::Part::Data(bytes.to_vec())),
    }
}

fn half_stored(data_dir: &Path) -> usize {
    std::fs::read_dir(data_dir.join("blobs/tmp")).unwrap().count()
}

#[tokio::test]
async fn an_upload_that_is_out_of_order_or_not_what_it_said_is_refused_and_leaves_nothing() {
    let mut busy = Busy::start().await;
    let digest = Digest::of(b"hello");
    let text = digest.to_string();
    let empty = v1::UploadArtifactRequest { part: None };
    let cases: Vec<(Vec<v1::UploadArtifactRequest>, &str)> = vec![
        (vec![], "begins with its header"),
        (vec![empty.clone()], "begins with its header"),
        (vec![data(b"hello"), header(&text, 5)], "begins with its header"),
        (
            vec![header(&text, 5), header(&text, 5), data(b"hello")],
            "after an upload's header come its bytes",
        ),
        (
            vec![header(&text, 5), data(b"he"), empty],
            "after an upload's header come its bytes",
        ),
        (vec![header(&text, 5), data(b"hello!")], "5"),
        (vec![header(&text, 5), data(b"hell")], "4"),
        (vec![header(&text, 5)], "0"),
        (vec![header(&text, 5), data(b"HELLO")], "digest"),
        (vec![header(&text, MAX_ARTIFACT + 1)], "at most"),
        (vec![header(&text, u64::MAX), data(b"hello")], "at most"),
        (
            vec![header(&text, MAX_ARTIFACT), data(&vec![7; MAX_CHUNK + 1])],
            "at most",
        ),
        (vec![header("", 5), data(b"hello")], "digest"),
        (vec![header(&text.to_uppercase(), 5), data(b"hello")], "digest"),
        (vec![header(&format!("../{}", &text[3..]), 5), data(b"hello")], "digest"),
    ];
    for (parts, expected) in cases {
        let mut client = busy.farm.workers.clone();
        let sent = client.upload_artifact(tokio_stream::iter(parts));
        let status = soon("an answer", sent).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{expected}: {status:?}");
        let told = violations_of(&status)
            .into_iter()
            .map(|v| format!("{}: {}", v.field, v.message));
        let told = format!("{} {}", status.message(), told.collect::<String>());
        assert!(told.contains(expected), "{expected}: {told}");
    }
    // One that stops in the middle, and whose sender is gone.
    let (parts, receiver) = mpsc::channel(4);
    let mut client = busy.farm.workers.clone();
    let sending = tokio::spawn(async move { client.upload_artifact(ReceiverStream::new(receiver)).await });
    parts.send(header(&text, 5)).await.unwrap();
    parts.send(data(b"he")).await.unwrap();
    soon("it to begin", async {
        while half_stored(busy.folder.path()) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    sending.abort();
    soon("it to be cleared away", async {
        while half_stored(busy.folder.path()) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    busy.worker.upload(b"hello").await;
    busy.goes_on().await;
}

#[tokio::test]
async fn a_log_that_does_not_fit_its_attempt_is_refused() {
    let mut busy = Busy::start().await;
    let check = busy.check.clone();
    assert_eq!(busy.worker.log(&check, 0, b"one\n").await.unwrap(), 4);
    for offset in [5, 1 << 40, u64::MAX] {
        let status = busy.worker.log(&check, offset, b"x").await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert!(status.message().contains("the log's end at 4"), "{status:?}");
    }
    let status = busy.worker.log(&check, 4, &vec![7; MAX_CHUNK + 1]).await.unwrap_err();
    assert_eq!(fields(&status), ["data"]);
    let attempt = |number, task_id: &str| {
        let mut other = check.clone();
        let task_id = task_id.to_owned();
        other.attempt = Some(v1::Attempt { task_id, number });
        other
    };
    let task = check.attempt.clone().unwrap().task_id;
    for (other, code) in [
        (attempt(0, &task), Code::InvalidArgument),
        (attempt(2, &task), Code::NotFound),
        (attempt(u32::MAX, &task), Code::NotFound),
        (attempt(1, &Uuid::from_u128(7).to_string()), Code::NotFound),
        (attempt(1, "../1"), Code::InvalidArgument),
        (v1::Assignment::default(), Code::InvalidArgument),
    ] {
        let status = busy.worker.log(&other, 0, b"x").await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    // Nothing of it came in, and the log goes on. To read from beyond its end gives nothing.
    assert_eq!(busy.worker.log(&check, 4, b"two\n").await.unwrap(), 8);
    for (offset, expected) in [(0, "one\ntwo\n"), (8, ""), (1 << 40, ""), (u64::MAX, "")] {
        let request = v1::LogsRequest {
            task_id: task.clone(),
            attempt: 1,
            offset,
            follow: false,
        };
        let mut log = busy.farm.livepatches.clone().logs(request).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(chunk) = soon("the log", log.message()).await.unwrap() {
            text.extend(chunk.data);
        }
        assert_eq!(String::from_utf8(text).unwrap(), expected, "from {offset}");
    }
    busy.goes_on().await;
}

#[tokio::test]
async fn a_log_of_a_submission_that_is_tried_out_may_say_any_offset() {
    let folder = tempfile::tempdir().unwrap();
    let settings = klp_coordinator::Config {
        tryout_ms: 20_000,
        ..config(folder.path())
    };
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    let submitting = farm.submit_spec(spec("bsc1"));
    let tried = async {
        let check = worker.take(1).await.remove(0);
        assert_eq!(worker.log(&check, u64::MAX, b"x").await.unwrap(), u64::MAX);
        let success = worker.success(&check, &[]);
        assert_eq!(worker.committed(success).await, Disposition::Committed);
    };
    let (stored, ()) = tokio::join!(submitting, tried);
    stored.unwrap();
}

#[tokio::test]
async fn a_commit_that_makes_no_sense_is_refused_and_the_attempt_goes_on() {
    let mut busy = Busy::start().await;
    let good = busy.worker.success(&busy.check, &[]);
    let artifact = |name: &str, size| v1::Artifact {
        name: name.to_owned(),
        digest: Digest::of(b"hello").to_string(),
        size,
    };
    busy.worker.upload(b"hello").await;
    let other_report = v1::report::Report::Extract(v1::ExtractReport::default());
    type Spoil<'a> = Box<dyn Fn(&mut v1::CommitRequest) + 'a>;
    let cases: Vec<(&str, Spoil<'_>)> = vec![
        ("attempt", Box::new(|c| c.attempt = None)),
        ("attempt.number", Box::new(|c| c.attempt.as_mut().unwrap().number = 0)),
        (
            "attempt.task_id",
            Box::new(|c| c.attempt.as_mut().unwrap().task_id = "1".into()),
        ),
        ("worker", Box::new(|c| c.worker = "-w".into())),
        ("incarnation", Box::new(|c| c.incarnation = "1".into())),
        ("ending", Box::new(|c| c.ending = None)),
        ("report", Box::new(|c| c.report = Some(v1::Report::default()))),
        ("report", Box::new(|c| c.report = None)),
        (
            "report",
            Box::new(|c| c.report.as_mut().unwrap().report = Some(other_report.clone())),
        ),
        (
            "artifacts.name",
            Box::new(|c| c.artifacts = vec![artifact("a.c", 5), artifact("a.c", 5)]),
        ),
        ("artifact", Box::new(|c| c.artifacts = vec![artifact("../a.c", 5)])),
        ("artifact", Box::new(|c| c.artifacts = vec![artifact("/a.c", 5)])),
        ("artifact", Box::new(|c| c.artifacts = vec![artifact("a.c", u64::MAX)])),
        ("", Box::new(|c| c.artifacts = vec![artifact("a.c", 6)])),
    ];
    for (n, (field, spoil)) in cases.iter().enumerate() {
        let mut bad = good.clone();
        spoil(&mut bad);
        let status = busy.worker.commit(bad).await.unwrap_err();
        let named = fields(&status);
        assert!(
            named.iter().any(|f| f.starts_with(field)) || field.is_empty(),
            "{n} {field}: {status:?}"
        );
    }
    for number in [2, u32::MAX] {
        let mut unknown = good.clone();
        unknown.attempt.as_mut().unwrap().number = number;
        assert_eq!(busy.worker.commit(unknown).await.unwrap_err().code(), Code::NotFound);
    }
    let task = busy.farm.get("bsc1").await.tasks.remove(0);
    assert_eq!((task.attempt, task.ended_ms), (1, 0));
    busy.goes_on().await;
}

//! The coordinator dies at each of its commit points in turn, as by a power cut, and is started again. What comes out
//! must be what comes out undisturbed.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
// Release builds have no failpoints.
#![cfg(debug_assertions)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use klp_livepatch::outcome::Digest;
use klp_proto::v1;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use support::process::Process;
use support::{by_name, platform, report, soon, spec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use uuid::Uuid;

/// How a task ended: its state, its newest attempt's number, and what it made.
type Ends = BTreeMap<String, (i32, u32, Vec<String>)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_any_commit_point_changes_no_outcome() {
    let undisturbed = run(None).await;
    assert_eq!(undisturbed.deaths, 0);
    assert_eq!(undisturbed.ends.len(), 5, "{:?}", undisturbed.ends);
    for point in [
        "before-commit",
        "after-commit",
        "before-answer",
        "before-rename",
        "after-rename",
    ] {
        let mut died = 0;
        for count in 1.. {
            let failpoint = format!("{point}:{count}");
            let disturbed = run(Some(&failpoint)).await;
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

struct Run {
    deaths: u32,
    ends: Ends,
}

/// One life of a small farm: a livepatch that succeeds, one that is cancelled, and a worker that outlives its
/// coordinator's deaths. What is asked for is asked again until it is answered.
async fn run(failpoint: Option<&str>) -> Run {
    let folder = tempfile::tempdir().unwrap();
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
    let worker = tokio::spawn(work(channel.clone()));
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

/// A port that is free now.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Keeps a coordinator running: one that is to die, and after its death another.
async fn keep(data_dir: std::path::PathBuf, address: String, failpoint: Option<String>, deaths: Arc<AtomicU32>) {
    let mut process = Process::start_at(&data_dir, &address, failpoint.as_deref());
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if process.child.try_wait().unwrap().is_some() {
            deaths.fetch_add(1, Ordering::SeqCst);
            process = Process::start_at(&data_dir, &address, None);
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
    }
}

/// Asks until there is an answer, as clients do. What was answered before is answered again.
async fn insist<T, F>(ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) if transient(&status) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(status) => panic!("refused: {status}"),
        }
    }
}

/// The coordinator is away, or has not met the worker yet.
fn transient(status: &Status) -> bool {
    let away = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    );
    away || status.message().contains("holds no tree yet")
}

/// A worker that runs everything at once and delivers until it is answered, over as many sessions as it takes.
async fn work(channel: Channel) {
    let mut client = WorkerServiceClient::new(channel);
    let incarnation = Uuid::now_v7().to_string();
    // What has ended and is not acknowledged, in the order of assignment.
    let mut done: BTreeMap<String, v1::CommitRequest> = BTreeMap::new();
    let mut delivered: Vec<String> = Vec::new();
    loop {
        let (states, receiver) = mpsc::channel(8);
        let state = |done: &BTreeMap<String, v1::CommitRequest>| v1::WorkerState {
            worker: "w1".into(),
            incarnation: incarnation.clone(),
            attempts: done
                .values()
                .map(|commit| v1::RunningAttempt {
                    attempt: commit.attempt.clone(),
                    progress: "done".into(),
                })
                .collect(),
            trees: vec![platform("a"), platform("b")],
            tools: vec![v1::Tool {
                backend: "native".into(),
                version: "1".into(),
            }],
            slots: 8,
            ..Default::default()
        };
        states.send(state(&done)).await.unwrap();
        let Ok(answers) = client.session(ReceiverStream::new(receiver)).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut answers = answers.into_inner();
        while let Ok(Some(farm)) = answers.message().await {
            for assignment in farm.assignments {
                let attempt = assignment.attempt.clone().unwrap();
                let key = format!("{}#{}", attempt.task_id, attempt.number);
                if delivered.contains(&key) || done.contains_key(&key) {
                    continue;
                }
                done.insert(key, outcome(&assignment, &incarnation));
            }
            let _ = states.send(state(&done)).await;
            let keys: Vec<String> = done.keys().cloned().collect();
            for key in keys {
                if deliver(&mut client, &done[&key]).await.is_ok() {
                    done.remove(&key);
                    delivered.push(key);
                }
            }
            if states.send(state(&done)).await.is_err() {
                break;
            }
        }
    }
}

/// What an attempt makes depends on what it was, and on nothing else.
fn content(assignment: &v1::Assignment) -> Vec<u8> {
    format!("source for {:?}", assignment.platform).into_bytes()
}

fn outcome(of: &v1::Assignment, incarnation: &str) -> v1::CommitRequest {
    let content = content(of);
    let artifact = v1::Artifact {
        name: "sound/core/pcm.c".into(),
        digest: Digest::of(&content).to_string(),
        size: content.len() as u64,
    };
    v1::CommitRequest {
        attempt: of.attempt.clone(),
        worker: "w1".into(),
        incarnation: incarnation.to_owned(),
        ending: Some(v1::commit_request::Ending::Succeeded(v1::Succeeded {})),
        report: Some(report(of)),
        artifacts: match of.kind() {
            v1::TaskKind::Extract => vec![artifact],
            _ => vec![],
        },
    }
}

/// Uploads and commits.
async fn deliver(client: &mut WorkerServiceClient<Channel>, commit: &v1::CommitRequest) -> Result<(), Status> {
    use v1::upload_artifact_request::Part;
    for artifact in &commit.artifacts {
        let header = v1::UploadHeader {
            digest: artifact.digest.clone(),
            size: artifact.size,
        };
        let data = ["a", "b"]
            .map(|c| format!("source for {:?}", Some(platform(c))).into_bytes())
            .into_iter()
            .find(|content| Digest::of(content).to_string() == artifact.digest)
            .unwrap();
        let parts = [Part::Header(header), Part::Data(data)];
        let parts = parts.map(|part| v1::UploadArtifactRequest { part: Some(part) });
        client.upload_artifact(tokio_stream::iter(parts)).await?;
    }
    let answer = client.commit(commit.clone()).await?.into_inner();
    match answer.disposition() {
        v1::Disposition::Committed | v1::Disposition::Superseded => Ok(()),
        other => Err(Status::unavailable(format!("{other:?}"))),
    }
}

/// The database holds together, and no event is missing.
fn sound(data_dir: &Path) {
    let db = rusqlite::Connection::open(data_dir.join("farm.db")).unwrap();
    let sound: String = db
        .pragma_query_value(None, "integrity_check", |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
    let gaps: u32 = db
        .query_row(
            "SELECT count(*) FROM livepatches l WHERE last_event <> (SELECT count(*) FROM events e WHERE e.livepatch = l.id) \
             OR last_event <> (SELECT max(number) FROM events e WHERE e.livepatch = l.id)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(gaps, 0);
}

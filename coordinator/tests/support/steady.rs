//! Clients and workers that go on over their coordinator's deaths.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use klp_livepatch::outcome::Digest;
use klp_proto::v1;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{platform, report};

/// A port that is free now.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Asks until there is an answer, as clients do. What was answered before is answered again.
pub async fn insist<T, F>(ask: impl Fn() -> F) -> T
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
pub async fn work(channel: Channel, name: &str, slots: u32) {
    let mut client = WorkerServiceClient::new(channel);
    let incarnation = Uuid::now_v7().to_string();
    // What has ended and is not acknowledged, in the order of assignment.
    let mut done: BTreeMap<String, v1::CommitRequest> = BTreeMap::new();
    let mut delivered: Vec<String> = Vec::new();
    loop {
        let (states, receiver) = mpsc::channel(8);
        let state = |done: &BTreeMap<String, v1::CommitRequest>| v1::WorkerState {
            worker: name.into(),
            incarnation: incarnation.clone(),
            attempts: done
                .values()
                .map(|commit| v1::RunningAttempt {
                    attempt: commit.attempt.clone(),
                    progress: "done".into(),
                    waiting: false,
                })
                .collect(),
            trees: vec![platform("a"), platform("b")],
            tools: vec![v1::Tool {
                backend: "native".into(),
                version: "1".into(),
            }],
            slots,
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
                done.insert(key, outcome(&assignment, name, &incarnation));
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

fn outcome(of: &v1::Assignment, worker: &str, incarnation: &str) -> v1::CommitRequest {
    let content = content(of);
    let artifact = v1::Artifact {
        name: "sound/core/pcm.c".into(),
        digest: Digest::of(&content).to_string(),
        size: content.len() as u64,
    };
    v1::CommitRequest {
        attempt: of.attempt.clone(),
        worker: worker.to_owned(),
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
pub fn sound(data_dir: &Path) {
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

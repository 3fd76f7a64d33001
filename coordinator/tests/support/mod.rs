//! A coordinator on a socket of its own, and a scripted worker that speaks the real session.
#![allow(dead_code, reason = "not every test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

pub mod data;
pub mod process;
pub mod raw;
pub mod secure;
pub mod steady;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use klp_coordinator::{Config, Coordinator};
use klp_livepatch::outcome::{Artifact, Digest};
use klp_proto::v1;
use klp_proto::v1::fleet_service_client::FleetServiceClient;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use uuid::Uuid;

/// Nothing in these tests takes long; what does is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("still waiting for: {what}"))
}

/// Settings for tests: a free port, and quick retries.
pub fn config(data_dir: &Path) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        insecure: true,
        data_dir: data_dir.to_owned(),
        restart_grace_ms: 0,
        backoff_ms: 1,
        backoff_max_ms: 20,
        // Scripted workers say what they are asked to; a test of tryouts turns them on.
        tryout_ms: 0,
        ..Config::default()
    }
}

/// A coordinator and clients of it.
pub struct Farm {
    pub coordinator: Coordinator,
    pub channel: Channel,
    pub livepatches: LivepatchServiceClient<Channel>,
    pub fleet: FleetServiceClient<Channel>,
    pub workers: WorkerServiceClient<Channel>,
}

impl Farm {
    pub async fn start(config: Config) -> Farm {
        let coordinator = Coordinator::start(config).await.unwrap();
        let channel = connect(&coordinator).await;
        Farm {
            livepatches: LivepatchServiceClient::new(channel.clone()),
            fleet: FleetServiceClient::new(channel.clone()),
            workers: WorkerServiceClient::new(channel.clone()),
            channel,
            coordinator,
        }
    }

    pub async fn submit(&self, name: &str) -> v1::Livepatch {
        self.submit_spec(spec(name)).await.unwrap()
    }

    pub async fn submit_spec(&self, spec: v1::Spec) -> Result<v1::Livepatch, Status> {
        let request = v1::SubmitRequest {
            id: Uuid::now_v7().to_string(),
            spec: Some(spec),
            share: None,
            fix_contents: Vec::new(),
            ..Default::default()
        };
        let answer = self.livepatches.clone().submit(request).await?;
        Ok(answer.into_inner().livepatch.unwrap())
    }

    pub async fn get(&self, name: &str) -> v1::GetResponse {
        let request = v1::GetRequest {
            livepatch: by_name(name),
            ..Default::default()
        };
        self.livepatches.clone().get(request).await.unwrap().into_inner()
    }

    pub async fn watch(&self, name: &str, after_event: u64) -> Result<Streaming<v1::Event>, Status> {
        let request = v1::WatchRequest {
            livepatch: by_name(name),
            after_event,
        };
        Ok(self.livepatches.clone().watch(request).await?.into_inner())
    }

    /// All events after a cursor, to the livepatch's last.
    pub async fn events(&self, name: &str, after: u64) -> Vec<v1::Event> {
        let mut stream = self.watch(name, after).await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = soon("the next event", stream.message()).await.unwrap() {
            events.push(event);
        }
        events
    }

    /// Waits for an event that `wanted` accepts.
    pub async fn event(&self, name: &str, wanted: impl Fn(&v1::Event) -> bool) -> v1::Event {
        let mut stream = self.watch(name, 0).await.unwrap();
        let found = async {
            while let Some(event) = stream.message().await.unwrap() {
                if wanted(&event) {
                    return event;
                }
            }
            panic!("the livepatch ended without that event");
        };
        soon("an event", found).await
    }
}

pub async fn connect(coordinator: &Coordinator) -> Channel {
    let url = format!("http://{}", coordinator.local_addr());
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

pub fn by_name(name: &str) -> Option<v1::LivepatchRef> {
    Some(v1::LivepatchRef {
        r#ref: Some(v1::livepatch_ref::Ref::Name(name.to_owned())),
    })
}

pub fn spec(name: &str) -> v1::Spec {
    v1::Spec {
        name: name.to_owned(),
        targets: vec![v1::Target {
            file: "sound/core/pcm.c".into(),
            functions: vec!["snd_pcm_attach_substream".into()],
            config: "CONFIG_SND_PCM".into(),
            object: "snd-pcm".into(),
        }],
        ..Default::default()
    }
}

pub fn platform(codestream: &str) -> v1::Platform {
    v1::Platform {
        codestream: codestream.to_owned(),
        arch: "x86_64".to_owned(),
    }
}

/// A worker that does what a test tells it to.
pub struct Worker {
    pub state: v1::WorkerState,
    client: WorkerServiceClient<Channel>,
    taken: BTreeSet<Key>,
    session: Option<(mpsc::Sender<v1::WorkerState>, Streaming<v1::FarmState>)>,
}

impl Worker {
    pub fn new(farm: &Farm, name: &str, codestreams: &[&str]) -> Worker {
        Worker {
            state: v1::WorkerState {
                worker: name.to_owned(),
                incarnation: Uuid::now_v7().to_string(),
                attempts: Vec::new(),
                trees: codestreams.iter().map(|c| platform(c)).collect(),
                tools: vec![v1::Tool {
                    backend: "native".into(),
                    version: "1".into(),
                }],
                slots: 2,
                draining: false,
                version: "0.1.0".into(),
                ..Default::default()
            },
            client: farm.workers.clone(),
            taken: BTreeSet::new(),
            session: None,
        }
    }

    /// A worker whose first state has been answered.
    pub async fn connected(farm: &Farm, name: &str, codestreams: &[&str]) -> Worker {
        let mut worker = Worker::new(farm, name, codestreams);
        worker.open().await;
        worker.hear().await.unwrap();
        worker
    }

    /// Talks to another coordinator from now on.
    pub fn move_to(&mut self, farm: &Farm) {
        self.client = farm.workers.clone();
        self.session = None;
    }

    pub async fn open(&mut self) {
        let (states, receiver) = mpsc::channel(8);
        states.send(self.state.clone()).await.unwrap();
        let answers = self.client.session(ReceiverStream::new(receiver)).await.unwrap();
        self.session = Some((states, answers.into_inner()));
    }

    pub fn hang_up(&mut self) {
        self.session = None;
    }

    /// Says its state again.
    pub async fn say(&mut self) {
        let (states, _) = self.session.as_ref().unwrap();
        states.send(self.state.clone()).await.unwrap();
    }

    /// The next thing the coordinator says.
    pub async fn hear(&mut self) -> Result<v1::FarmState, Status> {
        let (_, answers) = self.session.as_mut().unwrap();
        let message = soon("the coordinator to speak", answers.message()).await?;
        Ok(message.expect("the session ended without a status"))
    }

    /// Hears until the coordinator has assigned `count` attempts that were not taken before; says that it runs them.
    pub async fn take(&mut self, count: usize) -> Vec<v1::Assignment> {
        loop {
            let mut assignments = self.hear().await.unwrap().assignments;
            assignments.retain(|a| !self.taken.contains(&key(a)));
            if assignments.len() == count {
                assignments.sort_by_key(key);
                self.taken.extend(assignments.iter().map(key));
                self.runs(&assignments).await;
                return assignments;
            }
        }
    }

    /// Forgets what it has taken, as a process that starts anew does.
    pub fn forget(&mut self) {
        self.taken.clear();
    }

    /// Says that it runs these, and nothing else.
    pub async fn runs(&mut self, assignments: &[v1::Assignment]) {
        let running = |a: &v1::Assignment| v1::RunningAttempt {
            attempt: a.attempt.clone(),
            progress: "working".into(),
            waiting: false,
        };
        self.state.attempts = assignments.iter().map(running).collect();
        self.say().await;
    }

    pub async fn upload(&mut self, content: &[u8]) -> Artifact {
        let digest = Digest::of(content);
        let size = content.len() as u64;
        self.upload_as(digest, size, content).await.unwrap();
        Artifact {
            name: "sound/core/pcm.c".into(),
            digest,
            size,
        }
    }

    pub async fn upload_as(&mut self, digest: Digest, size: u64, content: &[u8]) -> Result<(), Status> {
        use v1::upload_artifact_request::Part;
        let header = v1::UploadHeader {
            digest: digest.to_string(),
            size,
        };
        let data = content.chunks(1000).map(|c| Part::Data(c.to_vec()));
        let parts = std::iter::once(Part::Header(header)).chain(data);
        let requests: Vec<_> = parts
            .map(|part| v1::UploadArtifactRequest { part: Some(part) })
            .collect();
        let sent = self.client.upload_artifact(tokio_stream::iter(requests));
        soon("an upload", sent).await.map(drop)
    }

    pub async fn commit(&mut self, request: v1::CommitRequest) -> Result<v1::CommitResponse, Status> {
        Ok(soon("a commit", self.client.commit(request)).await?.into_inner())
    }

    /// Commits and says what the coordinator made of it.
    pub async fn committed(&mut self, request: v1::CommitRequest) -> v1::Disposition {
        self.commit(request).await.unwrap().disposition()
    }

    pub fn success(&self, of: &v1::Assignment, artifacts: &[Artifact]) -> v1::CommitRequest {
        v1::CommitRequest {
            ending: Some(v1::commit_request::Ending::Succeeded(v1::Succeeded {})),
            report: Some(report(of)),
            artifacts: artifacts.iter().map(v1::Artifact::from).collect(),
            ..self.ending(of)
        }
    }

    pub fn failure(&self, of: &v1::Assignment, cause: v1::Cause, message: &str) -> v1::CommitRequest {
        let failure = v1::Failure {
            cause: cause.into(),
            message: message.into(),
        };
        v1::CommitRequest {
            ending: Some(v1::commit_request::Ending::Failed(failure)),
            ..self.ending(of)
        }
    }

    fn ending(&self, of: &v1::Assignment) -> v1::CommitRequest {
        v1::CommitRequest {
            attempt: of.attempt.clone(),
            worker: self.state.worker.clone(),
            incarnation: self.state.incarnation.clone(),
            ..Default::default()
        }
    }

    pub async fn log(&mut self, of: &v1::Assignment, offset: u64, data: &[u8]) -> Result<u64, Status> {
        let request = v1::AppendLogRequest {
            attempt: of.attempt.clone(),
            offset,
            data: data.to_vec(),
        };
        Ok(self.client.append_log(request).await?.into_inner().next_offset)
    }

    /// Succeeds at all it is given, with the same source everywhere, until the livepatch has ended.
    pub async fn work(&mut self, farm: &Farm, name: &str) {
        let mut ended = std::pin::pin!(farm.events(name, 0));
        self.state.attempts.clear();
        self.say().await;
        loop {
            let state = tokio::select! {
                _ = &mut ended => return,
                state = self.hear() => state.unwrap(),
            };
            for assignment in state.assignments {
                if !self.taken.insert(key(&assignment)) {
                    continue;
                }
                let artifacts = match assignment.kind() {
                    v1::TaskKind::Extract => vec![self.upload(b"int klpp_f(void) { return 0; }\n").await],
                    _ => Vec::new(),
                };
                let success = self.success(&assignment, &artifacts);
                assert_eq!(self.committed(success).await, v1::Disposition::Committed);
            }
        }
    }
}

type Key = (String, i32, u32, String);

fn key(assignment: &v1::Assignment) -> Key {
    let attempt = assignment.attempt.clone().unwrap();
    let codestream = assignment.platform.clone().unwrap().codestream;
    (codestream, assignment.kind, attempt.number, attempt.task_id)
}

/// A report of success that fits the assignment.
pub fn report(of: &v1::Assignment) -> v1::Report {
    use v1::report::Report;
    let target = &of.targets[0];
    let report = match of.kind() {
        v1::TaskKind::Extract => Report::Extract(v1::ExtractReport {
            tool: "native 1".into(),
            ibt: false,
            origin: None,
            targets: vec![v1::TargetExtraction {
                file: target.file.clone(),
                object: "snd-pcm".into(),
                source_artifact: target.file.clone(),
                compile: Some(v1::CompileCheck {
                    passed: true,
                    ..Default::default()
                }),
                ..Default::default()
            }],
        }),
        _ => Report::Check(v1::CheckReport {
            targets: vec![v1::TargetCheck {
                file: target.file.clone(),
                config_value: "m".into(),
                object: "snd-pcm".into(),
                ..Default::default()
            }],
            fixes: None,
        }),
    };
    v1::Report { report: Some(report) }
}

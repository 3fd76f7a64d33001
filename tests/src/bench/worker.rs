//! A simulated worker: speaks the real session, and does nothing but commit.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use klp_proto::v1;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use klp_worker::process::{self, Limits};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;
use uuid::Uuid;

use super::coordinator::{PATIENCE, source};
use super::{LARGE_ARCHS, LARGE_CODESTREAMS, PLATFORMS};

/// A worker that is yet to open its session.
pub struct Simulated {
    pub state: v1::WorkerState,
}

/// What attempts do before they are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    /// Run `true`, as attempts run their tools.
    Process,
    /// Take a slot for so long.
    For(Duration),
}

/// Counts what was committed, by all workers that share it.
#[derive(Debug, Default)]
pub struct Count {
    committed: AtomicUsize,
    changed: Notify,
}

impl Count {
    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits until so many are committed.
    pub async fn reached(&self, count: usize) {
        while self.committed() < count {
            self.changed.notified().await;
        }
    }
}

pub fn platform(codestream: String) -> v1::Platform {
    v1::Platform {
        codestream,
        arch: "x86_64".into(),
    }
}

impl Simulated {
    /// A worker with a tree for each platform of the bench.
    pub fn new(name: &str, slots: u32) -> Self {
        Self::with_trees(name, slots, (0..PLATFORMS).map(|n| format!("cs-{n}")))
    }

    pub fn with_trees(name: &str, slots: u32, trees: impl Iterator<Item = String>) -> Self {
        Self::with_platforms(name, slots, trees.map(platform))
    }

    /// A worker with a tree for each platform of a large livepatch.
    pub fn large(name: &str, slots: u32) -> Self {
        let platforms = (0..LARGE_CODESTREAMS).flat_map(|n| {
            LARGE_ARCHS.map(|arch| v1::Platform {
                codestream: format!("15.5u{n}"),
                arch: arch.to_owned(),
            })
        });
        Self::with_platforms(name, slots, platforms)
    }

    fn with_platforms(name: &str, slots: u32, trees: impl Iterator<Item = v1::Platform>) -> Self {
        Self {
            state: v1::WorkerState {
                worker: name.to_owned(),
                incarnation: Uuid::now_v7().to_string(),
                trees: trees.collect(),
                tools: vec![v1::Tool {
                    backend: "native".into(),
                    version: "1".into(),
                }],
                slots,
                version: "bench".into(),
                ..Default::default()
            },
        }
    }

    /// # Errors
    /// The session is refused.
    pub async fn open(self, channel: Channel) -> Result<Session> {
        let mut client = WorkerServiceClient::new(channel);
        let (states, receiver) = mpsc::channel(8);
        states.send(self.state.clone()).await?;
        let answers = client.session(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Session {
            state: self.state,
            client,
            states,
            answers,
            taken: HashSet::new(),
        })
    }
}

pub struct Session {
    state: v1::WorkerState,
    client: WorkerServiceClient<Channel>,
    states: mpsc::Sender<v1::WorkerState>,
    answers: Streaming<v1::FarmState>,
    /// What it was assigned, as far as the coordinator still says so.
    taken: HashSet<v1::Attempt>,
}

impl Session {
    /// The next assignments that are new.
    ///
    /// # Errors
    /// The session ended.
    pub async fn hear(&mut self) -> Result<Vec<v1::Assignment>> {
        let state = self.answers.message().await?.context("the session ended")?;
        let attempts = state.assignments.iter().filter_map(|a| a.attempt.clone());
        let listed: HashSet<v1::Attempt> = attempts.collect();
        let before = std::mem::replace(&mut self.taken, listed);
        let is_new = |a: &v1::Assignment| a.attempt.as_ref().is_some_and(|id| !before.contains(id));
        Ok(state.assignments.into_iter().filter(is_new).collect())
    }

    /// Waits until something new is assigned.
    ///
    /// # Errors
    /// The session ended, or nothing came for long.
    pub async fn take(&mut self) -> Result<Vec<v1::Assignment>> {
        let taken = async {
            loop {
                let new = self.hear().await?;
                if !new.is_empty() {
                    return Ok(new);
                }
            }
        };
        tokio::time::timeout(PATIENCE, taken)
            .await
            .context("nothing was assigned")?
    }

    /// Commits a success.
    ///
    /// # Errors
    /// It is refused.
    pub async fn commit(&mut self, of: &v1::Assignment) -> Result<()> {
        self.end(success(of)?).await
    }

    /// Ends an attempt.
    ///
    /// # Errors
    /// It is refused.
    pub async fn end(&mut self, request: v1::CommitRequest) -> Result<()> {
        commit(&mut self.client, &self.state, request).await
    }

    /// Puts this into an attempt's log, as all there is of it.
    ///
    /// # Errors
    /// It is refused.
    pub async fn log(&mut self, of: &v1::Assignment, data: &[u8]) -> Result<()> {
        let request = v1::AppendLogRequest {
            attempt: of.attempt.clone(),
            offset: 0,
            data: data.to_vec(),
        };
        self.client.append_log(request).await?;
        Ok(())
    }

    /// Works until cancelled.
    ///
    /// # Errors
    /// The coordinator refuses something.
    pub async fn work(mut self, work: Work, count: Arc<Count>, stop: CancellationToken) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        let slots = Arc::new(Semaphore::new(self.state.slots as usize));
        let mut beat = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = beat.tick() => self.say().await?,
                Some(done) = running.join_next() => done??,
                new = self.hear() => for assignment in new? {
                    let (mut client, state, count) = (self.client.clone(), self.identity(), Arc::clone(&count));
                    let slots = Arc::clone(&slots);
                    running.spawn(async move {
                        let _slot = match work {
                            Work::Nothing => None,
                            Work::Process | Work::For(_) => Some(slots.acquire().await?),
                        };
                        match work {
                            Work::Nothing => {}
                            Work::Process => run_true().await?,
                            Work::For(time) => tokio::time::sleep(time).await,
                        }
                        commit(&mut client, &state, success(&assignment)?).await?;
                        count.add();
                        anyhow::Ok(())
                    });
                },
            }
        }
    }

    /// Keeps its session open and its leases alive, without ending anything, until cancelled.
    ///
    /// # Errors
    /// The session ended.
    pub async fn hold(mut self, stop: CancellationToken) -> Result<()> {
        let mut beat = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = beat.tick() => self.say().await?,
                heard = self.hear() => drop(heard?),
            }
        }
    }

    /// Tells the coordinator what it runs, which keeps session and leases alive.
    ///
    /// # Errors
    /// The session ended.
    pub async fn say(&mut self) -> Result<()> {
        let running = |attempt: &v1::Attempt| v1::RunningAttempt {
            attempt: Some(attempt.clone()),
            progress: "working".into(),
            waiting: false,
        };
        self.state.attempts = self.taken.iter().map(running).collect();
        Ok(self.states.send(self.state.clone()).await?)
    }

    /// Who it is, without what it has.
    fn identity(&self) -> v1::WorkerState {
        v1::WorkerState {
            worker: self.state.worker.clone(),
            incarnation: self.state.incarnation.clone(),
            ..Default::default()
        }
    }
}

async fn run_true() -> Result<()> {
    let command = process::Command::new("true", std::env::temp_dir());
    let ended = process::capture(&command, &Limits::default(), &CancellationToken::new()).await?;
    ensure!(ended.finish.end.success(), "true {}", ended.finish.end);
    Ok(())
}

async fn commit(
    client: &mut WorkerServiceClient<Channel>,
    worker: &v1::WorkerState,
    request: v1::CommitRequest,
) -> Result<()> {
    let request = v1::CommitRequest {
        worker: worker.worker.clone(),
        incarnation: worker.incarnation.clone(),
        ..request
    };
    let answer = client.commit(request).await?.into_inner();
    ensure!(
        answer.disposition() == v1::Disposition::Committed,
        "a commit was answered {:?}",
        answer.disposition()
    );
    Ok(())
}

/// A success of the assignment, whoever had it.
///
/// # Errors
/// The assignment has no target.
pub fn success(of: &v1::Assignment) -> Result<v1::CommitRequest> {
    let (report, artifacts) = outcome(of)?;
    Ok(v1::CommitRequest {
        attempt: of.attempt.clone(),
        ending: Some(v1::commit_request::Ending::Succeeded(v1::Succeeded {})),
        report: Some(v1::Report { report: Some(report) }),
        artifacts,
        ..Default::default()
    })
}

/// The smallest success that fits the assignment.
fn outcome(of: &v1::Assignment) -> Result<(v1::report::Report, Vec<v1::Artifact>)> {
    let target = of.targets.first().context("an assignment without a target")?;
    Ok(match of.kind() {
        v1::TaskKind::Extract => {
            let extraction = v1::TargetExtraction {
                file: target.file.clone(),
                object: target.object.clone(),
                source_artifact: target.file.clone(),
                compile: Some(v1::CompileCheck {
                    passed: true,
                    ..Default::default()
                }),
                ..Default::default()
            };
            let report = v1::ExtractReport {
                tool: "native 1".into(),
                ibt: false,
                targets: vec![extraction],
                origin: None,
            };
            (v1::report::Report::Extract(report), vec![source(&target.file)])
        }
        _ => {
            let check = v1::TargetCheck {
                file: target.file.clone(),
                config_value: "m".into(),
                object: target.object.clone(),
                ..Default::default()
            };
            (
                v1::report::Report::Check(v1::CheckReport {
                    targets: vec![check],
                    fixes: None,
                }),
                Vec::new(),
            )
        }
    })
}

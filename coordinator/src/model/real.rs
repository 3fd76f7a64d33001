//! The real thing: the ledger over a store in a folder, and a view of it that only hears of its changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Artifact, Digest, Outcome};
use klp_livepatch::report::{CheckReport, ExtractReport, Report, VerifyReport};
use klp_livepatch::spec::{Draft, Spec, TargetDraft};
use klp_livepatch::task::{AttemptId, Incarnation, LivepatchId, Platform, TaskId, TaskKey, TaskKind};
use klp_livepatch::{Arch, Share};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::farm::{Answer, FILTERS, LEASE_MS, MAX_OPEN, MAX_PLATFORMS, RULES};
use super::moves::{Commit, Job, Order, Report as Reported, TaskName};
use crate::aside::Aside;
use crate::ledger::{self, ChangeError, CommitError, Disposition, ForgetError, Grant, Now, Selection, SubmitError};
use crate::lifecycle::{Holder, Millis};
use crate::standing::Standing;
use crate::store::{self, Change, OpenLivepatch, OpenTask, Registration, Store, StoreError, Tx, Writing, forget};

/// In their natural order.
const PLATFORMS: [(&str, Arch); 3] = [
    ("15.5u2", Arch::X86_64),
    ("15.5u10", Arch::S390x),
    ("15.6", Arch::X86_64),
];

pub fn platform(n: u8) -> Platform {
    let (codestream, arch) = PLATFORMS[usize::from(n)];
    Platform {
        codestream: codestream.parse().unwrap(),
        arch,
    }
}

pub fn worker(n: u8) -> WorkerName {
    format!("w{n}").parse().unwrap()
}

pub fn incarnation(n: u8) -> Incarnation {
    Incarnation(Uuid::from_u128(n.into()))
}

pub fn holder(name: u8, start: u8) -> Holder {
    Holder {
        worker: worker(name),
        incarnation: incarnation(start),
    }
}

pub fn livepatch(n: u8) -> LivepatchId {
    LivepatchId(Uuid::from_u128(n.into()))
}

pub fn key(TaskName(_, kind, on): TaskName) -> TaskKey {
    TaskKey {
        kind,
        platform: platform(on),
        round: 1,
    }
}

/// What is submitted under a name with a filter. Made once, since filters are compiled.
pub fn spec(name: u8, filter: usize) -> Spec {
    static SPECS: LazyLock<Vec<Spec>> = LazyLock::new(|| FILTERS.iter().map(|(filter, _)| filtered(filter)).collect());
    Spec {
        name: format!("lp{name}").parse().unwrap(),
        ..SPECS[filter].clone()
    }
}

fn filtered(codestreams: &str) -> Spec {
    Spec::parse(&Draft {
        name: "lp".into(),
        targets: vec![TargetDraft {
            file: "a.c".into(),
            functions: vec!["f".into()],
            config: "CONFIG_A".into(),
            object: String::new(),
        }],
        codestreams: codestreams.into(),
        ..Draft::default()
    })
    .unwrap()
}

pub fn share((priority, weight): (i32, u32)) -> Share {
    Share::new(priority, weight).unwrap()
}

/// What somebody knows who only ever heard of changes.
#[derive(Debug, Default)]
pub struct View {
    pub livepatches: BTreeMap<LivepatchId, OpenLivepatch>,
    pub tasks: BTreeMap<TaskId, OpenTask>,
    pub standings: BTreeMap<WorkerName, Standing>,
    pub events: BTreeMap<LivepatchId, u64>,
}

impl View {
    fn hear(&mut self, change: Change) {
        match change {
            Change::Opened(livepatch) => drop(self.livepatches.insert(livepatch.id, livepatch)),
            Change::Ended { livepatch } => drop(self.livepatches.remove(&livepatch)),
            Change::Task(task) if task.status.is_open() => {
                assert!(
                    self.livepatches.contains_key(&task.livepatch),
                    "{} is of none",
                    task.key
                );
                self.tasks.insert(task.id, task);
            }
            Change::Task(task) => drop(self.tasks.remove(&task.id)),
            Change::Attempt(_) | Change::Token(_) | Change::Certificate(_) => {}
            Change::Worker { name, standing } => drop(self.standings.insert(name, standing)),
            Change::Forgotten { name } => drop(self.standings.remove(&name)),
            Change::Event { livepatch, number } => {
                let newest = self.events.entry(livepatch).or_default();
                assert_eq!(number, *newest + 1, "events are told without gaps");
                *newest = number;
            }
        }
    }
}

/// A job that is not kept, with what it had come to.
struct Undone(Answer);

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Undone(Answer::Broken(error.to_string()))
    }
}

/// In memory, where there is such a place: nothing here loses power, and what is synced costs most of the time.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

pub struct Real {
    folder: TempDir,
    /// How often the files were left as they were, and copied.
    copies: u32,
    runtime: Runtime,
    open: Option<(Store, Writing, Connection)>,
    changes: Arc<Mutex<Vec<Change>>>,
    pub view: View,
    pub now: Millis,
    jobs: u128,
}

impl Real {
    pub fn new() -> Self {
        let mut real = Self {
            folder: folder(),
            copies: 0,
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            open: None,
            changes: Arc::default(),
            view: View::default(),
            now: 0,
            jobs: 0,
        };
        real.start();
        real
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("farm-{}.db", self.copies))
    }

    fn start(&mut self) {
        let changes = self.changes.clone();
        let (store, writing) = Store::open(&self.path(), 1, Aside::Threads, move |new| {
            changes.lock().unwrap().extend(new)
        })
        .unwrap();
        let to_forget = forget::open_to_forget(&self.path()).unwrap();
        self.open = Some((store, writing, to_forget));
    }

    pub fn stop(&mut self) {
        let (store, writing, to_forget) = self.open.take().unwrap();
        drop((store, to_forget));
        // The writer has nothing to say but that it has ended.
        self.runtime.block_on(writing).unwrap_err();
    }

    /// Ends and starts again; if it died, on the files as they were at that moment.
    pub fn reopen(&mut self, died: bool) {
        if died {
            let old = self.path();
            self.copies += 1;
            for suffix in ["", "-wal"] {
                let file = |path: &PathBuf| format!("{}{suffix}", path.display());
                std::fs::copy(file(&old), file(&self.path())).unwrap();
            }
        }
        self.stop();
        self.start();
    }

    pub fn forget(&mut self, id: u8, ago: Millis) -> Answer {
        let (_, _, to_forget) = self.open.as_mut().unwrap();
        match forget::forget(to_forget, livepatch(id), self.now - ago).unwrap() {
            false => Answer::Refused("not ended"),
            true => {
                self.view.events.remove(&livepatch(id));
                Answer::Done
            }
        }
    }

    pub fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> T {
        let (store, ..) = self.open.as_ref().unwrap();
        let read = store.read(|db| query(db).map_err(StoreError::from));
        self.runtime.block_on(read).unwrap()
    }

    /// Has all jobs done, queued together, and hears of what they changed.
    pub fn work(&mut self, wait: Millis, jobs: Vec<Job>) -> Vec<Answer> {
        self.now += wait;
        let (store, ..) = self.open.as_ref().unwrap();
        let mut answers = Vec::new();
        for job in jobs {
            self.jobs += 1;
            // What is created later has a greater id.
            let seed = self.jobs << 32 | u128::from(job.noise);
            let (ms, store) = (self.now, store.clone());
            let write = async move {
                let done = store.write(move |tx| {
                    let answer = obey(tx, job.order, Now { ms, seed });
                    let kept = job.keep && !matches!(answer, Answer::Refused(_) | Answer::Broken(_));
                    if kept { Ok(answer) } else { Err(Undone(answer)) }
                });
                done.await.unwrap_or_else(|Undone(answer)| answer)
            };
            answers.push(self.runtime.spawn(write));
        }
        let answers = answers.into_iter().map(|answer| self.runtime.block_on(answer).unwrap());
        let answers = answers.collect();
        for change in std::mem::take(&mut *self.changes.lock().unwrap()) {
            self.view.hear(change);
        }
        answers
    }
}

fn task_id(tx: &Tx<'_>, name: TaskName) -> TaskId {
    let tasks = store::tasks_of(tx, livepatch(name.0)).unwrap();
    let task = tasks.iter().find(|t| t.key == key(name));
    // Of a task that there is not, anything may be said.
    task.map_or(TaskId(Uuid::nil()), |t| t.id)
}

fn obey(tx: &mut Tx<'_>, order: Order, now: Now) -> Answer {
    match order {
        Order::Submit { id, name, filter } => submit(tx, id, name, filter, now),
        Order::Register(workers) => {
            let workers: Vec<_> = workers
                .into_iter()
                .map(|(name, start, trees, broken)| {
                    let registration = Registration {
                        incarnation: incarnation(start),
                        version: "1".into(),
                        slots: 1,
                        trees: trees.iter().copied().map(platform).collect(),
                        tools: vec![("native".into(), "1".into())],
                        memory: 0,
                        broken_trees: broken
                            .difference(&trees)
                            .map(|n| (platform(*n), "gone".into()))
                            .collect(),
                        broken_tools: BTreeMap::new(),
                        isolation: Vec::new(),
                    };
                    (worker(name), registration)
                })
                .collect();
            plain(ledger::register(tx, &workers, &RULES.retry, now))
        }
        Order::Lease(grants) => {
            let grants = grants.into_iter().map(|(task, name, start)| Grant {
                task: task_id(tx, task),
                to: holder(name, start),
            });
            let grants = grants.collect();
            plain(ledger::lease(tx, grants, LEASE_MS, now))
        }
        Order::Commit(commit) => settle(tx, commit, now),
        Order::Lose(losses) => {
            let losses: Vec<_> = losses
                .into_iter()
                .map(|loss| ledger::Loss {
                    attempt: AttemptId {
                        task: task_id(tx, loss.task),
                        number: loss.number,
                    },
                    worker: worker(loss.worker),
                    taken: loss.taken,
                    reason: "it is gone".into(),
                })
                .collect();
            plain(ledger::lose(tx, &losses, &RULES, now))
        }
        Order::Cancel(id) => change(ledger::cancel(tx, livepatch(id), None, now).map(drop)),
        Order::Retry { id, filter } => {
            let selection = Selection {
                codestreams: FILTERS[filter].0.parse().unwrap(),
                archs: Default::default(),
            };
            match ledger::retry(tx, livepatch(id), &selection, now) {
                Ok((_, retried)) => Answer::Retried(retried),
                Err(ChangeError::Refused(_)) => Answer::Refused("nothing to retry"),
                Err(error) => change(Err(error)),
            }
        }
        Order::Pause { id, reason } => {
            let reason = reason.parse().unwrap();
            change(ledger::pause(tx, livepatch(id), Some(&reason), now).map(drop))
        }
        Order::Resume(id) => change(ledger::resume(tx, livepatch(id), now).map(drop)),
        Order::SetShare { id, share: of } => change(ledger::set_share(tx, livepatch(id), share(of), now).map(drop)),
        Order::Drain { worker: name, reason } => known(ledger::drain(tx, &worker(name), &reason.parse().unwrap(), now)),
        Order::Undrain(name) => known(ledger::undrain(tx, &worker(name))),
        Order::ForgetWorker(name) => match ledger::forget(tx, &worker(name)) {
            Ok(()) => Answer::Done,
            Err(ForgetError::Unknown(_)) => Answer::Refused("unknown"),
            Err(ForgetError::Holds(_)) => Answer::Refused("holds a lease"),
            Err(ForgetError::Store(error)) => plain(Err(error)),
        },
    }
}

fn submit(tx: &mut Tx<'_>, id: u8, name: u8, filter: usize, now: Now) -> Answer {
    let submission = ledger::Submission {
        id: livepatch(id),
        spec: spec(name, filter),
        share: Share::default(),
        submitted_by: Default::default(),
        max_open: MAX_OPEN,
        max_platforms: MAX_PLATFORMS,
        scopes: None,
    };
    match ledger::submit(tx, submission, now) {
        Ok(row) if row.id == livepatch(id) && row.spec == spec(name, filter) => Answer::Done,
        Ok(row) => Answer::Broken(format!("{row:?} was not submitted")),
        Err(SubmitError::IdTaken { .. }) => Answer::Refused("its id is taken"),
        Err(SubmitError::NameTaken { .. }) => Answer::Refused("its name is taken"),
        Err(SubmitError::TooManyOpen { .. }) => Answer::Refused("too many"),
        Err(SubmitError::Invalid(_)) => Answer::Refused("it selects nothing or too much"),
        Err(SubmitError::Store(error)) => plain(Err(error)),
    }
}

pub fn artifacts(count: u8) -> Vec<Artifact> {
    let artifact = |n: u8| Artifact {
        name: format!("{n}.c"),
        digest: Digest::of(&[n]),
        size: n.into(),
    };
    (0..count).map(artifact).collect()
}

pub fn report(of: TaskKind) -> Report {
    match of {
        TaskKind::Check => Report::Check(CheckReport::default()),
        TaskKind::Extract => Report::Extract(ExtractReport::default()),
        TaskKind::Verify => Report::Verify(VerifyReport::default()),
    }
}

fn settle(tx: &mut Tx<'_>, commit: Commit, now: Now) -> Answer {
    let kind = commit.task.1;
    let other = TaskKind::ALL.into_iter().find(|other| *other != kind);
    let artifacts = artifacts(commit.artifacts);
    let committing = ledger::Committing {
        attempt: AttemptId {
            task: task_id(tx, commit.task),
            number: commit.number,
        },
        by: holder(commit.by.0, commit.by.1),
        missing: match commit.missing {
            true => artifacts.iter().map(|a| a.digest).collect(),
            false => Vec::new(),
        },
        outcome: Outcome {
            ending: commit.ending,
            report: match commit.report {
                Reported::Right => Some(report(kind)),
                Reported::None => None,
                Reported::Wrong => other.map(report),
            },
            artifacts,
        },
    };
    match ledger::commit(tx, &committing, &RULES, now) {
        Ok(Disposition::Committed) => Answer::Done,
        Ok(Disposition::Superseded) => Answer::Refused("superseded"),
        Ok(Disposition::ArtifactsMissing(_)) => Answer::Refused("artifacts are missing"),
        Err(CommitError::Unknown(_)) => Answer::Refused("unknown"),
        Err(CommitError::Contradiction(_)) => Answer::Refused("a contradiction"),
        Err(CommitError::Store(error)) => plain(Err(error)),
    }
}

fn plain(done: Result<(), StoreError>) -> Answer {
    match done {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Broken(error.to_string()),
    }
}

fn known(done: Result<Option<()>, StoreError>) -> Answer {
    match done {
        Ok(Some(())) => Answer::Done,
        Ok(None) => Answer::Refused("unknown"),
        Err(error) => plain(Err(error)),
    }
}

fn change(done: Result<(), ChangeError>) -> Answer {
    match done {
        Ok(()) => Answer::Done,
        Err(ChangeError::Unknown(_)) => Answer::Refused("unknown"),
        Err(ChangeError::Refused(_)) => Answer::Refused("ended"),
        Err(ChangeError::Store(error)) => plain(Err(error)),
    }
}

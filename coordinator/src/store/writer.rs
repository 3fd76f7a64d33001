//! The one thread that writes. Waiting jobs share a transaction, and so its fsync.

use std::ops::Deref;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Change, StoreError, is_full};
use crate::aside::Aside;
use crate::failpoint::{self, Point};

/// The most jobs in one transaction: bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 256;
/// How many jobs may wait before whoever brings the next one does.
const QUEUE: usize = 4096;

/// Tells a job how the transaction it ran in ended.
type Answer = Box<dyn FnOnce(Result<(), &rusqlite::Error>) + Send>;
/// Does its work and says whether to keep it. Without a transaction there is none to do.
type Job = Box<dyn FnOnce(Option<&mut Tx<'_>>) -> (bool, Answer) + Send>;

/// Hears what the writer does, on its own thread; it must not block.
pub trait Sink: Send + 'static {
    /// All changes of a committed transaction, in order.
    fn changed(&self, changes: Vec<Change>);

    /// A transaction has ended.
    fn ended(&self, _group: Group) {}
}

impl<F: Fn(Vec<Change>) + Send + 'static> Sink for F {
    fn changed(&self, changes: Vec<Change>) {
        self(changes);
    }
}

/// A transaction, for those who measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub jobs: usize,
    pub committed: bool,
    /// From its begin to its end, its jobs' work included.
    pub took: Duration,
    /// How long its commit alone took: what the disk needs.
    pub commit: Duration,
}

/// A write transaction: a connection to query, and a list of what was changed.
pub struct Tx<'a> {
    connection: &'a Connection,
    changes: Vec<Change>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        let changes = Vec::new();
        Self { connection, changes }
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Remembers a change, to be told to the farm once it is durable.
    pub fn note(&mut self, change: Change) {
        self.changes.push(change);
    }
}

impl Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

/// Resolves, with an error, when the writer has ended and closed the database.
pub type Writing = oneshot::Receiver<()>;

/// Starts the thread, or in its place a task. It ends when the last handle is dropped and what was queued is done.
pub(super) fn start(connection: Connection, aside: Aside, sink: impl Sink) -> Result<(Writer, Writing), StoreError> {
    let (jobs, mut queue) = mpsc::channel(QUEUE);
    let (end, writing) = oneshot::channel();
    match aside {
        Aside::InPlace => drop(tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                run_all(&connection, first, &mut queue, &sink);
            }
            drop((connection, end));
        })),
        Aside::Threads => {
            let thread = std::thread::Builder::new().name("store-writer".to_owned());
            let run = move || {
                while let Some(first) = queue.blocking_recv() {
                    run_all(&connection, first, &mut queue, &sink);
                }
                drop((connection, end));
            };
            let started = thread.spawn(run);
            started.map_err(|e| StoreError::Commit(format!("can't start the writer thread: {e}")))?;
        }
    }
    Ok((Writer { jobs }, writing))
}

impl Writer {
    pub(super) async fn write<T, E>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let result = tx.map(work);
            let keep = matches!(result, Some(Ok(_)));
            let respond: Answer = Box::new(move |committed| {
                // A refusal too waits for the commit: it may rest on what an earlier job of the group wrote.
                let result = match (committed, result) {
                    (Ok(()), Some(result)) => result,
                    // Its own error says more than that the transaction is gone.
                    (Err(_), Some(Err(error))) => Err(error),
                    (Err(error), _) => Err(refused(error).into()),
                    (Ok(()), None) => Err(StoreError::Closed.into()),
                };
                // Whoever asked may be gone; what was done stays done.
                let _ = answer.send(result);
            });
            (keep, respond)
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// What each job of a group hears when its transaction can't be committed.
fn refused(error: &rusqlite::Error) -> StoreError {
    if is_full(error) {
        StoreError::Full
    } else {
        StoreError::Commit(error.to_string())
    }
}

/// Runs a job and those that wait behind it.
fn run_all(connection: &Connection, first: Job, queue: &mut mpsc::Receiver<Job>, sink: &impl Sink) {
    let mut group = vec![first];
    while group.len() < MAX_GROUP {
        match queue.try_recv() {
            Ok(job) => group.push(job),
            Err(_) => break,
        }
    }
    run_group(connection, group, sink);
}

fn run_group(connection: &Connection, group: Vec<Job>, sink: &impl Sink) {
    let (jobs, begun) = (group.len(), Instant::now());
    let mut changes = Vec::new();
    let mut answers = Vec::with_capacity(group.len());
    let mut broken = execute(connection, "BEGIN IMMEDIATE").err();
    for job in group {
        let (answer, result) = match broken {
            None => run_job(connection, job, &mut changes),
            Some(_) => (job(None).1, Ok(())),
        };
        answers.push(answer);
        broken = broken.or(result.err());
    }
    failpoint::pass(Point::BeforeCommit);
    let worked = Instant::now();
    let committed = match broken {
        None => connection.execute_batch("COMMIT"),
        Some(error) => Err(error),
    };
    sink.ended(Group {
        jobs,
        committed: committed.is_ok(),
        took: begun.elapsed(),
        commit: worked.elapsed(),
    });
    match &committed {
        Ok(()) => {
            failpoint::pass(Point::AfterCommit);
            sink.changed(changes);
        }
        Err(error) => {
            tracing::error!(%error, "the database refused a transaction; its requests are told so");
            // Some errors have rolled back already.
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "can't roll back");
            }
        }
    }
    failpoint::pass(Point::BeforeAnswer);
    for answer in answers {
        answer(committed.as_ref().copied());
    }
}

/// Runs one job in a savepoint. The error is the savepoint's own, and spoils the whole group.
fn run_job(connection: &Connection, job: Job, changes: &mut Vec<Change>) -> (Answer, rusqlite::Result<()>) {
    if let Err(error) = execute(connection, "SAVEPOINT job") {
        return (job(None).1, Err(error));
    }
    let mut tx = Tx::new(connection);
    let (keep, answer) = job(Some(&mut tx));
    let end = if keep {
        changes.extend(tx.into_changes());
        execute(connection, "RELEASE job")
    } else {
        connection.execute_batch("ROLLBACK TO job; RELEASE job")
    };
    (answer, end)
}

/// Runs a statement that recurs with every job, and so is prepared once.
fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

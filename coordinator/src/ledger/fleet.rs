//! What is remembered of workers: what they are and have, and what the farm thinks of them.

use klp_livepatch::Reason;
use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Cause, Failure};
use klp_livepatch::task::AttemptId;

use super::settle::{self, set_aside};
use super::{Now, record};
use crate::lifecycle::{Retry, State};
use crate::standing::{Drain, Policy, Standing};
use crate::store::{self, Change, Registration, StoreError, Tx};

/// Records workers' registrations. What an earlier incarnation lost, it lost by dying.
///
/// # Errors
/// The database's.
pub fn register(
    tx: &mut Tx<'_>,
    workers: &[(WorkerName, Registration)],
    retry: &Retry,
    now: Now,
) -> Result<(), StoreError> {
    for (name, registration) in workers {
        let before = store::incarnation(tx, name)?;
        store::register(tx, name, registration, now.ms)?;
        if let Some(former) = before.filter(|former| *former != registration.incarnation) {
            for attempt in store::bury_lost(tx, name, former)? {
                blame(tx, attempt, retry, now)?;
            }
        }
    }
    Ok(())
}

/// Counts one more death of a worker against an open task, unless the task was given a new chance since.
fn blame(tx: &mut Tx<'_>, lost: AttemptId, retry: &Retry, now: Now) -> Result<(), StoreError> {
    let Some(task) = store::open_task(tx, lost.task)? else {
        return Ok(());
    };
    if store::faults_since(tx, lost)? > task.status.faults {
        return Ok(());
    }
    let Some(status) = task.status.blame(retry) else {
        return Ok(());
    };
    if status.is_open() {
        let why = Failure::new(Cause::Farm, "a worker that lost it is known to have died");
        let message = format!("{}: {}", task.key, why.message);
        let waits = matches!(status.state, State::Waiting { .. });
        return record(tx, &task, status, waits.then_some(&why), &message, now);
    }
    let failure = Failure::new(Cause::Farm, set_aside(tx, &task)?);
    let message = format!("{} failed ({}): {}", task.key, failure.cause, failure.message);
    record(tx, &task, status, Some(&failure), &message, now)?;
    settle::follow_up(tx, &task, now)
}

/// Has a worker take nothing new until it is undrained; `None` if no such worker ever registered.
///
/// # Errors
/// The database's.
pub fn drain(tx: &mut Tx<'_>, worker: &WorkerName, reason: &Reason, now: Now) -> Result<Option<()>, StoreError> {
    let Some(standing) = store::standing(tx, worker)? else {
        return Ok(None);
    };
    let since = standing.drain.as_ref().map_or(now.ms, |d| d.since);
    let drain = Some(Drain {
        since,
        reason: reason.to_string(),
    });
    think(tx, worker, Standing { drain, ..standing }).map(Some)
}

/// Takes a drain and a quarantine back; `None` if no such worker ever registered.
///
/// # Errors
/// The database's.
pub fn undrain(tx: &mut Tx<'_>, worker: &WorkerName) -> Result<Option<()>, StoreError> {
    match store::standing(tx, worker)? {
        None => Ok(None),
        Some(_) => think(tx, worker, Standing::default()).map(Some),
    }
}

/// Why a worker was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("no worker `{0}` ever registered")]
    Unknown(WorkerName),
    #[error("worker `{0}` holds a lease; wait until it has run out, or cancel what it runs")]
    Holds(WorkerName),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for ForgetError {
    fn from(error: rusqlite::Error) -> Self {
        ForgetError::Store(error.into())
    }
}

/// Forgets a worker that holds nothing, and its trees.
///
/// # Errors
/// There is none, or it holds a lease.
pub fn forget(tx: &mut Tx<'_>, worker: &WorkerName) -> Result<(), ForgetError> {
    if store::standing(tx, worker)?.is_none() {
        return Err(ForgetError::Unknown(worker.clone()));
    }
    if store::holds_lease(tx, worker)? {
        return Err(ForgetError::Holds(worker.clone()));
    }
    store::forget_worker(tx, worker)?;
    let name = worker.clone();
    tx.note(Change::Forgotten { name });
    Ok(())
}

/// A worker failed an attempt by the farm's fault, or lost some.
pub(super) fn fault(
    tx: &mut Tx<'_>,
    worker: &WorkerName,
    what: &str,
    policy: &Policy,
    now: Now,
) -> Result<(), StoreError> {
    let Some(standing) = store::standing(tx, worker)? else {
        return Ok(());
    };
    think(tx, worker, standing.after_fault(what, policy, now.ms, now.noise()))
}

/// A worker ended an attempt as it should.
pub(super) fn success(tx: &mut Tx<'_>, worker: &WorkerName) -> Result<(), StoreError> {
    let standing = store::standing(tx, worker)?;
    match standing.and_then(|standing| standing.after_success()) {
        Some(standing) => think(tx, worker, standing),
        None => Ok(()),
    }
}

fn think(tx: &mut Tx<'_>, worker: &WorkerName, standing: Standing) -> Result<(), StoreError> {
    store::set_standing(tx, worker, &standing)?;
    let name = worker.clone();
    tx.note(Change::Worker { name, standing });
    Ok(())
}

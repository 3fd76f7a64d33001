//! The transactions: everything that changes what the farm knows. Each is one function over a write transaction that
//! reads the state, lets the pure parts decide, and records state and event together.

pub mod access;
mod control;
mod extract;
mod fixes;
mod fleet;
mod lease;
mod settle;
mod submit;

use std::sync::Arc;

use klp_livepatch::outcome::Failure;
use klp_livepatch::task::{LivepatchId, TaskId};

pub use control::{ChangeError, Selection, cancel, pause, resume, retry, set_share};
pub use extract::{Extraction, extract};
pub use fixes::idle_fixes;
pub use fleet::{ForgetError, drain, forget, register, undrain};
pub use lease::{Grant, lease};
pub use settle::{CommitError, Committing, Disposition, Loss, Rules, commit, lose};
pub use submit::{Submission, SubmitError, platforms, submit};

use crate::lifecycle::{Millis, Status};
use crate::plan::Next;
use crate::store::{self, Change, NewTask, OpenTask, StoreError, Tx};

/// What transactions are given so that they need no clock and no randomness of their own.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub ms: Millis,
    /// Its low bits are random: for jitter, and for the ids of what is created.
    pub seed: u128,
}

impl Now {
    fn noise(&self) -> u16 {
        // The low bits; truncation is meant.
        self.seed as u16
    }

    /// The `n`th id of this transaction: a UUID of version 7, whose time makes it sort by creation.
    fn id(&self, n: u64) -> TaskId {
        let noise = self.seed.wrapping_add(u128::from(n)).to_be_bytes();
        let mut random = [0; 10];
        random.copy_from_slice(&noise[6..]);
        TaskId(uuid::Builder::from_unix_timestamp_millis(self.ms.unsigned_abs(), &random).into_uuid())
    }
}

impl Now {
    /// The time from `clock`, with fresh random bits.
    pub fn of(clock: &crate::clock::Clock) -> Self {
        Self {
            ms: clock.now(),
            seed: clock.roll(),
        }
    }
}

/// Creates those of the planned tasks that do not exist.
fn create(
    tx: &mut Tx<'_>,
    livepatch: LivepatchId,
    tasks: impl IntoIterator<Item = Next>,
    now: Now,
) -> Result<(), StoreError> {
    for (n, Next { key, input }) in (0..).zip(tasks) {
        let id = now.id(n);
        let new = NewTask {
            id,
            livepatch,
            key: &key,
            input: input.as_ref(),
        };
        if store::insert_task(tx, new, now.ms)? {
            let seq = tx.last_insert_rowid();
            tx.note(Change::Task(OpenTask {
                id,
                livepatch,
                key,
                seq,
                created: now.ms,
                status: Status::NEW,
                input: input.map(Arc::new),
                avoid: Default::default(),
            }));
        }
    }
    Ok(())
}

/// Records a task's new status, with an event that says so.
fn record(
    tx: &mut Tx<'_>,
    task: &OpenTask,
    status: Status,
    failure: Option<&Failure>,
    message: &str,
    now: Now,
) -> Result<(), StoreError> {
    store::update_task(tx, task.id, &status, failure, now.ms)?;
    let about = Some((task.id, &status, failure));
    store::append_event(tx, task.livepatch, now.ms, message, about, false)?;
    let avoid = if status.faults > 0 {
        store::faulty_workers(tx, task.id)?
    } else {
        Default::default()
    };
    tx.note(Change::Task(OpenTask {
        id: task.id,
        livepatch: task.livepatch,
        key: task.key.clone(),
        seq: task.seq,
        created: task.created,
        status,
        input: task.input.clone(),
        avoid,
    }));
    Ok(())
}

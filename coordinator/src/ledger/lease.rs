//! Leasing tasks to workers. The lease is durable before the worker hears of it.

use klp_livepatch::task::{AttemptId, TaskId};

use super::{Now, record};
use crate::lifecycle::{Holder, State};
use crate::store::{self, StoreError, Tx};

/// A task to be given to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub task: TaskId,
    pub to: Holder,
}

/// Leases each task that is still there to be leased; the others are left alone, since whoever scheduled them looked at
/// a state that has passed.
///
/// # Errors
/// The database's.
pub fn lease(tx: &mut Tx<'_>, grants: Vec<Grant>, lease_ms: u32, now: Now) -> Result<(), StoreError> {
    for grant in grants {
        let Some(task) = store::open_task(tx, grant.task)? else {
            continue;
        };
        // Forgotten meanwhile, or started anew: nobody would be told after a restart.
        if store::incarnation(tx, &grant.to.worker)? != Some(grant.to.incarnation) {
            continue;
        }
        let Some(status) = task.status.lease(grant.to, now.ms, lease_ms) else {
            continue;
        };
        let State::Leased(lease) = &status.state else { continue };
        let id = AttemptId {
            task: task.id,
            number: status.attempt,
        };
        store::insert_attempt(tx, id, lease, now.ms)?;
        let again = if id.number > 1 {
            format!(", attempt {}", id.number)
        } else {
            String::new()
        };
        let message = format!("{} started on {}{again}", task.key, lease.holder.worker);
        record(tx, &task, status, None, &message, now)?;
    }
    Ok(())
}

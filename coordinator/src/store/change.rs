//! What a transaction changed, for those who keep a view of the database in memory or wait for news.

use std::collections::BTreeSet;
use std::sync::Arc;

use klp_livepatch::names::WorkerName;
use klp_livepatch::round::Input;
use klp_livepatch::task::{LivepatchId, TaskId, TaskKey};

use super::livepatches::OpenLivepatch;
use crate::lifecycle::{Millis, Status};
use crate::standing::Standing;

#[derive(Clone, Debug)]
pub enum Change {
    /// A livepatch is open, or open again.
    Opened(OpenLivepatch),
    /// A livepatch has no open task any more.
    Ended { livepatch: LivepatchId },
    /// A task is now as this says.
    Task(OpenTask),
    /// A worker is thought of like this from now on.
    Worker { name: WorkerName, standing: Standing },
    /// A worker is forgotten.
    Forgotten { name: WorkerName },
    /// The livepatch has an event of this number.
    Event { livepatch: LivepatchId, number: u64 },
}

/// A task as the farm keeps it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTask {
    pub id: TaskId,
    pub livepatch: LivepatchId,
    pub key: TaskKey,
    /// Order of creation.
    pub seq: i64,
    pub created: Millis,
    pub status: Status,
    /// What it is told beyond the spec.
    pub input: Option<Arc<Input>>,
    /// Workers on which it failed by the farm's fault.
    pub avoid: BTreeSet<WorkerName>,
}

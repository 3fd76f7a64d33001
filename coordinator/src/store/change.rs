//! What a transaction changed, for those who keep a view of the database in memory or wait for news.

use std::collections::BTreeSet;
use std::sync::Arc;

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::Cause;
use klp_livepatch::round::Input;
use klp_livepatch::task::{LivepatchId, TaskId, TaskKey, TaskKind};

use super::access::{CertificateRow, TokenRow};
use super::livepatches::OpenLivepatch;
use crate::lifecycle::{AttemptState, Millis, State, Status};
use crate::standing::Standing;

#[derive(Clone, Debug)]
pub enum Change {
    /// A livepatch is open, or open again.
    Opened(OpenLivepatch),
    /// A livepatch has no open task any more.
    Ended { livepatch: LivepatchId },
    /// A task is now as this says.
    Task(OpenTask),
    /// An attempt has ended. What became of its task is told after this.
    Attempt(EndedAttempt),
    /// A worker is thought of like this from now on.
    Worker { name: WorkerName, standing: Standing },
    /// A worker is forgotten.
    Forgotten { name: WorkerName },
    /// The livepatch has an event of this number.
    Event { livepatch: LivepatchId, number: u64 },
    /// A token is now as this says.
    Token(TokenRow),
    /// A worker's certificate is now as this says.
    Certificate(CertificateRow),
}

/// An attempt's end, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedAttempt {
    pub livepatch: LivepatchId,
    pub kind: TaskKind,
    pub state: AttemptState,
    /// Whose matter it is that it failed.
    pub cause: Option<Cause>,
    /// Its task is to be tried again.
    pub again: bool,
    /// From its lease on, in milliseconds.
    pub lasted: Millis,
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

impl OpenTask {
    /// Since when it could run: from its creation on, or from the end of its last pause.
    pub fn ready_since(&self) -> Millis {
        match self.status.state {
            State::Waiting { not_before } => self.created.max(not_before),
            _ => self.created,
        }
    }
}

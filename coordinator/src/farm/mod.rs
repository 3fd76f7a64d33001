//! The farm at work: one task that keeps in memory what the database says is open and what workers say of themselves,
//! and lets the pure parts decide. What it knows of tasks is a fold over the store's [`Change`]s, from the first read at
//! start on, so it never holds an opinion of its own.
//!
//! A round of its loop: take in all that has come; take attempts from workers that are lost; lease ready tasks to free
//! slots; tell each worker what it should be doing. Rounds are driven by what comes in, and by the clock at the latest.
//!
//! Renewals of leases stay in memory. After a restart every lease is renewed once, so that a worker that carried on
//! meanwhile is re-adopted; what commits is decided by attempt and holder, never by the clock.

mod actor;
pub mod mind;
mod pace;
mod roster;
mod trace;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Spec;
use klp_livepatch::task::{AttemptId, LivepatchId, TaskId, TaskKey};
use klp_telemetry::TraceParent;
use tokio::sync::{mpsc, oneshot, watch};

pub use actor::start;
pub use roster::WorkerView;
pub use waiting::{For, Waiting};

use crate::store::{Change, Registration};

/// What a worker says of itself: all of it, each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub worker: WorkerName,
    pub registration: Registration,
    /// What it runs or has not yet committed.
    pub attempts: Vec<Running>,
    pub draining: bool,
    /// The version of the protocol that its session is in.
    pub protocol: u32,
}

/// An attempt as its worker tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub attempt: AttemptId,
    /// What it is doing.
    pub progress: String,
    /// It has not begun: it waits for a slot.
    pub waiting: bool,
}

/// An attempt a worker should be running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub livepatch: LivepatchId,
    pub attempt: AttemptId,
    pub key: TaskKey,
    pub spec: Arc<Spec>,
    /// What it is told beyond the spec.
    pub input: Option<Arc<klp_livepatch::round::Input>>,
    /// Nobody stored it; somebody waits for it.
    pub tryout: bool,
    /// The span that the attempt is below.
    pub parent: TraceParent,
}

/// What the farm says to a session; only the newest counts.
#[derive(Clone, Debug)]
pub enum Signal {
    /// Nothing yet.
    Silence,
    /// All the worker should be doing.
    Orders(Arc<[Order]>),
    /// Another session speaks for this worker.
    Replaced(String),
}

/// What is known of an open task beyond the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Why it waits; empty if it does not.
    pub waiting_for: String,
    /// What its attempt is doing.
    pub progress: String,
}

/// That the farm's loop goes on, and how much there is of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Those with a session.
    pub workers: usize,
    /// Those that have not ended.
    pub livepatches: usize,
    /// Likewise.
    pub tasks: usize,
    /// Those tasks that are being run.
    pub leased: usize,
}

/// What a session is to be told.
pub struct Answer {
    #[cfg_attr(not(test), expect(dead_code, reason = "simulated wires go by it"))]
    pub session: SessionId,
    pub signals: watch::Sender<Signal>,
    pub orders: Vec<Order>,
    pub worker: WorkerName,
}

/// What the farm's loop takes in.
pub enum Input {
    Changes(Vec<Change>),
    Report {
        session: SessionId,
        signals: watch::Sender<Signal>,
        report: Box<Report>,
    },
    Closed {
        session: SessionId,
        worker: WorkerName,
    },
    /// There is something to tell this worker.
    Nudge(WorkerName),
    Workers(oneshot::Sender<Vec<WorkerView>>),
    Waiting(oneshot::Sender<Vec<Waiting>>),
    Pulse(oneshot::Sender<Pulse>),
    Live {
        tasks: Vec<TaskId>,
        answer: oneshot::Sender<HashMap<TaskId, Live>>,
    },
}

/// Later sessions have higher ids.
pub type SessionId = u64;

/// The channel into the farm's loop. Unbounded, but what is in it is bounded by open sessions and open requests: each
/// waits for its answer before it sends again.
pub type Inbox = mpsc::UnboundedSender<Input>;

/// A handle to the farm; cheap to clone.
#[derive(Clone)]
pub struct Farm {
    inbox: Inbox,
    sessions: Arc<AtomicU64>,
}

impl Farm {
    pub(crate) fn new(inbox: Inbox) -> Self {
        let sessions = Arc::default();
        Self { inbox, sessions }
    }

    /// Opens a session for a worker that is yet to say who it is.
    pub fn open_session(&self) -> Session {
        Session {
            id: self.sessions.fetch_add(1, Ordering::Relaxed) + 1,
            inbox: self.inbox.clone(),
            signals: watch::Sender::new(Signal::Silence),
            worker: None,
        }
    }

    /// All workers that ever registered, by name. Empty while the farm shuts down.
    pub async fn workers(&self) -> Vec<WorkerView> {
        let (answer, answered) = oneshot::channel();
        // A farm that is gone drops the answer, which is noticed below.
        let _ = self.inbox.send(Input::Workers(answer));
        answered.await.unwrap_or_default()
    }

    /// What all waiting tasks wait for, the most tasks first. Empty while the farm shuts down.
    pub async fn waiting(&self) -> Vec<Waiting> {
        let (answer, answered) = oneshot::channel();
        let _ = self.inbox.send(Input::Waiting(answer));
        answered.await.unwrap_or_default()
    }

    /// Answered by the loop itself, as soon as it comes to it; `None` while the farm shuts down.
    pub async fn pulse(&self) -> Option<Pulse> {
        let (answer, answered) = oneshot::channel();
        let _ = self.inbox.send(Input::Pulse(answer));
        answered.await.ok()
    }

    /// Has a worker told anew what it should be doing.
    pub fn nudge(&self, worker: &WorkerName) {
        // A farm that is gone tells nobody anything.
        let _ = self.inbox.send(Input::Nudge(worker.clone()));
    }

    /// What is known of those of the tasks that are open.
    pub async fn live(&self, tasks: Vec<TaskId>) -> HashMap<TaskId, Live> {
        let (answer, answered) = oneshot::channel();
        let _ = self.inbox.send(Input::Live { tasks, answer });
        answered.await.unwrap_or_default()
    }
}

/// A worker's session; the farm hears when it is dropped.
pub struct Session {
    id: SessionId,
    inbox: Inbox,
    signals: watch::Sender<Signal>,
    worker: Option<WorkerName>,
}

impl Session {
    /// Hears what the farm says to this session.
    pub fn signals(&self) -> watch::Receiver<Signal> {
        self.signals.subscribe()
    }

    /// Tells the farm what the worker says. The answer comes as a signal.
    pub fn report(&mut self, report: Report) {
        self.worker = Some(report.worker.clone());
        // A farm that is gone has ended the session by then.
        let _ = self.inbox.send(Input::Report {
            session: self.id,
            signals: self.signals.clone(),
            report: Box::new(report),
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            let _ = self.inbox.send(Input::Closed {
                session: self.id,
                worker,
            });
        }
    }
}

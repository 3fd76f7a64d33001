//! What is open, folded from the store's changes, and the facts to be counted that follow from each change. Pure: time
//! comes in, facts go out.

use std::collections::HashMap;

use klp_livepatch::outcome::Cause;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::{LivepatchId, TaskId, TaskKind};

use crate::lifecycle::{AttemptState, Millis, State};
use crate::store::{Change, EndedAttempt, Open, OpenLivepatch, OpenTask};

/// What an open task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Running,
}

impl Phase {
    pub const ALL: [Phase; 2] = [Phase::Waiting, Phase::Running];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Running => "running",
        }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Succeeded,
    Failed,
    Cancelled,
}

impl End {
    pub const ALL: [End; 3] = [End::Succeeded, End::Failed, End::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            End::Succeeded => "succeeded",
            End::Failed => "failed",
            End::Cancelled => "cancelled",
        }
    }
}

/// Why a task is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Its attempt ended like this.
    After(AttemptState),
    /// A user asked for it.
    Asked,
}

/// Something to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// One task more, or one less.
    Open {
        kind: TaskKind,
        phase: Phase,
        more: bool,
    },
    Ended {
        kind: TaskKind,
        end: End,
    },
    /// A task was given to a worker, so long after it could have been, in milliseconds.
    Dispatched {
        kind: TaskKind,
        after: Millis,
    },
    Attempt {
        ended: EndedAttempt,
        /// The tool it ran, if it ran one.
        backend: Option<Backend>,
    },
    Again(Again),
    /// One livepatch more, or one less.
    Livepatch {
        paused: bool,
        more: bool,
    },
    LivepatchEnded,
}

/// As little as will do: there may be a hundred thousand.
#[derive(Clone, Copy)]
struct Task {
    phase: Phase,
    kind: TaskKind,
    /// Since when it can run, while it waits.
    ready: Millis,
}

struct Livepatch {
    backend: Backend,
    paused: bool,
    /// When its last pause ended.
    resumed: Millis,
}

/// A fold over changes.
#[derive(Default)]
pub struct Tally {
    tasks: HashMap<TaskId, Task>,
    livepatches: HashMap<LivepatchId, Livepatch>,
}

impl Tally {
    /// Takes in what was open before any change.
    pub fn begin(&mut self, open: &Open, tell: &mut impl FnMut(Fact)) {
        for livepatch in &open.livepatches {
            self.open(livepatch, 0, tell);
        }
        for task in &open.tasks {
            let (phase, ready) = match task.status.state {
                State::Waiting { .. } => (Phase::Waiting, task.ready_since()),
                State::Leased(_) => (Phase::Running, 0),
                State::Succeeded | State::Failed | State::Cancelled => continue,
            };
            self.put(task, phase, ready, tell);
        }
    }

    /// Takes in a change that became durable at `now`.
    pub fn take_in(&mut self, change: &Change, now: Millis, tell: &mut impl FnMut(Fact)) {
        match change {
            Change::Opened(livepatch) => self.open(livepatch, now, tell),
            Change::Ended { livepatch } => {
                if let Some(Livepatch { paused, .. }) = self.livepatches.remove(livepatch) {
                    tell(Fact::Livepatch { paused, more: false });
                }
                tell(Fact::LivepatchEnded);
            }
            Change::Attempt(ended) => {
                let ended = *ended;
                let livepatch = self.livepatches.get(&ended.livepatch);
                let backend = match ended.kind {
                    TaskKind::Check | TaskKind::Verify => None,
                    TaskKind::Extract => livepatch.map(|l| l.backend),
                };
                tell(Fact::Attempt { ended, backend });
                if ended.again {
                    tell(Fact::Again(Again::After(ended.state)));
                }
            }
            Change::Task(task) => self.task(task, now, tell),
            Change::Worker { .. }
            | Change::Forgotten { .. }
            | Change::Event { .. }
            | Change::Token(_)
            | Change::Certificate(_) => {}
        }
    }

    fn open(&mut self, livepatch: &OpenLivepatch, now: Millis, tell: &mut impl FnMut(Fact)) {
        let paused = livepatch.pause.is_some();
        let before = self.livepatches.get(&livepatch.id);
        let resumed = match before {
            Some(before) if before.paused && !paused => now,
            Some(before) => before.resumed,
            None => 0,
        };
        if let Some(before) = before {
            let paused = before.paused;
            tell(Fact::Livepatch { paused, more: false });
        }
        tell(Fact::Livepatch { paused, more: true });
        let kept = Livepatch {
            backend: livepatch.spec.backend,
            paused,
            resumed,
        };
        self.livepatches.insert(livepatch.id, kept);
    }

    fn task(&mut self, task: &OpenTask, now: Millis, tell: &mut impl FnMut(Fact)) {
        let kind = task.key.kind;
        let before = self.tasks.remove(&task.id);
        if let Some(Task { phase, kind, .. }) = before {
            tell(Fact::Open {
                kind,
                phase,
                more: false,
            });
        }
        let end = match &task.status.state {
            State::Waiting { not_before } => {
                if before.is_none() && task.status.attempt > 0 {
                    tell(Fact::Again(Again::Asked));
                }
                // One that only changes while it waits has waited since before.
                let since = before.filter(|b| b.phase == Phase::Waiting).map_or(now, |b| b.ready);
                return self.put(task, Phase::Waiting, since.max(*not_before), tell);
            }
            State::Leased(_) => {
                if let Some(Task {
                    phase: Phase::Waiting,
                    ready,
                    ..
                }) = before
                {
                    let resumed = self.livepatches.get(&task.livepatch).map_or(0, |l| l.resumed);
                    let after = (now - ready.max(resumed)).max(0);
                    tell(Fact::Dispatched { kind, after });
                }
                return self.put(task, Phase::Running, 0, tell);
            }
            State::Succeeded => End::Succeeded,
            State::Failed => End::Failed,
            State::Cancelled => End::Cancelled,
        };
        tell(Fact::Ended { kind, end });
    }

    fn put(&mut self, task: &OpenTask, phase: Phase, ready: Millis, tell: &mut impl FnMut(Fact)) {
        let kind = task.key.kind;
        self.tasks.insert(task.id, Task { phase, kind, ready });
        tell(Fact::Open {
            kind,
            phase,
            more: true,
        });
    }
}

/// Whose matter an attempt's end is, where it is anybody's: what comes back unstarted is nobody's fault.
pub fn blamed(ended: &EndedAttempt) -> Option<Cause> {
    match ended.state {
        AttemptState::Failed | AttemptState::Lost | AttemptState::Died => ended.cause,
        AttemptState::Leased
        | AttemptState::Succeeded
        | AttemptState::HandedBack
        | AttemptState::TakenBack
        | AttemptState::Cancelled => None,
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
pub mod tests;

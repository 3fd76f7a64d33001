//! The state machine of a task and its attempts. Pure: every function takes the state as it is, the time, and what
//! happened, and answers the state as it becomes.
//!
//! A task waits, is leased to a worker for one attempt, and ends or waits again. Users may cancel it while it is open and
//! give it a new chance after it failed. Attempts are numbered, and the number
//! fences: only the newest attempt, and only by whoever was given it, can move the task.

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::task::Incarnation;

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

/// All that decides what may happen to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The newest attempt's number; 0 before the first.
    pub attempt: u32,
    /// How many attempts failed by the farm's fault, since the task was new or given a new chance.
    pub faults: u32,
    /// How many of these ended with their worker's process: the task may be what takes workers down.
    pub deaths: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// For a worker, from `not_before` on.
    Waiting {
        not_before: Millis,
    },
    Leased(Lease),
    Succeeded,
    Failed,
    /// A user wants it no more.
    Cancelled,
}

/// The right to run a task's newest attempt and to commit its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub holder: Holder,
    /// Renewals are kept in memory only: after a restart every lease is renewed once, see [`crate::farm`].
    pub expires: Millis,
}

/// One run of a worker's process. A new incarnation of the same worker holds nothing of the old one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub worker: WorkerName,
    pub incarnation: Incarnation,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    Leased,
    Succeeded,
    Failed,
    HandedBack,
    /// Its worker was stopping and had not started it. Whatever it commits later is superseded, here and below.
    TakenBack,
    /// Its lease expired.
    Lost,
    /// Its worker's process ended while it ran.
    Died,
    Cancelled,
}

impl AttemptState {
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptState::Leased => "leased",
            AttemptState::Succeeded => "succeeded",
            AttemptState::Failed => "failed",
            AttemptState::HandedBack => "handed-back",
            AttemptState::TakenBack => "taken-back",
            AttemptState::Lost => "lost",
            AttemptState::Died => "died",
            AttemptState::Cancelled => "cancelled",
        }
    }
}

/// How a worker came to lose an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its lease ran out: the worker may still be running it.
    Expired,
    /// The worker started anew while it ran.
    Died,
    /// The worker had not started it: nobody's fault.
    Unstarted,
}

/// How failures by the farm's fault are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// With this many faults the task fails.
    pub fault_limit: u32,
    /// With this many attempts whose worker died the task fails: it is set aside.
    pub death_limit: u32,
    /// Pause before the first retry, doubled for each further one.
    pub backoff_ms: u32,
    pub backoff_max_ms: u32,
}

impl Retry {
    /// The pause after the `faults`th fault: of the doubled pauses, between half and all, as `noise` says, so that
    /// tasks that failed together do not come back together.
    pub(crate) fn pause(&self, faults: u32, noise: u16) -> Millis {
        let doublings = faults.saturating_sub(1).min(32);
        let full = (u64::from(self.backoff_ms) << doublings).min(self.backoff_max_ms.into());
        let jittered = full / 2 + (full - full / 2) * u64::from(noise) / u64::from(u16::MAX);
        // At most u32::MAX.
        jittered as Millis
    }
}

/// A move of a task that ends its newest attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub task: Status,
    pub attempt: AttemptState,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
}

impl Step {
    /// Whether the task failed because it took down its workers, and for no reason of its own.
    pub fn sets_aside(&self, retry: &Retry) -> bool {
        let farms = self.failure.as_ref().is_some_and(|f| f.cause == Cause::Farm);
        farms && self.task.state == State::Failed && self.task.deaths >= retry.death_limit
    }
}

/// What a commit comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    Accepted(Step),
    /// This attempt's outcome is recorded already.
    Repeated,
    /// Nothing changes: the attempt is not the task's newest, was lost, or was never the committer's.
    Superseded,
}

impl Status {
    pub const NEW: Status = Status {
        state: State::Waiting { not_before: 0 },
        attempt: 0,
        faults: 0,
        deaths: 0,
    };

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Leased(_))
    }

    /// Leases the task for its next attempt; `None` if it is not there to be leased now.
    pub fn lease(&self, holder: Holder, now: Millis, lease_ms: u32) -> Option<Status> {
        match self.state {
            State::Waiting { not_before } if not_before <= now => Some(Status {
                state: State::Leased(Lease {
                    holder,
                    expires: now + Millis::from(lease_ms),
                }),
                attempt: self.attempt + 1,
                ..*self
            }),
            _ => None,
        }
    }

    /// Ends attempt `number`, which is known to be `attempt` and to have been given to `given_to`, as `by` says.
    #[expect(clippy::too_many_arguments, reason = "pure: all that decides comes in")]
    pub fn commit(
        &self,
        number: u32,
        attempt: AttemptState,
        given_to: &Holder,
        by: &Holder,
        ending: &Ending,
        retry: &Retry,
        now: Millis,
        noise: u16,
    ) -> Commit {
        if given_to != by {
            return Commit::Superseded;
        }
        match attempt {
            AttemptState::TakenBack | AttemptState::Lost | AttemptState::Died | AttemptState::Cancelled => {
                Commit::Superseded
            }
            AttemptState::Succeeded | AttemptState::Failed | AttemptState::HandedBack => Commit::Repeated,
            AttemptState::Leased if !self.is_leased_for(number) => Commit::Superseded,
            AttemptState::Leased => Commit::Accepted(self.end(ending, retry, now, noise)),
        }
    }

    /// Takes attempt `number` from its worker; `None` if the attempt is not running.
    pub fn take(
        &self,
        number: u32,
        taken: Taken,
        reason: &str,
        retry: &Retry,
        now: Millis,
        noise: u16,
    ) -> Option<Step> {
        if !self.is_leased_for(number) {
            return None;
        }
        let reason = reason.to_owned();
        let fault = |deaths| {
            let state = self.state.clone();
            let blamed = Status { state, deaths, ..*self };
            blamed.fault(Failure::new(Cause::Farm, reason.clone()), retry, now, noise)
        };
        let (attempt, step) = match taken {
            Taken::Unstarted => {
                let step = self.end(&Ending::HandedBack { reason }, retry, now, noise);
                (AttemptState::TakenBack, step)
            }
            Taken::Expired => (AttemptState::Lost, fault(self.deaths)),
            Taken::Died => (AttemptState::Died, fault(self.deaths + 1)),
        };
        Some(Step { attempt, ..step })
    }

    /// It has become known that the worker of an earlier, lost attempt, one of its faults, died while that ran. `None` if
    /// the task has ended, so that it does not matter any more.
    pub fn blame(&self, retry: &Retry) -> Option<Status> {
        let deaths = self.deaths + 1;
        let state = match &self.state {
            State::Waiting { .. } if deaths >= retry.death_limit => State::Failed,
            state @ (State::Waiting { .. } | State::Leased(_)) => state.clone(),
            State::Succeeded | State::Failed | State::Cancelled => return None,
        };
        Some(Status { state, deaths, ..*self })
    }

    /// Ends an open task because a user wants it no more.
    pub fn cancel(&self) -> Option<Status> {
        self.is_open().then_some(Status {
            state: State::Cancelled,
            ..*self
        })
    }

    /// Gives a task that failed or was cancelled a new chance. Its attempts are numbered on, so that none of the former
    /// ones can commit.
    pub fn renew_chance(&self) -> Option<Status> {
        matches!(self.state, State::Failed | State::Cancelled).then_some(Status {
            state: State::Waiting { not_before: 0 },
            attempt: self.attempt,
            faults: 0,
            deaths: 0,
        })
    }

    fn is_leased_for(&self, number: u32) -> bool {
        matches!(self.state, State::Leased(_)) && self.attempt == number
    }

    fn end(&self, ending: &Ending, retry: &Retry, now: Millis, noise: u16) -> Step {
        match ending {
            Ending::Succeeded => self.step(State::Succeeded, AttemptState::Succeeded, None),
            Ending::Failed(failure) if failure.cause == Cause::Farm => self.fault(failure.clone(), retry, now, noise),
            Ending::Failed(failure) => self.step(State::Failed, AttemptState::Failed, Some(failure.clone())),
            // Nobody's fault, so not counted; the pause keeps a worker that hands everything back from spinning.
            Ending::HandedBack { reason } => self.step(
                match self.deaths >= retry.death_limit {
                    // The last death became known while it ran.
                    true => State::Failed,
                    false => State::Waiting {
                        not_before: now + retry.pause(1, noise),
                    },
                },
                AttemptState::HandedBack,
                Some(Failure {
                    cause: Cause::Farm,
                    message: format!("handed back: {reason}"),
                }),
            ),
        }
    }

    /// One more fault: again after a pause, or never if that was the last.
    fn fault(&self, failure: Failure, retry: &Retry, now: Millis, noise: u16) -> Step {
        let faults = self.faults + 1;
        let given_up = |why: String| {
            let message = format!("{why}; the last: {}", failure.message);
            (State::Failed, Failure::new(Cause::Farm, message))
        };
        let (state, failure) = if self.deaths >= retry.death_limit {
            given_up(format!(
                "set aside after its worker died under it {}",
                times(self.deaths)
            ))
        } else if faults >= retry.fault_limit {
            given_up(format!("given up after {faults} faults of the farm"))
        } else {
            let not_before = now + retry.pause(faults, noise);
            (State::Waiting { not_before }, failure)
        };
        let mut step = self.step(state, AttemptState::Failed, Some(failure));
        step.task.faults = faults;
        step
    }

    fn step(&self, state: State, attempt: AttemptState, failure: Option<Failure>) -> Step {
        let task = Status { state, ..*self };
        Step { task, attempt, failure }
    }
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

impl Lease {
    /// The lease after its holder was heard of at `now`. Never shortens it.
    pub fn renew(&mut self, now: Millis, lease_ms: u32) {
        self.expires = self.expires.max(now + Millis::from(lease_ms));
    }

    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires <= now
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;

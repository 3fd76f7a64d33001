//! A task told as its history: where it stands follows from what became of its attempts.

use klp_livepatch::outcome::{Cause, Ending};

use crate::lifecycle::{AttemptState, Holder, Lease, Millis, Retry, State, Status, Taken};

#[derive(Clone, Debug, Default)]
pub struct Task {
    /// All there ever were, oldest first.
    pub attempts: Vec<Attempt>,
    /// How many of them a user has forgiven.
    forgiven: usize,
    /// How many deaths under it became known since.
    deaths: u32,
    /// When it may be tried again.
    rests_until: Millis,
    cancelled: bool,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub holder: Holder,
    pub started: Millis,
    pub expires: Millis,
    pub fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Running,
    /// As its worker reported.
    Succeeded,
    Failed(Cause),
    HandedBack,
    /// As the farm found.
    TakenBack,
    Lost,
    Died,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Waiting,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// What a worker hears of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Accepted,
    Repeated,
    Superseded,
}

impl Task {
    pub fn stand(&self, retry: &Retry) -> Stand {
        match self.attempts[self.forgiven..].last().map(|a| a.fate) {
            _ if self.cancelled => Stand::Cancelled,
            Some(Fate::Running) => Stand::Running,
            Some(Fate::Succeeded) => Stand::Succeeded,
            Some(Fate::Failed(Cause::Yours | Cause::Codestream)) => Stand::Failed,
            _ if self.deaths >= retry.death_limit || self.faults() >= retry.fault_limit => Stand::Failed,
            _ => Stand::Waiting,
        }
    }

    pub fn is_open(&self, retry: &Retry) -> bool {
        matches!(self.stand(retry), Stand::Waiting | Stand::Running)
    }

    /// Attempts that failed by the farm's fault and were not forgiven.
    pub fn faults(&self) -> u32 {
        let fault = |a: &&Attempt| matches!(a.fate, Fate::Failed(Cause::Farm) | Fate::Lost | Fate::Died);
        self.attempts[self.forgiven..].iter().filter(fault).count() as u32
    }

    /// Whether it failed because its workers died under it, and for no reason of its own.
    pub fn is_set_aside(&self, retry: &Retry) -> bool {
        let own = matches!(
            self.attempts.last().map(|a| a.fate),
            Some(Fate::Failed(Cause::Yours | Cause::Codestream))
        );
        self.stand(retry) == Stand::Failed && self.deaths >= retry.death_limit && !own
    }

    /// What the code under test should make of it.
    pub fn status(&self, retry: &Retry) -> Status {
        Status {
            state: match self.stand(retry) {
                Stand::Waiting => State::Waiting {
                    not_before: self.rests_until,
                },
                Stand::Running => {
                    let newest = self.attempts.last().unwrap();
                    State::Leased(Lease {
                        holder: newest.holder.clone(),
                        expires: newest.expires,
                    })
                }
                Stand::Succeeded => State::Succeeded,
                Stand::Failed => State::Failed,
                Stand::Cancelled => State::Cancelled,
            },
            attempt: self.attempts.len() as u32,
            faults: self.faults(),
            deaths: self.deaths,
        }
    }

    pub fn attempt(&self, number: u32) -> Option<&Attempt> {
        self.attempts.get((number as usize).checked_sub(1)?)
    }

    fn running(&mut self, number: u32) -> Option<&mut Attempt> {
        let attempt = self.attempts.get_mut((number as usize).checked_sub(1)?)?;
        (attempt.fate == Fate::Running).then_some(attempt)
    }

    pub fn lease(&mut self, holder: Holder, now: Millis, lease_ms: u32, retry: &Retry) -> bool {
        let free = self.stand(retry) == Stand::Waiting && self.rests_until <= now;
        if free {
            self.attempts.push(Attempt {
                holder,
                started: now,
                expires: now + Millis::from(lease_ms),
                fate: Fate::Running,
            });
        }
        free
    }

    /// The holder of an attempt was heard of. Only what runs has a lease.
    pub fn renew(&mut self, heard: Millis, lease_ms: u32) {
        let newest = self.attempts.len() as u32;
        if let Some(attempt) = self.running(newest) {
            attempt.expires = attempt.expires.max(heard + Millis::from(lease_ms));
        }
    }

    /// What `by` hears when it commits an attempt that there is.
    pub fn hears(&self, number: u32, by: &Holder) -> Heard {
        let attempt = self.attempt(number).unwrap();
        match attempt.fate {
            _ if attempt.holder != *by => Heard::Superseded,
            Fate::Running => Heard::Accepted,
            Fate::Succeeded | Fate::Failed(_) | Fate::HandedBack => Heard::Repeated,
            Fate::TakenBack | Fate::Lost | Fate::Died | Fate::Cancelled => Heard::Superseded,
        }
    }

    pub fn commit(
        &mut self,
        number: u32,
        by: &Holder,
        ending: &Ending,
        retry: &Retry,
        now: Millis,
        noise: u16,
    ) -> Heard {
        let heard = self.hears(number, by);
        if heard == Heard::Accepted {
            let fate = match ending {
                Ending::Succeeded => Fate::Succeeded,
                Ending::Failed(failure) => Fate::Failed(failure.cause),
                Ending::HandedBack { .. } => Fate::HandedBack,
            };
            self.end(number, fate, retry, now, noise);
        }
        heard
    }

    pub fn take(&mut self, number: u32, taken: Taken, retry: &Retry, now: Millis, noise: u16) -> bool {
        let runs = self.running(number).is_some();
        if runs {
            let fate = match taken {
                Taken::Expired => Fate::Lost,
                Taken::Died => Fate::Died,
                Taken::Unstarted => Fate::TakenBack,
            };
            self.deaths += u32::from(taken == Taken::Died);
            self.end(number, fate, retry, now, noise);
        }
        runs
    }

    /// The worker of a lost attempt turns out to have died. Answers whether that matters to the task any more.
    pub fn bury(&mut self, number: u32, retry: &Retry) -> bool {
        let matters = self.is_open(retry) && !self.is_forgiven(number);
        self.attempts[number as usize - 1].fate = Fate::Died;
        self.deaths += u32::from(matters);
        matters
    }

    pub fn is_forgiven(&self, number: u32) -> bool {
        number as usize <= self.forgiven
    }

    pub fn cancel(&mut self, retry: &Retry) -> bool {
        let open = self.is_open(retry);
        let newest = self.attempts.len() as u32;
        if let Some(attempt) = self.running(newest) {
            attempt.fate = Fate::Cancelled;
        }
        self.cancelled |= open;
        open
    }

    pub fn renew_chance(&mut self, retry: &Retry) -> bool {
        let in_vain = matches!(self.stand(retry), Stand::Failed | Stand::Cancelled);
        if in_vain {
            let attempts = std::mem::take(&mut self.attempts);
            let forgiven = attempts.len();
            *self = Task {
                attempts,
                forgiven,
                ..Task::default()
            };
        }
        in_vain
    }

    fn end(&mut self, number: u32, fate: Fate, retry: &Retry, now: Millis, noise: u16) {
        self.attempts[number as usize - 1].fate = fate;
        let pause = match fate {
            Fate::HandedBack | Fate::TakenBack => pause(1, retry.backoff_ms, retry.backoff_max_ms, noise),
            _ => pause(self.faults(), retry.backoff_ms, retry.backoff_max_ms, noise),
        };
        self.rests_until = now + pause;
    }
}

/// The `nth` pause: twice the one before, up to a bound, and of that at least half.
pub fn pause(nth: u32, first: u32, max: u32, noise: u16) -> Millis {
    let full = (1..nth).fold(u64::from(first), |pause, _| (pause * 2).min(max.into()));
    let full = full.min(max.into());
    let more = (full - full / 2) * u64::from(noise) / 0xffff;
    (full / 2 + more) as Millis
}

impl Fate {
    pub fn state(self) -> AttemptState {
        match self {
            Fate::Running => AttemptState::Leased,
            Fate::Succeeded => AttemptState::Succeeded,
            Fate::Failed(_) => AttemptState::Failed,
            Fate::HandedBack => AttemptState::HandedBack,
            Fate::TakenBack => AttemptState::TakenBack,
            Fate::Lost => AttemptState::Lost,
            Fate::Died => AttemptState::Died,
            Fate::Cancelled => AttemptState::Cancelled,
        }
    }
}

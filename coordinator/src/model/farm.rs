//! The farm in a few maps: what each transaction should come to, told without a database.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::outcome::{Cause, Ending};
use klp_livepatch::task::TaskKind;

use super::livepatch::{Livepatch, Task};
use super::moves::{Commit, Job, Loss, Move, Order, Report, TaskName};
use super::real::holder;
use super::task::{self, Heard, Stand, pause};
use crate::ledger::Rules;
use crate::lifecycle::{Millis, Retry, Taken};
use crate::standing::Policy;

pub const RULES: Rules = Rules {
    retry: Retry {
        fault_limit: 3,
        death_limit: 2,
        backoff_ms: 100,
        backoff_max_ms: 150,
    },
    quarantine: Policy {
        after: 2,
        pause_ms: 1_000,
        pause_max_ms: 3_000,
    },
};
pub const RETRY: &Retry = &RULES.retry;
pub const LEASE_MS: u32 = 5_000;
pub const MAX_OPEN: u32 = 3;
pub const MAX_PLATFORMS: u32 = 2;

/// Filters, and which of the platforms each of them selects.
pub const FILTERS: [(&str, &[u8]); 3] = [("", &[0, 1, 2]), ("15.5", &[0, 1]), ("15.6", &[2])];

#[derive(Clone, Debug, Default)]
pub struct Farm {
    pub now: Millis,
    pub workers: BTreeMap<u8, Worker>,
    /// In the order they were submitted.
    pub livepatches: Vec<Livepatch>,
    /// What the jobs of the last move came to.
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug, Default)]
pub struct Worker {
    pub incarnation: u8,
    pub registered: Millis,
    pub trees: BTreeSet<u8>,
    pub broken: BTreeSet<u8>,
    pub standing: Standing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub drain: Option<(Millis, String)>,
    /// In a row.
    pub faults: u32,
    pub quarantined_until: Option<Millis>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Retried(u32),
    Refused(&'static str),
    /// The database's own error: never expected.
    Broken(String),
}

use Answer::{Done, Refused};

impl Farm {
    pub fn walk(&mut self, step: &Move) {
        self.answers.clear();
        match step {
            Move::Reopen { .. } => {}
            Move::Forget { livepatch, ago } => {
                let before = self.now - ago;
                let old = |l: &Livepatch| l.id == *livepatch && l.end.as_ref().is_some_and(|(at, _)| *at < before);
                let gone = self
                    .livepatches
                    .iter()
                    .position(old)
                    .map(|n| self.livepatches.remove(n));
                self.answers.push(gone.map_or(Refused("not ended"), |_| Done));
            }
            Move::Jobs { wait, jobs } => {
                self.now += wait;
                for job in jobs {
                    let mut then = self.clone();
                    let answer = then.obey(&job.order, job.noise);
                    then.answers = std::mem::take(&mut self.answers);
                    then.answers.push(answer);
                    match job {
                        Job { keep: true, .. } => *self = then,
                        Job { keep: false, .. } => self.answers = then.answers,
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: &Order, noise: u16) -> Answer {
        let now = self.now;
        match order {
            Order::Submit { id, name, filter } => self.submit(*id, *name, *filter),
            Order::Register(workers) => {
                for (worker, incarnation, trees, broken) in workers {
                    self.register(*worker, *incarnation, trees, broken);
                }
                Done
            }
            Order::Lease(grants) => {
                for (name, worker, incarnation) in grants {
                    let present = self.workers.get(worker).is_some_and(|w| w.incarnation == *incarnation);
                    if let (true, Some((livepatch, n))) = (present, self.find(*name)) {
                        let task = &mut livepatch.tasks[n];
                        if task.history.lease(holder(*worker, *incarnation), now, LEASE_MS, RETRY) {
                            livepatch.record(n, None, now);
                        }
                    }
                }
                Done
            }
            Order::Commit(commit) => self.commit(commit, noise),
            Order::Lose(losses) => self.lose(losses, noise),
            Order::Cancel(id) => match self.livepatch(*id) {
                None => Refused("unknown"),
                Some(livepatch) => {
                    for n in 0..livepatch.tasks.len() {
                        if livepatch.tasks[n].history.cancel(RETRY) {
                            livepatch.record(n, None, now);
                        }
                    }
                    livepatch.conclude(now);
                    Done
                }
            },
            Order::Retry { id, filter } => self.retry(*id, *filter),
            Order::Pause { id, reason } => match self.livepatch(*id) {
                None => Refused("unknown"),
                Some(Livepatch { end: Some(_), .. }) => Refused("ended"),
                Some(livepatch) => {
                    let since = livepatch.pause.as_ref().map_or(now, |(since, _)| *since);
                    let pause = Some((since, reason.clone()));
                    if livepatch.pause != pause {
                        livepatch.pause = pause;
                        livepatch.tell(now, None, false);
                    }
                    Done
                }
            },
            Order::Resume(id) => match self.livepatch(*id) {
                None => Refused("unknown"),
                Some(livepatch) => {
                    if livepatch.pause.take().is_some() && livepatch.end.is_none() {
                        livepatch.tell(now, None, false);
                    }
                    Done
                }
            },
            Order::SetShare { id, share } => match self.livepatch(*id) {
                None => Refused("unknown"),
                Some(Livepatch { end: Some(_), .. }) => Refused("ended"),
                Some(livepatch) => {
                    if livepatch.share != *share {
                        livepatch.share = *share;
                        livepatch.tell(now, None, false);
                    }
                    Done
                }
            },
            Order::Drain { worker, reason } => match self.workers.get_mut(worker) {
                None => Refused("unknown"),
                Some(worker) => {
                    let since = worker.standing.drain.as_ref().map_or(now, |(since, _)| *since);
                    worker.standing.drain = Some((since, reason.clone()));
                    Done
                }
            },
            Order::Undrain(worker) => match self.workers.get_mut(worker) {
                None => Refused("unknown"),
                Some(worker) => {
                    worker.standing = Standing::default();
                    Done
                }
            },
            Order::ForgetWorker(worker) => {
                let tasks = self.livepatches.iter().flat_map(|l| &l.tasks);
                let mut running = tasks.filter(|t| t.history.stand(RETRY) == Stand::Running);
                let holds = |t: &Task| t.history.attempts.last().unwrap().holder.worker == holder(*worker, 0).worker;
                if !self.workers.contains_key(worker) {
                    Refused("unknown")
                } else if running.any(holds) {
                    Refused("holds a lease")
                } else {
                    self.workers.remove(worker);
                    Done
                }
            }
        }
    }

    fn submit(&mut self, id: u8, name: u8, filter: usize) -> Answer {
        if let Some(known) = self.livepatch(id) {
            return match (known.name, known.filter) == (name, filter) {
                true => Done,
                false => Refused("its id is taken"),
            };
        }
        if self.livepatches.iter().any(|l| l.name == name) {
            return Refused("its name is taken");
        }
        if self.livepatches.iter().filter(|l| l.end.is_none()).count() as u32 >= MAX_OPEN {
            return Refused("too many");
        }
        let held = |n: &u8| {
            self.workers
                .values()
                .any(|w| w.trees.contains(n) || w.broken.contains(n))
        };
        let platforms: Vec<u8> = FILTERS[filter].1.iter().copied().filter(held).collect();
        if platforms.is_empty() || platforms.len() as u32 > MAX_PLATFORMS {
            return Refused("it selects nothing or too much");
        }
        let mut livepatch = Livepatch {
            id,
            name,
            filter,
            created: self.now,
            share: (0, 100),
            pause: None,
            end: None,
            events: Vec::new(),
            tasks: Vec::new(),
        };
        livepatch.tell(self.now, None, false);
        for platform in platforms {
            livepatch.create(TaskName(id, TaskKind::Check, platform), self.now);
        }
        self.livepatches.push(livepatch);
        Done
    }

    fn register(&mut self, worker: u8, incarnation: u8, trees: &BTreeSet<u8>, broken: &BTreeSet<u8>) {
        let now = self.now;
        let known = self.workers.get(&worker);
        let former = known.map(|w| w.incarnation).filter(|former| *former != incarnation);
        let standing = known.map(|w| w.standing.clone()).unwrap_or_default();
        let what = Worker {
            incarnation,
            registered: now,
            trees: trees.clone(),
            broken: broken.difference(trees).copied().collect(),
            standing,
        };
        self.workers.insert(worker, what);
        let Some(former) = former.map(|former| holder(worker, former)) else {
            return;
        };
        for livepatch in &mut self.livepatches {
            for n in 0..livepatch.tasks.len() {
                let attempts = (1..).zip(&livepatch.tasks[n].history.attempts);
                let lost = attempts.filter(|(_, a)| a.fate == task::Fate::Lost && a.holder == former);
                let lost: Vec<u32> = lost.map(|(number, _)| number).collect();
                for number in lost {
                    let history = &mut livepatch.tasks[n].history;
                    if history.bury(number, RETRY) {
                        let running = history.stand(RETRY) == Stand::Running;
                        livepatch.record(n, (!running).then_some(Cause::Farm), now);
                        livepatch.conclude(now);
                    }
                }
            }
        }
    }

    fn commit(&mut self, commit: &Commit, noise: u16) -> Answer {
        let (now, ending) = (self.now, &commit.ending);
        let by = holder(commit.by.0, commit.by.1);
        let Some((livepatch, n)) = self.find(commit.task) else {
            return Refused("unknown");
        };
        let task = &mut livepatch.tasks[n];
        if task.history.attempt(commit.number).is_none() {
            return Refused("unknown");
        }
        match task.history.hears(commit.number, &by) {
            Heard::Superseded => return Refused("superseded"),
            Heard::Repeated => return Done,
            Heard::Accepted => {}
        }
        if commit.report == Report::Wrong || (commit.report == Report::None && *ending == Ending::Succeeded) {
            return Refused("a contradiction");
        }
        if commit.missing {
            return Refused("artifacts are missing");
        }
        task.history.commit(commit.number, &by, ending, RETRY, now, noise);
        let found = (commit.report == Report::Right, commit.artifacts);
        task.found.insert(commit.number, found);
        let why = match ending {
            Ending::Succeeded => None,
            Ending::Failed(failure) => Some(failure.cause),
            Ending::HandedBack { .. } => Some(Cause::Farm),
        };
        livepatch.record(n, why, now);
        livepatch.follow_up(n, now);
        match ending {
            Ending::HandedBack { .. } => {}
            Ending::Failed(failure) if failure.cause == Cause::Farm => self.blame(commit.by.0, noise),
            _ => self.praise(commit.by.0),
        }
        Done
    }

    fn lose(&mut self, losses: &[Loss], noise: u16) -> Answer {
        let now = self.now;
        let mut faulty = BTreeSet::new();
        for (n, loss) in losses.iter().enumerate() {
            let noise = noise.wrapping_add((n * 7919) as u16);
            if let Some((livepatch, n)) = self.find(loss.task)
                && livepatch.tasks[n]
                    .history
                    .take(loss.number, loss.taken, RETRY, now, noise)
            {
                livepatch.record(n, Some(Cause::Farm), now);
                livepatch.follow_up(n, now);
                if loss.taken != Taken::Unstarted {
                    faulty.insert(loss.worker);
                }
            }
        }
        for worker in faulty {
            self.blame(worker, noise);
        }
        Done
    }

    fn retry(&mut self, id: u8, filter: usize) -> Answer {
        let now = self.now;
        let Some(livepatch) = self.livepatch(id) else {
            return Refused("unknown");
        };
        let mut retried = 0;
        for n in 0..livepatch.tasks.len() {
            let task = &mut livepatch.tasks[n];
            if FILTERS[filter].1.contains(&task.name.2) && task.history.renew_chance(RETRY) {
                livepatch.record(n, None, now);
                retried += 1;
            }
        }
        if retried == 0 {
            return Refused("nothing to retry");
        }
        livepatch.end = None;
        Answer::Retried(retried)
    }

    fn blame(&mut self, worker: u8, noise: u16) {
        let (now, policy) = (self.now, RULES.quarantine);
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.standing.faults += 1;
            let beyond = (worker.standing.faults + 1)
                .checked_sub(policy.after)
                .filter(|n| *n > 0);
            worker.standing.quarantined_until =
                beyond.map(|nth| now + pause(nth, policy.pause_ms, policy.pause_max_ms, noise));
        }
    }

    fn praise(&mut self, worker: u8) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.standing.faults = 0;
            worker.standing.quarantined_until = None;
        }
    }

    pub fn livepatch(&mut self, id: u8) -> Option<&mut Livepatch> {
        self.livepatches.iter_mut().find(|l| l.id == id)
    }

    fn find(&mut self, name: TaskName) -> Option<(&mut Livepatch, usize)> {
        let livepatch = self.livepatch(name.0)?;
        let n = livepatch.tasks.iter().position(|t| t.name == name)?;
        Some((livepatch, n))
    }
}

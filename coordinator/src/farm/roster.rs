//! The workers as the farm knows them: what they said of themselves, and what they hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::{AttemptId, Platform, TaskId};
use klp_proto::protocol;
use klp_proto::v1::Skew;
use tokio::sync::watch;

use super::pace::Pace;
use super::{Report, SessionId, Signal};
use crate::lifecycle::Millis;
use crate::schedule::{self, Absence};
use crate::standing::{Quarantine, Standing};
use crate::store::{Known, Registration};

/// How many platforms a worker is taken to have warm caches for.
const WARM: usize = 4;

/// For how long it is remembered that another session took over a worker's name.
const REPLACED_MS: Millis = 3_600_000;
/// How many such times are remembered.
const REPLACED: usize = 1_000;

/// A worker as it is told to whoever asks.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub name: WorkerName,
    pub registration: Registration,
    pub registered: Millis,
    pub connected: bool,
    pub draining: bool,
    /// The version of the protocol that its session is in; `None`: there is none.
    pub protocol: Option<u32>,
    pub busy: u32,
    /// What it was given beyond its slots, to start when one becomes free.
    pub prefetched: u32,
    pub memory_busy: u64,
    /// 0: not since the coordinator started.
    pub last_seen: Millis,
    pub standing: Standing,
    /// In force now.
    pub quarantine: Option<Quarantine>,
    /// How often within the last hour a session took over from one that was still open.
    pub replaced: u32,
    /// What it still works at though it has no lease on it.
    pub unleased: Vec<TaskId>,
}

impl WorkerView {
    /// Whether it may be given something now.
    pub fn takes_new(&self) -> bool {
        self.connected && !self.draining && self.standing.drain.is_none() && self.quarantine.is_none()
    }

    /// How its software version compares with ours.
    pub fn skew(&self) -> Skew {
        protocol::skew(&self.registration.version, protocol::SOFTWARE)
    }
}

/// One worker.
pub(super) struct Member {
    pub registration: Registration,
    /// When the registration last changed.
    pub registered: Millis,
    /// What is in the database is not what it last said.
    pub unregistered: bool,
    pub session: Option<(SessionId, watch::Sender<Signal>)>,
    /// It has a session that is yet to hear what it should be doing.
    pub unanswered: bool,
    /// What it holds leases on, and what each was given.
    pub held: BTreeMap<TaskId, Lent>,
    /// What it runs or has not yet committed, as it last said.
    pub listed: BTreeSet<AttemptId>,
    /// It has said that it starts nothing any more.
    pub draining: bool,
    /// As its newest session said.
    protocol: u32,
    pub last_seen: Millis,
    standing: Standing,
    recent: VecDeque<Platform>,
    /// How fast it succeeds, with each tool or none.
    paces: BTreeMap<Option<Backend>, Pace>,
    replaced: VecDeque<Millis>,
}

/// What an attempt takes of a worker, besides a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lent {
    pub platform: Platform,
    /// The tool that is run, if any is.
    pub backend: Option<Backend>,
    /// Bytes.
    pub memory: u64,
}

/// All workers. Kept beside each member is what the scheduler must know of it.
#[derive(Default)]
pub(super) struct Roster {
    places: BTreeMap<WorkerName, usize>,
    members: Vec<Member>,
    schedulable: Vec<schedule::Worker>,
}

impl Roster {
    /// Adds a worker that is known from the past.
    pub(super) fn remember(&mut self, name: WorkerName, known: Known) {
        let place = self.place(&name, &known.registration);
        let member = &mut self.members[place];
        member.unregistered = false;
        member.registered = known.registered;
        member.standing = known.standing;
        self.describe(place);
    }

    /// How many workers have a session.
    pub(super) fn connected(&self) -> usize {
        self.members.iter().filter(|member| member.session.is_some()).count()
    }

    /// Takes in what a worker says of itself. A session that was opened later speaks for the worker: an earlier one is
    /// told to end, and has no say any more.
    pub(super) fn report(&mut self, session: SessionId, signals: watch::Sender<Signal>, report: &Report, now: Millis) {
        let place = self.place(&report.worker, &report.registration);
        let member = &mut self.members[place];
        match &member.session {
            Some((current, _)) if *current > session => {
                let text = format!("a newer session speaks for worker {}", report.worker);
                signals.send_replace(Signal::Replaced(text));
                return;
            }
            Some((current, old)) if *current < session => {
                let text = format!("a newer session speaks for worker {}", report.worker);
                tracing::warn!(klp.worker = %report.worker, "a newer session has taken over from one that was still open");
                old.send_replace(Signal::Replaced(text));
                member.replaced.truncate(REPLACED - 1);
                member.replaced.push_front(now);
            }
            _ => {}
        }
        member.session = Some((session, signals));
        member.unanswered = true;
        member.last_seen = now;
        member.listed = report.attempts.iter().map(|running| running.attempt).collect();
        member.draining = report.draining;
        member.protocol = report.protocol;
        if member.registration != report.registration {
            member.registration = report.registration.clone();
            member.registered = now;
            member.unregistered = true;
        }
        self.describe(place);
    }

    /// A session has ended.
    pub(super) fn closed(&mut self, session: SessionId, worker: &WorkerName) {
        let Some(&place) = self.places.get(worker) else { return };
        let member = &mut self.members[place];
        if member.session.as_ref().is_some_and(|(current, _)| *current == session) {
            member.session = None;
        }
    }

    /// The worker is to hear again what it should be doing.
    pub(super) fn nudge(&mut self, worker: &WorkerName) {
        if let Some(&place) = self.places.get(worker) {
            self.members[place].unanswered = true;
        }
    }

    pub(super) fn holds(&mut self, worker: &WorkerName, task: TaskId, lent: Lent) {
        let Some(&place) = self.places.get(worker) else { return };
        let (member, worker) = (&mut self.members[place], &mut self.schedulable[place]);
        let (platform, backend, memory) = (lent.platform.clone(), lent.backend, lent.memory);
        if member.held.insert(task, lent).is_some() {
            return;
        }
        member.unanswered = true;
        worker.busy = busy(member);
        worker.memory_busy = worker.memory_busy.saturating_add(memory);
        *worker.with_tools.entry(backend).or_default() += 1;
        *worker.running.entry(platform.clone()).or_default() += 1;
        if !member.recent.contains(&platform) {
            member.recent.truncate(WARM - 1);
            member.recent.push_front(platform);
            worker.warm = member.recent.iter().cloned().collect();
        }
    }

    /// The worker holds a task no longer, and is to hear of it.
    pub(super) fn lets_go(&mut self, worker: &WorkerName, task: TaskId) {
        if let Some(&place) = self.places.get(worker)
            && self.release(place, task).is_some()
        {
            self.members[place].unanswered = true;
        }
    }

    /// The worker has committed a success. It knows; so what is new to it is told when there is something to do.
    pub(super) fn succeeded(&mut self, worker: &WorkerName, task: TaskId, now: Millis) {
        if let Some(&place) = self.places.get(worker)
            && let Some(lent) = self.release(place, task)
        {
            self.members[place].paces.entry(lent.backend).or_default().step(now);
        }
    }

    fn release(&mut self, place: usize, task: TaskId) -> Option<Lent> {
        let (member, worker) = (&mut self.members[place], &mut self.schedulable[place]);
        let lent = member.held.remove(&task)?;
        worker.busy = busy(member);
        worker.memory_busy = worker.memory_busy.saturating_sub(lent.memory);
        count_down(&mut worker.with_tools, &lent.backend);
        count_down(&mut worker.running, &lent.platform);
        Some(lent)
    }

    /// The farm thinks otherwise of a worker.
    pub(super) fn think(&mut self, worker: &WorkerName, standing: Standing) {
        if let Some(&place) = self.places.get(worker) {
            self.members[place].standing = standing;
            self.describe(place);
        }
    }

    /// Forgets a worker, and what was thought of it; one that has come back meanwhile is as if it were new.
    pub(super) fn forget(&mut self, worker: &WorkerName) {
        let Some(&place) = self.places.get(worker) else { return };
        let member = &mut self.members[place];
        if member.session.is_some() {
            member.unregistered = true;
            self.think(worker, Standing::default());
            return;
        }
        self.places.remove(worker);
        self.members.swap_remove(place);
        self.schedulable.swap_remove(place);
        if let Some(moved) = self.schedulable.get(place) {
            self.places.insert(moved.name.clone(), place);
        }
    }

    /// Brings up to date who takes nothing new: one not heard of since `silent_since`, too, until it speaks again.
    pub(super) fn refresh(&mut self, now: Millis, silent_since: Millis) {
        for (member, worker) in self.members.iter_mut().zip(&mut self.schedulable) {
            worker.absence = member.absence(now, silent_since);
            worker.prefetch.clear();
            if !member.standing.on_probation() {
                member.paces.retain(|_, pace| !pace.is_over(now));
                let beyond = worker.busy.saturating_sub(worker.slots);
                for (backend, pace) in &member.paces {
                    let Some(most) = pace.prefetch(worker.slots) else {
                        continue;
                    };
                    // Once half is used up: what is given together costs one transaction and one message.
                    let most = if beyond <= most / 2 { most } else { most.min(beyond) };
                    worker.prefetch.insert(*backend, most);
                }
            }
        }
    }

    pub(super) fn get(&self, worker: &WorkerName) -> Option<&Member> {
        self.places.get(worker).map(|&place| &self.members[place])
    }

    pub(super) fn get_mut(&mut self, worker: &WorkerName) -> Option<&mut Member> {
        self.places.get(worker).map(|&place| &mut self.members[place])
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&WorkerName, &Member)> {
        let names = self.schedulable.iter().map(|w| &w.name);
        names.zip(&self.members)
    }

    pub(super) fn for_scheduling(&self) -> &[schedule::Worker] {
        &self.schedulable
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = (&WorkerName, &mut Member)> {
        let names = self.schedulable.iter().map(|w| &w.name);
        names.zip(&mut self.members)
    }

    pub(super) fn views(&self, now: Millis) -> Vec<WorkerView> {
        let view = |(name, &place): (&WorkerName, &usize)| {
            let (member, worker) = (&self.members[place], &self.schedulable[place]);
            let unleased = member.listed.iter().map(|id| id.task);
            let unleased = unleased.filter(|task| member.session.is_some() && !member.held.contains_key(task));
            let replaced = member.replaced.iter().filter(|at| now - **at < REPLACED_MS).count();
            WorkerView {
                name: name.clone(),
                registration: member.registration.clone(),
                registered: member.registered,
                connected: member.session.is_some(),
                draining: member.session.is_some() && member.draining,
                protocol: member.session.as_ref().map(|_| member.protocol),
                // Of those it says it has: on probation it is given less.
                busy: worker.busy.min(member.registration.slots),
                prefetched: worker.busy.saturating_sub(member.registration.slots),
                memory_busy: worker.memory_busy,
                last_seen: member.last_seen,
                standing: member.standing.clone(),
                quarantine: member.standing.quarantined(now).cloned(),
                // At most REPLACED.
                replaced: u32::try_from(replaced).unwrap_or(u32::MAX),
                unleased: unleased.collect(),
            }
        };
        self.places.iter().map(view).collect()
    }

    fn place(&mut self, name: &WorkerName, registration: &Registration) -> usize {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        let place = self.members.len();
        self.places.insert(name.clone(), place);
        self.members.push(Member {
            registration: registration.clone(),
            registered: 0,
            unregistered: true,
            session: None,
            unanswered: false,
            held: BTreeMap::new(),
            listed: BTreeSet::new(),
            draining: false,
            protocol: 0,
            last_seen: 0,
            standing: Standing::default(),
            recent: VecDeque::new(),
            paces: BTreeMap::new(),
            replaced: VecDeque::new(),
        });
        self.schedulable.push(schedule::Worker::unknown(name.clone()));
        place
    }

    /// Makes what the scheduler sees agree with what the worker said.
    fn describe(&mut self, place: usize) {
        let (member, worker) = (&self.members[place], &mut self.schedulable[place]);
        let said = &member.registration;
        worker.slots = match member.standing.on_probation() {
            true => said.slots.min(1),
            false => said.slots,
        };
        worker.memory = Some(said.memory).filter(|memory| *memory > 0);
        if worker.trees.len() != said.trees.len() || said.trees.iter().any(|tree| !worker.trees.contains(tree)) {
            worker.trees = said.trees.iter().cloned().collect();
        }
        if worker.broken_trees != said.broken_trees {
            worker.broken_trees.clone_from(&said.broken_trees);
        }
        worker.backends = said
            .tools
            .iter()
            .filter_map(|(backend, _)| backend.parse().ok())
            .collect();
        let broken = said.broken_tools.iter();
        worker.broken_backends = broken
            .filter_map(|(backend, why)| Some((backend.parse().ok()?, why.clone())))
            .collect();
    }
}

impl Member {
    fn absence(&self, now: Millis, silent_since: Millis) -> Option<Absence> {
        let since = self.last_seen;
        if self.session.is_none() {
            return Some(Absence::Offline { since });
        }
        if let Some(drain) = &self.standing.drain {
            return Some(Absence::Drained {
                since: drain.since,
                reason: drain.reason.clone(),
            });
        }
        if self.draining {
            return Some(Absence::Stopping);
        }
        if since < silent_since {
            return Some(Absence::Silent { since });
        }
        self.standing.quarantined(now).map(|q| Absence::Quarantined {
            until: q.until,
            reason: q.reason.clone(),
        })
    }
}

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn busy(member: &Member) -> u32 {
    u32::try_from(member.held.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use klp_livepatch::task::Incarnation;
    use uuid::Uuid;

    use super::*;
    use crate::standing::Drain;

    #[test]
    fn a_worker_that_is_forgotten_while_it_is_there_is_as_if_it_were_new() {
        let mut roster = Roster::default();
        let name: WorkerName = "w1".parse().unwrap();
        let report = Report {
            worker: name.clone(),
            registration: Registration {
                incarnation: Incarnation(Uuid::from_u128(1)),
                version: String::new(),
                slots: 1,
                trees: BTreeSet::new(),
                tools: Vec::new(),
                memory: 0,
                broken_trees: BTreeMap::new(),
                broken_tools: BTreeMap::new(),
                isolation: Vec::new(),
            },
            attempts: Vec::new(),
            draining: false,
            protocol: 1,
        };
        roster.report(1, watch::Sender::new(Signal::Silence), &report, 1);
        let drain = Some(Drain {
            since: 1,
            reason: "new disk".into(),
        });
        let drained = Standing {
            drain,
            ..Standing::default()
        };
        roster.think(&name, drained);
        assert!(!roster.views(2)[0].takes_new());

        roster.forget(&name);
        assert!(roster.views(2)[0].takes_new());
        assert!(roster.get(&name).unwrap().unregistered, "it is to be recorded again");
    }
}

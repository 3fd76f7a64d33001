//! The workers as the farm knows them: what they said of themselves, and what they hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use klp_livepatch::names::WorkerName;
use klp_livepatch::task::{AttemptId, Platform, TaskId};
use tokio::sync::watch;

use super::{Report, SessionId, Signal};
use crate::lifecycle::Millis;
use crate::schedule;
use crate::store::Registration;

/// How many platforms a worker is taken to have warm caches for.
const WARM: usize = 4;

/// A worker as it is told to whoever asks.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub name: WorkerName,
    pub registration: Registration,
    pub connected: bool,
    pub draining: bool,
    pub busy: u32,
    /// 0: not since the coordinator started.
    pub last_seen: Millis,
}

/// One worker.
pub(super) struct Member {
    pub registration: Registration,
    /// What is in the database is not what it last said.
    pub unregistered: bool,
    pub session: Option<(SessionId, watch::Sender<Signal>)>,
    /// It has a session that is yet to hear what it should be doing.
    pub unanswered: bool,
    pub held: BTreeSet<TaskId>,
    /// What it runs or has not yet committed, as it last said.
    pub listed: BTreeSet<AttemptId>,
    /// It has said that it starts nothing any more.
    pub draining: bool,
    pub last_seen: Millis,
    recent: VecDeque<Platform>,
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
    pub(super) fn remember(&mut self, name: WorkerName, registration: Registration) {
        let place = self.place(&name, &registration);
        self.members[place].unregistered = false;
        self.describe(place);
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
                old.send_replace(Signal::Replaced(text));
            }
            _ => {}
        }
        member.session = Some((session, signals));
        member.unanswered = true;
        member.last_seen = now;
        member.listed = report.attempts.iter().map(|(id, _)| *id).collect();
        member.draining = report.draining;
        if member.registration != report.registration {
            member.registration = report.registration.clone();
            member.unregistered = true;
        }
        self.schedulable[place].draining = report.draining;
        self.describe(place);
    }

    /// A session has ended.
    pub(super) fn closed(&mut self, session: SessionId, worker: &WorkerName) {
        let Some(&place) = self.places.get(worker) else { return };
        let member = &mut self.members[place];
        if member.session.as_ref().is_some_and(|(current, _)| *current == session) {
            member.session = None;
            self.schedulable[place].connected = false;
        }
    }

    /// The worker is to hear again what it should be doing.
    pub(super) fn nudge(&mut self, worker: &WorkerName) {
        if let Some(&place) = self.places.get(worker) {
            self.members[place].unanswered = true;
        }
    }

    pub(super) fn holds(&mut self, worker: &WorkerName, task: TaskId, platform: &Platform) {
        let Some(&place) = self.places.get(worker) else { return };
        let member = &mut self.members[place];
        if member.held.insert(task) {
            member.unanswered = true;
            if !member.recent.contains(platform) {
                member.recent.truncate(WARM - 1);
                member.recent.push_front(platform.clone());
                self.schedulable[place].warm = member.recent.iter().cloned().collect();
            }
        }
        self.schedulable[place].busy = busy(&self.members[place]);
    }

    pub(super) fn lets_go(&mut self, worker: &WorkerName, task: TaskId) {
        let Some(&place) = self.places.get(worker) else { return };
        if self.members[place].held.remove(&task) {
            self.members[place].unanswered = true;
        }
        self.schedulable[place].busy = busy(&self.members[place]);
    }

    /// Offers nothing more to workers that were not heard of since `since`, until they speak again.
    pub(super) fn pass_over_silent(&mut self, since: Millis) {
        for (member, worker) in self.members.iter().zip(&mut self.schedulable) {
            worker.connected &= member.last_seen >= since;
        }
    }

    pub(super) fn get(&self, worker: &WorkerName) -> Option<&Member> {
        self.places.get(worker).map(|&place| &self.members[place])
    }

    pub(super) fn for_scheduling(&self) -> &[schedule::Worker] {
        &self.schedulable
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = (&WorkerName, &mut Member)> {
        let names = self.schedulable.iter().map(|w| &w.name);
        names.zip(&mut self.members)
    }

    pub(super) fn views(&self) -> Vec<WorkerView> {
        let view = |(name, &place): (&WorkerName, &usize)| {
            let (member, worker) = (&self.members[place], &self.schedulable[place]);
            WorkerView {
                name: name.clone(),
                registration: member.registration.clone(),
                connected: worker.connected,
                draining: worker.draining,
                busy: worker.busy,
                last_seen: member.last_seen,
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
            unregistered: true,
            session: None,
            unanswered: false,
            held: BTreeSet::new(),
            listed: BTreeSet::new(),
            draining: false,
            last_seen: 0,
            recent: VecDeque::new(),
        });
        self.schedulable.push(schedule::Worker {
            name: name.clone(),
            connected: false,
            draining: false,
            slots: 0,
            busy: 0,
            trees: BTreeSet::new(),
            backends: BTreeSet::new(),
            warm: BTreeSet::new(),
        });
        place
    }

    /// Makes what the scheduler sees agree with what the worker said.
    fn describe(&mut self, place: usize) {
        let (member, worker) = (&self.members[place], &mut self.schedulable[place]);
        worker.connected = member.session.is_some();
        worker.slots = member.registration.slots;
        if worker.trees != member.registration.trees {
            worker.trees.clone_from(&member.registration.trees);
        }
        let tools = member.registration.tools.iter();
        worker.backends = tools.filter_map(|(backend, _)| backend.parse().ok()).collect();
    }
}

fn busy(member: &Member) -> u32 {
    u32::try_from(member.held.len()).unwrap_or(u32::MAX)
}

//! What the farm knows and what follows from it. Synchronous and without I/O: what happens comes in, with its time; what
//! is to be written or told comes out. Whoever drives it (the [`super::actor`], or a simulator) writes and tells.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::{AttemptId, LivepatchId, TaskId, TaskKind};
use klp_telemetry::TraceParent;
use tokio::sync::watch;

use super::roster::{Lent, Roster, WorkerView};
use super::{Answer, Live, Order, Pulse, Report, SessionId, Signal};
use crate::clock::utc;
use crate::config::Config;
use crate::ledger::{Grant, Loss};
use crate::lifecycle::{Holder, Lease, Millis, State, Taken};
use crate::schedule::{self, Need, Queue, Ready, Standings};
use crate::store::{Change, Open, OpenLivepatch, OpenTask, Registration};

pub struct Mind {
    /// May be replaced by one that differs in what can be reloaded.
    pub(super) config: Arc<Config>,
    pub(super) livepatches: HashMap<LivepatchId, OpenLivepatch>,
    /// All open tasks.
    pub(super) tasks: HashMap<TaskId, OpenTask>,
    /// Those that could run now.
    pub(super) queue: Queue,
    /// Those that wait for a time.
    pub(super) delayed: BTreeSet<(Millis, TaskId)>,
    /// Those that are leased, by expiry.
    leased: BTreeSet<(Millis, TaskId)>,
    /// How each open livepatch competes for workers.
    standings: Standings,
    progress: HashMap<TaskId, String>,
    /// Leased tasks whose worker said last that they wait for a slot.
    unbegun: HashSet<TaskId>,
    /// Tasks that left a worker unbegun, for all it said: should one take down its worker after all, it is not to do so
    /// unseen again, and so is given a slot next time.
    suspects: HashMap<TaskId, WorkerName>,
    pub(super) roster: Roster,
    /// Workers that have spoken since it was last looked at whether they lost something.
    heard: BTreeSet<WorkerName>,
}

impl Mind {
    /// Takes in what is open. Every lease is renewed once, and by the grace for a restart, so that a worker that carried on
    /// meanwhile is re-adopted.
    pub fn new(config: Arc<Config>, open: Open, now: Millis) -> Self {
        let mut mind = Self {
            config,
            livepatches: HashMap::new(),
            tasks: HashMap::new(),
            queue: Queue::default(),
            delayed: BTreeSet::new(),
            leased: BTreeSet::new(),
            standings: Standings::new(),
            progress: HashMap::new(),
            unbegun: HashSet::new(),
            suspects: HashMap::new(),
            roster: Roster::default(),
            heard: BTreeSet::new(),
        };
        for (name, known) in open.workers {
            mind.roster.remember(name, known);
        }
        for livepatch in open.livepatches {
            mind.open(livepatch);
        }
        for mut task in open.tasks {
            if let State::Leased(lease) = &mut task.status.state {
                lease.renew(now, mind.config.lease_ms.saturating_add(mind.config.restart_grace_ms));
            }
            mind.fold(task, now);
        }
        mind
    }

    /// How much there is of everything.
    pub fn pulse(&self) -> Pulse {
        Pulse {
            workers: self.roster.connected(),
            livepatches: self.livepatches.len(),
            tasks: self.tasks.len(),
            leased: self.leased.len(),
        }
    }

    /// When something is due without anything coming in.
    pub fn next_due(&self, now: Millis) -> Millis {
        let period = now + Millis::from(self.config.match_period_ms);
        let delayed = self.delayed.first().map(|(at, _)| *at);
        let expiry = self.leased.first().map(|(at, _)| *at);
        [delayed, expiry].into_iter().flatten().fold(period, Millis::min)
    }

    /// Takes in what a transaction changed.
    pub fn apply(&mut self, change: Change, now: Millis) {
        match change {
            Change::Opened(livepatch) => self.open(livepatch),
            Change::Ended { livepatch } => {
                self.livepatches.remove(&livepatch);
                self.standings.remove(&livepatch);
            }
            Change::Worker { name, standing } => self.roster.think(&name, standing),
            Change::Forgotten { name } => self.roster.forget(&name),
            Change::Task(task) => self.fold(task, now),
            Change::Attempt(_) | Change::Event { .. } | Change::Token(_) | Change::Certificate(_) => {}
        }
    }

    /// Takes in what a worker says.
    pub fn hear(&mut self, session: SessionId, signals: watch::Sender<Signal>, report: &Report, now: Millis) {
        self.roster.report(session, signals, report, now);
        self.heard.insert(report.worker.clone());
        self.renew(report, now);
    }

    /// The worker is to hear again what it should be doing.
    pub fn nudge(&mut self, worker: &WorkerName) {
        self.roster.nudge(worker);
    }

    /// A session has ended.
    pub fn closed(&mut self, session: SessionId, worker: &WorkerName) {
        self.roster.closed(session, worker);
    }

    /// Takes in a livepatch as it is now, in place of what it was.
    fn open(&mut self, livepatch: OpenLivepatch) {
        let (id, paused) = (livepatch.id, livepatch.pause.is_some());
        self.standings.entry(id).or_default().share = livepatch.share;
        let before = self.livepatches.insert(id, livepatch);
        let was_paused = before.is_some_and(|l| l.pause.is_some());
        if paused == was_paused {
            return;
        }
        let of_it: Vec<OpenTask> = self.tasks.values().filter(|t| t.livepatch == id).cloned().collect();
        for task in of_it {
            match paused {
                true => self.queue.remove(task.id),
                false if self.delayed_until(&task).is_none() => self.enqueue(&task),
                false => {}
            }
        }
    }

    pub(super) fn delayed_until(&self, task: &OpenTask) -> Option<Millis> {
        match task.status.state {
            State::Waiting { not_before } if self.delayed.contains(&(not_before, task.id)) => Some(not_before),
            _ => None,
        }
    }

    /// Takes in a task as it is now, in place of what it was.
    fn fold(&mut self, mut task: OpenTask, now: Millis) {
        // The database has a lease as it was granted; what it was renewed to since stays.
        if let State::Leased(lease) = &mut task.status.state
            && let Some((attempt, renewed)) = self.lease(task.id)
            && attempt.number == task.status.attempt
        {
            lease.expires = lease.expires.max(renewed.expires);
        }
        if let Some(worker) = self.lease(task.id).map(|(_, lease)| lease.holder.worker.clone()) {
            if task.status.state == State::Succeeded {
                self.roster.succeeded(&worker, task.id, now);
            } else if self.unbegun.contains(&task.id) {
                self.suspects.insert(task.id, worker);
            }
        }
        self.forget(task.id);
        match &task.status.state {
            State::Waiting { not_before } if *not_before > now => {
                self.delayed.insert((*not_before, task.id));
            }
            State::Waiting { .. } => self.enqueue(&task),
            State::Leased(lease) => {
                self.leased.insert((lease.expires, task.id));
                self.standings.entry(task.livepatch).or_default().running += 1;
                let lent = Lent {
                    platform: task.key.platform.clone(),
                    backend: self.backend(&task),
                    memory: self.memory(&task),
                };
                self.roster.holds(&lease.holder.worker, task.id, lent);
            }
            State::Succeeded | State::Failed | State::Cancelled => {
                self.suspects.remove(&task.id);
                return;
            }
        }
        self.tasks.insert(task.id, task);
    }

    fn forget(&mut self, id: TaskId) {
        let Some(old) = self.tasks.remove(&id) else { return };
        self.queue.remove(id);
        self.progress.remove(&id);
        self.unbegun.remove(&id);
        match old.status.state {
            State::Waiting { not_before } => drop(self.delayed.remove(&(not_before, id))),
            State::Leased(lease) => {
                self.leased.remove(&(lease.expires, id));
                self.roster.lets_go(&lease.holder.worker, id);
                if let Some(standing) = self.standings.get_mut(&old.livepatch) {
                    standing.running = standing.running.saturating_sub(1);
                }
            }
            State::Succeeded | State::Failed | State::Cancelled => {}
        }
    }

    /// Puts a task that waits for nothing but a worker into the queue.
    fn enqueue(&mut self, task: &OpenTask) {
        let waiting = matches!(task.status.state, State::Waiting { .. });
        let paused = self.livepatches.get(&task.livepatch).is_some_and(|l| l.pause.is_some());
        if !waiting || paused {
            return;
        }
        if let Some(need) = self.need(task) {
            self.queue.insert(Ready {
                task: task.id,
                livepatch: task.livepatch,
                need,
                order: task.seq,
                since: task.ready_since(),
                avoid: task.avoid.iter().chain(self.suspects.get(&task.id)).cloned().collect(),
            });
        }
    }

    fn need(&self, task: &OpenTask) -> Option<Need> {
        self.livepatches.get(&task.livepatch)?;
        Some(Need {
            platform: task.key.platform.clone(),
            backend: self.backend(task),
            memory: self.memory(task),
        })
    }

    /// The tool that a task runs, if it runs one.
    fn backend(&self, task: &OpenTask) -> Option<Backend> {
        match task.key.kind {
            TaskKind::Check | TaskKind::Verify => None,
            TaskKind::Extract => Some(self.livepatches.get(&task.livepatch)?.spec.backend),
        }
    }

    /// What is set aside for a task on its worker, in bytes.
    fn memory(&self, task: &OpenTask) -> u64 {
        let livepatch = self.livepatches.get(&task.livepatch);
        livepatch.map_or(0, |l| self.config.memory(task.key.kind, &l.spec))
    }

    /// Renews the leases of what a worker says it is doing, if they are its own.
    fn renew(&mut self, report: &Report, now: Millis) {
        let holder = Holder {
            worker: report.worker.clone(),
            incarnation: report.registration.incarnation,
        };
        for running in &report.attempts {
            let id = running.attempt;
            let Some(task) = self.tasks.get_mut(&id.task) else {
                continue;
            };
            match &mut task.status.state {
                State::Leased(lease) if task.status.attempt == id.number && lease.holder == holder => {
                    self.leased.remove(&(lease.expires, id.task));
                    lease.renew(now, self.config.lease_ms);
                    self.leased.insert((lease.expires, id.task));
                    self.progress.insert(id.task, running.progress.clone());
                    match running.waiting {
                        true => self.unbegun.insert(id.task),
                        false => self.unbegun.remove(&id.task),
                    };
                }
                _ => {}
            }
        }
    }

    fn lease(&self, id: TaskId) -> Option<(AttemptId, &Lease)> {
        let task = self.tasks.get(&id)?;
        let number = task.status.attempt;
        match &task.status.state {
            State::Leased(lease) => Some((AttemptId { task: id, number }, lease)),
            _ => None,
        }
    }

    /// What workers have said of themselves that is not recorded.
    pub fn unregistered(&self) -> Vec<(WorkerName, Registration)> {
        let members = self.roster.members().filter(|(_, member)| member.unregistered);
        members
            .map(|(name, member)| (name.clone(), member.registration.clone()))
            .collect()
    }

    /// This is recorded now.
    pub fn registered(&mut self, workers: &[(WorkerName, Registration)]) {
        for (name, registration) in workers {
            if let Some(member) = self.roster.get_mut(name)
                && member.registration == *registration
            {
                member.unregistered = false;
            }
        }
    }

    /// Attempts whose lease has run out, whose worker has started anew since, or is stopping and has not started them.
    pub fn losses(&self, now: Millis) -> Vec<Loss> {
        let expired = self.leased.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
        let heard = self.heard.iter().filter_map(|worker| self.roster.get(worker));
        let held = heard.flat_map(|member| member.held.keys().copied());
        let suspects: BTreeSet<TaskId> = expired.chain(held).collect();
        let lost = suspects.into_iter().filter_map(|id| {
            let (attempt, lease) = self.lease(id)?;
            self.loss(attempt, lease, now)
        });
        lost.collect()
    }

    /// These losses are recorded now.
    pub fn settled(&mut self) {
        self.heard.clear();
    }

    fn loss(&self, attempt: AttemptId, lease: &Lease, now: Millis) -> Option<Loss> {
        let Holder { worker, incarnation } = &lease.holder;
        let loss = |taken, reason| Loss {
            attempt,
            worker: worker.clone(),
            taken,
            reason,
        };
        let member = self.roster.get(worker);
        let unbegun = self.unbegun.contains(&attempt.task);
        if let Some(member) = member.filter(|m| m.session.is_some()) {
            if member.registration.incarnation != *incarnation {
                let lost = |what| format!("worker {worker} started anew and {what}");
                return Some(match unbegun {
                    true => loss(Taken::Unstarted, lost("had not begun it")),
                    false => loss(Taken::Died, lost("lost what it ran")),
                });
            }
            // A stopping worker starts nothing, so what it does not list it will never run.
            if member.draining && !member.listed.contains(&attempt) {
                let reason = format!("worker {worker} is stopping and did not start it");
                return Some(loss(Taken::Unstarted, reason));
            }
        }
        lease.is_expired(now).then(|| {
            let seen = match member.map(|m| m.last_seen) {
                Some(seen) if seen > 0 => format!("it last spoke at {}", utc(seen)),
                _ => "it has not come back".to_owned(),
            };
            let taken = if unbegun { Taken::Unstarted } else { Taken::Expired };
            loss(taken, format!("the lease of worker {worker} ran out; {seen}"))
        })
    }

    /// Who gets what now.
    pub fn grants(&mut self, now: Millis) -> Vec<Grant> {
        while let Some(&(at, id)) = self.delayed.first() {
            if at > now {
                break;
            }
            self.delayed.pop_first();
            if let Some(task) = self.tasks.get(&id).cloned() {
                self.enqueue(&task);
            }
        }
        self.refresh(now);
        let assigned = schedule::assign(&self.queue, self.roster.for_scheduling(), &self.standings);
        assigned
            .into_iter()
            .filter_map(|assigned| {
                let incarnation = self.roster.get(&assigned.worker)?.registration.incarnation;
                let to = Holder {
                    worker: assigned.worker,
                    incarnation,
                };
                let task = assigned.task;
                Some(Grant { task, to })
            })
            .collect()
    }

    pub(super) fn refresh(&mut self, now: Millis) {
        // Half a lease: long before what it holds expires, a silent worker gets nothing more to lose.
        let silent_since = now - Millis::from(self.config.lease_ms / 2);
        self.roster.refresh(now, silent_since);
    }

    /// All that each worker whose session waits for it should be doing, but for what is not the database's.
    pub fn answers(&mut self) -> Vec<Answer> {
        let (tasks, livepatches) = (&self.tasks, &self.livepatches);
        let mut answers = Vec::new();
        for (name, member) in self.roster.members_mut() {
            // Not before it is recorded: whoever has an answer is known to the submissions that follow.
            if !member.unanswered || member.unregistered {
                continue;
            }
            let Some((session, signals)) = &member.session else {
                continue;
            };
            let order = |id: &TaskId| {
                let task = tasks.get(id)?;
                match &task.status.state {
                    State::Leased(lease) if lease.holder.incarnation == member.registration.incarnation => {
                        let attempt = AttemptId {
                            task: *id,
                            number: task.status.attempt,
                        };
                        Some(Order {
                            livepatch: task.livepatch,
                            attempt,
                            key: task.key.clone(),
                            spec: Arc::clone(&livepatches.get(&task.livepatch)?.spec),
                            input: task.input.clone(),
                            tryout: false,
                            parent: TraceParent::of_attempt(task.livepatch, attempt),
                        })
                    }
                    _ => None,
                }
            };
            answers.push(Answer {
                session: *session,
                signals: signals.clone(),
                orders: member.held.keys().filter_map(order).collect(),
                worker: name.clone(),
            });
            member.unanswered = false;
        }
        answers
    }

    /// What keeps tasks waiting that nobody could run now, and how many tasks each.
    pub fn obstacles(&mut self, now: Millis) -> BTreeMap<String, usize> {
        self.refresh(now);
        schedule::obstacles(&self.queue, self.roster.for_scheduling())
    }

    pub fn views(&self, now: Millis) -> Vec<WorkerView> {
        self.roster.views(now)
    }

    /// What is known of those of the tasks that are open, beyond the database.
    pub fn live(&mut self, tasks: Vec<TaskId>, now: Millis) -> HashMap<TaskId, Live> {
        self.refresh(now);
        let live = |id: TaskId| {
            let task = self.tasks.get(&id)?;
            let mut live = Live::default();
            match &task.status.state {
                State::Leased(_) => live.progress = self.progress.get(&id).cloned().unwrap_or_default(),
                State::Waiting { not_before } if *not_before > now => {
                    let pause = (*not_before - now) as f64 / 1000.0;
                    live.waiting_for = format!("to be tried again in {pause:.1} s");
                }
                _ => live.waiting_for = self.why_waiting(task)?,
            }
            Some((id, live))
        };
        tasks.into_iter().filter_map(live).collect()
    }

    fn why_waiting(&self, task: &OpenTask) -> Option<String> {
        let livepatch = self.livepatches.get(&task.livepatch)?;
        if let Some(pause) = &livepatch.pause {
            let reason = match pause.reason.as_str() {
                "" => String::new(),
                why => format!(" ({why})"),
            };
            return Some(format!("the livepatch is paused since {}{reason}", utc(pause.since)));
        }
        let waits = schedule::why_waiting(
            &self.need(task)?,
            task.livepatch,
            task.seq,
            &self.queue,
            self.roster.for_scheduling(),
            &self.standings,
        );
        Some(waits.to_string())
    }
}

#[cfg(test)]
#[path = "mind_check.rs"]
mod check;

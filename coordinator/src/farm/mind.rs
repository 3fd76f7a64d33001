//! All that the farm's loop knows and decides, without its clock, its database and its channels. What follows from what
//! is known is asked for, recorded by whoever asked, and comes back as changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use klp_livepatch::names::WorkerName;
use klp_livepatch::task::{AttemptId, LivepatchId, TaskId, TaskKind};

use super::roster::{Lent, Member, Roster, WorkerView};
use super::{Live, Order, Report, SessionId, Signal};
use crate::clock::utc;
use crate::config::Config;
use crate::ledger::{Grant, Loss};
use crate::lifecycle::{Holder, Lease, Millis, State, Taken};
use crate::schedule::{self, Need, Queue, Ready, Standings};
use crate::store::{self, Change, Known, OpenLivepatch, OpenTask, Registration, StoreError};

pub(crate) struct Mind {
    config: Arc<Config>,
    livepatches: HashMap<LivepatchId, OpenLivepatch>,
    /// All open tasks.
    tasks: HashMap<TaskId, OpenTask>,
    /// Those that could run now.
    queue: Queue,
    /// Those that wait for a time.
    delayed: BTreeSet<(Millis, TaskId)>,
    /// Those that are leased, by when the lease runs out.
    leases: BTreeSet<(Millis, TaskId)>,
    /// How each open livepatch competes for workers.
    standings: Standings,
    progress: HashMap<TaskId, String>,
    roster: Roster,
}

/// What the database holds when a farm starts.
pub(crate) struct Stored {
    pub livepatches: Vec<OpenLivepatch>,
    pub tasks: Vec<OpenTask>,
    pub workers: BTreeMap<WorkerName, Known>,
}

impl Stored {
    pub fn read(db: &rusqlite::Connection) -> Result<Self, StoreError> {
        Ok(Self {
            livepatches: store::open_livepatches(db)?,
            tasks: store::open_tasks(db)?,
            workers: store::registrations(db)?,
        })
    }
}

impl Mind {
    /// Picks up what is stored. Every lease is renewed once, since renewals are not stored.
    pub fn new(config: Arc<Config>, stored: Stored, now: Millis) -> Self {
        let mut mind = Self {
            config,
            livepatches: HashMap::new(),
            tasks: HashMap::new(),
            queue: Queue::default(),
            delayed: BTreeSet::new(),
            leases: BTreeSet::new(),
            standings: Standings::new(),
            progress: HashMap::new(),
            roster: Roster::default(),
        };
        for (name, known) in stored.workers {
            mind.roster.remember(name, known);
        }
        for livepatch in stored.livepatches {
            mind.open(livepatch);
        }
        for mut task in stored.tasks {
            if let State::Leased(lease) = &mut task.status.state {
                lease.renew(now, mind.config.lease_ms);
            }
            mind.fold(task, now);
        }
        if !mind.tasks.is_empty() {
            let (open, leased) = (mind.tasks.len(), mind.leases.len());
            tracing::info!(open, leased, "picking up open tasks");
        }
        mind
    }

    /// When something is due without anything coming in: at the latest, the next match.
    pub fn next_due(&self, now: Millis) -> Millis {
        let period = now + Millis::from(self.config.match_period_ms);
        let delayed = self.delayed.first().map(|(at, _)| *at);
        let expiry = self.leases.first().map(|(at, _)| *at);
        [delayed, expiry].into_iter().flatten().fold(period, Millis::min)
    }

    /// Takes in what a transaction changed.
    pub fn take_in(&mut self, changes: Vec<Change>, now: Millis) {
        changes.into_iter().for_each(|change| self.apply(change, now));
    }

    /// Takes in what a worker says.
    pub fn report(&mut self, session: SessionId, report: &Report, now: Millis) {
        self.roster.report(session, report, now);
        self.renew(report, now);
    }

    pub fn nudge(&mut self, worker: &WorkerName) {
        self.roster.nudge(worker);
    }

    pub fn closed(&mut self, session: SessionId, worker: &WorkerName) {
        self.roster.closed(session, worker);
    }

    pub fn workers(&self, now: Millis) -> Vec<WorkerView> {
        self.roster.views(now)
    }

    fn apply(&mut self, change: Change, now: Millis) {
        match change {
            Change::Opened(livepatch) => self.open(livepatch),
            Change::Ended { livepatch } => {
                self.livepatches.remove(&livepatch);
                self.standings.remove(&livepatch);
            }
            Change::Worker { name, standing } => self.roster.think(&name, standing),
            Change::Forgotten { name } => self.roster.forget(&name),
            Change::Task(task) => self.fold(task, now),
            Change::Event { .. } => {}
        }
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

    fn delayed_until(&self, task: &OpenTask) -> Option<Millis> {
        match task.status.state {
            State::Waiting { not_before } if self.delayed.contains(&(not_before, task.id)) => Some(not_before),
            _ => None,
        }
    }

    /// Takes in a task as it is now, in place of what it was.
    fn fold(&mut self, mut task: OpenTask, now: Millis) {
        if let Some((old, renewed)) = self.lease(task.id)
            && old.number == task.status.attempt
            && let State::Leased(lease) = &mut task.status.state
        {
            // Renewals are not stored.
            lease.expires = lease.expires.max(renewed.expires);
        }
        self.forget(task.id);
        match &task.status.state {
            State::Waiting { not_before } if *not_before > now => {
                self.delayed.insert((*not_before, task.id));
            }
            State::Waiting { .. } => self.enqueue(&task),
            State::Leased(lease) => {
                self.leases.insert((lease.expires, task.id));
                self.standings.entry(task.livepatch).or_default().running += 1;
                let lent = Lent {
                    platform: task.key.platform.clone(),
                    memory: self.memory(&task),
                };
                self.roster.holds(&lease.holder.worker, task.id, lent);
            }
            State::Succeeded | State::Failed | State::Cancelled => return,
        }
        self.tasks.insert(task.id, task);
    }

    fn forget(&mut self, id: TaskId) {
        let Some(old) = self.tasks.remove(&id) else { return };
        self.queue.remove(id);
        self.progress.remove(&id);
        match old.status.state {
            State::Waiting { not_before } => drop(self.delayed.remove(&(not_before, id))),
            State::Leased(lease) => {
                self.leases.remove(&(lease.expires, id));
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
                avoid: task.avoid.clone(),
            });
        }
    }

    fn need(&self, task: &OpenTask) -> Option<Need> {
        let backend = match task.key.kind {
            TaskKind::Check => None,
            TaskKind::Extract => Some(self.livepatches.get(&task.livepatch)?.spec.backend),
        };
        Some(Need {
            platform: task.key.platform.clone(),
            backend,
            memory: self.memory(task),
        })
    }

    /// What is set aside for a task on its worker, in bytes.
    fn memory(&self, task: &OpenTask) -> u64 {
        let livepatch = self.livepatches.get(&task.livepatch);
        livepatch.map_or(0, |l| self.config.memory(task.key.kind, &l.spec))
    }

    /// Renews the leases of what a worker says it is doing, if they are its own.
    fn renew(&mut self, report: &Report, now: Millis) {
        for (id, progress) in &report.attempts {
            let Some(task) = self.tasks.get_mut(&id.task) else {
                continue;
            };
            match &mut task.status.state {
                State::Leased(lease) if task.status.attempt == id.number && report.is_of(&lease.holder) => {
                    self.leases.remove(&(lease.expires, id.task));
                    lease.renew(now, self.config.lease_ms);
                    self.leases.insert((lease.expires, id.task));
                    self.progress.insert(id.task, progress.clone());
                }
                _ => {}
            }
        }
    }

    /// The workers whose registration is to be recorded.
    pub fn registrations(&self) -> Vec<(WorkerName, Registration)> {
        self.roster.unregistered()
    }

    /// These registrations have been recorded.
    pub fn registered(&mut self, written: &[(WorkerName, Registration)]) {
        self.roster.registered(written);
    }

    /// Attempts whose lease has run out, whose worker has started anew since, or is stopping and has not started them.
    /// Each is named until a change says that it is settled.
    pub fn losses(&mut self, now: Millis) -> Vec<Loss> {
        let expired = self.leases.iter().take_while(|(at, _)| *at <= now);
        let mut losses: BTreeMap<TaskId, Loss> = expired
            .filter_map(|(_, id)| {
                let (attempt, lease) = self.lease(*id)?;
                Some((
                    *id,
                    loss(attempt, lease, Taken::Expired, self.expiry(&lease.holder.worker)),
                ))
            })
            .collect();
        for name in self.roster.suspects() {
            let Some(member) = self.roster.get(&name) else {
                self.roster.clear(&name);
                continue;
            };
            let lost: Vec<Loss> = member
                .held
                .keys()
                .filter_map(|id| self.lease(*id))
                .filter_map(|(attempt, lease)| given_up(member, attempt, lease))
                .collect();
            if lost.is_empty() {
                self.roster.clear(&name);
            }
            losses.extend(lost.into_iter().map(|loss| (loss.attempt.task, loss)));
        }
        losses.into_values().collect()
    }

    fn lease(&self, id: TaskId) -> Option<(AttemptId, &Lease)> {
        let status = &self.tasks.get(&id)?.status;
        let number = status.attempt;
        match &status.state {
            State::Leased(lease) => Some((AttemptId { task: id, number }, lease)),
            _ => None,
        }
    }

    fn expiry(&self, worker: &WorkerName) -> String {
        match self.roster.get(worker).map(|member| member.last_seen) {
            Some(seen) if seen > 0 => format!("the lease of worker {worker} ran out; it last spoke at {}", utc(seen)),
            _ => format!("the lease of worker {worker} ran out; it has not come back"),
        }
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
        // Half a lease: long before what it holds expires, it gets nothing more to lose.
        self.roster.refresh(now, now - Millis::from(self.config.lease_ms / 2));
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

    /// What each session is to hear that waits for it: all that its worker should be doing, with what `besides` adds.
    pub fn answers(&mut self, besides: impl Fn(&WorkerName) -> Vec<Order>) -> Vec<(SessionId, Signal)> {
        let (tasks, livepatches) = (&self.tasks, &self.livepatches);
        self.roster.answers(|name, member| {
            let order = |id: &TaskId| {
                let task = tasks.get(id)?;
                match &task.status.state {
                    State::Leased(lease) if lease.holder.incarnation == member.registration.incarnation => {
                        Some(Order {
                            attempt: AttemptId {
                                task: *id,
                                number: task.status.attempt,
                            },
                            key: task.key.clone(),
                            spec: Arc::clone(&livepatches.get(&task.livepatch)?.spec),
                        })
                    }
                    _ => None,
                }
            };
            member.held.keys().filter_map(order).chain(besides(name)).collect()
        })
    }

    /// What is known of those of the tasks that are open.
    pub fn live(&mut self, tasks: Vec<TaskId>, now: Millis) -> HashMap<TaskId, Live> {
        self.roster.refresh(now, now - Millis::from(self.config.lease_ms / 2));
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

/// What became of an attempt, if its worker has said that it will not end it.
fn given_up(member: &Member, attempt: AttemptId, lease: &Lease) -> Option<Loss> {
    member.session.as_ref()?;
    let worker = &lease.holder.worker;
    if member.registration.incarnation != lease.holder.incarnation {
        let reason = format!("worker {worker} started anew and lost what it ran");
        return Some(loss(attempt, lease, Taken::Died, reason));
    }
    // A stopping worker starts nothing, so what it does not list it will never run.
    (member.draining && !member.listed.contains(&attempt)).then(|| {
        let reason = format!("worker {worker} is stopping and did not start it");
        loss(attempt, lease, Taken::Unstarted, reason)
    })
}

fn loss(attempt: AttemptId, lease: &Lease, taken: Taken, reason: String) -> Loss {
    let worker = lease.holder.worker.clone();
    Loss {
        attempt,
        worker,
        taken,
        reason,
    }
}

#[cfg(test)]
#[path = "mind_view.rs"]
pub(crate) mod view;

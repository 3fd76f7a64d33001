//! The farm's loop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use klp_livepatch::task::{AttemptId, LivepatchId, TaskId, TaskKind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::roster::{Lent, Roster};
use super::{Farm, Inbox, Input, Live, Order, Report, Signal};
use crate::clock::{Clock, utc};
use crate::config::Config;
use crate::ledger::{self, Grant, Loss, Now};
use crate::lifecycle::{Holder, Lease, Millis, State, Taken};
use crate::schedule::{self, Need, Queue, Ready, Standings};
use crate::store::{self, Change, OpenLivepatch, OpenTask, Store, StoreError};
use crate::tryout::Tryouts;

/// How long the farm leaves a database alone that has refused a transaction.
const STORE_PAUSE_MS: Millis = 1_000;

struct Actor {
    config: Arc<Config>,
    clock: Clock,
    store: Store,
    inbox: mpsc::UnboundedReceiver<Input>,
    livepatches: HashMap<LivepatchId, OpenLivepatch>,
    /// All open tasks.
    tasks: HashMap<TaskId, OpenTask>,
    /// Those that could run now.
    queue: Queue,
    /// Those that wait for a time.
    delayed: BTreeSet<(Millis, TaskId)>,
    /// Those that are leased.
    leased: BTreeSet<TaskId>,
    /// How each open livepatch competes for workers.
    standings: Standings,
    progress: HashMap<TaskId, String>,
    roster: Roster,
    tryouts: Tryouts,
    /// The database has refused a transaction; not asked again before this time.
    store_pause: Millis,
    /// Something was taken in that the present round has not looked at from the start.
    unsettled: bool,
}

/// Reads what is open from the store and starts the loop, which ends with `stop`.
///
/// # Errors
/// The database can't be read.
pub async fn start(
    config: Arc<Config>,
    clock: Clock,
    store: Store,
    (sender, inbox): (Inbox, mpsc::UnboundedReceiver<Input>),
    tryouts: Tryouts,
    stop: CancellationToken,
) -> Result<(Farm, tokio::task::JoinHandle<()>), StoreError> {
    let (livepatches, tasks, workers) = store
        .read(|db| {
            let livepatches = store::open_livepatches(db)?;
            Ok::<_, StoreError>((livepatches, store::open_tasks(db)?, store::registrations(db)?))
        })
        .await?;
    let mut actor = Actor {
        config,
        clock,
        store,
        inbox,
        livepatches: HashMap::new(),
        tasks: HashMap::new(),
        queue: Queue::default(),
        delayed: BTreeSet::new(),
        leased: BTreeSet::new(),
        standings: Standings::new(),
        progress: HashMap::new(),
        roster: Roster::default(),
        tryouts,
        store_pause: 0,
        unsettled: true,
    };
    for (name, known) in workers {
        actor.roster.remember(name, known);
    }
    let now = clock.now();
    for livepatch in livepatches {
        actor.open(livepatch);
    }
    for mut task in tasks {
        if let State::Leased(lease) = &mut task.status.state {
            lease.renew(now, actor.config.lease_ms);
        }
        actor.fold(task, now);
    }
    if !actor.tasks.is_empty() {
        tracing::info!(
            open = actor.tasks.len(),
            leased = actor.leased.len(),
            "picking up open tasks"
        );
    }
    let task = tokio::spawn(async move {
        tokio::select! {
            () = actor.run() => {}
            () = stop.cancelled() => {}
        }
    });
    Ok((Farm::new(sender), task))
}

impl Actor {
    async fn run(&mut self) {
        loop {
            // What came in while the last round wrote may want another round at once.
            if !self.unsettled {
                let pause = self.until_due();
                tokio::select! {
                    input = self.inbox.recv() => match input {
                        Some(input) => self.take_in(input),
                        None => return,
                    },
                    () = tokio::time::sleep(pause) => {}
                }
            }
            self.drain();
            self.unsettled = false;
            if self.clock.now() >= self.store_pause {
                match self.write().await {
                    Ok(()) => {}
                    // Without its writer the farm can decide nothing more.
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        tracing::error!(%error, "the farm can't record its decisions and pauses");
                        self.store_pause = self.clock.now() + STORE_PAUSE_MS;
                    }
                }
            }
            self.answer();
        }
    }

    /// How long until something is due without anything coming in.
    fn until_due(&self) -> Duration {
        let now = self.clock.now();
        let period = now + Millis::from(self.config.match_period_ms);
        let delayed = self.delayed.first().map(|(at, _)| *at);
        let expiry = self.leases().map(|(_, lease)| lease.expires).min();
        let due = [delayed, expiry].into_iter().flatten().min().unwrap_or(period);
        let due = due.min(period).max(self.store_pause);
        Duration::from_millis(u64::try_from(due - now).unwrap_or(0))
    }

    fn drain(&mut self) {
        while let Ok(input) = self.inbox.try_recv() {
            self.take_in(input);
        }
    }

    fn take_in(&mut self, input: Input) {
        self.unsettled = true;
        let now = self.clock.now();
        match input {
            Input::Changes(changes) => changes.into_iter().for_each(|change| self.apply(change, now)),
            Input::Report {
                session,
                signals,
                report,
            } => {
                self.roster.report(session, signals, &report, now);
                self.renew(&report, now);
            }
            Input::Nudge(worker) => self.roster.nudge(&worker),
            Input::Closed { session, worker } => self.roster.closed(session, &worker),
            // Whoever asked may be gone.
            Input::Workers(answer) => drop(answer.send(self.roster.views(now))),
            Input::Live { tasks, answer } => drop(answer.send(self.live(tasks, now))),
        }
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
    fn fold(&mut self, task: OpenTask, now: Millis) {
        self.forget(task.id);
        match &task.status.state {
            State::Waiting { not_before } if *not_before > now => {
                self.delayed.insert((*not_before, task.id));
            }
            State::Waiting { .. } => self.enqueue(&task),
            State::Leased(lease) => {
                self.leased.insert(task.id);
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
                self.leased.remove(&id);
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
        let holder = Holder {
            worker: report.worker.clone(),
            incarnation: report.registration.incarnation,
        };
        for (id, progress) in &report.attempts {
            let Some(task) = self.tasks.get_mut(&id.task) else {
                continue;
            };
            match &mut task.status.state {
                State::Leased(lease) if task.status.attempt == id.number && lease.holder == holder => {
                    lease.renew(now, self.config.lease_ms);
                    self.progress.insert(id.task, progress.clone());
                }
                _ => {}
            }
        }
    }

    fn leases(&self) -> impl Iterator<Item = (AttemptId, &Lease)> {
        self.leased.iter().filter_map(|id| {
            let task = self.tasks.get(id)?;
            let number = task.status.attempt;
            match &task.status.state {
                State::Leased(lease) => Some((AttemptId { task: *id, number }, lease)),
                _ => None,
            }
        })
    }

    /// Writes what follows from what is known, one transaction after the other; each one's changes are taken in before
    /// the next is decided.
    async fn write(&mut self) -> Result<(), StoreError> {
        let (now, rules) = (Now::of(&self.clock), self.config.rules());
        let unregistered: Vec<_> = self
            .roster
            .members_mut()
            .filter(|(_, member)| member.unregistered)
            .map(|(name, member)| (name.clone(), member.registration.clone()))
            .collect();
        if !unregistered.is_empty() {
            let workers = unregistered.clone();
            let retry = rules.retry;
            self.store
                .write(move |tx| ledger::register(tx, &workers, &retry, now))
                .await?;
            for (name, member) in self.roster.members_mut() {
                let written = unregistered.iter().find(|(n, _)| n == name);
                if written.is_some_and(|(_, registration)| *registration == member.registration) {
                    member.unregistered = false;
                }
            }
        }
        let losses = self.losses(now.ms);
        if !losses.is_empty() {
            for loss in &losses {
                tracing::warn!(attempt = %loss.attempt, reason = loss.reason, "attempt lost");
            }
            self.store
                .write(move |tx| ledger::lose(tx, &losses, &rules, now))
                .await?;
            self.drain();
        }
        let grants = self.grants(now.ms);
        if !grants.is_empty() {
            let lease_ms = self.config.lease_ms;
            self.store
                .write(move |tx| ledger::lease(tx, grants, lease_ms, now))
                .await?;
            self.drain();
        }
        Ok(())
    }

    /// Attempts whose lease has run out, whose worker has started anew since, or is stopping and has not started them.
    fn losses(&self, now: Millis) -> Vec<Loss> {
        let loss = |attempt: AttemptId, lease: &Lease| {
            let Holder { worker, incarnation } = &lease.holder;
            let loss = |reason, taken| Loss {
                attempt,
                worker: worker.clone(),
                taken,
                reason,
            };
            let member = self.roster.get(worker);
            if let Some(member) = member.filter(|m| m.session.is_some()) {
                if member.registration.incarnation != *incarnation {
                    return Some(loss(
                        format!("worker {worker} started anew and lost what it ran"),
                        Taken::Died,
                    ));
                }
                // A stopping worker starts nothing, so what it does not list it will never run.
                if member.draining && !member.listed.contains(&attempt) {
                    return Some(loss(
                        format!("worker {worker} is stopping and did not start it"),
                        Taken::Unstarted,
                    ));
                }
            }
            lease.is_expired(now).then(|| match member.map(|m| m.last_seen) {
                Some(seen) if seen > 0 => loss(
                    format!("the lease of worker {worker} ran out; it last spoke at {}", utc(seen)),
                    Taken::Expired,
                ),
                _ => loss(
                    format!("the lease of worker {worker} ran out; it has not come back"),
                    Taken::Expired,
                ),
            })
        };
        self.leases()
            .filter_map(|(attempt, lease)| loss(attempt, lease))
            .collect()
    }

    /// Who gets what now.
    fn grants(&mut self, now: Millis) -> Vec<Grant> {
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

    /// Tells each worker whose session waits for it all that it should be doing.
    fn answer(&mut self) {
        let (tasks, livepatches) = (&self.tasks, &self.livepatches);
        for (name, member) in self.roster.members_mut() {
            // Not before it is recorded: whoever has an answer is known to the submissions that follow.
            if !member.unanswered || member.unregistered {
                continue;
            }
            let Some((_, signals)) = &member.session else { continue };
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
            let tried_out = self.tryouts.orders(name);
            let orders = member.held.keys().filter_map(order).chain(tried_out).collect();
            signals.send_replace(Signal::Orders(orders));
            member.unanswered = false;
        }
    }

    fn live(&mut self, tasks: Vec<TaskId>, now: Millis) -> HashMap<TaskId, Live> {
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

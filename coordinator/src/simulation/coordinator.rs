//! The coordinator in the simulation: the real [`Mind`] over the real ledger and database, with each await of the real
//! loop a point at which anything else may happen, the coordinator's death included.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use klp_livepatch::names::WorkerName;

use super::world::{Event, Packet, World};
use crate::farm::mind::{Mind, Stored};
use crate::farm::{Report, SessionId, Signal};
use crate::ledger::{self, Grant, Loss, Now};
use crate::lifecycle::{Millis, State, Taken};
use crate::store::{self, Change, Registration, StoreError, Tx};

pub(super) struct Coordinator {
    mind: Mind,
    inbox: VecDeque<Input>,
    sessions: SessionId,
    lines: BTreeMap<u64, Line>,
    /// A transaction of the loop that has been decided on and not yet run.
    pending: Pending,
    /// The time of the present round.
    round: Now,
    unsettled: bool,
    /// Which wake-up counts.
    alarm: u64,
    started: Millis,
}

struct Line {
    session: SessionId,
    worker: usize,
    heard: Millis,
}

enum Input {
    Changes(Vec<Change>),
    Report(SessionId, Report),
    Closed(SessionId, WorkerName),
}

enum Pending {
    Nothing,
    Register(Vec<(WorkerName, Registration)>),
    Lose(Vec<Loss>),
    Lease(Vec<Grant>),
}

impl World {
    pub(super) fn start_coordinator(&mut self) -> Result<(), String> {
        self.say(|| "coordinator starts".to_owned());
        let stored = Stored::read(self.db.read()).map_err(|e| e.to_string())?;
        let mind = Mind::new(Arc::clone(&self.config), stored, self.now);
        self.generation += 1;
        self.coordinator = Some(Coordinator {
            mind,
            inbox: VecDeque::new(),
            sessions: 0,
            lines: BTreeMap::new(),
            pending: Pending::Nothing,
            round: Now { ms: self.now, seed: 0 },
            unsettled: true,
            alarm: 0,
            started: self.now,
        });
        self.wake(0);
        Ok(())
    }

    /// Ends it where it stands: what was not committed is gone, and so is every connection.
    pub(super) fn kill_coordinator(&mut self) {
        let Some(coordinator) = self.coordinator.take() else {
            return;
        };
        self.say(|| "coordinator dies".to_owned());
        self.dead_lines.extend(coordinator.lines.keys());
        let pause = self.random.between(1, 1500);
        self.plan(pause, Event::Start);
    }

    /// Has the loop go on after `pause`, in place of any other time.
    fn wake(&mut self, pause: Millis) {
        let generation = self.generation;
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        coordinator.alarm += 1;
        let alarm = coordinator.alarm;
        self.plan(pause, Event::Loop { generation, alarm });
    }

    fn post(&mut self, input: Input) {
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        coordinator.inbox.push_back(input);
        if matches!(coordinator.pending, Pending::Nothing) {
            self.wake(0);
        }
    }

    /// Runs a transaction, and checks the promises.
    pub(super) fn transact<T, E>(
        &mut self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, String>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (result, changes) = self.db.write(work);
        self.transactions += 1;
        let changed = !changes.is_empty();
        self.changed = changed;
        if changed {
            self.book.check(self.db.read(), &self.blobs)?;
        }
        self.post(Input::Changes(changes));
        Ok(result)
    }

    pub(super) fn hear(&mut self, line: u64, worker: usize, report: Report) {
        if self.dead_lines.contains(&line) {
            return self.send(worker, Packet::Broken { line, worker });
        }
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        let known = coordinator.lines.entry(line).or_insert_with(|| {
            coordinator.sessions += 1;
            let session = coordinator.sessions;
            Line {
                session,
                worker,
                heard: now,
            }
        });
        known.heard = now;
        let session = known.session;
        self.post(Input::Report(session, report));
    }

    pub(super) fn hang_up(&mut self, line: u64) {
        self.dead_lines.insert(line);
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        if let Some(known) = coordinator.lines.remove(&line) {
            let name = self.workers[known.worker].name.clone();
            self.post(Input::Closed(known.session, name));
        }
    }

    /// Ends the sessions of workers that have been silent too long.
    pub(super) fn sweep(&mut self) {
        let Some(coordinator) = &self.coordinator else { return };
        let patience = Millis::from(self.config.lease_ms);
        let silent = coordinator
            .lines
            .iter()
            .filter(|(_, line)| line.heard + patience < self.now);
        let silent: Vec<(u64, usize)> = silent.map(|(line, known)| (*line, known.worker)).collect();
        for (line, worker) in silent {
            self.hang_up(line);
            self.send(worker, Packet::Broken { line, worker });
        }
    }

    fn take_all_in(&mut self) {
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        while let Some(input) = coordinator.inbox.pop_front() {
            coordinator.unsettled = true;
            match input {
                Input::Changes(changes) => coordinator.mind.take_in(changes, now),
                Input::Report(session, report) => {
                    self.book.heard(&report, now);
                    coordinator.mind.report(session, &report, now);
                }
                Input::Closed(session, worker) => coordinator.mind.closed(session, &worker),
            }
        }
    }

    /// What the real loop does up to its next await.
    pub(super) fn go_on(&mut self, alarm: u64) -> Result<(), String> {
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(());
        };
        if coordinator.alarm != alarm {
            return Ok(());
        }
        let round = coordinator.round;
        let rules = self.config.rules();
        let stage = match std::mem::replace(&mut coordinator.pending, Pending::Nothing) {
            Pending::Nothing => {
                self.take_all_in();
                let round = self.stamp();
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.round = round;
                    coordinator.unsettled = false;
                }
                0
            }
            Pending::Register(workers) => {
                let written = workers.clone();
                let result = self.transact(move |tx| ledger::register(tx, &workers, &rules.retry, round))?;
                result.map_err(|e| e.to_string())?;
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.mind.registered(&written);
                }
                1
            }
            Pending::Lose(losses) => {
                self.say(|| format!("coordinator takes {losses:?}"));
                let result = self.transact(move |tx| ledger::lose(tx, &losses, &rules, round))?;
                result.map_err(|e| e.to_string())?;
                self.take_all_in();
                2
            }
            Pending::Lease(grants) => {
                self.say(|| format!("coordinator leases {grants:?}"));
                let lease_ms = self.config.lease_ms;
                let result = self.transact(move |tx| ledger::lease(tx, grants, lease_ms, round))?;
                result.map_err(|e| e.to_string())?;
                self.take_all_in();
                3
            }
        };
        let decided = self.decide(stage)?;
        match decided {
            Pending::Nothing => self.end_round(),
            pending => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.pending = pending;
                }
                // The database takes its time, and others have theirs before.
                let pause = self.random.between(0, 12);
                self.wake(pause);
                Ok(())
            }
        }
    }

    fn decide(&mut self, stage: u32) -> Result<Pending, String> {
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(Pending::Nothing);
        };
        let now = coordinator.round.ms;
        if stage < 1 {
            let workers = coordinator.mind.registrations();
            if !workers.is_empty() {
                return Ok(Pending::Register(workers));
            }
        }
        if stage < 2 {
            let losses = coordinator.mind.losses(now);
            let earliest = coordinator.started;
            for loss in losses.iter().filter(|loss| loss.taken == Taken::Expired) {
                self.book
                    .may_expire(self.db.read(), loss, earliest, now, self.config.lease_ms)?;
            }
            if !losses.is_empty() {
                return Ok(Pending::Lose(losses));
            }
        }
        if stage < 3 {
            let grants = coordinator.mind.grants(now);
            if coordinator.inbox.is_empty() {
                self.book.may_grant(self.db.read(), &grants, now)?;
            }
            if !grants.is_empty() {
                return Ok(Pending::Lease(grants));
            }
        }
        Ok(Pending::Nothing)
    }

    fn end_round(&mut self) -> Result<(), String> {
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(());
        };
        // Only a farm that has heard all must be right about all.
        let heard_all = coordinator.inbox.is_empty();
        if heard_all && self.compared != self.transactions {
            self.compared = self.transactions;
            let stored = Stored::read(self.db.read()).map_err(|e| e.to_string())?;
            let fresh = Mind::new(Arc::clone(&self.config), stored, now).view(now);
            super::promises::same_view(&fresh, &coordinator.mind.view(now))?;
            if self.transactions.is_multiple_of(8) {
                let open = fresh.tasks.values().map(|(task, _)| task).collect::<Vec<_>>();
                let live = coordinator.mind.live(open.iter().map(|t| t.id).collect(), now);
                super::promises::named_causes(&open, &live)?;
            }
        }
        let answers = coordinator.mind.answers(|_| Vec::new());
        let next = match coordinator.unsettled {
            true => 0,
            false => (coordinator.mind.next_due(now) - now).max(1),
        };
        let lines: BTreeMap<SessionId, (u64, usize)> = coordinator
            .lines
            .iter()
            .map(|(line, known)| (known.session, (*line, known.worker)))
            .collect();
        for (session, signal) in answers {
            let Some(&(line, worker)) = lines.get(&session) else {
                continue;
            };
            match signal {
                Signal::Silence => {}
                Signal::Orders(orders) => {
                    for order in orders.iter() {
                        let attempt = store::attempt(self.db.read(), order.attempt.task, order.attempt.number);
                        let stored = attempt.map_err(|e| e.to_string())?;
                        if stored.is_none_or(|a| a.holder.worker != self.workers[worker].name) {
                            return Err(format!("{} was assigned before its lease was durable", order.attempt));
                        }
                        if heard_all {
                            let task =
                                store::open_task(self.db.read(), order.attempt.task).map_err(|e| e.to_string())?;
                            if !task.is_some_and(|t| matches!(t.status.state, State::Leased(_))) {
                                return Err(format!("{} is ordered and not leased", order.attempt));
                            }
                        }
                    }
                    self.send(worker, Packet::Orders { line, worker, orders });
                }
                Signal::Replaced(_) => {
                    self.hang_up(line);
                    self.send(worker, Packet::Broken { line, worker });
                }
            }
        }
        let busy = self.coordinator.as_ref().is_some_and(|c| !c.inbox.is_empty());
        self.wake(if busy { 0 } else { next });
        Ok(())
    }
}

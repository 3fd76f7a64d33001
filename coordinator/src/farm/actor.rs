//! The farm's loop: feeds the [`Mind`] with what comes in, writes what follows, and tells the workers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::mind::Mind;
use super::{Answer, Farm, Inbox, Input, Pulse, Signal, trace};
use crate::clock::Clock;
use crate::config::{Config, Current};
use crate::ledger::{self, Now};
use crate::lifecycle::Millis;
use crate::metrics::Metrics;
use crate::store::{self, Store, StoreError};
use crate::tryout::Tryouts;

/// How long the farm leaves a database alone that has refused a transaction.
const STORE_PAUSE_MS: Millis = 1_000;
/// How often it is looked at what keeps tasks waiting, for the log.
const OBSTACLES_MS: Millis = 5_000;

struct Actor {
    settings: Current,
    /// Those of the present round.
    config: Arc<Config>,
    clock: Clock,
    store: Store,
    inbox: mpsc::UnboundedReceiver<Input>,
    mind: Mind,
    tryouts: Tryouts,
    /// The database has refused a transaction; not asked again before this time.
    store_pause: Millis,
    /// What the log was told that keeps tasks waiting, and when to look again.
    obstacles: BTreeSet<String>,
    look_again: Millis,
    /// Something was taken in that the present round has not looked at from the start.
    unsettled: bool,
}

/// Reads what is open from the store and starts the loop, which ends with `stop`.
///
/// # Errors
/// The database can't be read.
pub async fn start(
    settings: Current,
    clock: Clock,
    store: Store,
    (sender, inbox): (Inbox, mpsc::UnboundedReceiver<Input>),
    tryouts: Tryouts,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<(Farm, tokio::task::JoinHandle<()>), StoreError> {
    let open = store.read(|db| Ok::<_, StoreError>(store::open(db)?)).await?;
    metrics.begin(&open);
    let config = settings.now();
    let mind = Mind::new(config.clone(), open, clock.now());
    let Pulse { tasks, leased, .. } = mind.pulse();
    if tasks > 0 {
        tracing::info!(open = tasks, leased, "picking up open tasks");
    }
    let mut actor = Actor {
        settings,
        config,
        clock,
        store,
        inbox,
        mind,
        tryouts,
        store_pause: 0,
        obstacles: BTreeSet::new(),
        look_again: 0,
        unsettled: true,
    };
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
                    biased;
                    input = self.inbox.recv() => match input {
                        Some(input) => self.take_in(input),
                        None => return,
                    },
                    () = tokio::time::sleep(pause) => {}
                }
            }
            self.reconfigure();
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
            self.log_obstacles();
        }
    }

    /// Takes over settings that were read again.
    fn reconfigure(&mut self) {
        let now = self.settings.now();
        if !Arc::ptr_eq(&now, &self.config) {
            self.mind.config.clone_from(&now);
            self.config = now;
        }
    }

    /// Says once what has come to keep tasks waiting, and once that it is gone.
    fn log_obstacles(&mut self) {
        let now = self.clock.now();
        if now < self.look_again {
            return;
        }
        self.look_again = now + OBSTACLES_MS;
        let found = self.mind.obstacles(now);
        for (reason, tasks) in &found {
            if !self.obstacles.contains(reason) {
                tracing::warn!(tasks, reason, "tasks wait");
            }
        }
        for reason in self.obstacles.iter().filter(|reason| !found.contains_key(*reason)) {
            tracing::info!(reason, "tasks wait no more for this");
        }
        self.obstacles = found.into_keys().collect();
    }

    fn until_due(&self) -> Duration {
        let now = self.clock.now();
        let due = self.mind.next_due(now).max(self.store_pause);
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
            Input::Changes(changes) => changes.into_iter().for_each(|change| self.mind.apply(change, now)),
            Input::Report {
                session,
                signals,
                report,
            } => self.mind.hear(session, signals, &report, now),
            Input::Nudge(worker) => self.mind.nudge(&worker),
            Input::Closed { session, worker } => self.mind.closed(session, &worker),
            // Whoever asked may be gone.
            Input::Workers(answer) => drop(answer.send(self.mind.views(now))),
            Input::Waiting(answer) => drop(answer.send(self.mind.waiting(now))),
            Input::Pulse(answer) => drop(answer.send(self.mind.pulse())),
            Input::Live { tasks, answer } => drop(answer.send(self.mind.live(tasks, now))),
        }
    }

    /// Writes what follows from what is known, one transaction after the other; each one's changes are taken in before
    /// the next is decided.
    async fn write(&mut self) -> Result<(), StoreError> {
        let (now, rules) = (Now::of(&self.clock), self.config.rules());
        let unregistered = self.mind.unregistered();
        if !unregistered.is_empty() {
            let workers = unregistered.clone();
            self.store
                .write(move |tx| ledger::register(tx, &workers, &rules.retry, now))
                .await?;
            self.mind.registered(&unregistered);
            self.drain();
        }
        let losses = self.mind.losses(now.ms);
        if !losses.is_empty() {
            for loss in &losses {
                let livepatch = self.mind.tasks.get(&loss.attempt.task).map(|task| task.livepatch);
                tracing::warn!(
                    klp.livepatch = livepatch.map(tracing::field::display),
                    klp.task = %loss.attempt.task,
                    klp.attempt = loss.attempt.number,
                    klp.worker = %loss.worker,
                    reason = loss.reason,
                    "attempt lost"
                );
            }
            self.store
                .write(move |tx| ledger::lose(tx, &losses, &rules, now))
                .await?;
        }
        self.mind.settled();
        self.drain();
        let grants = self.mind.grants(now.ms);
        if !grants.is_empty() {
            let lease_ms = self.config.lease_ms;
            let waited = trace::waited(&self.mind, &grants);
            self.store
                .write(move |tx| ledger::lease(tx, grants, lease_ms, now))
                .await?;
            self.drain();
            trace::leased(&self.mind, waited, now.ms);
        }
        Ok(())
    }

    /// Tells each worker whose session waits for it all that it should be doing, tryouts included.
    fn answer(&mut self) {
        for Answer {
            signals,
            mut orders,
            worker,
            ..
        } in self.mind.answers()
        {
            orders.extend(self.tryouts.orders(&worker));
            signals.send_replace(Signal::Orders(orders.into()));
        }
    }
}

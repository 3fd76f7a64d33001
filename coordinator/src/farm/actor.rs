//! The farm's loop: takes in what comes, has [`Mind`] decide, and records it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::mind::{Mind, Stored};
use super::{Farm, Inbox, Input, SessionId, Signal};
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::{self, Now};
use crate::lifecycle::Millis;
use crate::store::{Store, StoreError};
use crate::tryout::Tryouts;

/// How long the farm leaves a database alone that has refused a transaction.
const STORE_PAUSE_MS: Millis = 1_000;

struct Actor {
    config: Arc<Config>,
    clock: Clock,
    store: Store,
    inbox: mpsc::UnboundedReceiver<Input>,
    mind: Mind,
    /// How each open session is told something.
    sessions: BTreeMap<SessionId, watch::Sender<Signal>>,
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
    let stored = store.read(Stored::read).await?;
    let mind = Mind::new(Arc::clone(&config), stored, clock.now());
    let mut actor = Actor {
        config,
        clock,
        store,
        inbox,
        mind,
        sessions: BTreeMap::new(),
        tryouts,
        store_pause: 0,
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
            Input::Changes(changes) => self.mind.take_in(changes, now),
            Input::Report {
                session,
                signals,
                report,
            } => {
                self.sessions.insert(session, signals);
                self.mind.report(session, &report, now);
            }
            Input::Nudge(worker) => self.mind.nudge(&worker),
            Input::Closed { session, worker } => {
                self.sessions.remove(&session);
                self.mind.closed(session, &worker);
            }
            // Whoever asked may be gone.
            Input::Workers(answer) => drop(answer.send(self.mind.workers(now))),
            Input::Live { tasks, answer } => drop(answer.send(self.mind.live(tasks, now))),
        }
    }

    /// Writes what follows from what is known, one transaction after the other; each one's changes are taken in before
    /// the next is decided.
    async fn write(&mut self) -> Result<(), StoreError> {
        let (now, rules) = (Now::of(&self.clock), self.config.rules());
        let workers = self.mind.registrations();
        if !workers.is_empty() {
            let retry = rules.retry;
            let workers = self
                .store
                .write(move |tx| ledger::register(tx, &workers, &retry, now).map(|()| workers))
                .await?;
            self.mind.registered(&workers);
        }
        let losses = self.mind.losses(now.ms);
        if !losses.is_empty() {
            for loss in &losses {
                tracing::warn!(attempt = %loss.attempt, reason = loss.reason, "attempt lost");
            }
            self.store
                .write(move |tx| ledger::lose(tx, &losses, &rules, now))
                .await?;
            self.drain();
        }
        let grants = self.mind.grants(now.ms);
        if !grants.is_empty() {
            let lease_ms = self.config.lease_ms;
            self.store
                .write(move |tx| ledger::lease(tx, grants, lease_ms, now))
                .await?;
            self.drain();
        }
        Ok(())
    }

    /// Tells each session that waits for it what it is to hear.
    fn answer(&mut self) {
        for (session, signal) in self.mind.answers(|worker| self.tryouts.orders(worker)) {
            if let Some(signals) = self.sessions.get(&session) {
                signals.send_replace(signal);
            }
        }
    }
}

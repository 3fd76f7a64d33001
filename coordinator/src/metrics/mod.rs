//! What operators watch, as Prometheus reads it.
//!
//! [`tally`] folds the store's changes into facts, [`counters`] counts these and what the other parts count themselves, and
//! [`view`] shows workers, queue and disk at one moment. [`scrape`] makes a text of both. Labels have few values, none of
//! them a livepatch's or a codestream's name: however much is submitted, the number of series stays.

mod counters;
mod scrape;
mod tally;
mod view;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use counters::Counters;
pub use scrape::{Format, Scrape};
use tally::Tally;

use crate::lifecycle::Millis;
use crate::store::{Change, Group, Open};

/// Counts what happens; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    counters: Counters,
    /// Only the store's writer changes it.
    tally: Mutex<Tally>,
}

impl Metrics {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            counters: Counters::new(),
            tally: Mutex::default(),
        }))
    }

    /// Takes in what is open before anything changes.
    pub fn begin(&self, open: &Open) {
        self.tally(|tally, counters| tally.begin(open, &mut |fact| counters.count(fact)));
    }

    /// Takes in what a transaction changed.
    pub fn take_in(&self, changes: &[Change], now: Millis) {
        self.tally(|tally, counters| {
            for change in changes {
                tally.take_in(change, now, &mut |fact| counters.count(fact));
            }
        });
    }

    fn tally(&self, work: impl FnOnce(&mut Tally, &Counters)) {
        let mut tally = self.0.tally.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut tally, &self.0.counters);
    }

    pub fn transaction(&self, group: &Group) {
        self.0.counters.transaction(group);
    }

    /// An HTTP request was answered with this status.
    pub fn http(&self, status: u16) {
        self.0.counters.http(status);
    }

    /// A worker's session is open as long as the answer lives.
    pub fn session(&self) -> OpenSession {
        self.0.counters.sessions.inc();
        self.0.counters.sessions_opened.inc();
        OpenSession(self.clone())
    }

    /// Counts the bytes of artifacts that come in, and of those that are stored.
    pub fn artifacts(&self) -> (Counter, Counter) {
        let counters = &self.0.counters;
        (counters.artifacts_received.clone(), counters.artifacts_stored.clone())
    }

    /// Counts the bytes of logs that are kept.
    pub fn logs(&self) -> Counter {
        self.0.counters.logs_kept.clone()
    }

    fn registry(&self) -> &Registry {
        self.0.counters.registry()
    }
}

/// A session, as it is counted.
pub struct OpenSession(Metrics);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.0.counters.sessions.dec();
    }
}

#[cfg(test)]
mod tests;

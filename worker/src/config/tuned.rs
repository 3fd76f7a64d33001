//! What may change while a worker runs: a configuration that is read again replaces it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use klp_livepatch::CodestreamFilter;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// Which of the trees to announce.
    pub codestreams: CodestreamFilter,
    /// Bytes that this worker lends to attempts; 0: as much as they like.
    pub memory: u64,
    /// How often trees and tools are looked at thoroughly, and announced as unready if they are not what they should be.
    pub readiness_period: Duration,
    /// How long a stopping worker lets its attempts go on before it hands them back.
    pub grace: Duration,
}

impl Tuned {
    /// For a worker within a command on somebody's desk: all codestreams, and what it runs is handed back soon when it stops.
    pub fn at_a_desk() -> Self {
        Self {
            codestreams: CodestreamFilter::all(),
            memory: super::default_memory(),
            readiness_period: Duration::from_secs(60),
            grace: Duration::from_secs(2),
        }
    }
}

/// Clones see the same.
#[derive(Clone, Debug)]
pub struct Tunable(Arc<RwLock<Arc<Tuned>>>);

impl Tunable {
    pub fn new(tuned: Tuned) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(tuned))))
    }

    pub fn now(&self) -> Arc<Tuned> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, tuned: Tuned) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tuned);
    }
}

//! What the service manager is told: that the worker is ready, once its session stands or it is known why it doesn't, and
//! from then on that it lives, which nothing but the session's own loop says.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use klp_telemetry::service;

/// The session's loop may turn thousands of times in this.
const SELDOM: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Told(Mutex<Option<Instant>>);

impl Told {
    /// Tells how things stand, if that was not told a moment ago.
    pub fn tell(&self, status: impl FnOnce() -> String) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            None => service::ready(&status()),
            Some(at) if at.elapsed() < SELDOM => return,
            Some(_) => service::alive(&status()),
        }
        *last = Some(Instant::now());
    }
}

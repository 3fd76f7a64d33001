//! How much one caller may ask, and how often one address may fail to say who it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use klp_identity::Role;

use super::caller::{Caller, Key};
use crate::config::Config;

/// Callers that are remembered; beyond, those whose limits are full again are forgotten.
const MANY: usize = 4096;

pub struct Limits {
    people: DefaultKeyedRateLimiter<Key>,
    workers: DefaultKeyedRateLimiter<Key>,
    failures: DefaultKeyedRateLimiter<Option<IpAddr>>,
    /// Addresses that failed too often, and until when nothing they say is looked at.
    shut_out: Mutex<HashMap<Option<IpAddr>, Instant>>,
    clock: DefaultClock,
}

impl Limits {
    pub fn new(config: &Config) -> Self {
        let number = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = |each: u32, burst: u32| Quota::per_second(number(each)).allow_burst(number(burst));
        let failures = number(config.auth_failures_per_minute);
        Self {
            people: RateLimiter::keyed(quota(config.requests_per_second, config.requests_burst)),
            workers: RateLimiter::keyed(quota(config.worker_requests_per_second, config.worker_requests_burst)),
            failures: RateLimiter::keyed(Quota::per_minute(failures)),
            shut_out: Mutex::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request of a caller.
    ///
    /// # Errors
    /// It asks too much; how long it has to wait.
    pub fn count(&self, caller: &Caller) -> Result<(), Duration> {
        let limiter = match caller.role {
            Some(Role::Worker) => &self.workers,
            _ => &self.people,
        };
        if limiter.len() > MANY {
            limiter.retain_recent();
        }
        limiter
            .check_key(&caller.key)
            .map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Whether an address is listened to.
    ///
    /// # Errors
    /// It failed too often; how long it has to wait.
    pub fn may_try(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        let shut_out = self.shut_out.lock().unwrap_or_else(PoisonError::into_inner);
        match shut_out
            .get(&address)
            .and_then(|until| until.checked_duration_since(Instant::now()))
        {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// An address said who it is, and it is not so.
    pub fn failed(&self, address: Option<IpAddr>) {
        if self.failures.len() > MANY {
            self.failures.retain_recent();
        }
        let Err(until) = self.failures.check_key(&address) else {
            return;
        };
        let now = Instant::now();
        let mut shut_out = self.shut_out.lock().unwrap_or_else(PoisonError::into_inner);
        shut_out.retain(|_, until| *until > now);
        shut_out.insert(address, now + until.wait_time_from(self.clock.now()));
    }
}

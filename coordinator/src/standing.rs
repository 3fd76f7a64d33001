//! What the farm thinks of a worker, beyond what the worker says of itself: an operator's drain, and the quarantine of
//! one that keeps failing. Pure.

use serde::{Deserialize, Serialize};

use crate::lifecycle::{Millis, Retry};

/// Kept across restarts of the worker and of the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    pub drain: Option<Drain>,
    /// How often in a row it failed by the farm's fault, or was lost.
    pub faults: u32,
    pub quarantine: Option<Quarantine>,
}

/// An operator wants it to take nothing new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub since: Millis,
    pub reason: String,
}

/// It is given nothing until a time has come, and then one attempt at a time until one ends well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    pub until: Millis,
    pub reason: String,
}

/// When a worker goes into quarantine, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// So many faults in a row bring it there.
    pub after: u32,
    /// The first pause, doubled with each further fault; its longest.
    pub pause_ms: u32,
    pub pause_max_ms: u32,
}

impl Standing {
    /// After one more fault.
    #[must_use]
    pub fn after_fault(&self, what: &str, policy: &Policy, now: Millis, noise: u16) -> Self {
        let faults = self.faults.saturating_add(1);
        let quarantine = (faults >= policy.after).then(|| {
            let pauses = Retry {
                fault_limit: u32::MAX,
                death_limit: u32::MAX,
                backoff_ms: policy.pause_ms,
                backoff_max_ms: policy.pause_max_ms,
            };
            Quarantine {
                until: now + pauses.pause(faults - policy.after + 1, noise),
                reason: match faults {
                    1 => format!("it failed: {what}"),
                    n => format!("it failed {n} times in a row, the last time: {what}"),
                },
            }
        });
        Self {
            faults,
            quarantine,
            ..self.clone()
        }
    }

    /// After an attempt whose end speaks for the worker; `None` if that changes nothing.
    pub fn after_success(&self) -> Option<Self> {
        (self.faults > 0 || self.quarantine.is_some()).then(|| Self {
            faults: 0,
            quarantine: None,
            ..self.clone()
        })
    }

    /// In quarantine now.
    pub fn quarantined(&self, now: Millis) -> Option<&Quarantine> {
        self.quarantine.as_ref().filter(|q| q.until > now)
    }

    /// Out of quarantine, but yet to end an attempt well: it gets one at a time.
    pub fn on_probation(&self) -> bool {
        self.quarantine.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        after: 3,
        pause_ms: 1_000,
        pause_max_ms: 5_000,
    };

    #[test]
    fn quarantine_comes_after_faults_in_a_row_grows_and_goes_with_a_success() {
        let fault = |standing: &Standing, now| standing.after_fault("disk full", &POLICY, now, u16::MAX);
        let mut standing = Standing::default();
        for _ in 0..2 {
            standing = fault(&standing, 0);
            assert_eq!(standing.quarantined(0), None);
            assert!(!standing.on_probation());
        }
        let mut pauses = Vec::new();
        for _ in 0..4 {
            standing = fault(&standing, 0);
            pauses.push(standing.quarantine.as_ref().unwrap().until);
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 5_000]);
        assert!(
            standing
                .quarantined(4_999)
                .unwrap()
                .reason
                .contains("6 times in a row, the last time: disk full")
        );
        assert_eq!(standing.quarantined(5_000), None);
        assert!(standing.on_probation());
        let good = standing.after_success().unwrap();
        assert_eq!(good, Standing::default());
        assert_eq!(good.after_success(), None);
    }

    #[test]
    fn a_drain_outlives_faults_and_successes() {
        let drain = Some(Drain {
            since: 7,
            reason: "new disk".into(),
        });
        let drained = Standing {
            drain: drain.clone(),
            ..Standing::default()
        };
        let failed = drained.after_fault("x", &POLICY, 0, 0);
        assert_eq!(failed.drain, drain);
        assert_eq!(failed.after_success().unwrap(), drained);
    }
}

//! What the coordinator said of the farm, and what that comes to.

use klp_proto::v1;
use serde::Serialize;

/// The farm at one time.
#[derive(Clone, Debug, Default)]
pub struct Farm {
    /// Where the coordinator is.
    pub coordinator: String,
    pub workers: Vec<v1::Worker>,
    /// Those in progress, the oldest first.
    pub livepatches: Vec<v1::Livepatch>,
    pub waiting: Vec<v1::Waiting>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Connected, and given tasks.
    pub workers_ready: usize,
    /// Connected, and given nothing new: drained, stopping or in quarantine.
    pub workers_held: usize,
    pub workers_lost: usize,
    /// Of connected workers.
    pub slots: u32,
    pub slots_busy: u32,
    /// Tasks that workers hold leases on.
    pub leased: u32,
    /// Tasks that wait.
    pub waiting: u32,
    /// Of these, those for which somebody has to do something.
    pub blocked: u32,
    pub livepatches: usize,
}

/// How a worker is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Lost,
    Held,
    Ready,
}

pub fn health(worker: &v1::Worker, now: i64) -> Health {
    if !worker.connected {
        Health::Lost
    } else if worker.draining || worker.drained_ms > 0 || worker.quarantined_until_ms > now {
        Health::Held
    } else {
        Health::Ready
    }
}

impl Farm {
    pub fn totals(&self, now: i64) -> Totals {
        let mut totals = Totals {
            livepatches: self.livepatches.len(),
            leased: self.livepatches.iter().filter_map(|l| l.counts).map(|c| c.leased).sum(),
            waiting: self.waiting.iter().map(|w| w.tasks).sum(),
            blocked: self.waiting.iter().filter(|w| w.blocked).map(|w| w.tasks).sum(),
            ..Totals::default()
        };
        for worker in &self.workers {
            match health(worker, now) {
                Health::Lost => totals.workers_lost += 1,
                Health::Held => totals.workers_held += 1,
                Health::Ready => totals.workers_ready += 1,
            }
            if worker.connected {
                totals.slots += worker.slots;
                totals.slots_busy += worker.slots_busy;
            }
        }
        totals
    }
}

/// Tasks that have ended, and all that there are.
pub fn progress(livepatch: &v1::Livepatch) -> (u32, u32) {
    let counts = livepatch.counts.unwrap_or_default();
    let done = counts.succeeded + counts.failed + counts.cancelled;
    (done, done + counts.waiting + counts.leased)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn farm() -> Farm {
        let worker = |name: &str, connected, busy| v1::Worker {
            name: name.into(),
            connected,
            slots: 4,
            slots_busy: busy,
            last_seen_ms: 60_000,
            ..Default::default()
        };
        let mut busy = worker("build2", true, 3);
        busy.tools = vec![v1::Tool {
            backend: "native".into(),
            version: "1".into(),
        }];
        busy.running = vec![v1::Running {
            livepatch: "bsc1".into(),
            kind: v1::TaskKind::Extract.into(),
            platform: Some(v1::Platform {
                codestream: "15.6u1".into(),
                arch: "x86_64".into(),
            }),
            since_ms: 61_000,
            progress: "compiling".into(),
        }];
        let mut drained = worker("build10", true, 1);
        (drained.drained_ms, drained.drain_reason) = (5_000, "new disk".into());
        let livepatch = |name: &str, created, succeeded, failed| v1::Livepatch {
            id: name.into(),
            state: v1::LivepatchState::Running.into(),
            created_ms: created,
            spec: Some(v1::Spec {
                name: name.into(),
                cve: "2022-1048".into(),
                ..Default::default()
            }),
            counts: Some(v1::TaskCounts {
                waiting: 5,
                leased: 2,
                succeeded,
                failed,
                cancelled: 0,
            }),
            ..Default::default()
        };
        Farm {
            coordinator: "http://farm:7420".into(),
            workers: vec![drained, busy, worker("build3", false, 2)],
            livepatches: vec![livepatch("bsc1", 1_000, 1, 0), livepatch("bsc2", 30_000, 8, 3)],
            waiting: vec![
                v1::Waiting {
                    reason: "a free slot on build2".into(),
                    tasks: 7,
                    oldest_ms: 50_000,
                    livepatches: vec!["bsc1".into()],
                    blocked: false,
                },
                v1::Waiting {
                    reason: "no worker holds 15.5u40/s390x".into(),
                    tasks: 3,
                    oldest_ms: 20_000,
                    livepatches: vec!["bsc1".into(), "bsc2".into()],
                    blocked: true,
                },
            ],
        }
    }

    #[test]
    fn what_it_comes_to() {
        let totals = Totals {
            workers_ready: 1,
            workers_held: 1,
            workers_lost: 1,
            slots: 8,
            slots_busy: 4,
            leased: 4,
            waiting: 10,
            blocked: 3,
            livepatches: 2,
        };
        assert_eq!(farm().totals(65_000), totals);
        assert_eq!(progress(&farm().livepatches[1]), (11, 18));
    }
}

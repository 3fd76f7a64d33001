//! What is counted as it happens: the families with their names, their help and their bounds. All of them are atomics; a
//! family is looked up by labels from small fixed sets, so that the number of series does not grow with what is submitted.

use std::time::{SystemTime, UNIX_EPOCH};

use klp_livepatch::outcome::Cause;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::TaskKind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::tally::{Again, End, Fact, Phase, blamed};
use crate::lifecycle::{AttemptState, Millis};
use crate::store::Group;

/// All names but the process's own begin with this.
pub const PREFIX: &str = "klp_farm";

/// What stands where a label does not apply.
const NONE: &str = "none";

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTask {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAttempt {
    kind: &'static str,
    backend: &'static str,
    end: &'static str,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// The classes of HTTP statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

pub struct Counters {
    registry: Registry,
    tasks_open: Family<OfTask, Gauge>,
    tasks_ended: Family<OfTask, Counter>,
    livepatches_open: Family<OfState, Gauge>,
    livepatches_ended: Counter,
    dispatch: Histograms<OfKind>,
    attempt: Histograms<OfAttempt>,
    retries: Family<OfCause, Counter>,
    leases_expired: Counter,
    transaction: Histogram,
    commit: Histogram,
    group: Histogram,
    refused: Counter,
    pub artifacts_received: Counter,
    pub artifacts_stored: Counter,
    pub logs_kept: Counter,
    pub sessions: Gauge,
    pub sessions_opened: Counter,
    http: Family<OfClass, Counter>,
}

/// From half a millisecond to a quarter of a minute: a disk.
fn of_disk() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}

/// From a millisecond to four and a half hours: a queue, or an attempt.
fn of_work() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 13))
}

impl Counters {
    pub fn new() -> Self {
        let mut new = Self {
            registry: Registry::default(),
            tasks_open: Family::default(),
            tasks_ended: Family::default(),
            livepatches_open: Family::default(),
            livepatches_ended: Counter::default(),
            dispatch: Family::new_with_constructor(of_work),
            attempt: Family::new_with_constructor(of_work),
            retries: Family::default(),
            leases_expired: Counter::default(),
            transaction: of_disk(),
            commit: of_disk(),
            group: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            refused: Counter::default(),
            artifacts_received: Counter::default(),
            artifacts_stored: Counter::default(),
            logs_kept: Counter::default(),
            sessions: Gauge::default(),
            sessions_opened: Counter::default(),
            http: Family::default(),
        };
        new.register();
        new.begin_at_zero();
        new
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn register(&mut self) {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.registry.register_with_unit(
            "process_start_time",
            "When this process started to serve, since the Unix epoch",
            Unit::Seconds,
            ConstGauge::new(started.as_secs_f64()),
        );
        let all = self.registry.sub_registry_with_prefix(PREFIX);
        let build = Family::<Build, Gauge>::default();
        let version = env!("CARGO_PKG_VERSION");
        build.get_or_create(&Build { version }).set(1);
        all.register("build_info", "1, for the version that runs", build);
        all.register(
            "tasks_open",
            "Open tasks by kind and by what they do",
            self.tasks_open.clone(),
        );
        all.register("tasks_ended", "Tasks that ended, by how", self.tasks_ended.clone());
        all.register("livepatches_open", "Open livepatches", self.livepatches_open.clone());
        all.register(
            "livepatches_ended",
            "Livepatches that got a verdict",
            self.livepatches_ended.clone(),
        );
        all.register_with_unit(
            "dispatch",
            "From when a task could run to when it was leased to a worker",
            Unit::Seconds,
            self.dispatch.clone(),
        );
        all.register_with_unit(
            "attempt",
            "From an attempt's lease to its end, its wait for a slot included",
            Unit::Seconds,
            self.attempt.clone(),
        );
        all.register(
            "retries",
            "Tasks that wait again, by how their attempt ended; asked: a user wanted it",
            self.retries.clone(),
        );
        all.register(
            "leases_expired",
            "Attempts lost because their worker was silent for too long",
            self.leases_expired.clone(),
        );
        all.register_with_unit(
            "store_transaction",
            "How long a write transaction took, its work and its commit",
            Unit::Seconds,
            self.transaction.clone(),
        );
        all.register_with_unit(
            "store_commit",
            "How long a write transaction's commit took: what the disk needs",
            Unit::Seconds,
            self.commit.clone(),
        );
        all.register(
            "store_group_jobs",
            "Requests that shared a write transaction",
            self.group.clone(),
        );
        all.register(
            "store_transactions_refused",
            "Write transactions that the database refused",
            self.refused.clone(),
        );
        all.register_with_unit(
            "artifacts_received",
            "Artifacts' content that came in, kept or not",
            Unit::Bytes,
            self.artifacts_received.clone(),
        );
        all.register_with_unit(
            "artifacts_stored",
            "Artifacts' content that was stored",
            Unit::Bytes,
            self.artifacts_stored.clone(),
        );
        all.register_with_unit(
            "logs_kept",
            "Attempts' logs that were kept, before they are compressed",
            Unit::Bytes,
            self.logs_kept.clone(),
        );
        all.register("sessions", "Workers' sessions that are open", self.sessions.clone());
        all.register(
            "sessions_opened",
            "Workers' sessions that were opened",
            self.sessions_opened.clone(),
        );
        all.register(
            "http_requests",
            "Answered HTTP requests by their status's class",
            self.http.clone(),
        );
    }

    /// A series that first shows with its first count hides that count from `rate()`.
    fn begin_at_zero(&self) {
        for kind in TaskKind::ALL.map(TaskKind::as_str) {
            for phase in Phase::ALL {
                let state = phase.as_str();
                let _ = self.tasks_open.get_or_create(&OfTask { kind, state });
            }
            for end in End::ALL {
                let state = end.as_str();
                let _ = self.tasks_ended.get_or_create(&OfTask { kind, state });
            }
            let _ = self.dispatch.get_or_create(&OfKind { kind });
        }
        for (kind, backend) in tools() {
            for (end, cause) in [
                (AttemptState::Succeeded, NONE),
                (AttemptState::Failed, Cause::Farm.as_str()),
                (AttemptState::Lost, Cause::Farm.as_str()),
                (AttemptState::Died, Cause::Farm.as_str()),
            ] {
                let end = end.as_str();
                let of = OfAttempt {
                    kind,
                    backend,
                    end,
                    cause,
                };
                let _ = self.attempt.get_or_create(&of);
            }
        }
        for paused in [false, true] {
            let _ = self.livepatches_open.get_or_create(&state_of(paused));
        }
        for state in [
            AttemptState::Failed,
            AttemptState::HandedBack,
            AttemptState::TakenBack,
            AttemptState::Lost,
            AttemptState::Died,
        ] {
            let _ = self.retries.get_or_create(&cause_of(Again::After(state)));
        }
        let _ = self.retries.get_or_create(&cause_of(Again::Asked));
        for class in CLASSES {
            let _ = self.http.get_or_create(&OfClass { class });
        }
    }

    pub fn count(&self, fact: Fact) {
        match fact {
            Fact::Open { kind, phase, more } => {
                let (kind, state) = (kind.as_str(), phase.as_str());
                step(&self.tasks_open.get_or_create(&OfTask { kind, state }), more);
            }
            Fact::Ended { kind, end } => {
                let (kind, state) = (kind.as_str(), end.as_str());
                self.tasks_ended.get_or_create(&OfTask { kind, state }).inc();
            }
            Fact::Dispatched { kind, after } => {
                let kind = kind.as_str();
                self.dispatch.get_or_create(&OfKind { kind }).observe(seconds(after));
            }
            Fact::Attempt { ended, backend } => {
                if ended.state == AttemptState::Lost {
                    self.leases_expired.inc();
                }
                let of = OfAttempt {
                    kind: ended.kind.as_str(),
                    backend: backend.map_or(NONE, |b| b.as_str()),
                    end: ended.state.as_str(),
                    cause: blamed(&ended).map_or(NONE, |c| c.as_str()),
                };
                self.attempt.get_or_create(&of).observe(seconds(ended.lasted));
            }
            Fact::Again(why) => drop(self.retries.get_or_create(&cause_of(why)).inc()),
            Fact::Livepatch { paused, more } => step(&self.livepatches_open.get_or_create(&state_of(paused)), more),
            Fact::LivepatchEnded => drop(self.livepatches_ended.inc()),
        }
    }

    pub fn transaction(&self, group: &Group) {
        self.transaction.observe(group.took.as_secs_f64());
        self.commit.observe(group.commit.as_secs_f64());
        // At most some hundreds.
        self.group.observe(group.jobs as f64);
        if !group.committed {
            self.refused.inc();
        }
    }

    pub fn http(&self, status: u16) {
        // What is no status is the server's fault.
        let class = CLASSES
            .get(usize::from(status / 100).wrapping_sub(1))
            .unwrap_or(&CLASSES[4]);
        self.http.get_or_create(&OfClass { class }).inc();
    }
}

/// What kinds of task run with which tools.
fn tools() -> impl Iterator<Item = (&'static str, &'static str)> {
    let bare = [TaskKind::Check, TaskKind::Verify].map(|kind| (kind.as_str(), NONE));
    let with_tool = Backend::ALL.map(|backend| (TaskKind::Extract.as_str(), backend.as_str()));
    bare.into_iter().chain(with_tool)
}

fn step(gauge: &Gauge, more: bool) {
    match more {
        true => gauge.inc(),
        false => gauge.dec(),
    };
}

fn state_of(paused: bool) -> OfState {
    let state = if paused { "paused" } else { "running" };
    OfState { state }
}

fn cause_of(why: Again) -> OfCause {
    let cause = match why {
        Again::After(state) => state.as_str(),
        Again::Asked => "asked",
    };
    OfCause { cause }
}

/// Milliseconds as seconds; never less than none.
pub fn seconds(ms: Millis) -> f64 {
    // Exact up to 285,000 years.
    ms.max(0) as f64 / 1000.0
}

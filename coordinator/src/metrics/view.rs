//! What is looked at rather than counted: workers, the queue and the disk at one moment, as a registry of its own, so that
//! a worker that is forgotten leaves no series behind.

use std::collections::BTreeMap;

use klp_proto::v1::Skew;
use klp_proto::view::skew_word;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::counters::{PREFIX, seconds};
use crate::farm::{For, Waiting, WorkerView};
use crate::lifecycle::Millis;
use crate::space::Room;

const SKEWS: [Skew; 6] = [
    Skew::Unspecified,
    Skew::Same,
    Skew::Older,
    Skew::Newer,
    Skew::TooOld,
    Skew::TooNew,
];

/// The most workers that are told one by one, those that are connected first.
const MAX_WORKERS: usize = 500;

/// The farm at one moment.
#[derive(Clone, Debug)]
pub struct View {
    pub at: Millis,
    pub workers: Vec<WorkerView>,
    pub waiting: Vec<Waiting>,
    /// `None`: the system would not say.
    pub room: Option<Room>,
    /// Below this, livepatches are refused, in bytes.
    pub min_free: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWorker {
    worker: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStanding {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSkew {
    skew: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWaiting {
    waits_for: &'static str,
}

/// How a worker is thought of, told by one word each: the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Offline,
    Drained,
    Stopping,
    Quarantined,
    Ready,
}

impl Condition {
    const ALL: [Condition; 5] = [
        Condition::Offline,
        Condition::Drained,
        Condition::Stopping,
        Condition::Quarantined,
        Condition::Ready,
    ];

    fn of(worker: &WorkerView) -> Self {
        match worker {
            w if !w.connected => Condition::Offline,
            w if w.standing.drain.is_some() => Condition::Drained,
            w if w.draining => Condition::Stopping,
            w if w.quarantine.is_some() => Condition::Quarantined,
            _ => Condition::Ready,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Condition::Offline => "offline",
            Condition::Drained => "drained",
            Condition::Stopping => "stopping",
            Condition::Quarantined => "quarantined",
            Condition::Ready => "ready",
        }
    }
}

impl View {
    pub fn registry(&self, now: Millis) -> Registry {
        let mut all = Registry::with_prefix(PREFIX);
        self.queue(&mut all);
        self.conditions(&mut all);
        self.skews(&mut all);
        self.each_worker(&mut all);
        self.disk(&mut all);
        all.register_with_unit(
            "view_age",
            "How old what is told of workers and queue is; it grows while the farm's loop waits for its disk",
            Unit::Seconds,
            ConstGauge::new(seconds(now - self.at)),
        );
        all
    }

    fn queue(&self, all: &mut Registry) {
        let mut by: BTreeMap<For, (i64, f64)> = For::ALL.into_iter().map(|what| (what, (0, 0.0))).collect();
        for waiting in &self.waiting {
            let (tasks, oldest) = by.entry(waiting.what).or_default();
            *tasks = tasks.saturating_add(whole(waiting.tasks as u64));
            *oldest = oldest.max(seconds(self.at - waiting.since));
        }
        let tasks = Family::<OfWaiting, Gauge>::default();
        let ages = Family::<OfWaiting, FloatGauge>::default();
        for (what, (count, oldest)) in by {
            let of = OfWaiting {
                waits_for: what.as_str(),
            };
            tasks.get_or_create(&of).set(count);
            ages.get_or_create(&of).set(oldest);
        }
        all.register(
            "queue_tasks",
            "Tasks that wait, by what for: a free slot, a worker that could run them (blocked), a pause after a fault, or \
             somebody to resume their livepatch",
            tasks,
        );
        all.register_with_unit(
            "queue_oldest_age",
            "How long the one has waited that has waited the longest",
            Unit::Seconds,
            ages,
        );
    }

    fn conditions(&self, all: &mut Registry) {
        let workers = Family::<OfStanding, Gauge>::default();
        for condition in Condition::ALL {
            let count = self.workers.iter().filter(|w| Condition::of(w) == condition).count();
            let state = condition.as_str();
            workers.get_or_create(&OfStanding { state }).set(whole(count as u64));
        }
        all.register("workers", "Known workers, each in one state", workers);
    }

    fn skews(&self, all: &mut Registry) {
        let workers = Family::<OfSkew, Gauge>::default();
        for skew in SKEWS {
            let connected = self.workers.iter().filter(|w| w.connected && w.skew() == skew);
            let of = OfSkew { skew: skew_word(skew) };
            workers.get_or_create(&of).set(whole(connected.count() as u64));
        }
        all.register(
            "connected_workers_by_skew",
            "Workers with a session, by how their version compares with the coordinator's",
            workers,
        );
    }

    fn each_worker(&self, all: &mut Registry) {
        let mut told: Vec<&WorkerView> = self.workers.iter().collect();
        told.sort_by_key(|worker| !worker.connected);
        told.truncate(MAX_WORKERS);
        let family = |value: &dyn Fn(&WorkerView) -> u64| {
            let family = Family::<OfWorker, Gauge>::default();
            for view in &told {
                let worker = view.name.to_string();
                family.get_or_create(&OfWorker { worker }).set(whole(value(view)));
            }
            family
        };
        let mut register = |name, help, value: &dyn Fn(&WorkerView) -> u64| {
            all.register(name, help, family(value));
        };
        register("worker_connected", "1 while the worker has a session", &|w| {
            w.connected.into()
        });
        register(
            "worker_drained",
            "1 while an operator keeps it from taking anything new",
            &|w| w.standing.drain.is_some().into(),
        );
        register(
            "worker_quarantined",
            "1 while it gets nothing because it failed too often",
            &|w| w.quarantine.is_some().into(),
        );
        register("worker_slots", "Attempts it runs at a time", &|w| {
            w.registration.slots.into()
        });
        register("worker_busy_slots", "Slots that have an attempt", &|w| w.busy.into());
        register("worker_prefetched_tasks", "Tasks it was given beyond its slots", &|w| {
            w.prefetched.into()
        });
        register(
            "worker_sessions_replaced",
            "How often within the last hour another session took over its name",
            &|w| w.replaced.into(),
        );
        let mut bytes = |name, help, value: &dyn Fn(&WorkerView) -> u64| {
            all.register_with_unit(name, help, Unit::Bytes, family(value));
        };
        bytes(
            "worker_memory",
            "Memory it lends to attempts; 0: it sets no limit",
            &|w| w.registration.memory,
        );
        bytes(
            "worker_memory_busy",
            "Memory that is set aside for its attempts",
            &|w| w.memory_busy,
        );
    }

    fn disk(&self, all: &mut Registry) {
        let mut bytes = |name, help, value: u64| {
            all.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(whole(value)));
        };
        if let Some(room) = self.room {
            bytes("data_free", "Free room on the disk of data_dir", room.free);
            bytes("data_size", "Size of the disk of data_dir", room.size);
        }
        bytes(
            "data_min_free",
            "The setting min_free_bytes: below it, new livepatches are refused",
            self.min_free,
        );
    }
}

type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

//! A simulated worker: what it keeps in memory, what on its disk, and what it says.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Artifact, Cause, Digest, Ending, Failure, Outcome};
use klp_livepatch::report::{CheckReport, ExtractReport, Report, VerifyReport};
use klp_livepatch::task::{AttemptId, Incarnation, Platform, TaskKey, TaskKind};
use uuid::Uuid;

use crate::farm::{self, Order, SessionId};
use crate::lifecycle::{Holder, Millis};
use crate::store::Registration;

pub struct Worker {
    pub name: WorkerName,
    pub slots: u32,
    pub trees: BTreeSet<Platform>,
    pub incarnation: Incarnation,
    pub up: bool,
    /// Nothing gets to it or from it before this time.
    pub cut_until: Millis,
    pub session: Option<SessionId>,
    pub stopping: bool,
    /// All it was given since its start.
    taken: BTreeSet<AttemptId>,
    pub running: BTreeMap<AttemptId, (TaskKey, Millis)>,
    /// On its disk: outcomes that are not acknowledged, with who it was that made them.
    pub outbox: BTreeMap<AttemptId, (Holder, Outcome)>,
    pub next_report: Millis,
    pub next_delivery: Millis,
}

impl Worker {
    pub fn new(n: u32, slots: u32, trees: BTreeSet<Platform>) -> Self {
        Self {
            name: format!("w{n}").parse().expect("a plain name"),
            slots,
            trees,
            incarnation: Incarnation(Uuid::from_u128(u128::from(n) << 64)),
            up: true,
            cut_until: 0,
            session: None,
            stopping: false,
            taken: BTreeSet::new(),
            running: BTreeMap::new(),
            outbox: BTreeMap::new(),
            next_report: 0,
            next_delivery: 0,
        }
    }

    pub fn holder(&self) -> Holder {
        Holder {
            worker: self.name.clone(),
            incarnation: self.incarnation,
        }
    }

    /// It has run something since it started.
    pub fn taken_anything(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Its process ends without a word. Its disk stays.
    pub fn crash(&mut self) {
        self.up = false;
        self.session = None;
        self.taken.clear();
        self.running.clear();
    }

    /// A new process, which runs nothing.
    pub fn start(&mut self) {
        self.up = true;
        self.stopping = false;
        self.incarnation = Incarnation(Uuid::from_u128(self.incarnation.0.as_u128() + 1));
        self.next_report = 0;
        self.next_delivery = 0;
    }

    /// What it says: all that it does and has.
    pub fn report(&self) -> farm::Report {
        let running = self.running.keys().chain(self.outbox.keys());
        farm::Report {
            worker: self.name.clone(),
            registration: Registration {
                incarnation: self.incarnation,
                version: String::new(),
                slots: self.slots,
                trees: self.trees.clone(),
                tools: vec![("native".to_owned(), "1".to_owned())],
                memory: 0,
                broken_trees: BTreeMap::new(),
                broken_tools: BTreeMap::new(),
                isolation: Vec::new(),
            },
            attempts: (0..)
                .zip(running)
                .map(|(n, id)| farm::Running {
                    attempt: *id,
                    progress: String::new(),
                    waiting: n >= self.slots,
                })
                .collect(),
            draining: self.stopping,
            protocol: 1,
        }
    }

    /// Hears all that it should be doing: starts what is new, stops what is not wanted.
    pub fn hear(&mut self, orders: &[Order], now: Millis, rng: &mut fastrand::Rng) {
        for order in orders {
            if !self.stopping && self.taken.insert(order.attempt) {
                let takes = rng.i64(1..8_000);
                self.running.insert(order.attempt, (order.key.clone(), now + takes));
            }
        }
        let wanted: BTreeSet<AttemptId> = orders.iter().map(|o| o.attempt).collect();
        self.running.retain(|id, _| wanted.contains(id));
    }

    /// Ends what is due, and puts the outcomes on its disk.
    pub fn work(&mut self, now: Millis, rng: &mut fastrand::Rng, calm: bool) {
        let due = self.running.iter().filter(|(_, (_, at))| *at <= now);
        let due: Vec<(AttemptId, TaskKey)> = due.map(|(id, (key, _))| (*id, key.clone())).collect();
        for (id, key) in due {
            self.running.remove(&id);
            let outcome = outcome(&key, if calm { 0 } else { rng.u32(0..100) });
            self.outbox.insert(id, (self.holder(), outcome));
            self.next_delivery = now;
        }
    }

    /// It is told to stop: what it runs it hands back.
    pub fn stop(&mut self) {
        self.stopping = true;
        let holder = self.holder();
        for (id, _) in std::mem::take(&mut self.running) {
            let reason = "stopping".to_owned();
            let ending = Ending::HandedBack { reason };
            self.outbox.insert(id, (holder.clone(), ended(ending)));
        }
    }
}

fn ended(ending: Ending) -> Outcome {
    Outcome {
        ending,
        report: None,
        artifacts: Vec::new(),
    }
}

fn outcome(key: &TaskKey, chance: u32) -> Outcome {
    let failed = |cause| ended(Ending::Failed(Failure::new(cause, "it went wrong")));
    match chance {
        90.. => failed(Cause::Farm),
        85.. => failed(Cause::Yours),
        80.. => failed(Cause::Codestream),
        75.. => ended(Ending::HandedBack {
            reason: "no room".to_owned(),
        }),
        _ => success(key),
    }
}

fn success(key: &TaskKey) -> Outcome {
    let content = key.to_string();
    let (report, artifacts) = match key.kind {
        TaskKind::Check => (Report::Check(CheckReport::default()), Vec::new()),
        TaskKind::Verify => (Report::Verify(VerifyReport::default()), Vec::new()),
        TaskKind::Extract => {
            let report = ExtractReport {
                tool: "native 1".to_owned(),
                ibt: false,
                targets: Vec::new(),
                origin: None,
            };
            let artifact = Artifact {
                name: "a.c".to_owned(),
                digest: Digest::of(content.as_bytes()),
                size: content.len() as u64,
            };
            (Report::Extract(report), vec![artifact])
        }
    };
    Outcome {
        ending: Ending::Succeeded,
        report: Some(report),
        artifacts,
    }
}

//! A simulated worker: what it keeps in memory, what it keeps on disk, and what it says.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Artifact, Cause, Digest, Ending, Failure, Outcome};
use klp_livepatch::report::{CheckReport, ExtractReport, Report as Found};
use klp_livepatch::task::{AttemptId, Incarnation, Platform, TaskKey, TaskKind};
use uuid::Uuid;

use super::random::Random;
use crate::farm::{Order, Report};
use crate::lifecycle::{Holder, Millis};
use crate::store::Registration;

pub(super) struct Worker {
    pub name: WorkerName,
    pub trees: BTreeSet<Platform>,
    pub slots: u32,
    pub up: bool,
    /// How often its process has started.
    pub life: u64,
    pub draining: bool,
    /// Its connection, as it believes.
    pub line: Option<u64>,
    pub running: BTreeMap<AttemptId, TaskKey>,
    /// What it has heard the last of, in this life.
    finished: BTreeSet<AttemptId>,
    /// On its disk: outcomes not known to be settled, and which life made each.
    pub outbox: BTreeMap<AttemptId, (u64, Outcome)>,
    /// Nothing goes in or out before.
    pub cut_until: Millis,
    /// It does nothing before.
    pub stalled_until: Millis,
}

/// What an order led to.
pub(super) struct Followed {
    pub started: Vec<AttemptId>,
    pub stopped: usize,
}

impl Worker {
    pub fn new(name: &str, trees: BTreeSet<Platform>, slots: u32) -> Self {
        Self {
            name: name.parse().unwrap(),
            trees,
            slots,
            up: false,
            life: 0,
            draining: false,
            line: None,
            running: BTreeMap::new(),
            finished: BTreeSet::new(),
            outbox: BTreeMap::new(),
            cut_until: 0,
            stalled_until: 0,
        }
    }

    pub fn holder(&self, life: u64) -> Holder {
        Holder {
            worker: self.name.clone(),
            incarnation: Incarnation(Uuid::from_u128(u128::from(life))),
        }
    }

    pub fn boot(&mut self) {
        self.up = true;
        self.life += 1;
    }

    /// Ends the process; what is on disk stays.
    pub fn die(&mut self) {
        self.up = false;
        self.draining = false;
        self.line = None;
        self.running.clear();
        self.finished.clear();
    }

    pub fn report(&self) -> Report {
        let attempts = self.running.keys().map(|id| (*id, "runs".to_owned()));
        let kept = self.outbox.keys().map(|id| (*id, "commits".to_owned()));
        Report {
            worker: self.name.clone(),
            registration: Registration {
                incarnation: self.holder(self.life).incarnation,
                version: "1".into(),
                slots: self.slots,
                trees: self.trees.clone(),
                tools: vec![("native".into(), "1".into())],
                memory: 0,
                broken_trees: BTreeMap::new(),
                broken_tools: BTreeMap::new(),
            },
            attempts: attempts.chain(kept).collect(),
            draining: self.draining,
        }
    }

    /// Does what the farm says: stops what is not ordered, starts what is new.
    pub fn follow(&mut self, orders: &[Order]) -> Followed {
        let ordered: BTreeSet<AttemptId> = orders.iter().map(|o| o.attempt).collect();
        let before = self.running.len();
        self.running.retain(|id, _| ordered.contains(id));
        let stopped = before - self.running.len();
        let mut started = Vec::new();
        for order in orders {
            let id = order.attempt;
            let known = self.running.contains_key(&id) || self.outbox.contains_key(&id) || self.finished.contains(&id);
            if !known && !self.draining {
                self.running.insert(id, order.key.clone());
                started.push(id);
            }
        }
        Followed { started, stopped }
    }

    /// Puts an attempt's outcome on the disk.
    pub fn finish(&mut self, id: AttemptId, outcome: Outcome) {
        self.running.remove(&id);
        self.outbox.insert(id, (self.life, outcome));
    }

    /// The farm has said that it needs to hear of this no more.
    pub fn settled(&mut self, id: AttemptId) {
        if self.outbox.remove(&id).is_some_and(|(life, _)| life == self.life) {
            self.finished.insert(id);
        }
    }
}

/// How an attempt may end.
pub(super) fn outcome(kind: TaskKind, random: &mut Random, calm: bool) -> Outcome {
    let failed = |cause| {
        let message = format!("failure {}", random_word(cause));
        Ending::Failed(Failure::new(cause, message))
    };
    let ending = match random.below(100) {
        n if n < 70 || calm => Ending::Succeeded,
        n if n < 76 => failed(Cause::Yours),
        n if n < 82 => failed(Cause::Codestream),
        n if n < 92 => failed(Cause::Farm),
        _ => hand_back(),
    };
    let succeeded = ending == Ending::Succeeded;
    let artifacts = match (kind, succeeded) {
        (TaskKind::Extract, true) => (0..=random.below(2)).map(|n| artifact(n, random.next())).collect(),
        _ => Vec::new(),
    };
    let report = succeeded.then(|| match kind {
        TaskKind::Check => Found::Check(CheckReport::default()),
        TaskKind::Extract => Found::Extract(ExtractReport::default()),
    });
    Outcome {
        ending,
        report,
        artifacts,
    }
}

pub(super) fn hand_back() -> Ending {
    Ending::HandedBack {
        reason: "the worker is stopping".into(),
    }
}

fn random_word(cause: Cause) -> &'static str {
    cause.as_str()
}

fn artifact(n: usize, content: u64) -> Artifact {
    let digest: Digest = format!("{content:064x}").parse().unwrap();
    Artifact {
        name: format!("file{n}.c"),
        digest,
        size: 1,
    }
}

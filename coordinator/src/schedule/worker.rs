//! A worker as far as scheduling cares.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::Platform;

use super::Need;
use crate::lifecycle::Millis;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub name: WorkerName,
    /// Why it is given nothing, whatever it has.
    pub absence: Option<Absence>,
    /// How many attempts it may run at a time.
    pub slots: u32,
    /// How many attempts it holds.
    pub busy: u32,
    /// How many of them run each tool, or none.
    pub with_tools: HashMap<Option<Backend>, u32>,
    /// With which tools, or none, its attempts are short, and how many such it may hold beyond its slots because it ends
    /// them faster than new ones come.
    pub prefetch: BTreeMap<Option<Backend>, u32>,
    /// Bytes it lends to attempts; `None`: it does not say, and is not limited.
    pub memory: Option<u64>,
    pub memory_busy: u64,
    /// Trees and tools that passed its readiness check, and those that did not, with the reason.
    pub trees: HashSet<Platform>,
    pub backends: BTreeSet<Backend>,
    pub broken_trees: BTreeMap<Platform, String>,
    pub broken_backends: BTreeMap<Backend, String>,
    /// How many attempts it runs on each platform.
    pub running: HashMap<Platform, u32>,
    /// Platforms it ran lately.
    pub warm: BTreeSet<Platform>,
}

/// Why a worker takes nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Not connected since it was last heard of; 0: not since the coordinator started.
    Offline { since: Millis },
    /// Connected, but silent.
    Silent { since: Millis },
    /// It is stopping.
    Stopping,
    /// An operator drained it.
    Drained { since: Millis, reason: String },
    /// It keeps failing.
    Quarantined { until: Millis, reason: String },
}

impl Worker {
    /// One that is not there and has nothing.
    pub fn unknown(name: WorkerName) -> Self {
        Self {
            name,
            absence: Some(Absence::Offline { since: 0 }),
            slots: 0,
            busy: 0,
            with_tools: HashMap::new(),
            prefetch: BTreeMap::new(),
            memory: None,
            memory_busy: 0,
            trees: HashSet::new(),
            backends: BTreeSet::new(),
            broken_trees: BTreeMap::new(),
            broken_backends: BTreeMap::new(),
            running: HashMap::new(),
            warm: BTreeSet::new(),
        }
    }

    /// Its trees and tools are what is needed.
    pub(super) fn has(&self, need: &Need) -> bool {
        self.trees.contains(&need.platform) && need.backend.is_none_or(|b| self.backends.contains(&b))
    }

    /// Whether so much of its memory is free when so much is lent, in bytes.
    pub(super) fn has_room(&self, memory: u64, lent: u64) -> bool {
        self.memory.is_none_or(|all| lent.saturating_add(memory) <= all)
    }

    /// It could start something now.
    pub(super) fn is_free(&self) -> bool {
        self.absence.is_none() && self.busy < self.slots
    }

    /// How many it may hold beyond its slots to be given another attempt with this tool, or none.
    pub(super) fn beyond(&self, tool: Option<Backend>) -> u32 {
        self.prefetch.get(&tool).copied().unwrap_or_default()
    }

    /// How many it may hold beyond its slots with what it holds already: nothing is to wait behind an attempt that may
    /// take long.
    pub(super) fn beyond_held(&self) -> u32 {
        let held = self.with_tools.keys().map(|tool| self.beyond(*tool));
        held.min().unwrap_or(u32::MAX)
    }

    /// How many it may hold beyond its slots to be given anything.
    pub(super) fn most_beyond(&self) -> u32 {
        self.prefetch.values().copied().max().unwrap_or_default()
    }

    /// What it is given is less than before once it holds so many.
    pub(super) fn is_limit(&self, busy: u32) -> bool {
        let beyond = busy.checked_sub(self.slots);
        beyond.is_some_and(|n| n == 0 || self.prefetch.values().any(|limit| *limit == n))
    }
}

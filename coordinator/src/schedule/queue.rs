//! The ready tasks, found by what they need: a freed slot looks only at tasks it could run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::{LivepatchId, Platform, TaskId};

/// What a worker must have to run a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Need {
    pub platform: Platform,
    /// `None`: no extraction tool.
    pub backend: Option<Backend>,
    /// Bytes.
    pub memory: u64,
}

/// A task that could run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub task: TaskId,
    pub livepatch: LivepatchId,
    pub need: Need,
    /// Unique; tasks of a livepatch are served in this order.
    pub order: i64,
    /// Workers on which it failed by the farm's fault.
    pub avoid: BTreeSet<WorkerName>,
}

/// The tasks of one livepatch with one need, in their order.
pub(super) type Line = BTreeMap<i64, Ready>;
/// What waits for one platform.
pub(super) type Lines = BTreeMap<Need, BTreeMap<LivepatchId, Line>>;

/// A cache of the database.
#[derive(Default)]
pub struct Queue {
    platforms: BTreeMap<Platform, Lines>,
    places: HashMap<TaskId, (LivepatchId, Need, i64)>,
}

impl Queue {
    /// Puts a task in, in place of what it was before.
    pub fn insert(&mut self, ready: Ready) {
        self.remove(ready.task);
        let place = (ready.livepatch, ready.need.clone(), ready.order);
        self.places.insert(ready.task, place);
        if !self.platforms.contains_key(&ready.need.platform) {
            self.platforms.insert(ready.need.platform.clone(), Lines::new());
        }
        if let Some(lines) = self.platforms.get_mut(&ready.need.platform) {
            lines
                .entry(ready.need.clone())
                .or_default()
                .entry(ready.livepatch)
                .or_default()
                .insert(ready.order, ready);
        }
    }

    pub fn remove(&mut self, task: TaskId) {
        let Some((livepatch, need, order)) = self.places.remove(&task) else {
            return;
        };
        let Some(lines) = self.platforms.get_mut(&need.platform) else {
            return;
        };
        if let Some(livepatches) = lines.get_mut(&need) {
            if let Some(line) = livepatches.get_mut(&livepatch) {
                line.remove(&order);
                if line.is_empty() {
                    livepatches.remove(&livepatch);
                }
            }
            if livepatches.is_empty() {
                lines.remove(&need);
            }
        }
        if lines.is_empty() {
            self.platforms.remove(&need.platform);
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn contains(&self, task: TaskId) -> bool {
        self.places.contains_key(&task)
    }

    pub(super) fn platforms(&self) -> &BTreeMap<Platform, Lines> {
        &self.platforms
    }

    /// The livepatches with tasks of exactly this need.
    pub(super) fn sharing(&self, need: &Need) -> Option<&BTreeMap<LivepatchId, Line>> {
        self.platforms.get(&need.platform)?.get(need)
    }
}

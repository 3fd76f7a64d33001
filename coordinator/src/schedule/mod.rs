//! Who runs what. Pure: the ready tasks and the workers go in, assignments come out, or the reason why a task waits.
//!
//! The next task always comes from the livepatch with the fewest running ones that some free worker can serve, oldest
//! task first, so that a large livepatch never starves a small one. It goes to the worker that is relatively least
//! busy; among equals to one that ran this platform lately, whose caches are warm. A worker on which the task failed by
//! the farm's fault is the last choice, but better than none.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};
use std::fmt;

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::{LivepatchId, Platform, TaskId};

/// What a worker must have to run a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Need {
    pub platform: Platform,
    /// `None`: no extraction tool.
    pub backend: Option<Backend>,
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

/// A worker as far as scheduling cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub name: WorkerName,
    pub connected: bool,
    pub draining: bool,
    pub slots: u32,
    pub busy: u32,
    pub trees: BTreeSet<Platform>,
    pub backends: BTreeSet<Backend>,
    /// Platforms it ran lately.
    pub warm: BTreeSet<Platform>,
}

impl Worker {
    fn has(&self, need: &Need) -> bool {
        self.trees.contains(&need.platform) && need.backend.is_none_or(|b| self.backends.contains(&b))
    }

    fn is_free(&self) -> bool {
        self.connected && !self.draining && self.busy < self.slots
    }
}

/// The ready tasks, by livepatch and need. A cache of the database.
#[derive(Default)]
pub struct Queue {
    livepatches: BTreeMap<LivepatchId, BTreeMap<Need, BTreeMap<i64, Ready>>>,
    places: HashMap<TaskId, (LivepatchId, Need, i64)>,
}

impl Queue {
    /// Puts a task in, in place of what it was before.
    pub fn insert(&mut self, ready: Ready) {
        self.remove(ready.task);
        let place = (ready.livepatch, ready.need.clone(), ready.order);
        self.places.insert(ready.task, place);
        self.livepatches
            .entry(ready.livepatch)
            .or_default()
            .entry(ready.need.clone())
            .or_default()
            .insert(ready.order, ready);
    }

    pub fn remove(&mut self, task: TaskId) {
        let Some((livepatch, need, order)) = self.places.remove(&task) else {
            return;
        };
        if let Some(needs) = self.livepatches.get_mut(&livepatch) {
            if let Some(tasks) = needs.get_mut(&need) {
                tasks.remove(&order);
                if tasks.is_empty() {
                    needs.remove(&need);
                }
            }
            if needs.is_empty() {
                self.livepatches.remove(&livepatch);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub task: TaskId,
    pub worker: WorkerName,
}

/// Matches ready tasks with free slots until no task that is left could run on a slot that is left. `running` counts
/// each livepatch's running tasks. The same arguments give the same answer.
pub fn assign(queue: &Queue, workers: &[Worker], running: &BTreeMap<LivepatchId, usize>) -> Vec<Assigned> {
    let mut slots = Slots::new(workers);
    let mut assigned = Vec::new();
    if slots.free.is_empty() {
        return assigned;
    }
    let mut turns: BTreeSet<(usize, LivepatchId)> = queue
        .livepatches
        .keys()
        .map(|id| (running.get(id).copied().unwrap_or(0), *id))
        .collect();
    let mut lines: BTreeMap<LivepatchId, Vec<Line<'_>>> = BTreeMap::new();
    while let Some((load, livepatch)) = turns.pop_first() {
        let lines = lines.entry(livepatch).or_insert_with(|| {
            let needs = queue.livepatches.get(&livepatch).into_iter().flatten();
            needs.filter_map(|(need, tasks)| Line::new(need, tasks)).collect()
        });
        // A need nobody can serve now stays unserved: slots only get fewer.
        lines.retain(|line| slots.can_serve(line.need));
        let Some(next) = (0..lines.len()).min_by_key(|&i| lines[i].head.order) else {
            continue;
        };
        let (need, ready) = (lines[next].need, lines[next].head);
        match lines[next].rest.next() {
            Some(head) => lines[next].head = head,
            None => drop(lines.swap_remove(next)),
        }
        if let Some(worker) = slots.take(need, &ready.avoid) {
            assigned.push(Assigned {
                task: ready.task,
                worker,
            });
        }
        if slots.free.is_empty() {
            break;
        }
        turns.insert((load + 1, livepatch));
    }
    assigned
}

/// The tasks of one livepatch with one need, during one match.
struct Line<'a> {
    need: &'a Need,
    head: &'a Ready,
    rest: btree_map::Values<'a, i64, Ready>,
}

impl<'a> Line<'a> {
    fn new(need: &'a Need, tasks: &'a BTreeMap<i64, Ready>) -> Option<Self> {
        let mut rest = tasks.values();
        let head = rest.next()?;
        Some(Self { need, head, rest })
    }
}

/// The free slots during one match.
struct Slots<'a> {
    workers: &'a [Worker],
    busy: Vec<u32>,
    free: BTreeSet<usize>,
    /// Free workers for each need that was asked for; entries that are no longer free are dropped on use.
    serving: HashMap<Need, Vec<usize>>,
}

impl<'a> Slots<'a> {
    fn new(workers: &'a [Worker]) -> Self {
        Self {
            workers,
            busy: workers.iter().map(|w| w.busy).collect(),
            free: (0..workers.len()).filter(|&i| workers[i].is_free()).collect(),
            serving: HashMap::new(),
        }
    }

    fn serving(&mut self, need: &Need) -> &[usize] {
        let (free, workers) = (&self.free, self.workers);
        let serving = self.serving.entry(need.clone()).or_insert_with(|| {
            let able = free.iter().copied().filter(|&i| workers[i].has(need));
            able.collect()
        });
        serving.retain(|i| free.contains(i));
        serving
    }

    fn can_serve(&mut self, need: &Need) -> bool {
        !self.serving(need).is_empty()
    }

    fn take(&mut self, need: &Need, avoid: &BTreeSet<WorkerName>) -> Option<WorkerName> {
        let candidates = self.serving(need).to_vec();
        let best = candidates.into_iter().min_by(|&a, &b| {
            let (x, y) = (&self.workers[a], &self.workers[b]);
            let load = |i: usize, other: &Worker| u64::from(self.busy[i]) * u64::from(other.slots);
            avoid
                .contains(&x.name)
                .cmp(&avoid.contains(&y.name))
                // busy/slots, compared as fractions.
                .then_with(|| load(a, y).cmp(&load(b, x)))
                .then_with(|| y.warm.contains(&need.platform).cmp(&x.warm.contains(&need.platform)))
                .then_with(|| x.name.cmp(&y.name))
        })?;
        self.busy[best] += 1;
        if self.busy[best] >= self.workers[best].slots {
            self.free.remove(&best);
        }
        Some(self.workers[best].name.clone())
    }
}

/// Why a ready task waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    NoTree(Platform),
    NoBackend {
        platform: Platform,
        backend: Backend,
    },
    Disconnected(Vec<WorkerName>),
    Draining(Vec<WorkerName>),
    Busy {
        slots: u32,
        workers: Vec<WorkerName>,
    },
    /// Somebody has a slot for it; the next match gives it away.
    Turn,
}

/// Why a task with this need is not running.
pub fn why_waiting(need: &Need, workers: &[Worker]) -> Waits {
    let names = |workers: &[&Worker]| workers.iter().map(|w| w.name.clone()).collect();
    let holders: Vec<&Worker> = workers.iter().filter(|w| w.trees.contains(&need.platform)).collect();
    if holders.is_empty() {
        return Waits::NoTree(need.platform.clone());
    }
    let able: Vec<&Worker> = holders.iter().copied().filter(|w| w.has(need)).collect();
    if let (true, Some(backend)) = (able.is_empty(), need.backend) {
        let platform = need.platform.clone();
        return Waits::NoBackend { platform, backend };
    }
    let connected: Vec<&Worker> = able.iter().copied().filter(|w| w.connected).collect();
    if connected.is_empty() {
        return Waits::Disconnected(names(&able));
    }
    let taking: Vec<&Worker> = connected.iter().copied().filter(|w| !w.draining).collect();
    if taking.is_empty() {
        return Waits::Draining(names(&connected));
    }
    if taking.iter().any(|w| w.is_free()) {
        return Waits::Turn;
    }
    Waits::Busy {
        slots: taking.iter().map(|w| w.slots).sum(),
        workers: names(&taking),
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |workers: &[WorkerName]| {
            let shown: Vec<&str> = workers.iter().take(3).map(WorkerName::as_str).collect();
            match workers.len() {
                1..=3 => shown.join(", "),
                n => format!("{} and {} more", shown.join(", "), n.saturating_sub(3)),
            }
        };
        match self {
            Waits::NoTree(platform) => write!(f, "no worker holds {platform}"),
            Waits::NoBackend { platform, backend } => {
                write!(f, "no worker that holds {platform} has the {backend} tool")
            }
            Waits::Disconnected(workers) => write!(f, "not connected: {}", list(workers)),
            Waits::Draining(workers) => write!(f, "draining: {}", list(workers)),
            Waits::Busy { slots: 1, workers } => write!(f, "the one slot of {} is busy", list(workers)),
            Waits::Busy { slots: 0, workers } => write!(f, "{} has no slots", list(workers)),
            Waits::Busy { slots, workers } => write!(f, "all {slots} slots of {} are busy", list(workers)),
            Waits::Turn => f.write_str("about to be assigned"),
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;

//! Who runs what. Pure: the ready tasks and the workers go in, assignments come out, or the reason why a task waits.
//!
//! The next task comes from the livepatch of the highest priority that some free worker can serve; among equals from the
//! one with the fewest running tasks for its weight, oldest task first, so that a large livepatch never starves a small
//! one. It goes to the worker that is relatively least busy; among equals to the one that runs the least on this tree,
//! then to one that ran it lately, whose caches are warm. A worker on which the task failed by the farm's fault is the
//! last choice, but better than none.

mod queue;
mod waits;
mod worker;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};

use klp_livepatch::Share;
use klp_livepatch::names::WorkerName;
use klp_livepatch::task::{LivepatchId, Platform, TaskId};

pub use queue::{Need, Queue, Ready};
pub use waits::{Waits, why_waiting};
pub use worker::{Absence, Worker};

/// How a livepatch stands in the competition for workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub share: Share,
    /// How many of its tasks run.
    pub running: u64,
}

/// All livepatches that run anything or have a share of their own; the others have the default one.
pub type Standings = BTreeMap<LivepatchId, Standing>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub task: TaskId,
    pub worker: WorkerName,
}

/// When a livepatch's next task is due, compared with others': least first.
type Turn = (Reverse<i16>, u64, LivepatchId);

/// The turn of a livepatch that would then run `running` tasks and one more.
fn turn(livepatch: LivepatchId, share: Share, running: u64) -> Turn {
    // Running tasks for their weight, in fixed point: exact for any weight, and far from overflow.
    const SCALE: u64 = 1 << 20;
    let load = running.saturating_mul(SCALE) / u64::from(share.weight());
    (Reverse(share.priority()), load, livepatch)
}

/// Matches ready tasks with free slots until no task that is left could run on a slot that is left. The same arguments
/// give the same answer.
pub fn assign(queue: &Queue, workers: &[Worker], standings: &Standings) -> Vec<Assigned> {
    let mut slots = Slots::new(workers);
    let mut assigned = Vec::new();
    let mut lines = servable(queue, &slots);
    let standing = |id: &LivepatchId| standings.get(id).copied().unwrap_or_default();
    let mut turns: BTreeSet<Turn> = lines
        .keys()
        .map(|id| turn(*id, standing(id).share, standing(id).running))
        .collect();
    let mut started: BTreeMap<LivepatchId, u64> = BTreeMap::new();
    while let Some((_, _, livepatch)) = turns.pop_first() {
        let Some(lines) = lines.get_mut(&livepatch) else {
            continue;
        };
        // A need that nobody can serve now stays unserved: slots only get fewer.
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
        let started = started.entry(livepatch).or_default();
        *started += 1;
        let Standing { share, running } = standing(&livepatch);
        turns.insert(turn(livepatch, share, running + *started));
    }
    assigned
}

/// What free workers could run, by livepatch.
fn servable<'a>(queue: &'a Queue, slots: &Slots<'_>) -> BTreeMap<LivepatchId, Vec<Line<'a>>> {
    let mut platforms: BTreeSet<&Platform> = BTreeSet::new();
    for &i in &slots.free {
        let trees = &slots.workers[i].trees;
        let waited_for = queue.platforms();
        if platforms.len() == waited_for.len() {
            break;
        }
        if trees.len() <= waited_for.len() {
            let wanted = trees.iter().filter_map(|t| waited_for.get_key_value(t));
            platforms.extend(wanted.map(|(platform, _)| platform));
        } else {
            platforms.extend(waited_for.keys().filter(|p| trees.contains(*p)));
        }
    }
    let mut lines: BTreeMap<LivepatchId, Vec<Line<'a>>> = BTreeMap::new();
    let needs = platforms.into_iter().filter_map(|p| queue.platforms().get(p)).flatten();
    for (need, livepatches) in needs {
        for (livepatch, tasks) in livepatches {
            let line = Line::new(need, tasks);
            lines.entry(*livepatch).or_default().extend(line);
        }
    }
    lines
}

/// The tasks of one livepatch with one need, during one match.
struct Line<'a> {
    need: &'a Need,
    head: &'a Ready,
    rest: btree_map::Values<'a, i64, Ready>,
}

impl<'a> Line<'a> {
    fn new(need: &'a Need, tasks: &'a queue::Line) -> Option<Self> {
        let mut rest = tasks.values();
        let head = rest.next()?;
        Some(Self { need, head, rest })
    }
}

/// What is free during one match.
struct Slots<'a> {
    workers: &'a [Worker],
    busy: Vec<u32>,
    memory_busy: Vec<u64>,
    /// What this match has put on each worker's trees.
    added: HashMap<(usize, Platform), u32>,
    free: BTreeSet<usize>,
    /// Free workers for each need that was asked for; entries that are no longer free are dropped on use.
    serving: HashMap<Need, Vec<usize>>,
}

impl<'a> Slots<'a> {
    fn new(workers: &'a [Worker]) -> Self {
        Self {
            workers,
            busy: workers.iter().map(|w| w.busy).collect(),
            memory_busy: workers.iter().map(|w| w.memory_busy).collect(),
            added: HashMap::new(),
            free: (0..workers.len()).filter(|&i| workers[i].is_free()).collect(),
            serving: HashMap::new(),
        }
    }

    fn serving(&mut self, need: &Need) -> &[usize] {
        let (free, workers, memory_busy) = (&self.free, self.workers, &self.memory_busy);
        let serving = self.serving.entry(need.clone()).or_insert_with(|| {
            let able = free.iter().copied().filter(|&i| workers[i].has(need));
            able.collect()
        });
        serving.retain(|&i| free.contains(&i) && workers[i].has_room(need.memory, memory_busy[i]));
        serving
    }

    fn can_serve(&mut self, need: &Need) -> bool {
        !self.serving(need).is_empty()
    }

    fn take(&mut self, need: &Need, avoid: &BTreeSet<WorkerName>) -> Option<WorkerName> {
        let candidates = self.serving(need).to_vec();
        let load = |i: usize, other: &Worker| u64::from(self.busy[i]) * u64::from(other.slots);
        let on_tree = |i: usize, worker: &Worker| {
            let before = worker.running.get(&need.platform).copied().unwrap_or_default();
            before + self.added.get(&(i, need.platform.clone())).copied().unwrap_or_default()
        };
        let best = candidates.into_iter().min_by(|&a, &b| {
            let (x, y) = (&self.workers[a], &self.workers[b]);
            avoid
                .contains(&x.name)
                .cmp(&avoid.contains(&y.name))
                // busy/slots, compared as fractions.
                .then_with(|| load(a, y).cmp(&load(b, x)))
                .then_with(|| on_tree(a, x).cmp(&on_tree(b, y)))
                .then_with(|| y.warm.contains(&need.platform).cmp(&x.warm.contains(&need.platform)))
                .then_with(|| x.name.cmp(&y.name))
        })?;
        self.busy[best] += 1;
        self.memory_busy[best] = self.memory_busy[best].saturating_add(need.memory);
        *self.added.entry((best, need.platform.clone())).or_default() += 1;
        if self.busy[best] >= self.workers[best].slots {
            self.free.remove(&best);
        }
        Some(self.workers[best].name.clone())
    }
}

#[cfg(test)]
mod tests;

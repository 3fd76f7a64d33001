//! Who runs what. Pure: the ready tasks and the workers go in, assignments come out, or the reason why a task waits.
//!
//! The next task comes from the livepatch of the highest priority that some free worker can serve; among equals from the
//! one with the fewest running tasks for its weight, oldest task first, so that a large livepatch never starves a small
//! one. It goes to the worker that is relatively least busy; among equals to the one that runs the least on this tree,
//! then to one that ran it lately, whose caches are warm. A worker on which the task failed by the farm's fault is the
//! last choice, but better than none.
//!
//! A worker that ends short attempts faster than new ones reach it is given some beyond its slots, which it starts as its
//! slots become free; but none behind an attempt that may take long, for they could not be given to another any more, and
//! none while one that may take long waits for a slot. What has failed before waits for a slot: it may be what its worker
//! dies of.

mod queue;
mod waits;
mod worker;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use klp_livepatch::Share;
use klp_livepatch::names::WorkerName;
use klp_livepatch::task::{LivepatchId, Platform, TaskId};

pub use queue::{Need, Queue, Ready};
use queue::{NeedId, Queued};
pub use waits::{Crowd, Waits, crowds, obstacles, why_waiting};
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

/// How many tasks a livepatch is given in a turn if they are short. What is given together ends together, and of one
/// livepatch it is recorded in the same few pages of the database.
const RUN: u32 = 8;

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
    let mut slots = Slots::new(queue, workers);
    let mut assigned = Vec::new();
    let standing = |id: &LivepatchId| standings.get(id).copied().unwrap_or_default();
    let turns = queue.livepatches().map(|id| {
        let Standing { share, running } = standing(&id);
        Reverse(turn(id, share, running))
    });
    // As long as nothing is free, or nothing that is free is of use, nobody's turn matters.
    let mut turns: BinaryHeap<Reverse<Turn>> = match slots.servable.is_empty() {
        true => BinaryHeap::new(),
        false => turns.collect(),
    };
    let mut hands: HashMap<LivepatchId, Hand<'_>> = HashMap::new();
    while let Some(Reverse((_, _, livepatch))) = turns.pop() {
        let hand = hands
            .entry(livepatch)
            .or_insert_with(|| Hand::new(queue, livepatch, &slots));
        let mut run = 0;
        while let Some((need, queued)) = hand.next(&mut slots) {
            let Some(taken) = slots.take(need, &queued.avoid) else {
                continue;
            };
            assigned.push(Assigned {
                task: queued.task,
                worker: taken.worker,
            });
            if slots.servable.is_empty() {
                return assigned;
            }
            hand.started += 1;
            run += 1;
            if !taken.is_short || run == RUN {
                let Standing { share, running } = standing(&livepatch);
                turns.push(Reverse(turn(livepatch, share, running + hand.started)));
                break;
            }
        }
    }
    assigned
}

/// What a livepatch could still start during one match. Looked up only when its turn comes: most never do.
struct Hand<'a> {
    /// The tasks with each need that come next, and those after them.
    lines: Vec<(NeedId, &'a Queued, queue::Line<'a>)>,
    /// Places in `lines` by the order of what comes next there: oldest first.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    started: u64,
}

impl<'a> Hand<'a> {
    fn new(queue: &'a Queue, livepatch: LivepatchId, slots: &Slots<'_>) -> Self {
        let (mut lines, mut heads) = (Vec::new(), Vec::new());
        let mut add = |need: NeedId| {
            let mut rest = queue.line(livepatch, need);
            if let Some(((_, order), queued)) = rest.next() {
                heads.push(Reverse((*order, lines.len())));
                lines.push((need, queued, rest));
            }
        };
        let own = queue.needs_of(livepatch);
        // From the shorter side: what it needs, or what can be served.
        match own.len() <= slots.servable.len() {
            true => own.for_each(&mut add),
            false => slots.servable.iter().copied().for_each(&mut add),
        }
        let heads = heads.into();
        Self {
            lines,
            heads,
            started: 0,
        }
    }

    /// The oldest task that somebody could run.
    fn next(&mut self, slots: &mut Slots<'_>) -> Option<(NeedId, &'a Queued)> {
        while let Some(Reverse((_, place))) = self.heads.pop() {
            let (need, queued, rest) = &mut self.lines[place];
            let (need, next) = (*need, *queued);
            // A need that nobody can serve now stays unserved: slots only get fewer.
            if !slots.can_serve(need) {
                continue;
            }
            if let Some(((_, order), after)) = rest.next() {
                *queued = after;
                self.heads.push(Reverse((*order, place)));
            }
            return Some((need, next));
        }
        None
    }
}

/// A slot that was taken, now or once it is free.
struct Taken {
    worker: WorkerName,
    /// Not for long, as attempts of this kind go on that worker.
    is_short: bool,
}

/// What is free during one match.
struct Slots<'a> {
    /// By id.
    needs: Vec<Option<&'a Need>>,
    workers: &'a [Worker],
    busy: Vec<u32>,
    /// How many each may hold beyond its slots with what it holds.
    beyond: Vec<u32>,
    memory_busy: Vec<u64>,
    /// What this match has put on each worker's trees.
    added: HashMap<(usize, &'a Platform), u32>,
    free: BTreeSet<usize>,
    /// The needs that somebody free could serve.
    servable: Vec<NeedId>,
    /// By need's id, once it was asked for: the workers that can serve it, and some that no longer can.
    serving: Vec<Option<Vec<usize>>>,
}

impl<'a> Slots<'a> {
    fn new(queue: &'a Queue, workers: &'a [Worker]) -> Self {
        let beyond: Vec<u32> = workers.iter().map(|w| beyond_slots(w, queue)).collect();
        let most = |i: usize| workers[i].slots.saturating_add(beyond[i].min(workers[i].most_beyond()));
        let free = (0..workers.len()).filter(|&i| workers[i].absence.is_none() && workers[i].busy < most(i));
        let free: BTreeSet<usize> = free.collect();
        let mut needs = vec![None; queue.id_bound()];
        let mut servable = Vec::new();
        if !free.is_empty() {
            for (id, waiting) in queue.needs() {
                needs[id] = Some(&waiting.need);
                let need = &waiting.need;
                if free
                    .iter()
                    .any(|&i| workers[i].has(need) && workers[i].busy < limit(&workers[i], beyond[i], need))
                {
                    servable.push(id);
                }
            }
        }
        Self {
            needs,
            workers,
            busy: workers.iter().map(|w| w.busy).collect(),
            beyond,
            memory_busy: workers.iter().map(|w| w.memory_busy).collect(),
            added: HashMap::new(),
            free,
            servable,
            serving: vec![None; queue.id_bound()],
        }
    }

    /// Looks no further than to the first who still can: this is asked for every need each time a worker fills up.
    fn can_serve(&mut self, id: NeedId) -> bool {
        let mut serving = self.lend_serving(id);
        while serving.pop_if(|i| !self.still_serves(*i, id)).is_some() {}
        let can = !serving.is_empty();
        self.serving[id] = Some(serving);
        can
    }

    /// The workers that could serve a need when it was first asked for, to be put back.
    fn lend_serving(&mut self, id: NeedId) -> Vec<usize> {
        let look_up = || {
            let able = |i: &usize| self.needs[id].is_some_and(|need| self.workers[*i].has(need));
            self.free.iter().copied().filter(able).collect()
        };
        self.serving[id].take().unwrap_or_else(look_up)
    }

    fn still_serves(&self, worker: usize, id: NeedId) -> bool {
        let (busy, lent, described) = (self.busy[worker], self.memory_busy[worker], &self.workers[worker]);
        let slot = |need: &Need| busy < limit(described, self.beyond[worker], need);
        let room = |need: &Need| slot(need) && described.has_room(need.memory, lent);
        self.free.contains(&worker) && self.needs[id].is_some_and(room)
    }

    fn take(&mut self, id: NeedId, avoid: &BTreeSet<WorkerName>) -> Option<Taken> {
        let need = self.needs[id]?;
        let mut serving = self.lend_serving(id);
        serving.retain(|&i| self.still_serves(i, id));
        let load = |i: usize, other: &Worker| u64::from(self.busy[i]) * u64::from(other.slots);
        let on_tree = |i: usize, worker: &Worker| {
            let before = worker.running.get(&need.platform).copied().unwrap_or_default();
            before + self.added.get(&(i, &need.platform)).copied().unwrap_or_default()
        };
        let waits_for_slot = |i: &usize| !avoid.is_empty() && self.busy[*i] >= self.workers[*i].slots;
        let choice = serving.iter().copied().filter(|i| !waits_for_slot(i));
        let best = choice.min_by(|&a, &b| {
            let (x, y) = (&self.workers[a], &self.workers[b]);
            avoid
                .contains(&x.name)
                .cmp(&avoid.contains(&y.name))
                // busy/slots, compared as fractions.
                .then_with(|| load(a, y).cmp(&load(b, x)))
                .then_with(|| on_tree(a, x).cmp(&on_tree(b, y)))
                .then_with(|| y.warm.contains(&need.platform).cmp(&x.warm.contains(&need.platform)))
                .then_with(|| x.name.cmp(&y.name))
        });
        self.serving[id] = Some(serving);
        let best = best?;
        self.busy[best] += 1;
        self.memory_busy[best] = self.memory_busy[best].saturating_add(need.memory);
        *self.added.entry((best, &need.platform)).or_default() += 1;
        let (worker, busy) = (&self.workers[best], self.busy[best]);
        self.beyond[best] = self.beyond[best].min(worker.beyond(need.backend));
        if worker.is_limit(busy) {
            if busy - worker.slots >= self.beyond[best].min(worker.most_beyond()) {
                self.free.remove(&best);
            }
            // Lest all who wait are asked what only this worker could have served.
            let mut servable = std::mem::take(&mut self.servable);
            servable.retain(|id| self.can_serve(*id));
            self.servable = servable;
        }
        Some(Taken {
            worker: worker.name.clone(),
            is_short: worker.prefetch.contains_key(&need.backend),
        })
    }
}

/// How many attempts a worker may hold beyond its slots with what it holds: none while something waits for one of its
/// slots, which would never be free again as long as there is something to prefetch.
fn beyond_slots(worker: &Worker, queue: &Queue) -> u32 {
    let needs_slot = |waiting: &queue::Waiting| {
        let is_short = worker.prefetch.contains_key(&waiting.need.backend);
        (waiting.scarred > 0 || !is_short) && worker.has(&waiting.need) && worker.has_room(waiting.need.memory, 0)
    };
    match worker.most_beyond() == 0 || queue.needs().any(|(_, waiting)| needs_slot(waiting)) {
        true => 0,
        false => worker.beyond_held(),
    }
}

/// How many attempts a worker may hold and still be given one with this need, if what it holds lets it have so many
/// beyond its slots.
fn limit(worker: &Worker, beyond: u32, need: &Need) -> u32 {
    worker.slots.saturating_add(beyond.min(worker.beyond(need.backend)))
}

#[cfg(test)]
mod tests;

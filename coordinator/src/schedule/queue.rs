//! The ready tasks, found by what they need and by their livepatch: a match looks only at tasks that could be next.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::{LivepatchId, Platform, TaskId};

use crate::lifecycle::Millis;

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
    /// Since when it could run.
    pub since: Millis,
    /// Workers on which it failed by the farm's fault.
    pub avoid: BTreeSet<WorkerName>,
}

/// A need that something waits with; one that nothing waits with any more gives its id away.
pub(super) type NeedId = usize;

/// What is kept of a ready task beside its place.
#[derive(Debug)]
pub(super) struct Queued {
    pub task: TaskId,
    pub since: Millis,
    pub avoid: BTreeSet<WorkerName>,
}

/// The tasks with one need, those of each livepatch together and in their order. One map for all livepatches: most have
/// a single task with each need, for which a map of its own would take ten times the room.
pub(super) type Lines = BTreeMap<(LivepatchId, i64), Queued>;

/// The tasks of one livepatch among them.
pub(super) type Line<'a> = btree_map::Range<'a, (LivepatchId, i64), Queued>;

/// All that waits with one need.
#[derive(Debug)]
pub(super) struct Waiting {
    pub need: Need,
    pub lines: Lines,
    /// How many of them failed on some worker.
    pub scarred: usize,
}

impl Waiting {
    pub fn line(&self, livepatch: LivepatchId) -> Line<'_> {
        self.lines.range((livepatch, i64::MIN)..=(livepatch, i64::MAX))
    }
}

/// A cache of the database.
#[derive(Default)]
pub struct Queue {
    ids: HashMap<Need, NeedId>,
    /// By id; `None`: the id is free.
    needs: Vec<Option<Waiting>>,
    free_ids: Vec<NeedId>,
    /// With which needs each livepatch waits.
    livepatches: BTreeMap<LivepatchId, BTreeSet<NeedId>>,
    places: HashMap<TaskId, (LivepatchId, NeedId, i64)>,
}

impl Queue {
    /// Puts a task in, in place of what it was before.
    pub fn insert(&mut self, ready: Ready) {
        self.remove(ready.task);
        let Ready {
            task,
            livepatch,
            need,
            order,
            since,
            avoid,
        } = ready;
        let id = self.id(need);
        let Some(waiting) = &mut self.needs[id] else { return };
        waiting.scarred += usize::from(!avoid.is_empty());
        waiting.lines.insert((livepatch, order), Queued { task, since, avoid });
        self.livepatches.entry(livepatch).or_default().insert(id);
        self.places.insert(task, (livepatch, id, order));
    }

    pub fn remove(&mut self, task: TaskId) {
        let Some((livepatch, id, order)) = self.places.remove(&task) else {
            return;
        };
        let Some(waiting) = &mut self.needs[id] else { return };
        let queued = waiting.lines.remove(&(livepatch, order));
        waiting.scarred -= usize::from(queued.is_some_and(|q| !q.avoid.is_empty()));
        if waiting.line(livepatch).next().is_some() {
            return;
        }
        if waiting.lines.is_empty() {
            self.ids.remove(&waiting.need);
            self.needs[id] = None;
            self.free_ids.push(id);
        }
        if let btree_map::Entry::Occupied(mut needs) = self.livepatches.entry(livepatch) {
            needs.get_mut().remove(&id);
            if needs.get().is_empty() {
                needs.remove();
            }
        }
    }

    /// The id of a need, which is given one if nothing waits with it yet.
    fn id(&mut self, need: Need) -> NeedId {
        if let Some(id) = self.ids.get(&need) {
            return *id;
        }
        let id = self.free_ids.pop().unwrap_or(self.needs.len());
        if id == self.needs.len() {
            self.needs.push(None);
        }
        self.ids.insert(need.clone(), id);
        let lines = BTreeMap::new();
        let scarred = 0;
        self.needs[id] = Some(Waiting { need, lines, scarred });
        id
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

    /// All needs that something waits with.
    pub(super) fn needs(&self) -> impl Iterator<Item = (NeedId, &Waiting)> {
        let all = self.needs.iter().enumerate();
        all.filter_map(|(id, waiting)| Some((id, waiting.as_ref()?)))
    }

    /// Every id is below this.
    pub(super) fn id_bound(&self) -> usize {
        self.needs.len()
    }

    /// The livepatches that wait.
    pub(super) fn livepatches(&self) -> impl Iterator<Item = LivepatchId> {
        self.livepatches.keys().copied()
    }

    /// With how many needs a livepatch waits, and with which.
    pub(super) fn needs_of(&self, livepatch: LivepatchId) -> impl ExactSizeIterator<Item = NeedId> {
        let needs = self.livepatches.get(&livepatch);
        needs.map(BTreeSet::iter).unwrap_or_default().copied()
    }

    /// What waits of a livepatch with this need.
    pub(super) fn line(&self, livepatch: LivepatchId, id: NeedId) -> Line<'_> {
        let waiting = self.needs.get(id).and_then(Option::as_ref);
        waiting.map(|waiting| waiting.line(livepatch)).unwrap_or_default()
    }

    /// What waits with exactly this need.
    pub(super) fn sharing(&self, need: &Need) -> Option<&Waiting> {
        let id = self.ids.get(need)?;
        self.needs.get(*id)?.as_ref()
    }
}

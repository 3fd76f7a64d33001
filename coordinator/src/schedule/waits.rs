//! Why a ready task is not running, in words for whoever waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::{LivepatchId, Platform};

use super::{Absence, Need, Queue, Standings, Worker, turn};
use crate::clock::utc;
use crate::lifecycle::Millis;

/// How many workers a reason names.
const NAMED: usize = 3;
/// How many livepatches a crowd names.
const CROWD: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    NoTree(Platform),
    /// All who hold the tree say that it can't be used.
    TreeBroken(Platform, Vec<(WorkerName, String)>),
    /// Nobody who holds the tree has the tool; those who have it say that it does not work.
    NoBackend {
        platform: Platform,
        backend: Backend,
        broken: Vec<(WorkerName, String)>,
    },
    /// Nobody who could run it lends as much memory.
    TooLarge {
        memory: u64,
        most: u64,
    },
    /// All who could run it take nothing new.
    Absent(Vec<(WorkerName, Absence)>),
    Busy {
        slots: u32,
        workers: Vec<WorkerName>,
        ahead: u64,
    },
    /// There is a slot, but the memory is lent.
    MemoryBusy {
        memory: u64,
        workers: Vec<WorkerName>,
    },
    /// Somebody has a slot for it; the next match gives it away.
    Turn,
}

/// Why a task is not running that has this need and, in its livepatch, this order.
pub fn why_waiting(
    need: &Need,
    livepatch: LivepatchId,
    order: i64,
    queue: &Queue,
    workers: &[Worker],
    standings: &Standings,
) -> Waits {
    let present = match able(need, workers) {
        Ok(present) => present,
        Err(obstacle) => return obstacle,
    };
    let names = |workers: &[&Worker]| workers.iter().map(|w| w.name.clone()).collect();
    let free: Vec<&Worker> = present.iter().copied().filter(|w| w.is_free()).collect();
    if free.is_empty() {
        return Waits::Busy {
            slots: present.iter().map(|w| w.slots).sum(),
            workers: names(&present),
            ahead: ahead(need, livepatch, order, queue, standings),
        };
    }
    if !free.iter().any(|w| w.has_room(need.memory, w.memory_busy)) {
        return Waits::MemoryBusy {
            memory: need.memory,
            workers: names(&free),
        };
    }
    Waits::Turn
}

/// What keeps tasks waiting that no worker could run now even if all slots were free, and how many tasks each.
pub fn obstacles(queue: &Queue, workers: &[Worker]) -> BTreeMap<String, usize> {
    let mut obstacles = BTreeMap::new();
    for (_, waiting) in queue.needs() {
        if let Err(obstacle) = able(&waiting.need, workers) {
            let tasks = waiting.lines.len();
            *obstacles.entry(obstacle.to_string()).or_default() += tasks;
        }
    }
    obstacles
}

/// Ready tasks that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    pub reason: String,
    /// No slot that becomes free will do: somebody has to do something.
    pub blocked: bool,
    pub tasks: usize,
    /// Since when the one waits that has waited the longest.
    pub since: Millis,
    /// Some of those whose tasks they are.
    pub livepatches: BTreeSet<LivepatchId>,
}

/// What all ready tasks wait for, the most tasks first. Costs time with the number of different needs, and a look at each
/// task.
pub fn crowds(queue: &Queue, workers: &[Worker]) -> Vec<Crowd> {
    let mut crowds: BTreeMap<(bool, String), Crowd> = BTreeMap::new();
    for (_, waiting) in queue.needs() {
        let (blocked, reason) = match able(&waiting.need, workers) {
            Err(obstacle) => (true, obstacle.to_string()),
            Ok(present) => {
                let workers: Vec<WorkerName> = present.iter().map(|w| w.name.clone()).collect();
                (
                    false,
                    format!("a free slot on {}", list(&workers, ", ", ToString::to_string)),
                )
            }
        };
        let crowd = crowds.entry((blocked, reason.clone())).or_insert_with(|| Crowd {
            reason,
            blocked,
            tasks: 0,
            since: Millis::MAX,
            livepatches: BTreeSet::new(),
        });
        crowd.tasks += waiting.lines.len();
        for ((livepatch, _), queued) in &waiting.lines {
            crowd.since = crowd.since.min(queued.since);
            if crowd.livepatches.len() < CROWD {
                crowd.livepatches.insert(*livepatch);
            }
        }
    }
    let mut crowds: Vec<Crowd> = crowds.into_values().collect();
    crowds.sort_by_key(|crowd| std::cmp::Reverse(crowd.tasks));
    crowds
}

/// The workers that are there and could run such a task on a free slot, or why there are none.
fn able<'a>(need: &Need, workers: &'a [Worker]) -> Result<Vec<&'a Worker>, Waits> {
    let platform = &need.platform;
    let holders: Vec<&Worker> = workers.iter().filter(|w| w.trees.contains(platform)).collect();
    if holders.is_empty() {
        let broken: Vec<_> = workers
            .iter()
            .filter_map(|w| Some((w.name.clone(), w.broken_trees.get(platform)?.clone())))
            .collect();
        return Err(match broken.is_empty() {
            true => Waits::NoTree(platform.clone()),
            false => Waits::TreeBroken(platform.clone(), broken),
        });
    }
    let able: Vec<&Worker> = holders.iter().copied().filter(|w| w.has(need)).collect();
    if let (true, Some(backend)) = (able.is_empty(), need.backend) {
        let broken = holders
            .iter()
            .filter_map(|w| Some((w.name.clone(), w.broken_backends.get(&backend)?.clone())));
        return Err(Waits::NoBackend {
            platform: platform.clone(),
            backend,
            broken: broken.collect(),
        });
    }
    let lends = |w: &Worker| w.memory.unwrap_or(u64::MAX);
    let most = able.iter().map(|w| lends(w)).max().unwrap_or_default();
    if most < need.memory {
        let memory = need.memory;
        return Err(Waits::TooLarge { memory, most });
    }
    let roomy = able.iter().copied().filter(|w| lends(w) >= need.memory);
    let (present, absent): (Vec<&Worker>, Vec<&Worker>) = roomy.partition(|w| w.absence.is_none());
    if present.is_empty() {
        let why = |w: &&Worker| Some((w.name.clone(), w.absence.clone()?));
        return Err(Waits::Absent(absent.iter().filter_map(why).collect()));
    }
    Ok(present)
}

/// How many tasks with the same need would be given a slot before this one, if slots became free one after the other.
fn ahead(need: &Need, livepatch: LivepatchId, order: i64, queue: &Queue, standings: &Standings) -> u64 {
    let Some(waiting) = queue.sharing(need) else { return 0 };
    let standing = |id: LivepatchId| standings.get(&id).copied().unwrap_or_default();
    let earlier = waiting.line(livepatch).take_while(|((_, other), _)| *other < order);
    let before = earlier.count() as u64;
    let mine = standing(livepatch);
    let my_turn = turn(livepatch, mine.share, mine.running + before);
    let keys: Vec<LivepatchId> = waiting.lines.keys().map(|(id, _)| *id).collect();
    let others = keys
        .chunk_by(|a, b| a == b)
        .filter(|line| line[0] != livepatch)
        .map(|line| {
            let theirs = standing(line[0]);
            let earlier = |n: u64| turn(line[0], theirs.share, theirs.running + n) < my_turn;
            turns_before(line.len() as u64, earlier)
        });
    before + others.sum::<u64>()
}

/// How many of the first `count` turns are `earlier`, which holds for all up to some turn and for none after it.
fn turns_before(count: u64, earlier: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if earlier(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absence::Offline { since: 0 } => f.write_str("offline since before the coordinator started"),
            Absence::Offline { since } => write!(f, "offline since {}", utc(*since)),
            Absence::Silent { since } => write!(f, "connected but silent since {}", utc(*since)),
            Absence::Stopping => f.write_str("stopping"),
            Absence::Drained { since, reason } => write!(f, "drained since {} ({reason})", utc(*since)),
            Absence::Quarantined { until, reason } => write!(f, "in quarantine until {}: {reason}", utc(*until)),
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |workers: &[WorkerName]| list(workers, ", ", ToString::to_string);
        let reasons = |workers: &[(WorkerName, String)]| list(workers, "; ", |(name, why)| format!("on {name}: {why}"));
        match self {
            Waits::NoTree(platform) => write!(f, "no worker holds {platform}"),
            Waits::TreeBroken(platform, why) => write!(f, "no tree of {platform} can be used: {}", reasons(why)),
            Waits::NoBackend {
                platform,
                backend,
                broken,
            } => {
                write!(f, "no worker that holds {platform} has the {backend} tool")?;
                match broken.is_empty() {
                    true => Ok(()),
                    false => write!(f, " in working order: {}", reasons(broken)),
                }
            }
            Waits::TooLarge { memory, most } => write!(
                f,
                "it needs {} of memory and no worker that could run it lends more than {}",
                mib(*memory),
                mib(*most)
            ),
            Waits::Absent(workers) => {
                f.write_str(&list(workers, "; ", |(name, absence)| format!("{name} is {absence}")))
            }
            Waits::Busy { slots: 0, workers, .. } => write!(f, "{} has no slots", names(workers)),
            Waits::Busy { slots, workers, ahead } => {
                match slots {
                    1 => write!(f, "the one slot of {} is busy", names(workers))?,
                    n => write!(f, "all {n} slots of {} are busy", names(workers))?,
                }
                match ahead {
                    0 => f.write_str(", this is next"),
                    1 => f.write_str(", 1 task ahead"),
                    n => write!(f, ", {n} tasks ahead"),
                }
            }
            Waits::MemoryBusy { memory, workers } => write!(
                f,
                "it needs {} of memory, more than is free on {}",
                mib(*memory),
                names(workers)
            ),
            Waits::Turn => f.write_str("about to be assigned"),
        }
    }
}

fn list<T>(items: &[T], between: &str, text: impl Fn(&T) -> String) -> String {
    let shown: Vec<String> = items.iter().take(NAMED).map(text).collect();
    let shown = shown.join(between);
    match items.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

//! What has changed since when: for those who poll many livepatches, and for views that are made anew only when something
//! they show has changed.
//!
//! Counted in memory, from the store's changes in commit order. After a restart the count begins anew, and so does everybody
//! who comes with an old cursor.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klp_livepatch::task::LivepatchId;
use tokio::sync::watch;

use crate::store::Change;

/// The most livepatches whose last change is remembered; a cursor from before the oldest of them is too old.
const REMEMBERED: usize = 20_000;

/// Where somebody stands in the stream of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which count it belongs to: each start of a coordinator begins one.
    epoch: u64,
    position: u64,
}

impl Cursor {
    /// Of two positions in one count.
    pub fn is_after(self, other: Self) -> bool {
        self.position > other.position
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.epoch, self.position)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
        let parts = text.split_once('-');
        let cursor = parts.and_then(|(epoch, position)| {
            let (epoch, position) = (number(epoch)?, number(position)?);
            Some(Self { epoch, position })
        });
        cursor.ok_or("not a cursor that a former answer came with")
    }
}

/// Handles to one count; cheap to clone.
#[derive(Clone)]
pub struct Versions {
    count: Arc<Mutex<Count>>,
    newest: watch::Sender<u64>,
}

struct Count {
    epoch: u64,
    position: u64,
    /// The position of each livepatch's last change, and the other way round.
    of: HashMap<LivepatchId, u64>,
    at: BTreeMap<u64, LivepatchId>,
    /// What changed up to here may have been forgotten.
    floor: u64,
}

impl Versions {
    pub fn new(epoch: u64) -> Self {
        let count = Count {
            epoch,
            position: 0,
            of: HashMap::new(),
            at: BTreeMap::new(),
            floor: 0,
        };
        Self {
            count: Arc::new(Mutex::new(count)),
            newest: watch::Sender::new(0),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a transaction changed.
    pub fn count(&self, changes: &[Change]) {
        let position = {
            let mut count = self.locked();
            for change in changes {
                match change {
                    Change::Opened(livepatch) => count.touch(livepatch.id),
                    Change::Ended { livepatch } | Change::Event { livepatch, .. } => count.touch(*livepatch),
                    Change::Task(task) => count.touch(task.livepatch),
                    // Its task is told, too.
                    Change::Attempt(_) | Change::Token(_) | Change::Certificate(_) => {}
                    Change::Worker { .. } | Change::Forgotten { .. } => count.position += 1,
                }
            }
            count.position
        };
        self.newest.send_replace(position);
    }

    /// Where the count stands now.
    pub fn now(&self) -> Cursor {
        let count = self.locked();
        Cursor {
            epoch: count.epoch,
            position: count.position,
        }
    }

    /// Where the livepatch changed last; the count's beginning if it has not changed since.
    pub fn of(&self, livepatch: LivepatchId) -> Cursor {
        let count = self.locked();
        Cursor {
            epoch: count.epoch,
            position: count.of.get(&livepatch).copied().unwrap_or(0),
        }
    }

    /// The next `limit` livepatches that changed after the cursor, what changed last at the end, and where to go on; `None`
    /// if the cursor is of another count or too old.
    pub fn since(&self, cursor: Cursor, limit: usize) -> Option<(Vec<LivepatchId>, Cursor)> {
        let count = self.locked();
        if cursor.epoch != count.epoch || cursor.position < count.floor || cursor.position > count.position {
            return None;
        }
        let after = (std::ops::Bound::Excluded(cursor.position), std::ops::Bound::Unbounded);
        let changed: Vec<(u64, LivepatchId)> = count.at.range(after).take(limit).map(|(at, id)| (*at, *id)).collect();
        let position = match changed.last() {
            Some((last, _)) if changed.len() == limit => *last,
            _ => count.position,
        };
        let (epoch, ids) = (count.epoch, changed.into_iter().map(|(_, id)| id).collect());
        Some((ids, Cursor { epoch, position }))
    }

    /// Hears of every change from now on.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

impl Count {
    fn touch(&mut self, livepatch: LivepatchId) {
        self.position += 1;
        if let Some(before) = self.of.insert(livepatch, self.position) {
            self.at.remove(&before);
        }
        self.at.insert(self.position, livepatch);
        if self.at.len() > REMEMBERED
            && let Some((at, oldest)) = self.at.pop_first()
        {
            self.of.remove(&oldest);
            self.floor = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> LivepatchId {
        LivepatchId(Uuid::from_u128(n))
    }

    fn event(n: u128) -> Change {
        Change::Event {
            livepatch: id(n),
            number: 1,
        }
    }

    #[test]
    fn a_livepatch_is_told_once_however_often_it_changed() {
        let versions = Versions::new(7);
        let start = versions.now();
        versions.count(&[event(1), event(2), event(1)]);
        let (changed, then) = versions.since(start, 10).unwrap();
        assert_eq!(changed, [id(2), id(1)]);
        assert_eq!(versions.since(then, 10).unwrap(), (vec![], then));
        assert_ne!(versions.of(id(1)), versions.of(id(2)));
        let (first, on) = versions.since(start, 1).unwrap();
        assert_eq!(first, [id(2)]);
        assert_eq!(versions.since(on, 1).unwrap().0, [id(1)]);
    }

    #[test]
    fn a_cursor_of_another_count_is_told_apart() {
        let versions = Versions::new(7);
        versions.count(&[event(1)]);
        let other: Cursor = "6-1".parse().unwrap();
        assert_eq!(versions.since(other, 10), None);
        assert_eq!(versions.now().to_string().parse(), Ok(versions.now()));
        assert_eq!(versions.since("7-ff".parse().unwrap(), 10), None);
        for bad in ["", "1", "-", "x-1", "1-"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let versions = Versions::new(1);
        let start = versions.now();
        for n in 0..=REMEMBERED as u128 {
            versions.count(&[event(n)]);
        }
        assert_eq!(versions.since(start, 10), None);
        assert_eq!(versions.locked().at.len(), REMEMBERED);
        assert_eq!(versions.locked().of.len(), REMEMBERED);
    }
}

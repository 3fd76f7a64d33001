//! The table of attempts this worker runs, or has finished and not yet delivered.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klp_livepatch::task::AttemptId;
use klp_proto::v1;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// The longest progress text sent, in bytes; the contract's bound.
const MAX_PROGRESS: usize = 200;

/// A shared table; clones are handles to the same one.
#[derive(Clone, Default)]
pub struct Attempts {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    open: BTreeMap<AttemptId, Open>,
    /// Attempts that were taken and that the coordinator may still list: a state that was on its way while an attempt was
    /// delivered does. They must not run again.
    seen: HashSet<AttemptId>,
    /// Nothing new is taken.
    closed: bool,
}

struct Open {
    progress: String,
    /// It has not begun.
    waiting: bool,
    cancel: CancellationToken,
    /// It has ended and only its delivery is left.
    ended: bool,
    /// What is said of it is said in here.
    span: Span,
}

impl Attempts {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an attempt in, unless it was ever here or the table is closed; answers the token that stops it.
    pub fn begin(&self, id: AttemptId) -> Option<CancellationToken> {
        let mut table = self.table();
        if table.closed || !table.seen.insert(id) {
            return None;
        }
        let cancel = CancellationToken::new();
        let open = Open {
            progress: String::new(),
            waiting: false,
            cancel: cancel.clone(),
            ended: false,
            span: Span::none(),
        };
        table.open.insert(id, open);
        drop(table);
        self.shared.changed.notify_one();
        Some(cancel)
    }

    /// What is said of the attempt from now on is said in this span.
    pub fn attach(&self, id: AttemptId, span: &Span) {
        if let Some(open) = self.table().open.get_mut(&id) {
            open.span = span.clone();
        }
    }

    pub fn set_progress(&self, id: AttemptId, text: &str) {
        if let Some(open) = self.table().open.get_mut(&id) {
            open.progress = truncated(text, MAX_PROGRESS).to_owned();
        }
        self.shared.changed.notify_one();
    }

    /// The attempt waits for a slot, or does so no more.
    pub fn set_waiting(&self, id: AttemptId, waiting: bool) {
        if let Some(open) = self.table().open.get_mut(&id) {
            open.waiting = waiting;
        }
        self.set_progress(id, if waiting { "waiting for a slot" } else { "starting" });
    }

    /// The attempt has its outcome; its slot is free, its lease is still wanted.
    pub fn ended(&self, id: AttemptId) {
        if let Some(open) = self.table().open.get_mut(&id) {
            open.ended = true;
            open.progress = "delivering".to_owned();
        }
        self.shared.changed.notify_one();
    }

    /// The attempt's outcome is acknowledged.
    pub fn remove(&self, id: AttemptId) {
        self.table().open.remove(&id);
        self.shared.changed.notify_one();
    }

    /// Stops the running attempts for which `keep` says no. What it says no to once it will never ask for again.
    pub fn cancel_unless(&self, keep: impl Fn(&AttemptId) -> bool) {
        let mut table = self.table();
        let Table { open, seen, .. } = &mut *table;
        seen.retain(|id| open.contains_key(id) || keep(id));
        for (id, open) in open {
            if !open.ended && !keep(id) && !open.cancel.is_cancelled() {
                open.span
                    .in_scope(|| tracing::info!("stopping: the coordinator no longer wants it"));
                open.cancel.cancel();
            }
        }
    }

    pub fn cancel_all(&self) {
        for open in self.table().open.values() {
            open.cancel.cancel();
        }
    }

    /// How many are running, and how many wait for delivery only.
    pub fn counts(&self) -> (usize, usize) {
        let table = self.table();
        let ended = table.open.values().filter(|o| o.ended).count();
        (table.open.len() - ended, ended)
    }

    /// All of them, for the coordinator, and whether nothing can join them any more: one look at the table, for the
    /// coordinator takes back what a closed worker does not list.
    pub fn to_wire(&self) -> (Vec<v1::RunningAttempt>, bool) {
        let table = self.table();
        let attempts = table
            .open
            .iter()
            .map(|(id, open)| v1::RunningAttempt {
                attempt: Some((*id).into()),
                progress: open.progress.clone(),
                waiting: open.waiting,
            })
            .collect();
        (attempts, table.closed)
    }

    /// Takes nothing new from now on, and has the coordinator told.
    pub fn close(&self) {
        self.table().closed = true;
        self.shared.changed.notify_one();
    }

    /// Returns after the next change, or at once if there was one since the last call.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

/// The longest prefix of at most `max` bytes that ends between characters.
fn truncated(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use klp_livepatch::task::TaskId;
    use uuid::Uuid;

    use super::*;

    fn id(number: u32) -> AttemptId {
        AttemptId {
            task: TaskId(Uuid::from_u128(1)),
            number,
        }
    }

    #[test]
    fn an_attempt_never_runs_twice() {
        let attempts = Attempts::default();
        assert!(attempts.begin(id(1)).is_some());
        assert!(attempts.begin(id(1)).is_none());
        attempts.remove(id(1));
        assert!(attempts.begin(id(1)).is_none());
        assert!(attempts.begin(id(2)).is_some());
    }

    #[test]
    fn what_the_coordinator_no_longer_lists_is_forgotten_and_what_it_lists_is_not() {
        let attempts = Attempts::default();
        assert!(attempts.begin(id(1)).is_some());
        attempts.cancel_unless(|_| false);
        assert!(attempts.begin(id(1)).is_none(), "it is still here");
        attempts.remove(id(1));
        attempts.cancel_unless(|_| true);
        assert!(attempts.begin(id(1)).is_none(), "it is still listed");
        attempts.cancel_unless(|_| false);
        assert!(attempts.table().seen.is_empty());
    }

    #[test]
    fn what_has_ended_is_still_announced_but_not_stopped() {
        let attempts = Attempts::default();
        let first = attempts.begin(id(1)).unwrap();
        let second = attempts.begin(id(2)).unwrap();
        attempts.ended(id(1));
        attempts.cancel_unless(|_| false);
        assert!(!first.is_cancelled());
        assert!(second.is_cancelled());
        assert_eq!(attempts.counts(), (1, 1));
        assert_eq!(attempts.to_wire().0.len(), 2);
        attempts.close();
        assert!(attempts.begin(id(3)).is_none());
        assert!(attempts.to_wire().1);
    }

    #[test]
    fn what_has_not_begun_says_so() {
        let attempts = Attempts::default();
        attempts.begin(id(1)).unwrap();
        let waiting = || attempts.to_wire().0[0].waiting;
        assert!(!waiting());
        attempts.set_waiting(id(1), true);
        assert!(waiting());
        attempts.set_waiting(id(1), false);
        assert!(!waiting());
    }

    #[test]
    fn progress_is_cut_between_characters() {
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("aé", 3), "aé");
    }
}

//! What keeps content from being removed while a commit is about to name it.
//!
//! A commit pins what it names before it looks whether that is there. A removal marks content that nobody has pinned, and
//! only then asks whether anybody needs it; whoever wants to pin it meanwhile waits until it is gone or has stayed. So either
//! the commit finds it gone, and its worker sends it again, or it stays. The lock is held for neither: over a network a
//! removal takes its time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klp_livepatch::outcome::Digest;
use tokio::sync::Notify;

/// Pins and removals of one store's contents. Clones see the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<Held>,
    /// A removal has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Held {
    /// What is pinned, and how many times.
    pins: HashMap<Digest, usize>,
    removing: HashSet<Digest>,
}

impl Holds {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps contents from being removed while the pin lives; waits for removals of them that have begun.
    pub(super) async fn pin(&self, digests: Vec<Digest>) -> Pin {
        loop {
            // Made before the look, so that no end is missed.
            let ended = self.0.ended.notified();
            {
                let mut held = self.held();
                if digests.iter().all(|digest| !held.removing.contains(digest)) {
                    for digest in &digests {
                        *held.pins.entry(*digest).or_default() += 1;
                    }
                    drop(held);
                    let holds = self.clone();
                    return Pin { holds, digests };
                }
            }
            ended.await;
        }
    }

    /// Begins to remove content; `None` if it is pinned, or being removed already.
    pub(super) fn begin_removal(&self, digest: Digest) -> Option<Removal> {
        let mut held = self.held();
        let begun = !held.pins.contains_key(&digest) && held.removing.insert(digest);
        drop(held);
        begun.then(|| Removal {
            holds: self.clone(),
            digest,
        })
    }

    #[cfg(test)]
    pub(super) fn none(&self) -> bool {
        let held = self.held();
        held.pins.is_empty() && held.removing.is_empty()
    }
}

/// Content that is not to be removed for now.
pub struct Pin {
    holds: Holds,
    digests: Vec<Digest>,
}

impl Pin {
    /// Holds the pin until `work` is done, even if whoever waits for it goes away.
    ///
    /// # Errors
    /// The work broke off.
    pub async fn until_done<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let held = async move {
            let done = work.await;
            drop(self);
            done
        };
        tokio::spawn(held).await
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.holds.held();
        for digest in &self.digests {
            if let Some(count) = held.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    held.pins.remove(digest);
                }
            }
        }
    }
}

/// Content that is being removed, until this is dropped.
pub(super) struct Removal {
    holds: Holds,
    pub(super) digest: Digest,
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.holds.held().removing.remove(&self.digest);
        self.holds.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn in_vain<T>(future: impl Future<Output = T>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), future).await.is_err()
    }

    #[tokio::test]
    async fn a_pin_waits_for_a_removal_and_a_removal_does_not_begin_under_a_pin() {
        let (holds, one, two) = (Holds::default(), Digest::of(b"1"), Digest::of(b"2"));
        let (first, second) = (holds.pin(vec![one]).await, holds.pin(vec![one]).await);
        assert!(holds.begin_removal(one).is_none());
        drop(first);
        assert!(holds.begin_removal(one).is_none());
        drop(second);
        let removal = holds.begin_removal(one).unwrap();
        assert!(holds.begin_removal(one).is_none());
        assert!(in_vain(holds.pin(vec![two, one])).await);
        // Who waits for one thing holds nothing else.
        drop(holds.begin_removal(two).unwrap());
        drop(holds.pin(vec![two]).await);
        let waiting = holds.clone();
        let waiting = tokio::spawn(async move { waiting.pin(vec![one]).await });
        tokio::task::yield_now().await;
        drop(removal);
        let pin = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
        assert!(holds.begin_removal(one).is_none());
        drop(pin);
        assert!(holds.none());
    }

    #[tokio::test]
    async fn a_pin_stays_until_the_work_is_done_though_its_waiter_goes_away() {
        let (holds, digest) = (Holds::default(), Digest::of(b"x"));
        let (done, work) = tokio::sync::oneshot::channel::<()>();
        let pin = holds.pin(vec![digest]).await;
        assert!(in_vain(pin.until_done(work)).await);
        assert!(holds.begin_removal(digest).is_none());
        done.send(()).unwrap();
        while !holds.none() {
            tokio::task::yield_now().await;
        }
        assert!(holds.begin_removal(digest).is_some());
    }
}

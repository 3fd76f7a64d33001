//! Wakes those who wait for more of something: the events of a livepatch, the bytes of a log. A bell carries only how
//! far there is to read; what is read comes from the store, so a missed ring loses nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Bells by key; only those that somebody listens to exist.
pub struct Bells<K> {
    bells: Arc<Mutex<HashMap<K, watch::Sender<u64>>>>,
}

impl<K> Clone for Bells<K> {
    fn clone(&self) -> Self {
        Self {
            bells: Arc::clone(&self.bells),
        }
    }
}

impl<K> Default for Bells<K> {
    fn default() -> Self {
        Self { bells: Arc::default() }
    }
}

type Map<K> = HashMap<K, watch::Sender<u64>>;

fn locked<K>(bells: &Mutex<Map<K>>) -> MutexGuard<'_, Map<K>> {
    bells.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Eq + Hash + Clone> Bells<K> {
    /// Says that there is something to read up to `position`.
    pub fn ring(&self, key: &K, position: u64) {
        if let Some(bell) = locked(&self.bells).get(key) {
            bell.send_modify(|known| *known = (*known).max(position));
        }
    }

    /// Listens from now on. Whoever reads the store after this misses nothing.
    pub fn listen(&self, key: K) -> Listener<K> {
        let mut bells = locked(&self.bells);
        let bell = bells.entry(key.clone()).or_insert_with(|| watch::Sender::new(0));
        Listener {
            heard: bell.subscribe(),
            key,
            bells: self.clone(),
        }
    }
}

pub struct Listener<K: Eq + Hash + Clone> {
    heard: watch::Receiver<u64>,
    key: K,
    bells: Bells<K>,
}

impl<K: Eq + Hash + Clone> Listener<K> {
    /// Waits until the bell rings after the last time this returned.
    pub async fn rung(&mut self) {
        // The sender outlives its listeners.
        let _ = self.heard.changed().await;
    }
}

impl<K: Eq + Hash + Clone> Drop for Listener<K> {
    fn drop(&mut self) {
        let mut bells = locked(&self.bells.bells);
        if bells.get(&self.key).is_some_and(|bell| bell.receiver_count() <= 1) {
            bells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_between_two_waits_is_not_missed_and_bells_go_with_their_listeners() {
        let bells = Bells::default();
        bells.ring(&1, 5);
        let mut a = bells.listen(1);
        let b = bells.listen(1);
        bells.ring(&1, 6);
        a.rung().await;
        drop(a);
        assert_eq!(locked(&bells.bells).len(), 1);
        drop(b);
        assert!(locked(&bells.bells).is_empty());
    }
}

//! What is known to be in a bucket without asking. It is learnt while the content is pinned, and forgotten when its removal
//! begins, so what the coordinator itself removes is never thought to be there; what others remove is noticed in a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use klp_livepatch::outcome::Digest;

/// How long it is believed. A commit follows its uploads within seconds.
const BELIEVED: Duration = Duration::from_secs(300);

/// The most that is remembered: a few MiB.
const MOST: usize = 50_000;

#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<Digest, (u64, Instant)>>);

impl Known {
    fn all(&self) -> MutexGuard<'_, HashMap<Digest, (u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let (size, since) = *self.all().get(digest)?;
        (since.elapsed() < BELIEVED).then_some(size)
    }

    pub fn note(&self, digest: Digest, size: u64) {
        let mut all = self.all();
        if all.len() >= MOST {
            all.retain(|_, (_, since)| since.elapsed() < BELIEVED);
        }
        // It only saves questions.
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(digest, (size, Instant::now()));
    }

    pub fn forget(&self, digest: &Digest) {
        self.all().remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_unknown_and_memory_has_an_end() {
        let known = Known::default();
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        for n in 0..=MOST {
            known.note(digest(n), 7);
        }
        assert_eq!(known.size(&digest(MOST)), Some(7));
        assert!(known.all().len() <= MOST);
        known.forget(&digest(MOST));
        assert_eq!(known.size(&digest(MOST)), None);
    }
}

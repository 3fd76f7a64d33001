//! How fast a worker ends its attempts: whether they are short, and so how many it is given before it has slots for them.
//!
//! An attempt's slot is empty from its end until its successor arrives: two durable transactions and a round trip. That
//! is nothing beside an extraction of a second, and most of the time of an attempt that takes two milliseconds. What
//! waits on a worker can't be given to another, so a worker never holds more than it ends within [`WINDOW_MS`].

use std::collections::VecDeque;

use crate::lifecycle::Millis;

/// The time that is looked back, and that what is prefetched is worth.
const WINDOW_MS: Millis = 50;
/// The most that is prefetched.
const MOST: u32 = 64;
/// The most ends that are remembered.
const REMEMBERED: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// When attempts ended, oldest first.
    ends: VecDeque<Millis>,
}

impl Pace {
    /// An attempt has ended.
    pub fn step(&mut self, now: Millis) {
        self.ends.push_back(now);
        if self.ends.len() > REMEMBERED {
            self.ends.pop_front();
        }
    }

    /// Forgets what is long ago; answers whether that was all.
    pub fn is_over(&mut self, now: Millis) -> bool {
        while self.ends.pop_front_if(|at| *at + WINDOW_MS <= now).is_some() {}
        self.ends.is_empty()
    }

    /// How many attempts beyond its slots keep the worker busy, if they are short: if they take no longer than two
    /// windows, so that within one it ends as many as half its slots hold.
    pub fn prefetch(&self, slots: u32) -> Option<u32> {
        let ended = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        (ended.saturating_mul(2) >= slots).then(|| ended.saturating_sub(slots).min(MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(slots: u32, each_ms: Millis) -> Option<u32> {
        let mut pace = Pace::default();
        for slot in 0..Millis::from(slots) {
            // Slots don't end in step.
            let ends = (0..1000)
                .map(|n| n * each_ms + slot * each_ms / Millis::from(slots))
                .take_while(|at| *at <= 1000);
            ends.for_each(|at| pace.step(at));
        }
        pace.ends.make_contiguous().sort_unstable();
        pace.is_over(1000);
        pace.prefetch(slots)
    }

    #[test]
    fn short_attempts_are_prefetched_for_as_long_as_the_window_and_long_ones_never() {
        assert_eq!(pace(2, 5), Some(2 * (50 / 5) - 2));
        assert_eq!(pace(2, 25), Some(2));
        assert_eq!(pace(16, 50), Some(0));
        assert_eq!(pace(16, 90), Some(0));
        assert_eq!(pace(16, 120), None);
        assert_eq!(pace(16, 400), None);
    }

    #[test]
    fn nothing_is_prefetched_after_a_rest_and_never_without_bound() {
        let mut pace = Pace::default();
        (0..10_000).for_each(|_| pace.step(7));
        assert!(!pace.is_over(8));
        assert_eq!(pace.ends.len(), REMEMBERED);
        assert_eq!(pace.prefetch(1), Some(MOST));
        assert!(pace.is_over(7 + WINDOW_MS));
        assert_eq!(pace.prefetch(1), None);
    }
}

//! The farm over a simulated network: the real coordinator (its services, its loop, its store on real files), the real
//! session, outbox and delivery of workers, and clients, each on a host of its own. Links are cut, held up and mended;
//! hosts crash and come back; and the coordinator dies after a commit and before its reply has left.
//!
//! The same seed gives the same run. `KLP_TURMOIL_SEED=7` replays one and prints what happened; `KLP_TURMOIL_SEEDS=1000`
//! tries so many.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
// Release builds have no failpoints.
#![cfg(debug_assertions)]

mod book;
mod client;
mod database;
mod net;
mod worker;
mod world;

use book::{Case, Counts};
use world::run;

/// How many seeds are tried unless it is said. All that is counted happens in so many.
const SEEDS: u64 = 32;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// One of two halves of all seeds: test runners go through them side by side.
fn half(n: u64) {
    if let Some(seed) = number("KLP_TURMOIL_SEED") {
        if seed % 2 == n {
            println!("{}", run(seed).trace.join("\n"));
        }
        return;
    }
    let seeds = number("KLP_TURMOIL_SEEDS").unwrap_or(SEEDS);
    let mut sum = Counts::default();
    for seed in (0..seeds).filter(|seed| seed % 2 == n) {
        for (case, count) in run(seed).counts {
            *sum.entry(case).or_default() += count;
        }
    }
    println!("{sum:?}");
    if seeds >= SEEDS {
        let unseen: Vec<_> = Case::ALL.into_iter().filter(|case| !sum.contains_key(case)).collect();
        assert!(unseen.is_empty(), "no seed came to {unseen:?}");
    }
}

#[test]
fn promises_are_kept_over_the_wire() {
    half(0);
}

#[test]
fn promises_are_kept_over_the_wire_2() {
    half(1);
}

#[test]
fn a_seed_replays_exactly() {
    let (one, two) = (run(3).trace, run(3).trace);
    let differ = one.iter().zip(&two).find(|(a, b)| a != b);
    assert_eq!(differ, None);
    assert_eq!(one.len(), two.len());
}

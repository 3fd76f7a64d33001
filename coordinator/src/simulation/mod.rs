//! A simulation of the whole farm by seed: the real mind, ledger, plan, schedule, lifecycle and database, with simulated
//! time, network, workers and users, all of which fail. The promises are checked after each step.
//!
//! `KLP_SIM_SEEDS=n` sets how many seeds are tried (from `KLP_SIM_FIRST` on); `KLP_SIM_SEED=n` replays one and prints
//! all that happened.

mod clients;
mod coordinator;
mod promises;
mod random;
mod worker;
mod world;

use world::World;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// How many steps it took, and all of them if asked for.
fn live(seed: u64, tell: bool) -> (Result<(), String>, u64, Vec<String>) {
    let mut world = World::new(seed, tell);
    let result = world.run();
    (result, world.transactions, world.trace.unwrap_or_default())
}

#[test]
fn the_promises_hold_whatever_happens() {
    if let Some(seed) = setting("KLP_SIM_SEED") {
        let (result, _, trace) = live(seed, true);
        println!("{}", trace.join("\n"));
        return result.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    let first = setting("KLP_SIM_FIRST").unwrap_or(0);
    let mut transactions = 0;
    let seeds = setting("KLP_SIM_SEEDS").unwrap_or(2_000);
    for seed in first..first + seeds {
        let (result, steps, _) = live(seed, false);
        transactions += steps;
        if let Err(broken) = result {
            let (_, _, trace) = live(seed, true);
            let tail = trace.len().saturating_sub(60);
            panic!(
                "{}\nseed {seed}: {broken}\nreplay it with KLP_SIM_SEED={seed}",
                trace[tail..].join("\n")
            );
        }
    }
    println!("{seeds} seeds, {transactions} transactions");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 5] {
        assert_eq!(live(seed, true), live(seed, true));
    }
}

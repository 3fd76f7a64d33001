//! Models: what a task and a farm may be, told as plainly as possible and without the code under test, and state machines
//! that walk the real thing and its model side by side. A walk that ends badly is shrunk to the steps that matter.
//!
//! `PROPTEST_CASES=1000` takes so many walks.

mod farm;
mod ledger;
mod lifecycle;
mod livepatch;
mod moves;
mod real;
mod task;

use proptest::test_runner::Config;

/// So many walks, unless the environment asks for another number.
fn walks(cases: u32) -> Config {
    let cases = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => Config::default().cases,
        None => cases,
    };
    Config {
        cases,
        max_shrink_time: 60_000,
        ..Config::default()
    }
}

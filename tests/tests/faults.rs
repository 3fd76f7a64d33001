//! Processes die; the farm carries on.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use klp_tests::{Farm, SUBMIT, WorkerOptions, trees, wait_until};
use serde_json::Value;

/// A farm with one worker, to which a livepatch was just submitted.
fn busy_farm() -> Option<(Farm, PathBuf)> {
    let trees = trees()?;
    let mut farm = Farm::start();
    add_worker(&mut farm, "a", &trees);
    let submitted = farm.cli(SUBMIT);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    Some((farm, trees))
}

fn add_worker(farm: &mut Farm, name: &str, trees: &Path) {
    farm.add_worker(WorkerOptions {
        name,
        trees,
        codestreams: "",
        slots: 2,
        ..WorkerOptions::default()
    });
}

#[test]
fn an_acknowledged_submission_survives_a_killed_coordinator() {
    let Some((mut farm, _)) = busy_farm() else { return };
    farm.restart_coordinator();
    assert_eq!(farm.livepatches(), ["lp"]);
    farm.ends_in_success("lp");
}

#[test]
fn a_killed_worker_costs_an_attempt_and_not_the_task() {
    let Some((mut farm, trees)) = busy_farm() else { return };
    farm.wait_until_extracting("lp");
    farm.workers[0].kill();
    add_worker(&mut farm, "b", &trees);
    farm.ends_in_success("lp");
    let tasks = farm.tasks("lp");
    let taken_over = |t: &Value| t["attempt"].as_u64() > Some(1) && t["worker"] == "b";
    assert!(tasks.iter().any(taken_over), "{tasks:?}");
}

#[test]
fn a_terminated_worker_hands_back_at_once() {
    let Some((mut farm, trees)) = busy_farm() else { return };
    farm.wait_until_extracting("lp");
    let status = farm.workers[0].terminate();
    assert!(status.success(), "{status}");
    add_worker(&mut farm, "b", &trees);
    farm.ends_in_success("lp");
    let events = farm.cli(["watch", "lp", "--output", "json"]).stdout;
    assert!(events.contains("handed back"), "{events}");
    assert!(
        !events.contains("ran out"),
        "nothing had to wait for its lease: {events}"
    );
}

#[test]
fn a_watch_outlives_its_coordinator_and_misses_nothing() {
    let Some((mut farm, _)) = busy_farm() else { return };
    let mut watch = farm.cli_beside("watch", ["watch", "lp", "--output", "json"]);
    watch.wait_for_line("{\"number\":3,");
    farm.restart_coordinator();
    let status = watch.wait();
    assert!(status.success(), "{status}: {}", watch.log());
    let numbers: Vec<u64> = watch
        .stdout()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() > 3);
}

#[test]
fn a_leftover_that_is_damaged_does_not_keep_its_worker_away() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::start();
    let parcel = farm.dir.path().join("a/outbox/01a20b81-a979-7117-86e6-b6fb71880b4a-1");
    std::fs::create_dir_all(&parcel).unwrap();
    let outcome = serde_json::json!({
        "attempt": { "task": "01a20b81-a979-7117-86e6-b6fb71880b4a", "number": 1 },
        "incarnation": "01a20b81-a979-7117-86e6-b6fb71880b4b",
        "outcome": {
            "ending": { "ending": "succeeded" },
            "report": null,
            "artifacts": [{ "name": "a.c", "digest": "0".repeat(64), "size": 1 }],
        },
    });
    std::fs::write(parcel.join("outcome.json"), outcome.to_string()).unwrap();
    add_worker(&mut farm, "a", &trees);
    wait_until(Duration::from_secs(20), "the leftover is settled", || {
        (!parcel.exists()).then_some(())
    });
}

#[test]
fn a_tool_without_enough_memory_fails_its_codestream_and_says_so() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::with_settings("memory_limit = 268435456\n");
    add_worker(&mut farm, "a", &trees);
    let submitted = farm.cli(SUBMIT.into_iter().chain(["--wait"]));
    assert_eq!(submitted.code, Some(3), "{submitted:?}");
    assert!(submitted.stdout.contains("memory"), "{submitted:?}");
}

//! A worker on a host of its own is cut off in the middle of an attempt, and comes back in time or too late.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::time::Duration;

use klp_tests::{Farm, Net, SUBMIT, WorkerOptions, trees, wait_until};

fn options<'a>(name: &'a str, trees: &'a Path) -> WorkerOptions<'a> {
    WorkerOptions {
        name,
        trees,
        codestreams: "debian12-6.1",
        slots: 2,
        ..WorkerOptions::default()
    }
}

/// A farm whose worker `a` is away, and runs an extraction.
fn extracting_away(net: &Net, settings: &str) -> Option<Farm> {
    let trees = trees()?;
    let mut farm = Farm::start_on(Some(net), settings);
    farm.add_worker_on(Some(&net.away), options("a", &trees));
    let submitted = farm.cli(SUBMIT);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    farm.wait_until_extracting("lp");
    Some(farm)
}

fn connected(farm: &Farm, name: &str) -> bool {
    let workers = farm.cli(["workers", "--output", "json"]).json();
    let found = workers.as_array().unwrap().iter().find(|w| w["name"] == name).cloned();
    found.is_some_and(|w| w["connected"] == true)
}

fn events(farm: &Farm) -> String {
    farm.cli(["watch", "lp", "--output", "json"]).stdout
}

#[test]
fn a_worker_that_was_cut_off_for_less_than_its_lease_keeps_what_it_runs() {
    let Some(net) = Net::new() else { return };
    let settings = "keepalive_ms = 500\nkeepalive_timeout_ms = 500\n";
    // A lease that outlasts the cut and the reconnection, whatever the machine is doing.
    let Some(farm) = extracting_away(&net, &format!("{settings}lease_ms = 90000\n")) else {
        return;
    };
    net.cut();
    wait_until(Duration::from_secs(30), "the loss is noticed", || {
        (!connected(&farm, "a")).then_some(())
    });
    net.join();
    farm.ends_in_success("lp");
    assert!(
        farm.tasks("lp").iter().all(|t| t["attempt"] == 1),
        "{:?}",
        farm.tasks("lp")
    );
}

#[test]
fn a_worker_that_comes_back_too_late_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let settings = "keepalive_ms = 500\nkeepalive_timeout_ms = 500\nlease_ms = 3000\n";
    let Some(mut farm) = extracting_away(&net, settings) else {
        return;
    };
    net.cut();
    let trees = trees().unwrap();
    farm.add_worker(options("b", &trees));
    farm.ends_in_success("lp");
    let before = farm.tasks("lp");
    assert!(
        before.iter().any(|t| t["worker"] == "b" && t["attempt"] == 2),
        "{before:?}"
    );
    assert!(events(&farm).contains("the lease of worker a ran out"));
    net.join();
    // It delivers what it finished meanwhile, is told that it came too late, and keeps nothing.
    let outbox = farm.dir.path().join("a/outbox");
    wait_until(Duration::from_secs(60), "the late outcome is answered", || {
        let back = connected(&farm, "a");
        let empty = std::fs::read_dir(&outbox).is_ok_and(|mut parcels| parcels.next().is_none());
        (back && empty).then_some(())
    });
    assert!(
        farm.workers[0].log().contains("superseded"),
        "{}",
        farm.workers[0].log()
    );
    assert_eq!(farm.tasks("lp"), before);
}

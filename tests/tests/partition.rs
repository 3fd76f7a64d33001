//! A worker on a host of its own is cut off in the middle of an attempt, and comes back in time or too late.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::time::Duration;

use klp_tests::{Farm, Net, WorkerOptions, trees, wait_until};
use serde_json::Value;

const SUBMIT: [&str; 12] = [
    "submit",
    "--name",
    "lp",
    "--mod",
    "snd-pcm",
    "--conf",
    "CONFIG_SND_PCM",
    "--file-funcs",
    "sound/core/pcm.c",
    "snd_pcm_attach_substream",
    "--codestreams",
    "debian12-6.1",
];

fn options<'a>(name: &'a str, trees: &'a Path) -> WorkerOptions<'a> {
    WorkerOptions {
        name,
        trees,
        codestreams: "debian12-6.1",
        slots: 2,
    }
}

fn status(farm: &Farm) -> Value {
    farm.cli(["status", "lp", "--output", "json"]).json()
}

fn tasks(farm: &Farm) -> Vec<Value> {
    status(farm)["tasks"].as_array().cloned().unwrap_or_default()
}

/// A farm whose worker `a` is away, and runs an extraction.
fn extracting_away(net: &Net, settings: &str) -> Option<Farm> {
    let trees = trees()?;
    let mut farm = Farm::start_on(Some(net), settings);
    farm.add_worker_on(Some(&net.away), options("a", &trees));
    let submitted = farm.cli(SUBMIT);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    wait_until(Duration::from_secs(60), "an extraction runs", || {
        let running = |t: &Value| t["kind"] == "extract" && t["state"] == "running";
        tasks(&farm).iter().any(running).then_some(())
    });
    Some(farm)
}

fn ends_in_success(farm: &Farm) {
    let state = wait_until(Duration::from_secs(120), "the livepatch ends", || {
        let state = status(farm)["livepatch"]["state"].as_str()?.to_owned();
        Some(state).filter(|state| state != "running")
    });
    assert_eq!(state, "succeeded");
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
    ends_in_success(&farm);
    assert!(tasks(&farm).iter().all(|t| t["attempt"] == 1), "{:?}", tasks(&farm));
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
    ends_in_success(&farm);
    let before = tasks(&farm);
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
    assert_eq!(tasks(&farm), before);
}

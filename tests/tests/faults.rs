//! Processes die; the farm carries on.

use std::time::Duration;

use klp_tests::{Farm, WorkerOptions, trees, wait_until};

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

fn state(farm: &Farm) -> String {
    let status = farm.cli(["status", "lp", "--output", "json"]);
    status.json()["livepatch"]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn ends_in_success(farm: &Farm) {
    let state = wait_until(Duration::from_secs(120), "the livepatch ends", || {
        Some(state(farm)).filter(|state| state != "running")
    });
    assert_eq!(state, "succeeded");
}

#[test]
fn an_acknowledged_submission_survives_a_killed_coordinator() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        name: "a",
        trees: &trees,
        codestreams: "",
        slots: 2,
    });
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    farm.restart_coordinator();
    assert_eq!(farm.livepatches(), ["lp"]);
    ends_in_success(&farm);
}

#[test]
fn a_killed_worker_costs_an_attempt_and_not_the_task() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        name: "a",
        trees: &trees,
        codestreams: "",
        slots: 2,
    });
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    wait_until(Duration::from_secs(60), "an extraction runs", || {
        let status = farm.cli(["status", "lp", "--output", "json"]).json();
        let mut tasks = status["tasks"].as_array()?.iter();
        tasks
            .any(|t| t["kind"] == "extract" && t["state"] == "running")
            .then_some(())
    });
    farm.workers[0].kill();
    farm.add_worker(WorkerOptions {
        name: "b",
        trees: &trees,
        codestreams: "",
        slots: 2,
    });
    ends_in_success(&farm);
    let status = farm.cli(["status", "lp", "--output", "json"]).json();
    let tasks = status["tasks"].as_array().unwrap();
    assert!(
        tasks
            .iter()
            .any(|t| t["attempt"].as_u64() > Some(1) && t["worker"] == "b"),
        "{status}"
    );
}

#[test]
fn a_terminated_worker_hands_back_at_once() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        name: "a",
        trees: &trees,
        codestreams: "",
        slots: 2,
    });
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    let status = farm.workers[0].terminate();
    assert!(status.success(), "{status}");
    farm.add_worker(WorkerOptions {
        name: "b",
        trees: &trees,
        codestreams: "",
        slots: 2,
    });
    ends_in_success(&farm);
}

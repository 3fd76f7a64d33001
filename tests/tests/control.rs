//! People change their minds while real kernels are worked on: cancel, retry, pause, drain.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::time::Duration;

use klp_tests::{Farm, SUBMIT, WorkerOptions, trees, wait_until};
use serde_json::Value;

fn farm(slots: u32) -> Option<Farm> {
    let trees = trees()?;
    let mut farm = Farm::start();
    add_worker(&mut farm, &trees, slots);
    Some(farm)
}

fn add_worker(farm: &mut Farm, trees: &Path, slots: u32) {
    farm.add_worker(WorkerOptions {
        name: "a",
        trees,
        codestreams: "debian12-6.1",
        slots,
        ..WorkerOptions::default()
    });
}

fn ok(farm: &Farm, args: &[&str]) -> String {
    let done = farm.cli(args);
    assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
    done.stdout
}

/// The processes that descend from one, by their parents' word.
fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in brackets, may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

#[test]
fn what_is_cancelled_stops_at_once_and_can_be_taken_up_again() {
    let Some(farm) = farm(2) else { return };
    ok(&farm, &SUBMIT);
    farm.wait_until_extracting("lp");
    let pid = farm.workers[0].pid();
    wait_until(Duration::from_secs(30), "a tool runs", || {
        (!descendants(pid).is_empty()).then_some(())
    });
    let said = ok(&farm, &["cancel", "lp", "--reason", "wrong fix", "--wait"]);
    assert!(said.starts_with("lp: cancelled: of 2 codestreams"), "{said}");
    wait_until(Duration::from_secs(5), "its processes are gone", || {
        descendants(pid).is_empty().then_some(())
    });
    let shown = farm.cli(["status", "lp"]);
    assert_eq!(shown.code, Some(3));
    assert!(shown.stdout.contains("⊘ cancelled"), "{shown:?}");
    let again = farm.cli(["retry", "lp", "--wait"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    let nothing = farm.cli(["retry", "lp"]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("nothing to retry"), "{nothing:?}");
}

#[test]
fn a_drained_worker_stays_drained_over_restarts() {
    let Some(mut farm) = farm(1) else { return };
    let said = ok(&farm, &["drain", "a", "--reason", "new disk", "--wait"]);
    assert_eq!(said, "a: drained; it runs nothing\n");
    farm.restart_coordinator();
    farm.workers[0].terminate();
    farm.workers.clear();
    add_worker(&mut farm, &trees().unwrap(), 1);
    ok(&farm, &SUBMIT);
    let shown = farm.cli(["status", "lp"]).stdout;
    assert!(shown.contains("a is drained since 20"), "{shown}");
    assert!(shown.contains("(new disk)"), "{shown}");
    let workers = ok(&farm, &["workers"]);
    assert!(workers.contains("drained"), "{workers}");
    wait_until(Duration::from_secs(20), "the coordinator's log says it too", || {
        let log = std::fs::read_to_string(farm.dir.path().join("coordinator.log")).ok()?;
        (log.contains("tasks wait") && log.contains("a is drained since 20")).then_some(())
    });
    ok(&farm, &["undrain", "a"]);
    let followed = farm.cli(["watch", "lp"]);
    assert_eq!(followed.code, Some(0), "{followed:?}");
}

#[test]
fn a_paused_livepatch_waits_and_an_urgent_one_goes_first() {
    let Some(farm) = farm(1) else { return };
    ok(&farm, &["drain", "a", "--reason", "set up"]);
    ok(&farm, &SUBMIT);
    let mut urgent = SUBMIT;
    urgent[2] = "urgent";
    ok(&farm, &urgent);
    ok(&farm, &["pause", "lp", "--reason", "second fix"]);
    ok(&farm, &["priority", "urgent", "--priority", "10"]);
    ok(&farm, &["undrain", "a"]);
    let followed = farm.cli(["watch", "urgent"]);
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert!(
        farm.tasks("lp").iter().all(|t| t["attempt"] == 0),
        "{:?}",
        farm.tasks("lp")
    );
    let shown = farm.cli(["status", "lp"]).stdout;
    assert!(shown.contains("paused") && shown.contains("(second fix)"), "{shown}");
    ok(&farm, &["resume", "lp"]);
    let followed = farm.cli(["watch", "lp"]);
    assert_eq!(followed.code, Some(0), "{followed:?}");
}

#[test]
fn who_is_unknown_is_named_with_who_is_known() {
    let farm = Farm::start();
    let unknown = farm.cli(["drain", "nobody", "--reason", "x"]);
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown
            .stderr
            .contains("there is no worker `nobody`; none ever registered"),
        "{unknown:?}"
    );
    let no_reason = farm.cli(["drain", "nobody"]);
    assert_eq!(no_reason.code, Some(2));
    let cancelled = farm.cli(["cancel", "nothing"]);
    assert!(
        cancelled.stderr.contains("there is no livepatch `nothing`"),
        "{cancelled:?}"
    );
}

#[test]
fn a_tree_that_can_not_be_used_is_announced_with_the_reason_and_waited_for() {
    let mut farm = Farm::start();
    let trees = farm.dir.path().join("trees");
    let broken = trees.join("x86_64/debian12-9.9");
    std::fs::create_dir_all(&broken).unwrap();
    add_worker_with(&mut farm, &trees);
    let workers = ok(&farm, &["workers"]);
    assert!(
        workers.contains("debian12-9.9/x86_64 can't be used: the tree in "),
        "{workers}"
    );
    let mut submit = SUBMIT;
    submit[11] = "debian12-9.9";
    ok(&farm, &submit);
    let waits = farm.tasks("lp")[0]["waiting_for"].as_str().unwrap().to_owned();
    assert!(
        waits.starts_with("no tree of debian12-9.9/x86_64 can be used: on a: the tree in "),
        "{waits}"
    );
    // It is noticed while the worker runs that the tree is gone.
    std::fs::remove_dir(&broken).unwrap();
    wait_until(Duration::from_secs(30), "the tree is gone", || {
        let waits = farm.tasks("lp")[0]["waiting_for"].as_str()?.to_owned();
        (waits == "no worker holds debian12-9.9/x86_64").then_some(())
    });
}

fn add_worker_with(farm: &mut Farm, trees: &Path) {
    farm.add_worker(WorkerOptions {
        name: "a",
        trees,
        codestreams: "",
        slots: 1,
        ..WorkerOptions::default()
    });
}

#[test]
fn logs_are_followed_from_before_the_first_attempt_to_the_end() {
    let Some(farm) = farm(1) else { return };
    ok(&farm, &["drain", "a", "--reason", "set up"]);
    ok(&farm, &SUBMIT);
    let mut following = farm.cli_beside("logs", ["logs", "lp", "-f", "--output", "json"]);
    wait_until(Duration::from_secs(20), "it says what it waits for", || {
        following.log().contains("waiting: a is drained").then_some(())
    });
    ok(&farm, &["undrain", "a"]);
    assert!(following.wait().success(), "{}", following.log());
    let mut logs = std::collections::BTreeSet::new();
    for line in following.stdout().lines() {
        let piece: Value = serde_json::from_str(line).unwrap();
        logs.insert(format!("{} {}", piece["kind"], piece["codestream"]));
    }
    assert_eq!(logs.len(), 4, "check and extraction on two kernels: {logs:?}");
}

//! Disks that fill up under a farm at work, and have room again: no outcome is lost. Each test mounts small tmpfs disks,
//! for which it must be root.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use klp_tests::{Disk, Farm, SUBMIT, Tools, WorkerOptions, one_codestream, trees, wait_until};

/// A `make` that begins, and goes on when it is told to.
const PATIENT: &str = r#"#!/bin/sh
here=${0%/*}
: >"$here/begun"
while [ ! -e "$here/go" ]; do sleep 0.05; done
PATH=${PATH#*:} exec make "$@"
"#;

fn ok(farm: &Farm, args: &[&str]) {
    let done = farm.cli(args);
    assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
}

fn add_worker(farm: &mut Farm, name: &str, trees: &Path, tools: Option<&Path>) {
    farm.add_worker(WorkerOptions {
        name,
        trees,
        codestreams: &one_codestream(trees),
        tools,
        ..WorkerOptions::default()
    });
}

/// The one that was submitted second.
fn another() -> [&'static str; SUBMIT.len()] {
    let mut submit = SUBMIT;
    submit[2] = "another";
    submit
}

#[test]
fn a_worker_whose_disk_fills_up_fails_by_its_own_fault_and_works_again_with_room() {
    let Some(trees) = trees() else { return };
    let tools = Tools::new();
    tools.put_for_extraction("make", PATIENT);
    let mut farm = Farm::with_settings("backoff_ms = 100\nquarantine_ms = 1000\n");
    let Some(disk) = Disk::mount_at(&farm.dir.path().join("a"), 64) else {
        return;
    };
    add_worker(&mut farm, "a", &trees, Some(tools.path()));
    ok(&farm, &SUBMIT);
    tools.wait_for("begun");
    disk.fill(0);
    File::create(tools.file("go")).unwrap();
    add_worker(&mut farm, "b", &trees, None);
    farm.ends_in_success("lp");
    farm.is_sound("lp");
    let events = farm.cli(["watch", "lp", "--output", "json"]).stdout;
    assert!(events.contains("worker a: the disk of "), "{events}");

    disk.make_room();
    ok(&farm, &["drain", "b", "--reason", "it is a's turn"]);
    ok(&farm, &another());
    farm.ends_in_success("another");
    farm.is_sound("another");
}

#[test]
fn an_outcome_waits_at_its_worker_until_the_artifacts_disk_has_room() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::start();
    farm.kill_coordinator();
    let blobs = farm.dir.path().join("coordinator/blobs");
    let Some(disk) = Disk::mount_at(&blobs, 4) else { return };
    farm.restart_coordinator();
    disk.fill(0);
    add_worker(&mut farm, "a", &trees, None);
    ok(&farm, &SUBMIT);
    wait_until(Duration::from_secs(60), "artifacts are refused", || {
        let log = farm.workers[0].log();
        (log.contains("will keep trying") && log.contains("disk")).then_some(())
    });
    farm.keeps_an_outcome("lp", "a");

    disk.make_room();
    farm.ends_in_success("lp");
    farm.is_sound("lp");
    let tasks = farm.tasks("lp");
    assert!(tasks.iter().all(|t| t["attempt"] == 1), "{tasks:?}");
}

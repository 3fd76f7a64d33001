//! Artifacts in a bucket: a farm on real kernels whose coordinator keeps them in a real server of S3, which is killed in the
//! midst of it. No outcome is lost, none is recorded before what it names is there, and nothing else is different.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use klp_tests::{Farm, S3, SUBMIT, Tools, WorkerOptions, command_on, one_codestream, trees, wait_until};
use serde_json::Value;

const PREFIX: &str = "klp/artifacts";

/// A `make` that begins, and goes on when it is told to.
const PATIENT: &str = r#"#!/bin/sh
here=${0%/*}
: >"$here/begun"
while [ ! -e "$here/go" ]; do sleep 0.05; done
PATH=${PATH#*:} exec make "$@"
"#;

fn add_worker(farm: &mut Farm, trees: &Path, tools: Option<&Path>) {
    farm.add_worker(WorkerOptions {
        trees,
        codestreams: &one_codestream(trees),
        tools,
        ..WorkerOptions::default()
    });
}

fn ok(farm: &Farm, args: &[&str]) -> String {
    let done = farm.cli(args);
    assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
    done.stdout
}

/// Runs a command of the coordinator's on this farm's data.
fn look_after(farm: &Farm, args: &[&str]) -> (Option<i32>, String, String) {
    let done = command_on(None, "klp-coordinator")
        .args(args)
        .arg("--config")
        .arg(farm.dir.path().join("coordinator.toml"))
        .arg("--data-dir")
        .arg(farm.dir.path().join("coordinator"))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn checked(farm: &Farm, args: &[&str]) -> (Option<i32>, Value) {
    let args: Vec<&str> = ["check", "--output", "json"].iter().chain(args).copied().collect();
    let (code, out, err) = look_after(farm, &args);
    (
        code,
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")),
    )
}

/// The sources of a livepatch, by path, as `get` writes them now.
fn sources(farm: &Farm, name: &str, out: &str) -> Vec<(String, Vec<u8>)> {
    let out = farm.dir.path().join(out);
    ok(farm, &["get", name, "--output-dir", out.to_str().unwrap()]);
    let mut found = Vec::new();
    collect(&out, &out, &mut found);
    found.sort();
    assert!(found.iter().any(|(path, _)| path.ends_with(".c")), "{found:?}");
    found
}

fn collect(top: &Path, dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => collect(top, &path, found),
            false if path.extension().is_some_and(|e| e == "c" || e == "h") => {
                found.push((
                    path.strip_prefix(top).unwrap().display().to_string(),
                    fs::read(&path).unwrap(),
                ));
            }
            false => {}
        }
    }
}

/// The keys of contents, not of what marks the place.
fn contents(server: &S3) -> Vec<String> {
    let keys = server.keys().into_iter();
    keys.filter(|key| !key.ends_with("/owner")).collect()
}

#[test]
fn an_outcome_waits_at_its_worker_while_the_artifacts_cant_be_reached() {
    let Some(trees) = trees() else { return };
    let Some(mut server) = S3::start() else { return };
    let tools = Tools::new();
    tools.put_for_extraction("make", PATIENT);
    let mut farm = Farm::with_settings(&server.settings(PREFIX));
    add_worker(&mut farm, &trees, Some(tools.path()));
    ok(&farm, &SUBMIT);
    tools.wait_for("begun");
    server.kill();
    File::create(tools.file("go")).unwrap();
    wait_until(Duration::from_secs(120), "artifacts are refused", || {
        let log = farm.workers[0].log();
        (log.contains("will keep trying") && log.contains("s3://farm-artifacts/klp/artifacts: ")).then_some(())
    });
    farm.keeps_an_outcome("lp", "a");
    let before = contents(&server);

    server.restart();
    farm.ends_in_success("lp");
    let tasks = farm.tasks("lp");
    assert!(tasks.iter().all(|t| t["attempt"] == 1), "{tasks:?}");
    assert!(contents(&server).len() > before.len());
    farm.is_sound("lp");
    sources(&farm, "lp", "out");
    // None of them is on the coordinator's own disk.
    let own: Vec<_> = fs::read_dir(farm.dir.path().join("coordinator/blobs"))
        .unwrap()
        .collect();
    assert_eq!(own.len(), 1, "{own:?}");

    // While they can't be read, that is what is said; what is known is told all the same.
    server.kill();
    let refused = farm.cli(["get", "lp", "--output-dir", "nowhere"]);
    assert!(
        refused.code != Some(0) && refused.stderr.contains("s3://farm-artifacts/klp/artifacts: "),
        "{refused:?}"
    );
    ok(&farm, &["status", "lp"]);
    let log = fs::read_to_string(farm.dir.path().join("coordinator.log")).unwrap();
    assert!(!log.contains("hunter2"), "{log}");
    for args in [["--check-config"], ["--print-config"]] {
        let (code, out, err) = look_after(&farm, &args);
        assert!(
            code == Some(0) && out.contains("s3://farm-artifacts/klp/artifacts"),
            "{out}{err}"
        );
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
    }
    // A coordinator does not start blindly.
    farm.stop_coordinator();
    let (code, _, err) = look_after(&farm, &["--insecure", "--listen", "127.0.0.1:0"]);
    assert!(
        code == Some(1) && err.contains("the artifacts can't be kept at s3://farm-artifacts/klp/artifacts: "),
        "{err}"
    );
}

#[test]
fn a_farm_moves_from_its_folder_to_a_bucket_and_is_looked_after_there() {
    let Some(trees) = trees() else { return };
    let Some(server) = S3::start() else { return };
    let mut farm = Farm::start();
    add_worker(&mut farm, &trees, None);
    ok(&farm, &SUBMIT);
    farm.ends_in_success("lp");
    let made = sources(&farm, "lp", "before");

    // As the runbook has it, with a plain copy for `rclone`: the names are the same.
    farm.stop_coordinator();
    let data = farm.dir.path().join("coordinator");
    fs::remove_dir_all(data.join("blobs/tmp")).unwrap();
    fs::create_dir_all(server.object("klp")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(data.join("blobs"))
        .arg(server.object(PREFIX))
        .status();
    assert!(copied.unwrap().success());
    fs::remove_dir_all(data.join("blobs")).unwrap();
    farm.restart_with(&server.settings(PREFIX));
    assert!(sources(&farm, "lp", "after") == made);

    // A check compares sizes by a listing, and digests when it is asked to.
    let (code, told) = checked(&farm, &["--online"]);
    let artifacts = told["artifacts"]["count"].as_u64().unwrap();
    assert_eq!(
        (code, &told["unread_artifacts"]["count"]),
        (Some(0), &artifacts.into()),
        "{told}"
    );
    assert_eq!(told["artifacts_in"], "s3://farm-artifacts/klp/artifacts");
    let (code, told) = checked(&farm, &["--online", "--deep"]);
    assert_eq!(
        (code, &told["unread_artifacts"]["count"]),
        (Some(0), &0.into()),
        "{told}"
    );
    let keys = contents(&server);
    assert_eq!(keys.len() as u64, artifacts);
    let object = server.object(&keys[0]);
    let sound = fs::read(&object).unwrap();
    let mut damaged = sound.clone();
    damaged[0] ^= 1;
    let damages: [(&str, &[u8], Option<i32>); 2] = [
        ("is damaged: its digest is", &damaged, Some(0)),
        ("bytes instead of", &sound[1..], Some(1)),
    ];
    for (said, bytes, usual) in damages {
        fs::write(&object, bytes).unwrap();
        assert_eq!(checked(&farm, &["--online"]).0, usual, "{said}");
        let (code, told) = checked(&farm, &["--online", "--deep"]);
        assert!(code == Some(1) && told.to_string().contains(said), "{told}");
        assert!(
            told.to_string().contains(&format!("s3://farm-artifacts/{}", keys[0])),
            "{told}"
        );
    }
    fs::remove_file(&object).unwrap();
    let (code, told) = checked(&farm, &["--online"]);
    assert!(code == Some(1) && told.to_string().contains("is missing"), "{told}");
    fs::write(&object, &sound).unwrap();
    farm.is_sound("lp");

    // A backup holds all but the artifacts, and knows where they are.
    let (code, out, err) = look_after(&farm, &["backup", farm.dir.path().join("copy").to_str().unwrap()]);
    assert!(code == Some(0) && out.contains("no backup holds them"), "{out}{err}");
    assert_eq!(fs::read_dir(farm.dir.path().join("copy/blobs")).unwrap().count(), 0);
    farm.stop_coordinator();
    fs::rename(&data, farm.dir.path().join("lost")).unwrap();
    fs::rename(farm.dir.path().join("copy"), &data).unwrap();
    farm.restart_coordinator();
    assert!(sources(&farm, "lp", "restored") == made);
    farm.stop_coordinator();

    // What nobody names goes, an hour after it came; the rest stays, and so does what is none of ours.
    let name = "5e".repeat(32);
    let (old, new) = (
        format!("{PREFIX}/5e/{name}"),
        format!("{PREFIX}/5d/{}", "5d".repeat(32)),
    );
    let foreign = format!("{PREFIX}/notes/readme");
    for key in [&old, &new, &foreign] {
        let path = server.object(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "stray").unwrap();
    }
    for key in [&old, &foreign] {
        let file = File::options().write(true).open(server.object(key)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200))
            .unwrap();
    }
    for (args, there) in [(&["gc", "--dry-run"][..], true), (&["gc"], false)] {
        let (code, out, err) = look_after(&farm, args);
        assert!(code == Some(0) && out.contains("1 artifacts (5 bytes)"), "{out}{err}");
        assert_eq!(server.object(&old).exists(), there);
    }
    assert!(server.object(&new).exists() && server.object(&foreign).exists());
    let (code, told) = checked(&farm, &["--deep"]);
    assert_eq!(
        (code, &told["unreferenced_artifacts"]["count"]),
        (Some(0), &1.into()),
        "{told}"
    );

    // Another farm does not clear away here.
    fs::remove_file(data.join("artifacts-owner")).unwrap();
    let (code, _, err) = look_after(&farm, &["gc"]);
    assert!(code == Some(2) && err.contains("it is another farm's"), "{err}");
}

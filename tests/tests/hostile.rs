//! Tools that go for the worker and the farm, under a real worker on a real kernel: nothing of what they try succeeds, though
//! it does without fences.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::fs;
use std::process::Command;

use klp_tests::{Farm, SUBMIT, Tools, WorkerOptions, one_codestream, program, trees};
use serde_json::Value;

/// What every host on which these tests run gives.
const FENCES: [&str; 6] = ["user", "files", "processes", "network", "ipc", "syscalls"];

/// All there is. That they must have a user of their own is more than a test's host has to give.
const CLOSED: &str = "files,processes,network";

/// A `make` that tries to get out when an extraction asks it, and tells in its last words what it came to.
const BURGLAR: &str = r#"#!/bin/bash
exec 9>&2 2>/dev/null
try() { if eval "$2"; then through="$through $1"; fi; }
try tree 'echo >>TREE/src/Makefile.klp-farm-test'
try outbox 'ls DATA/outbox/.'
try lock 'cat DATA/worker.lock'
try scratch 'cat DATA/scratch/other'
try store 'ls DATA/../coordinator/.'
try coordinator 'exec 3<>/dev/tcp/ADDRESS'
try worker 'kill -0 WORKER'
try mark 'echo >${0%/*}/mark'
echo "got through:$through." >&9
exit 1
"#;

/// What the burglar came to.
fn burgled(isolation: &str) -> String {
    let trees = trees().unwrap();
    let codestream = one_codestream(&trees);
    let tools = Tools::new();
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        trees: &trees,
        codestreams: &codestream,
        tools: Some(tools.path()),
        isolation: Some(isolation),
        ..WorkerOptions::default()
    });
    let workers = farm.cli(["workers", "--output", "json"]).json();
    let fences = workers[0]["isolation"].as_array().unwrap();
    let up = |name: &str| {
        fences
            .iter()
            .any(|fence| fence["name"] == name && fence["missing"] == Value::Null)
    };
    assert!(
        FENCES.iter().all(|fence| up(fence) == (isolation != "none")),
        "{fences:?}"
    );
    let data = farm.dir.path().join("a");
    fs::write(data.join("scratch/other"), "another attempt's").unwrap();
    let address = farm.url.split_once("://").unwrap().1.replace(':', "/");
    let script = BURGLAR
        .replace("TREE", trees.join("x86_64").join(&codestream).to_str().unwrap())
        .replace("DATA", data.to_str().unwrap())
        .replace("ADDRESS", &address)
        .replace("WORKER", &farm.workers[0].pid().to_string());
    tools.put("make", &script);
    let submitted = farm.cli(SUBMIT.into_iter().chain(["--wait"]));
    assert_eq!(submitted.code, Some(3), "{submitted:?}");
    let tasks = farm.tasks("lp");
    let extract = tasks.iter().rfind(|task| task["kind"] == "extract").unwrap();
    let message = extract["failure"]["message"].as_str().unwrap().to_owned();
    let made = trees
        .join("x86_64")
        .join(&codestream)
        .join("src/Makefile.klp-farm-test");
    let wrote = fs::remove_file(made).is_ok();
    assert_eq!(wrote, isolation == "none", "the tree was written to");
    // The farm goes on, behind the same fences.
    tools.remove("make");
    let again = farm.cli(["retry", "lp", "--wait"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    farm.is_sound("lp");
    message
}

#[test]
fn a_tool_gets_at_nothing_of_the_worker_or_the_farm() {
    if trees().is_none() {
        return;
    }
    let held = burgled(CLOSED);
    assert!(held.contains("got through:."), "{held}");
    let open = burgled("none");
    let all = "got through: tree outbox lock scratch store coordinator worker mark.";
    assert!(open.contains(all), "{open}");
}

#[test]
fn a_tool_that_fills_its_scratch_folder_is_stopped_at_its_limit() {
    let Some(trees) = trees() else { return };
    let tools = Tools::new();
    tools.put(
        "make",
        "#!/bin/bash\nfor n in {1..4000}; do head -c 1M /dev/zero >$TMPDIR/$n || exit; done; sleep 100\n",
    );
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        trees: &trees,
        codestreams: &one_codestream(&trees),
        tools: Some(tools.path()),
        isolation: Some(CLOSED),
        args: &["--scratch-limit", "300M"],
        ..WorkerOptions::default()
    });
    let submitted = farm.cli(SUBMIT.into_iter().chain(["--wait"]));
    assert_eq!(submitted.code, Some(3), "{submitted:?}");
    let tasks = farm.tasks("lp");
    let task = tasks.iter().find(|task| !task["failure"].is_null()).unwrap();
    let message = task["failure"]["message"].as_str().unwrap();
    assert!(
        message.contains("wrote more than 300 MiB to its scratch folder"),
        "{message}"
    );
    assert_eq!(task["failure"]["cause"], "codestream", "{task}");
    assert_eq!(fs::read_dir(farm.dir.path().join("a/scratch")).unwrap().count(), 0);
}

#[test]
fn a_worker_without_a_fence_that_is_required_takes_no_work() {
    let dir = tempfile::tempdir().unwrap();
    let start = |isolation: &str| {
        let mut worker = Command::new(program("klp-worker"));
        worker.args(["--isolation", isolation, "--data-dir"]).arg(dir.path());
        worker.args(["--coordinator", "http://127.0.0.1:9", "--name", "a"]);
        let done = worker.output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, said) = start("files,walls");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no fence `walls`"), "{said}");
    // A test's group is delegated to nobody.
    let (code, said) = start("files,cgroup");
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "isolation = files,cgroup",
        "cgroup: ",
        "Delegate=yes",
        "isolation = best",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

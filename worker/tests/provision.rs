//! Making a Debian tree for real, with everything that may come between: killed at each step, packages damaged, two at
//! once, moved afterwards. Takes some minutes and 3 GB, so it is run only when asked for (`--run-ignored`).
//!
//! Packages are taken from `.downloads` in the folder KLP_FARM_TREES names where they are there (`--keep-packages`), else
//! fetched.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ABI: &str = "6.1.0-50";
const CODESTREAM: &str = "debian12-6.1.0-50";

fn worker(trees: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klp-worker"));
    command
        .arg("tree")
        .args(args)
        .arg("--trees")
        .arg(trees)
        .env_remove("KLP_FARM_TREES")
        .env("RUST_BACKTRACE", "0");
    command
}

/// Exit code 0, and what was said.
fn ended_well(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn start_add(trees: &Path) -> Child {
    worker(trees, &["add", "debian", ABI, "--keep-packages"])
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Adds the tree, but ends it with the signal when the step begins; returns what it had said by then.
fn stopped_at(trees: &Path, step: usize, signal: &str, after: Duration) -> String {
    let mut child = start_add(trees);
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        said += &format!("{line}\n");
        if line.starts_with(&format!("[{step}/7]")) {
            std::thread::sleep(after);
            let id = child.id().to_string();
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        }
    }
    child.wait().unwrap();
    said
}

fn tree_count(trees: &Path) -> usize {
    let (good, said) = ended_well(&mut worker(trees, &["list", "--output", "json"]));
    assert!(good, "{said}");
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["broken"], serde_json::json!([]), "{said}");
    json["trees"].as_array().unwrap().len()
}

fn packages(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .collect();
    files.sort();
    files
}

#[test]
#[ignore = "takes some minutes and 3 GB"]
fn a_tree_gets_made_whatever_comes_between() {
    let place = tempfile::tempdir().unwrap();
    let trees = place.path().join("trees");
    let kept = trees.join(".downloads");
    std::fs::create_dir_all(&kept).unwrap();
    if let Some(dir) = std::env::var_os("KLP_FARM_TREES") {
        for file in packages(&Path::new(&dir).join(".downloads")) {
            if file.to_string_lossy().contains("6.1.176-1") {
                std::fs::copy(&file, kept.join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    // A package that was kept lacks its end, another has a bit flipped.
    let mut damaged = 0;
    for (i, file) in packages(&kept).iter().take(2).enumerate() {
        let mut bytes = std::fs::read(file).unwrap();
        if i == 0 {
            bytes.truncate(bytes.len() / 2);
        } else {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        std::fs::write(file, bytes).unwrap();
        damaged += 1;
    }

    let mut all_said = String::new();
    for step in 1..=6 {
        // The second step is by far the longest; killed early in it, and in the others at once.
        let signal = if step % 2 == 0 { "-KILL" } else { "-INT" };
        let said = stopped_at(&trees, step, signal, Duration::from_millis(150));
        println!("== {signal} in step {step}:\n{said}");
        assert_eq!(tree_count(&trees), 0, "after {signal} in step {step}");
        // Each step that an earlier run finished is not done again.
        for done in 2..step.saturating_sub(1) {
            let skipped = |line: &str| line.starts_with(&format!("[{done}/7]")) && line.ends_with("done before");
            assert!(said.lines().any(skipped), "step {done} in: {said}");
        }
        all_said += &said;
    }
    assert_eq!(
        all_said.matches("is damaged, so it is fetched again").count(),
        damaged,
        "{all_said}"
    );

    // Two at once: one makes it, the other waits for that.
    let mut children = [start_add(&trees), start_add(&trees)];
    let said: Vec<String> = children
        .iter_mut()
        .map(|child| std::io::read_to_string(child.stderr.take().unwrap()).unwrap())
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success(), "{said:?}");
    }
    println!("{}\n{}", said[0], said[1]);
    for wanted in [
        "is ready in",
        "is already here",
        "waiting until it is done",
        "going on where an interrupted run was",
    ] {
        assert_eq!(
            said.iter().filter(|text| text.contains(wanted)).count(),
            1,
            "{wanted}: {said:?}"
        );
    }
    assert_eq!(tree_count(&trees), 1);
    assert!(ended_well(&mut worker(&trees, &["verify"])).0);

    let start = Instant::now();
    let (good, said) = ended_well(&mut worker(&trees, &["add", "debian", ABI]));
    assert!(good && said.contains("already here"), "{said}");
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());

    // The whole folder is moved.
    let moved = place.path().join("moved");
    std::fs::rename(&trees, &moved).unwrap();
    let (good, said) = ended_well(&mut worker(&moved, &["verify"]));
    assert!(!good && said.contains("--repair"), "{said}");
    let (good, said) = ended_well(&mut worker(&moved, &["verify", "--repair"]));
    assert!(good, "{said}");

    // A file of it is damaged.
    let symvers = moved.join("x86_64").join(CODESTREAM).join("obj/Module.symvers");
    std::fs::write(&symvers, "nonsense\n").unwrap();
    let (good, said) = ended_well(&mut worker(&moved, &["verify", CODESTREAM]));
    assert!(!good && said.contains("Module.symvers has changed"), "{said}");

    let (good, said) = ended_well(&mut worker(&moved, &["remove", CODESTREAM]));
    assert!(good, "{said}");
    assert_eq!(tree_count(&moved), 0);
    let (good, said) = ended_well(&mut worker(&moved, &["remove", CODESTREAM]));
    assert!(!good && said.contains("there is no tree"), "{said}");
    assert_eq!(packages(&moved.join(".downloads")).len(), 3, "kept packages stay");
}

#[test]
fn what_apt_does_not_have_is_refused_with_what_it_has() {
    let place = tempfile::tempdir().unwrap();
    let (good, said) = ended_well(&mut worker(place.path(), &["add", "debian", "6.1.0-9999"]));
    assert!(
        !good && said.contains("apt has no package linux-headers-6.1.0-9999-amd64"),
        "{said}"
    );
    assert_eq!(tree_count(place.path()), 0);
}

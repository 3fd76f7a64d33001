//! Attempts on one tree at the same time: the tree stays as it was, and neither attempt sees the other.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use klp_tests::{Farm, SUBMIT, Tools, WorkerOptions, one_codestream, trees, wait_until};

/// A `make` that writes down the scratch folder it was told, and goes on once two have.
const IN_PAIRS: &str = r#"#!/bin/sh
here=${0%/*}
for arg; do
    case $arg in TMPOUT=*) echo "${arg#TMPOUT=}" >>"$here/told" ;; esac
done
while [ "$(wc -l <"$here/told")" -lt 2 ]; do sleep 0.05; done
PATH=${PATH#*:} exec make "$@"
"#;

/// When each file and folder below was changed.
fn times(dir: &Path, found: &mut BTreeMap<PathBuf, SystemTime>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            times(&path, found);
        }
        found.insert(path, metadata.modified().unwrap());
    }
}

#[test]
fn two_attempts_on_one_tree_never_see_each_other_nor_change_it() {
    let Some(trees) = trees() else { return };
    let codestream = one_codestream(&trees);
    let tools = Tools::new();
    tools.put("make", IN_PAIRS);
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        trees: &trees,
        codestreams: &codestream,
        slots: 2,
        tools: Some(tools.path()),
        ..WorkerOptions::default()
    });
    let tree = trees.join("x86_64").join(&codestream);
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    times(&tree, &mut before);
    let mut another = SUBMIT;
    another[2] = "another";
    for submit in [SUBMIT, another] {
        let submitted = farm.cli(submit);
        assert_eq!(submitted.code, Some(0), "{submitted:?}");
    }
    for name in ["lp", "another"] {
        farm.ends_in_success(name);
        farm.is_sound(name);
    }

    let told = fs::read_to_string(tools.file("told")).unwrap();
    let scratch = farm.dir.path().join("a/scratch");
    let folder = |path| scratch.join(Path::new(path).strip_prefix(&scratch).unwrap().iter().next().unwrap());
    let folders: BTreeSet<PathBuf> = told.lines().map(folder).collect();
    // A check and an extraction of each.
    assert_eq!(folders.len(), 4, "{told}");
    wait_until(Duration::from_secs(5), "the scratch folders are gone", || {
        (fs::read_dir(&scratch).unwrap().count() == 0).then_some(())
    });
    times(&tree, &mut after);
    let changed: Vec<_> = after
        .iter()
        .filter(|(path, time)| before.get(*path) != Some(time))
        .collect();
    assert!(changed.is_empty() && before.len() == after.len(), "{changed:?}");
}

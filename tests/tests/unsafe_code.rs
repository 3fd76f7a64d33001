//! The list of files with unsafe code in ARCHITECTURE.md is the one that the compiler keeps to.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of our own sources.
const CRATES: [&str; 11] = [
    "cli",
    "coordinator",
    "fuzz",
    "identity",
    "livepatch",
    "manual",
    "proto",
    "settings",
    "telemetry",
    "tests",
    "worker",
];

#[test]
fn every_file_with_unsafe_code_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = Vec::new();
    CRATES
        .iter()
        .for_each(|name| sources_below(&root.join(name), &mut sources));
    assert!(sources.len() > 100, "{sources:?}");
    // Whoever lets the compiler take it, in whatever way.
    let takes = |path: &PathBuf| {
        // However it is broken into lines.
        let text: String = fs::read_to_string(path).unwrap().split_whitespace().collect();
        ["allow(", "expect(", "warn("]
            .iter()
            .any(|how| text.contains(&format!("{how}unsafe_code")))
    };
    let name = |path: PathBuf| path.strip_prefix(root).unwrap().display().to_string();
    let taking: BTreeSet<String> = sources.into_iter().filter(takes).map(name).collect();

    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once("## Unsafe code\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert_eq!(taking, listed);
}

fn sources_below(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

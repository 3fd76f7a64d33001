//! The systemd units: that systemd understands all of them, and how much of the machine is open to each service.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn deployed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/systemd")
        .join(name)
}

fn analyze(args: &[&str]) -> Output {
    let command = Command::new("systemd-analyze").args(args).output();
    command.expect("systemd-analyze runs; Debian's package systemd has it")
}

#[test]
fn systemd_understands_the_units() {
    let folder = tempfile::tempdir().unwrap();
    for unit in ["klp-coordinator", "klp-worker"] {
        let text = std::fs::read_to_string(deployed(&format!("{unit}.service"))).unwrap();
        let installed = format!("/usr/bin/{unit}");
        assert!(text.contains(&installed));
        let built = klp_tests::command_on(None, unit);
        let path = folder.path().join(format!("{unit}.service"));
        std::fs::write(&path, text.replace(&installed, built.get_program().to_str().unwrap())).unwrap();
        let verified = analyze(&["verify", "--man=no", path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&verified.stderr);
        // What other units of this machine have is theirs.
        let ours: Vec<_> = said.lines().filter(|line| line.contains(unit)).collect();
        assert!(ours.is_empty() && verified.status.success(), "{said}");
    }
}

/// As documented in ARCHITECTURE.md; 100 is a service that is open to everything.
#[test]
fn the_services_are_shut_in_as_far_as_they_say() {
    for (unit, exposure) in [("klp-coordinator", 15), ("klp-worker", 48)] {
        let (path, threshold) = (deployed(&format!("{unit}.service")), format!("--threshold={exposure}"));
        let held = analyze(&["security", "--offline=true", &threshold, path.to_str().unwrap()]);
        assert!(held.status.success(), "{}", String::from_utf8_lossy(&held.stdout));
    }
}

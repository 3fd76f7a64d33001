//! A farm that knows who is who: its certificates, and the papers of its workers.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::net::ADDRESS;
use crate::proc::command_on;

/// What `klp-coordinator init` made.
pub struct Identity {
    pub ca: PathBuf,
    pub admin: String,
}

impl Identity {
    /// Prepares a coordinator whose settings and data are in this folder.
    pub fn make(host: Option<&str>, dir: &Path) -> Self {
        let made = run(Self::coordinator(host, dir).args(["init", "--name", ADDRESS, "--output", "json"]));
        let made: Value = serde_json::from_str(&made).expect("JSON");
        Self {
            ca: made["ca"].as_str().expect("a path").into(),
            admin: made["token"].as_str().expect("a token").to_owned(),
        }
    }

    /// Renews the coordinator's certificate, beside it.
    pub fn rotate_server(host: Option<&str>, dir: &Path) {
        run(Self::coordinator(host, dir).args(["init", "--rotate-server"]));
    }

    /// Takes a step of replacing the CA, beside it; answers what is said of it.
    pub fn rotate_ca(host: Option<&str>, dir: &Path, step: &str) -> Value {
        let taken = run(Self::coordinator(host, dir).args(["init", "--rotate-ca", step, "--output", "json"]));
        serde_json::from_str(&taken).expect("JSON")
    }

    fn coordinator(host: Option<&str>, dir: &Path) -> Command {
        let mut command = command_on(host, "klp-coordinator");
        command.arg("--config").arg(dir.join("coordinator.toml"));
        command.arg("--data-dir").arg(dir.join("coordinator"));
        command
    }

    /// Lets a worker in as an operator does it: runs what `klp-farm enroll` prints.
    pub fn enroll(&self, printed: &Value, host: Option<&str>, data_dir: &Path) {
        let text = |name: &str| {
            printed[name]
                .as_str()
                .unwrap_or_else(|| panic!("{name} in {printed}"))
                .to_owned()
        };
        let mut command = command_on(host, "klp-worker");
        command.args([
            "enroll",
            "--coordinator",
            &text("coordinator"),
            "--ca-sha256",
            &text("ca_sha256"),
        ]);
        command
            .arg("--data-dir")
            .arg(data_dir)
            .env("KLP_FARM_TOKEN", text("token"));
        run(&mut command);
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

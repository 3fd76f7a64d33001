//! The real binary as a process.
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use klp_proto::v1;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

pub const BINARY: &str = env!("CARGO_BIN_EXE_klp-coordinator");

/// A coordinator process, killed when the test is done with it.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    pub fn start(data_dir: &Path) -> Process {
        Self::start_with(data_dir, &[])
    }

    pub fn start_with(data_dir: &Path, args: &[&str]) -> Process {
        let mut child = Command::new(BINARY)
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Process { child, url }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the farm of the tree `a`, and goes.
pub async fn announce_a_tree(url: &str) {
    let mut client = WorkerServiceClient::connect(url.to_owned()).await.unwrap();
    let (states, receiver) = mpsc::channel(1);
    let state = v1::WorkerState {
        worker: "w1".into(),
        incarnation: Uuid::now_v7().to_string(),
        trees: vec![v1::Platform {
            codestream: "a".into(),
            arch: "x86_64".into(),
        }],
        draining: true,
        ..Default::default()
    };
    states.send(state).await.unwrap();
    let answers = client.session(ReceiverStream::new(receiver)).await;
    answers.unwrap().into_inner().message().await.unwrap().unwrap();
}

/// Runs a command on a data folder to its end; answers its exit code, output and errors.
pub async fn run(data_dir: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(BINARY);
    command.args(args).arg("--data-dir").arg(data_dir).kill_on_drop(true);
    let ran = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let ran = ran.unwrap_or_else(|_| panic!("{args:?} does not end"));
    let Output { status, stdout, stderr } = ran.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

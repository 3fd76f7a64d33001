//! The real binary as a process.
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use klp_proto::v1;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

pub const BINARY: &str = env!("CARGO_BIN_EXE_klp-coordinator");

/// A coordinator process, killed when the test is done with it.
pub struct Process {
    pub child: Child,
    pub url: String,
}

impl Process {
    pub fn start(data_dir: &Path) -> Process {
        Self::launch(data_dir, &[], "127.0.0.1:0", None)
    }

    pub fn start_with(data_dir: &Path, args: &[&str]) -> Process {
        Self::launch(data_dir, args, "127.0.0.1:0", None)
    }

    /// Listens on `address`, and dies at a failpoint if one is given.
    pub fn start_at(data_dir: &Path, address: &str, failpoint: Option<&str>) -> Process {
        Self::launch(data_dir, &[], address, failpoint)
    }

    /// As [`Process::start_at`], with settings from a file.
    pub fn start_by(config: &Path, data_dir: &Path, address: &str, failpoint: Option<&str>) -> Process {
        Self::launch(data_dir, &["--config", config.to_str().unwrap()], address, failpoint)
    }

    fn launch(data_dir: &Path, args: &[&str], address: &str, failpoint: Option<&str>) -> Process {
        let mut child = Command::new(BINARY)
            .args(["--insecure", "--listen", address, "--data-dir"])
            .arg(data_dir)
            .args(args)
            .envs(failpoint.map(|at| ("KLP_FARM_FAILPOINT", at)))
            // Whatever is configured on this machine.
            .env("KLP_FARM_COORDINATOR_CONFIG", "/dev/null")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let url = match line.trim().strip_prefix("listening on ") {
            Some(url) => url.to_owned(),
            // It got to its failpoint before it could say so.
            None => format!("http://{address}"),
        };
        Process { child, url }
    }

    pub async fn client(&self) -> LivepatchServiceClient<tonic::transport::Channel> {
        LivepatchServiceClient::connect(self.url.clone()).await.unwrap()
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
    let Output { status, stdout, stderr } = output(command(data_dir, args)).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs a command that is to die at a failpoint.
pub async fn dies(data_dir: &Path, args: &[&str], failpoint: &str) {
    let mut command = command(data_dir, args);
    command.env("KLP_FARM_FAILPOINT", failpoint);
    let ended = output(command).await;
    assert_eq!(ended.status.code(), None, "{args:?} passes {failpoint}: {ended:?}");
}

fn command(data_dir: &Path, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(BINARY);
    command.args(args).arg("--data-dir").arg(data_dir).kill_on_drop(true);
    command.env("KLP_FARM_COORDINATOR_CONFIG", "/dev/null");
    command
}

async fn output(mut command: tokio::process::Command) -> Output {
    let ran = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    ran.unwrap_or_else(|_| panic!("{command:?} does not end")).unwrap()
}

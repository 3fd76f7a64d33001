//! The real coordinator as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;

pub const BINARY: &str = env!("CARGO_BIN_EXE_klp-coordinator");

/// A coordinator process, killed when the test is done with it.
pub struct Process {
    pub child: Child,
    pub url: String,
}

impl Process {
    pub fn start(data_dir: &Path) -> Process {
        Self::start_at(data_dir, "127.0.0.1:0", None)
    }

    /// Listens on `address`, and dies at a failpoint if one is given.
    pub fn start_at(data_dir: &Path, address: &str, failpoint: Option<&str>) -> Process {
        let mut child = Command::new(BINARY)
            .args(["--listen", address, "--data-dir"])
            .arg(data_dir)
            .envs(failpoint.map(|at| ("KLP_FARM_FAILPOINT", at)))
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
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The real Prometheus, as a farm's operators run it: its server on a port of its own, and `promtool`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::proc::{Proc, wait_until};

/// The folder of Prometheus's programs. `None` only for who asks to go without.
fn programs() -> Option<PathBuf> {
    match (
        std::env::var_os("KLP_FARM_PROMETHEUS"),
        std::env::var_os("KLP_FARM_SKIP_REAL"),
    ) {
        (Some(dir), _) => Some(dir.into()),
        (None, Some(_)) => None,
        (None, None) => panic!(
            "KLP_FARM_PROMETHEUS is not set: run `make test`, which unpacks Prometheus and sets it, or set KLP_FARM_SKIP_REAL=1 \
             to go without the tests that need it"
        ),
    }
}

/// Runs `promtool` in a folder, with a text as its input.
pub fn promtool(args: &[&str], folder: &Path, input: &str) -> Option<Output> {
    let mut command = Command::new(programs()?.join("promtool"));
    command.args(args).current_dir(folder);
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().expect("promtool starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads all");
    drop(stdin);
    Some(child.wait_with_output().expect("promtool ends"))
}

/// A server that scrapes; killed when dropped.
pub struct Prometheus {
    process: Proc,
    address: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts a server with this configuration, beside whose file relative names are looked for.
    pub fn start(config: &str) -> Option<Self> {
        let program = programs()?.join("prometheus");
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("config");
        // It can't tell which port it got, so one is chosen that was free just now.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port").to_string();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Proc::start_as("prometheus", command, dir.path());
        let new = Self {
            process,
            address,
            _dir: dir,
        };
        wait_until(Duration::from_secs(30), "Prometheus is ready", || {
            let (status, _) = try_get(&new.address, "/-/ready", "*/*").ok()?;
            (status == 200).then_some(())
        });
        Some(new)
    }

    /// What its API answers.
    pub fn api(&self, path: &str) -> Value {
        let (status, body) = get(&self.address, path, "application/json");
        assert_eq!(status, 200, "{path}: {body}\n{}", self.process.log());
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        assert!(answer.get("warnings").is_none(), "{path}: {answer}");
        answer["data"].clone()
    }

    /// The value of each series that an expression gives now.
    pub fn query(&self, expression: &str) -> Vec<f64> {
        let data = self.api(&format!("/api/v1/query?query={}", escaped(expression)));
        let result = data["result"].as_array().expect("a vector");
        let value = |series: &Value| series["value"][1].as_str()?.parse().ok();
        result.iter().map(|series| value(series).expect("a number")).collect()
    }
}

/// As a part of a query in an URL.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let bytes = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// GETs a path of a server, which must answer; its status and its body.
pub fn get(address: &str, path: &str, accept: &str) -> (u16, String) {
    try_get(address, path, accept).unwrap_or_else(|e| panic!("http://{address}{path}: {e}"))
}

fn try_get(address: &str, path: &str, accept: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // In 1.0 a body ends with its connection, and comes as it is.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_default(), body.to_owned()))
}

//! A real server of S3 as a process of its own, over HTTP, with signed requests: s3s-fs, which keeps each object in a file. It
//! can be killed and started again, with what it holds. The coordinator's tests include this file too.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KEY: &str = "klp-farm-test-key";
/// Nothing that is logged or shown may hold it.
pub const SECRET: &str = "hunter2-hunter2-hunter2";

pub struct S3 {
    server: Option<Child>,
    program: PathBuf,
    port: u16,
    dir: tempfile::TempDir,
}

impl S3 {
    /// The one bucket that there is.
    pub const BUCKET: &'static str = "farm-artifacts";

    /// Starts a server with an empty bucket. `None` only for who asks to go without.
    pub fn start() -> Option<Self> {
        let program = program()?;
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::create_dir_all(dir.path().join("data").join(Self::BUCKET)).expect("a bucket");
        let text = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n");
        fs::write(dir.path().join("credentials"), text).expect("credentials");
        // It can't tell which port it got, so one is chosen that was free just now.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let mut new = Self {
            server: None,
            program,
            port: free.expect("a free port").port(),
            dir,
        };
        new.restart();
        Some(new)
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&mut self) {
        self.kill();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"));
        let log = log.expect("a log");
        let server = Command::new(&self.program)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--access-key", KEY, "--secret-key", SECRET])
            .arg(self.dir.path().join("data"))
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        self.server = Some(server.expect("s3s-fs starts"));
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                since.elapsed() < Duration::from_secs(20),
                "s3s-fs never listens: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Has it stand still: connections are taken, and nothing is answered.
    pub fn stand_still(&self) {
        let pid = self.signal("STOP");
        // One of its threads has to be scheduled for the others to hear of it.
        let stands = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        let since = Instant::now();
        while !fs::read_dir(format!("/proc/{pid}/task"))
            .expect("it runs")
            .flatten()
            .all(stands)
        {
            assert!(since.elapsed() < Duration::from_secs(20), "s3s-fs never stands still");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has it go on after it stood still.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) -> u32 {
        let pid = self.server.as_ref().expect("it runs").id();
        let sent = Command::new("kill")
            .args([format!("-{signal}"), pid.to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
        pid
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A file with what the server takes.
    pub fn credentials(&self) -> PathBuf {
        self.dir.path().join("credentials")
    }

    /// A coordinator's settings, by which its artifacts are below a prefix here.
    pub fn settings(&self, prefix: &str) -> String {
        format!(
            "artifacts = \"s3://{}/{prefix}\"\nartifacts_endpoint = \"{}\"\nartifacts_plain_http = true\n\
             artifacts_credentials = \"{}\"\n",
            Self::BUCKET,
            self.endpoint(),
            self.credentials().display()
        )
    }

    /// The file of the object with this key.
    pub fn object(&self, key: &str) -> PathBuf {
        self.dir.path().join("data").join(Self::BUCKET).join(key)
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> Vec<String> {
        let bucket = self.object("");
        let mut keys = Vec::new();
        collect(&bucket, &bucket, &mut keys);
        keys.sort();
        keys
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of s3s-fs ----\n{}", self.log());
        }
    }
}

fn collect(bucket: &Path, dir: &Path, keys: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.map(|entry| entry.expect("readable").path()) {
        match path.is_dir() {
            true => collect(bucket, &path, keys),
            false => keys.extend(path.strip_prefix(bucket).ok().map(|key| key.display().to_string())),
        }
    }
}

/// The server's program. `None` only for who asks to go without.
fn program() -> Option<PathBuf> {
    match (std::env::var_os("KLP_FARM_S3"), std::env::var_os("KLP_FARM_SKIP_REAL")) {
        (Some(dir), _) => Some(PathBuf::from(dir).join("bin/s3s-fs")),
        (None, Some(_)) => None,
        (None, None) => panic!(
            "KLP_FARM_S3 is not set: run `make test`, which builds a server of S3 and sets it, or set KLP_FARM_SKIP_REAL=1 to go \
             without the tests that need it"
        ),
    }
}

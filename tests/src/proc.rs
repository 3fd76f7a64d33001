//! A program of ours as a child process.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The path of one of our programs, of the same build as the one that runs.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let folder = own.parent().expect("it lies in a folder");
    // Tests live in <profile>/deps, programs in <profile>.
    let profile = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built; run `cargo build --workspace`",
        path.display()
    );
    path
}

/// One of our programs, to be run on a host of its own if one is named. `ip` becomes the program, so that signals reach it.
pub fn command_on(host: Option<&str>, exe: &str) -> Command {
    let mut command = match host {
        None => Command::new(program(exe)),
        Some(host) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", host]).arg(program(exe));
            command
        }
    };
    // Whatever is configured on this machine; an empty file sets nothing.
    for file in ["KLP_FARM_COORDINATOR_CONFIG", "KLP_FARM_WORKER_CONFIG"] {
        command.env(file, "/dev/null");
    }
    command
}

/// A running program; killed when dropped. Its output is in files, shown if a test fails.
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
    stdout: PathBuf,
}

impl Proc {
    pub fn start(name: &str, exe: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>, dir: &Path) -> Self {
        Self::start_on(None, name, exe, args, dir)
    }

    /// Starts a program on a host of its own: a network namespace.
    pub fn start_on(
        host: Option<&str>,
        name: &str,
        exe: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        dir: &Path,
    ) -> Self {
        let mut command = command_on(host, exe);
        command.args(args);
        Self::start_as(name, command, dir)
    }

    /// Starts a command whose log is that of `name` in `dir`.
    pub fn start_as(name: &str, mut command: Command, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let stdout = dir.join(format!("{name}.out"));
        let append = |path: &Path| File::options().create(true).append(true).open(path).expect("log file");
        if command.get_envs().all(|(name, _)| name != "RUST_LOG") {
            let level = "info,klp_coordinator=debug,klp_worker=debug,rusqlite_migration=warn";
            command.env("RUST_LOG", level);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(append(&stdout))
            .stderr(append(&log))
            .spawn()
            .expect("program starts");
        Self {
            name: name.to_owned(),
            child,
            log,
            stdout,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever had, in bytes.
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let most = most.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        most.expect("the kernel tells") << 10
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// The newest line of standard output that starts with `prefix`, without it; waits for it to appear.
    pub fn wait_for_line(&mut self, prefix: &str) -> String {
        wait_until(
            Duration::from_secs(20),
            &format!("{} prints {prefix:?}", self.name),
            || {
                let text = std::fs::read_to_string(&self.stdout).unwrap_or_default();
                text.lines()
                    .rev()
                    .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
            },
        )
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status();
        assert!(status.expect("kill runs").success(), "signal {signal} to {}", self.name);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait_until(Duration::from_secs(60), &format!("{name} ends"), || {
            self.child.try_wait().expect("wait works")
        })
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.name, self.log());
        }
    }
}

/// Polls until `probe` answers, or fails the test after `limit`.
pub fn wait_until<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

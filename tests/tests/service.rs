//! The programs under a service manager: what they tell it, and how they read their configuration again.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use klp_tests::{Manager, Proc, command_on, wait_until};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// Much longer than a coordinator is silent that is watched each 300 ms.
const SILENCE: Duration = Duration::from_millis(1500);

/// A program with its configuration, managed by us.
struct Unit {
    manager: Manager,
    proc: Proc,
    folder: TempDir,
}

impl Unit {
    fn start(program: &str, config: &str, args: &[&str], watchdog_ms: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let manager = Manager::new(folder.path());
        let mut command = command_on(None, program);
        command.arg("--config").arg(folder.path().join("config.toml"));
        command.arg("--data-dir").arg(folder.path().join("data")).args(args);
        // The trees that tests are given are none of this worker's.
        command.env_remove("KLP_FARM_TREES");
        manager.manages(&mut command, Duration::from_millis(watchdog_ms));
        let proc = Proc::start_as(program, command, folder.path());
        Self { manager, proc, folder }
    }

    fn coordinator(config: &str, watchdog_ms: u64) -> Self {
        Self::start(
            "klp-coordinator",
            config,
            &["--insecure", "--listen", "127.0.0.1:0"],
            watchdog_ms,
        )
    }

    fn worker(coordinator: &str, config: &str) -> Self {
        Self::start(
            "klp-worker",
            config,
            &["--coordinator", coordinator, "--name", "a"],
            60_000,
        )
    }

    /// Has the program read another configuration; answers when it has.
    fn reload(&self, config: &str) {
        std::fs::write(self.folder.path().join("config.toml"), config).unwrap();
        self.proc.signal("HUP");
        let reloading = self.manager.hears("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        self.manager.hears("READY=1");
    }

    fn logs(&self, what: &str) {
        wait_until(PATIENCE, what, || self.proc.log().contains(what).then_some(()));
    }

    /// Where the coordinator is, by its own word.
    fn url(&mut self) -> String {
        self.proc.wait_for_line("listening on ")
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }
}

#[test]
fn a_coordinator_tells_of_readiness_life_reloads_and_the_end() {
    let mut unit = Unit::coordinator("fault_limit = 3\n", 600);
    let ready = unit.manager.hears("READY=1");
    assert!(ready.contains("STATUS=serving at http://127.0.0.1:"), "{ready}");
    let alive = unit.manager.hears("WATCHDOG=1");
    let status = "0 workers, 0 livepatches in progress, 0 of 0 tasks running";
    assert!(alive.contains(status), "{alive}");
    // Often enough for the watchdog.
    let begin = Instant::now();
    (0..3).for_each(|_| drop(unit.manager.hears("WATCHDOG=1")));
    assert!(begin.elapsed() < Duration::from_millis(3 * 600));

    unit.reload("fault_limit = 4\nreaders = 7\n");
    unit.logs("in force now: fault_limit; only after a restart: readers");
    // A slip changes nothing, and ends nothing.
    unit.reload("fault_limt = 5\n");
    unit.logs("did you mean `fault_limit`?");
    unit.reload("fault_limit = 0\n");
    unit.logs("setting fault_limit is 0");
    unit.reload("fault_limit = 4\n");
    unit.logs("read again; nothing has changed");
    unit.manager.hears("WATCHDOG=1");

    unit.proc.signal("TERM");
    unit.manager.hears("STOPPING=1");
    assert!(unit.proc.wait().success());
}

#[test]
fn while_the_loop_that_decides_hangs_nobody_says_that_the_coordinator_lives() {
    let mut unit = Unit::coordinator("", 300);
    unit.manager.hears("WATCHDOG=1");
    assert!(unit.manager.silence(SILENCE, Duration::from_secs(3)).is_none());
    // The loop is to record a worker, and can't: somebody else writes. It gives up after some seconds, says so, and tries
    // again.
    let other = rusqlite::Connection::open(unit.data().join("farm.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let _worker = Unit::worker(&unit.url(), "");
    assert!(unit.manager.silence(SILENCE, Duration::from_secs(30)).is_some());
    other.execute_batch("ROLLBACK").unwrap();
    unit.manager.hears(": 1 worker, ");
}

#[test]
fn a_worker_tells_how_it_stands_with_its_coordinator() {
    let mut coordinator = Unit::coordinator("heartbeat_ms = 500\nlease_ms = 3000\n", 60_000);
    let url = coordinator.url();
    let mut worker = Unit::worker(&url, "grace = 30\nslots = 2\n");
    let ready = worker.manager.hears("READY=1");
    assert!(
        ready.contains(&format!("STATUS=connected to {url}/; 0 running in 2 slots, 0 trees")),
        "{ready}"
    );
    // The session's own loop says that it lives.
    worker.manager.hears("WATCHDOG=1");

    worker.reload("grace = 1\nslots = 3\n");
    worker.logs("in force now: grace; only after a restart: slots");
    worker.reload("grase = 1\n");
    worker.logs("did you mean `grace`?");

    coordinator.proc.kill();
    let apart = worker.manager.hears("STATUS=not connected");
    assert!(apart.contains("WATCHDOG=1") && apart.contains(&url), "{apart}");

    worker.proc.signal("TERM");
    let stopping = worker.manager.hears("STOPPING=1");
    // A second for attempts, one for the farewell, five for what is left to deliver.
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=7000000"), "{stopping}");
    assert!(worker.proc.wait().success());
}

#[test]
fn a_worker_whose_coordinator_is_away_is_ready_and_says_so() {
    let mut worker = Unit::worker("http://127.0.0.1:9", "");
    let ready = worker.manager.hears("READY=1");
    assert!(
        ready.contains("STATUS=not connected to http://127.0.0.1:9/ ("),
        "{ready}"
    );
    worker.manager.hears("WATCHDOG=1");
    worker.proc.kill();
}

#[test]
fn a_workers_memory_and_codestreams_are_taken_over_by_the_farm() {
    let mut coordinator = Unit::coordinator("heartbeat_ms = 500\nlease_ms = 3000\n", 60_000);
    let url = coordinator.url();
    let worker = Unit::worker(&url, "memory = \"1G\"\n");
    worker.manager.hears("STATUS=connected");
    let memory = || {
        let mut command = command_on(None, "klp-farm");
        command.args(["--coordinator", &url, "workers", "--output", "json"]);
        let told = command.output().unwrap();
        let workers: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        workers[0]["memory"].as_u64()
    };
    wait_until(PATIENCE, "the farm knows it", || {
        (memory() == Some(1 << 30)).then_some(())
    });
    worker.reload("memory = \"2G\"\n");
    wait_until(PATIENCE, "the farm hears", || (memory() == Some(2 << 30)).then_some(()));
}

#[test]
fn a_workers_configuration_is_checked_and_its_commands_read_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("w.toml"), folder.path().join("data"));
    let run = |text: &str, args: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut command = command_on(None, "klp-worker");
        command.args(args).env("KLP_FARM_WORKER_CONFIG", &file);
        command.env("KLP_FARM_CCP", "/opt/klp-ccp").env_remove("KLP_FARM_TREES");
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let folders = format!("data_dir = \"{}\"\n", data.display());
    let (code, said, _) = run(&format!("{folders}grace = 7\n"), &["--check-config", "--slots", "3"]);
    assert_eq!(code, Some(0));
    for (setting, origin) in [
        ("data_dir = ", format!("{}:1", file.display())),
        ("grace = 7", format!("{}:2", file.display())),
        ("slots = 3", "--slots".to_owned()),
        ("klp_ccp = \"/opt/klp-ccp\"", "environment: KLP_FARM_CCP".to_owned()),
        ("readiness_period = 60", "default".to_owned()),
    ] {
        let line = said
            .lines()
            .find(|line| line.starts_with(setting))
            .unwrap_or_else(|| panic!("{said}"));
        assert!(line.ends_with(&format!("  # {origin}")), "{line}");
    }
    let (code, _, error) = run(&format!("{folders}grase = 7\n"), &["--check-config"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("w.toml, line 2: unknown setting `grase`; did you mean `grace`?"),
        "{error}"
    );
    let (code, _, error) = run("slots = 0\n", &["--check-config"]);
    assert!(code == Some(1) && error.contains("slots is 0"), "{error}");
    assert!(!data.exists());
    // Whoever adds trees for the service need not say where they go.
    let (code, _, told) = run(&folders, &["tree", "list"]);
    assert_eq!(code, Some(0));
    assert!(told.contains(&data.join("trees").display().to_string()), "{told}");
    let elsewhere = folder.path().join("elsewhere");
    let (_, _, told) = run(&folders, &["tree", "--data-dir", elsewhere.to_str().unwrap(), "list"]);
    assert!(told.contains(&elsewhere.join("trees").display().to_string()), "{told}");
}

#[test]
fn root_leaves_nothing_in_the_folder_of_another_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    nix::unistd::chown(&data, Some(nobody.uid), None).unwrap();
    let init = |data: &Path| {
        let mut command = command_on(None, "klp-coordinator");
        command.arg("--data-dir").arg(data).arg("init").output().unwrap()
    };
    let refused = init(&data);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said.contains("nobody's") && said.contains("runuser -u nobody --"),
        "{said}"
    );
    assert!(std::fs::read_dir(&data).unwrap().next().is_none());
    assert!(init(&folder.path().join("own")).status.success());
}

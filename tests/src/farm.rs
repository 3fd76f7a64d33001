//! A farm: a coordinator and workers as processes, and the CLI to use them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::identity::Identity;
use crate::net::{ADDRESS, Net};
use crate::proc::{Proc, command_on, wait_until};

pub struct Farm {
    // Workers first: they are dropped, and so killed, before what they talk to.
    pub workers: Vec<Proc>,
    coordinator: Option<Proc>,
    /// Where the coordinator and the CLI run, if not on this host.
    host: Option<String>,
    /// Hosts of its own, with the workers away from the coordinator.
    apart: Option<Net>,
    /// Who may call it; `None`: it is on loopback, and asks nobody.
    pub identity: Option<Identity>,
    /// Of all its processes.
    env: Env,
    pub url: String,
    /// Where the dashboard is, if the settings ask for one.
    pub http: Option<String>,
    pub dir: TempDir,
}

type Env = Vec<(String, String)>;

/// How a worker is started.
pub struct WorkerOptions<'a> {
    pub name: &'a str,
    pub trees: &'a Path,
    pub codestreams: &'a str,
    pub slots: u32,
    /// A folder of programs that come before the machine's own.
    pub tools: Option<&'a Path>,
    /// A folder of SUSE's kernels, and the catalog that says which codestreams they are.
    pub suse: Option<(&'a Path, &'a Path)>,
    /// A clone of kernel-source.
    pub kernel_source: Option<&'a Path>,
    /// What tools are kept from. With programs of a test's own that tell what they do in their folder it is nothing, unless a
    /// test says otherwise: they would not get through.
    pub isolation: Option<&'a str>,
    /// Further arguments.
    pub args: &'a [&'a str],
}

impl Default for WorkerOptions<'_> {
    fn default() -> Self {
        Self {
            name: "a",
            trees: Path::new("/nowhere"),
            codestreams: "",
            slots: 1,
            tools: None,
            suse: None,
            kernel_source: None,
            isolation: None,
            args: &[],
        }
    }
}

const LOOPBACK: &str = "127.0.0.1";

/// Set for `make test-apart`: farms have hosts of their own, and so mutual TLS, unless they serve HTTP, which is tried on loopback.
const APART: &str = "KLP_FARM_TESTS_APART";

/// Submits the livepatch `lp`: a function of a module, on all of bookworm's own kernels.
pub const SUBMIT: [&str; 14] = [
    "submit",
    "--name",
    "lp",
    "--mod",
    "snd-pcm",
    "--conf",
    "CONFIG_SND_PCM",
    "--file-funcs",
    "sound/core/pcm.c",
    "snd_pcm_attach_substream",
    "--codestreams",
    "debian12-6.1",
    // Whatever else this machine has.
    "--type",
    "native",
];

/// What a CLI call gave.
#[derive(Debug)]
pub struct CommandResult {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandResult {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

impl Farm {
    /// A coordinator without workers. Leases are short, so that tests of lost workers are.
    pub fn start() -> Self {
        Self::with_settings("")
    }

    /// As [`Farm::start`], with further settings of the coordinator.
    pub fn with_settings(settings: &str) -> Self {
        Self::start_on(None, settings)
    }

    /// As [`Farm::with_settings`], with further variables in the environment of all its processes.
    pub fn with_env(env: &[(&str, &str)], settings: &str) -> Self {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::start_with(None, env.collect(), settings)
    }

    /// As [`Farm::with_settings`], with the coordinator on a host of its own, and so with TLS and tokens.
    pub fn start_on(net: Option<&Net>, settings: &str) -> Self {
        Self::start_with(net, Env::new(), settings)
    }

    fn start_with(net: Option<&Net>, env: Env, settings: &str) -> Self {
        let asked = std::env::var_os(APART).is_some() && !settings.contains("http_listen");
        match (net, asked) {
            (None, true) => {
                let apart = Net::new().expect("make test-apart needs network namespaces, and so root");
                let farm = Self::start_at(Some(&apart), env, settings);
                Self {
                    apart: Some(apart),
                    ..farm
                }
            }
            _ => Self::start_at(net, env, settings),
        }
    }

    fn start_at(net: Option<&Net>, env: Env, settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        Self::configure(dir.path(), settings);
        let host = net.map(|net| net.here.clone());
        let address = if host.is_some() { ADDRESS } else { LOOPBACK };
        let listen = format!("{address}:0");
        let identity = host.as_deref().map(|host| Identity::make(Some(host), dir.path()));
        let mut coordinator = Self::spawn_coordinator(host.as_deref(), &env, dir.path(), &listen);
        let url = coordinator.wait_for_line("listening on ");
        let wants = settings.contains("http_listen");
        let http = wants.then(|| {
            coordinator
                .wait_for_line("dashboard at ")
                .trim_end_matches('/')
                .to_owned()
        });
        Self {
            http,
            identity,
            workers: Vec::new(),
            coordinator: Some(coordinator),
            host,
            apart: None,
            env,
            url,
            dir,
        }
    }

    fn configure(dir: &Path, settings: &str) {
        let lease = match settings.contains("lease_ms") {
            true => "",
            false => "lease_ms = 3000\n",
        };
        let text = format!("{lease}heartbeat_ms = 500\n{settings}");
        std::fs::write(dir.join("coordinator.toml"), text).expect("config");
    }

    /// A farm that somebody else runs.
    pub fn at(url: String) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        Self {
            workers: Vec::new(),
            coordinator: None,
            identity: None,
            host: None,
            apart: None,
            env: Env::new(),
            url,
            http: None,
            dir,
        }
    }

    /// Has the coordinator end by itself.
    pub fn stop_coordinator(&mut self) {
        if let Some(mut coordinator) = self.coordinator.take() {
            assert!(coordinator.terminate().success(), "{}", coordinator.log());
        }
    }

    pub fn kill_coordinator(&mut self) {
        if let Some(mut coordinator) = self.coordinator.take() {
            coordinator.kill();
        }
    }

    fn spawn_coordinator(host: Option<&str>, env: &Env, dir: &Path, listen: &str) -> Proc {
        let (config, data) = (dir.join("coordinator.toml"), dir.join("coordinator"));
        let args: [&Path; 6] = [
            "--config".as_ref(),
            &config,
            "--listen".as_ref(),
            listen.as_ref(),
            "--data-dir".as_ref(),
            &data,
        ];
        let mut command = command_on(host, "klp-coordinator");
        command.args(args).envs(env.iter().cloned());
        if host.is_none() {
            command.arg("--insecure");
        }
        Proc::start_as("coordinator", command, dir)
    }

    /// Starts the coordinator again, on the same port and data, after it was killed.
    pub fn restart_coordinator(&mut self) {
        self.kill_coordinator();
        let address = self
            .url
            .trim_start_matches("http://")
            .trim_start_matches("https://")
            .to_owned();
        let mut coordinator = Self::spawn_coordinator(self.host.as_deref(), &self.env, self.dir.path(), &address);
        coordinator.wait_for_line("listening on ");
        self.coordinator = Some(coordinator);
        wait_until(Duration::from_secs(20), "the coordinator answers", || {
            (self.cli(["workers"]).code == Some(0)).then_some(())
        });
    }

    /// Starts the coordinator again, with other settings.
    pub fn restart_with(&mut self, settings: &str) {
        Self::configure(self.dir.path(), settings);
        self.restart_coordinator();
    }

    /// Starts a worker and waits until the farm knows it.
    pub fn add_worker(&mut self, options: WorkerOptions<'_>) {
        let host = match &self.apart {
            Some(net) => Some(net.away.clone()),
            None => self.host.clone(),
        };
        self.add_worker_on(host.as_deref(), options);
    }

    /// As [`Farm::add_worker`], on a host of its own.
    pub fn add_worker_on(&mut self, host: Option<&str>, options: WorkerOptions<'_>) {
        let data_dir = self.dir.path().join(options.name);
        if let Some(identity) = &self.identity {
            let printed = self.cli(["enroll", options.name, "--output", "json"]);
            identity.enroll(&printed.json(), host, &data_dir);
        }
        let slots = options.slots.to_string();
        let args = [
            "--coordinator".as_ref(),
            self.url.as_ref(),
            "--data-dir".as_ref(),
            data_dir.as_os_str(),
            "--trees".as_ref(),
            options.trees.as_os_str(),
            "--name".as_ref(),
            options.name.as_ref(),
            "--codestreams".as_ref(),
            options.codestreams.as_ref(),
            "--slots".as_ref(),
            slots.as_ref(),
            "--grace".as_ref(),
            "0".as_ref(),
        ];
        let mut command = command_on(host, "klp-worker");
        command.args(args).envs(self.env.iter().cloned());
        if let Some((data, catalog)) = options.suse {
            command.arg("--suse-data-dir").arg(data).arg("--catalog").arg(catalog);
        }
        command.args(options.args);
        if let Some(source) = options.kernel_source {
            command.arg("--kernel-source").arg(source);
        }
        let without = options.tools.map(|_| "none");
        if let Some(isolation) = options.isolation.or(without) {
            command.args(["--isolation", isolation]);
        }
        if let Some(tools) = options.tools {
            let rest = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&rest));
            command.env("PATH", std::env::join_paths(folders).expect("folders without colons"));
        }
        self.workers
            .push(Proc::start_as(options.name, command, self.dir.path()));
        let name = options.name.to_owned();
        wait_until(Duration::from_secs(30), &format!("{name} is connected"), || {
            let workers = self.cli(["workers", "--output", "json"]);
            let known = workers.json();
            let mut list = known.as_array()?.iter();
            list.any(|w| w["name"] == name.as_str() && w["connected"] == true)
                .then_some(())
        });
    }

    /// Runs `klp-farm` with these arguments against this farm.
    pub fn cli<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> CommandResult {
        let output = self.command(args).stdin(Stdio::null()).output().expect("klp-farm runs");
        CommandResult {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it beside the test; its output is in files of this name.
    pub fn cli_beside<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Proc {
        Proc::start_as(name, self.command(args), self.dir.path())
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = command_on(self.host.as_deref(), "klp-farm");
        if let Some(identity) = &self.identity {
            command
                .env("KLP_FARM_CA", &identity.ca)
                .env("KLP_FARM_TOKEN", &identity.admin);
        }
        command
            .envs(self.env.iter().cloned())
            .env("KLP_FARM_COORDINATOR", &self.url)
            .env_remove("KLP_WORK_DIR")
            .current_dir(self.dir.path())
            .args(args);
        command
    }

    /// The names of all livepatches the coordinator stores.
    pub fn livepatches(&self) -> Vec<String> {
        let list = self.cli(["list", "--output", "json"]).json();
        let names = list.as_array().expect("a list").iter();
        names
            .map(|l| l["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// What is known of a livepatch, as `status --output json` says it.
    pub fn status(&self, name: &str) -> Value {
        self.cli(["status", name, "--output", "json"]).json()
    }

    /// A livepatch's tasks, as `status --output json` says them.
    pub fn tasks(&self, name: &str) -> Vec<Value> {
        self.status(name)["tasks"].as_array().cloned().unwrap_or_default()
    }

    /// The outcomes that were recorded: for each event that tells of one, the task and its attempt.
    pub fn outcomes(&self, name: &str) -> Vec<(String, u64)> {
        let events = self.cli(["watch", name, "--output", "json"]).stdout;
        let events = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let ended = events.filter(|event| event["task"]["ended_ms"].is_i64());
        ended
            .map(|event| {
                let task = &event["task"];
                (task["id"].to_string(), task["attempt"].as_u64().unwrap_or_default())
            })
            .collect()
    }

    /// That nothing is wrong with what the coordinator stores, and that no attempt's outcome was recorded twice.
    pub fn is_sound(&self, name: &str) {
        let outcomes = self.outcomes(name);
        let once: std::collections::BTreeSet<_> = outcomes.iter().collect();
        assert_eq!(
            once.len(),
            outcomes.len(),
            "an outcome was committed twice: {outcomes:?}"
        );
        let checked = command_on(None, "klp-coordinator")
            .args(["check", "--online", "--deep"])
            .envs(self.env.iter().cloned())
            .arg("--config")
            .arg(self.dir.path().join("coordinator.toml"))
            .arg("--data-dir")
            .arg(self.dir.path().join("coordinator"))
            .output()
            .expect("klp-coordinator runs");
        assert!(checked.status.success(), "{checked:?}");
    }

    pub fn wait_until_extracting(&self, name: &str) {
        wait_until(Duration::from_secs(60), "an extraction runs", || {
            let running = |t: &Value| t["kind"] == "extract" && t["state"] == "running";
            self.tasks(name).iter().any(running).then_some(())
        });
    }

    /// That an extraction has ended and its worker keeps its outcome, with the lease renewed for longer than it lasts.
    pub fn keeps_an_outcome(&self, name: &str, worker: &str) {
        std::thread::sleep(Duration::from_secs(4));
        let tasks = self.tasks(name);
        let waiting = tasks.iter().find(|task| task["kind"] == "extract");
        let waiting = waiting.expect("an extraction");
        assert_eq!(
            (&waiting["attempt"], &waiting["progress"]),
            (&1.into(), &"delivering".into()),
            "{waiting}"
        );
        let outbox = std::fs::read_dir(self.dir.path().join(worker).join("outbox"));
        assert!(outbox.expect("an outbox").count() > 0);
    }

    /// Waits for a livepatch's end, which must be its success.
    pub fn ends_in_success(&self, name: &str) {
        let state = wait_until(Duration::from_secs(120), "the livepatch ends", || {
            let state = self.status(name)["livepatch"]["state"].as_str()?.to_owned();
            Some(state).filter(|state| state != "running")
        });
        assert_eq!(state, "succeeded");
    }

    /// Where `get` writes in these tests.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }
}

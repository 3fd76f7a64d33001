//! The coordinator's settings: what each does, its unit and its default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klp_identity::Role;
use klp_livepatch::names::{Product, RefName};
use klp_livepatch::scan::branches::Branches;
use klp_livepatch::spec::Spec;
use klp_livepatch::task::TaskKind;
use klp_telemetry::{LogFormat, export};
use serde::{Deserialize, Serialize};

use crate::blobs::place::Place;
use crate::ledger::Rules;
use crate::lifecycle::Retry;
use crate::standing::Policy;
use crate::web::SiteOrigin;

pub use current::{Current, RELOADABLE};

/// All settings. Every one has a working default; an unknown one in the file is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address that clients and workers connect to, over TLS with the certificate that `klp-coordinator init` makes. Port
    /// 0 picks a free one. Default: 127.0.0.1:7420.
    pub listen: SocketAddr,

    /// The address of the dashboard, the JSON API and the metrics, over TLS too; people log in there with their token. Port 0
    /// picks a free one. Default: none, nothing is served over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,

    /// Names beside this machine's own by which browsers may ask for the dashboard without TLS, as in `farm.example.org`, where a
    /// proxy on this machine speaks TLS. Default: none.
    pub http_names: Vec<String>,

    /// Other sites whose pages may read the JSON API and gRPC-web, as in `https://dashboards.example.org`; they never act.
    /// Default: none.
    pub http_origins: Vec<SiteOrigin>,

    /// Serves without TLS and without asking who calls, for a farm on one machine: whoever is on it may do everything. Only
    /// where both addresses are of loopback. Default: false.
    pub insecure: bool,

    /// The role of whoever comes without a token: viewer, submitter, operator or admin. Only where both addresses are of
    /// loopback; workers need certificates all the same. Default: none, everybody says who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Role>,

    /// How long a worker's certificate lasts, in milliseconds; workers renew theirs when two thirds have passed. Default:
    /// 2592000000 (30 days).
    pub worker_certificate_ms: u64,

    /// How many requests a token, or an address without one, may send each second, and how many at once after a pause: `get`
    /// fetches a large livepatch with some thousands. Defaults: 500 and 20000.
    pub requests_per_second: u32,
    pub requests_burst: u32,

    /// The same for a worker, which sends several for each attempt. Defaults: 5000 and 20000.
    pub worker_requests_per_second: u32,
    pub worker_requests_burst: u32,

    /// How often within a minute one address may come with a token or certificate that is not valid, before it is not
    /// listened to for a while. Default: 30.
    pub auth_failures_per_minute: u32,

    /// How many days the audit log keeps who did what. 0: for ever. Default: 365.
    pub retain_audit_days: u32,

    /// The folder of the database, the artifacts and the logs; made if absent. Default: /var/lib/klp-farm for root,
    /// else `$XDG_STATE_HOME/klp-farm`, else `~/.local/state/klp-farm`.
    pub data_dir: PathBuf,

    /// Where artifacts are kept, if not in the folder `blobs` in `data_dir`: `s3://BUCKET/PREFIX`, in what speaks S3, or
    /// `file:///DIR`, in another folder. Nothing is moved there: the runbook tells how. Default: empty, in `data_dir`.
    pub artifacts: Place,

    /// The server that is asked for an `s3://` place, as in `https://s3.example.org:9000`. Default: none, Amazon's for
    /// `artifacts_region`. Authorities beside the system's are taken from the environment's SSL_CERT_FILE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts_endpoint: Option<String>,

    /// The region of the bucket; servers of one's own mostly have any. Default: us-east-1.
    pub artifacts_region: String,

    /// Lets `artifacts_endpoint` begin with `http://`: artifacts, though no keys, go there for everybody on the way to read.
    /// Default: false.
    pub artifacts_plain_http: bool,

    /// A file with the credentials for an `s3://` place, in the form of `~/.aws/credentials` (its profile `default`), read
    /// again when it changes. Default: none, the environment's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or
    /// AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or AWS_CONTAINER_CREDENTIALS_*.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts_credentials: Option<PathBuf>,

    /// The catalog of supported codestreams: SUSE klp-build's supported.csv, or a TOML file with a `[[codestream]]` for each.
    /// Read again whenever it changes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<PathBuf>,

    /// How log lines look, on standard error: `human`, for people, or `json`, an object on each line. `--log-format` and the
    /// environment's KLP_FARM_LOG_FORMAT come first. Default: human.
    pub log_format: LogFormat,

    /// The OTLP collector that spans are sent to, by gRPC, as in `http://127.0.0.1:4317`; comes before the environment's
    /// OTEL_EXPORTER_OTLP_ENDPOINT. Default: none; without either no spans are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,

    /// How long a worker may be silent before its attempts are given to others, in milliseconds. Shorter notices a dead
    /// worker sooner, longer rides out longer breaks of the network. Default: 30000.
    pub lease_ms: u32,

    /// How much longer than `lease_ms` a worker may take to come back after this coordinator started, in milliseconds, so
    /// that one whose pause between two tries has grown long keeps what it runs. Default: 15000.
    pub restart_grace_ms: u32,

    /// How often a worker must state what it does, in milliseconds; less than a third of `lease_ms`, so that two
    /// messages may be lost. Default: 5000.
    pub heartbeat_ms: u32,

    /// How often all waiting tasks are matched with all workers even if nothing is known to have changed, in
    /// milliseconds. Default: 1000.
    pub match_period_ms: u32,

    /// How many attempts of a task may fail by the farm's fault before the task fails. Default: 5.
    pub fault_limit: u32,

    /// How many attempts of a task may end with the death of their worker before the task is set aside. Default: 2.
    pub death_limit: u32,

    /// How often in a row a worker may fail by the farm's fault before it is quarantined. Default: 3.
    pub quarantine_after: u32,

    /// How long a quarantine lasts at first, in milliseconds; doubled with each further fault, until an attempt ends
    /// well. Default: 30000.
    pub quarantine_ms: u32,

    /// The longest quarantine, in milliseconds. Default: 1800000 (30 minutes).
    pub quarantine_max_ms: u32,

    /// The pause before a task that failed by the farm's fault is tried again, in milliseconds; doubled for each
    /// further fault. Default: 1000.
    pub backoff_ms: u32,

    /// The longest such pause, in milliseconds. Default: 60000.
    pub backoff_max_ms: u32,

    /// Wall time after which a worker stops an attempt, in milliseconds. Default: 600000 (10 minutes).
    pub time_limit_ms: u64,

    /// Memory (address space) that an attempt's tool may use, in bytes. Default: 4294967296 (4 GiB).
    pub memory_limit: u64,

    /// Memory that is set aside on a worker for one check, in bytes. Default: 268435456 (256 MiB).
    pub check_memory: u64,

    /// Memory that is set aside on a worker for one extraction whose livepatch does not say what it needs, in bytes.
    /// Default: 1073741824 (1 GiB).
    pub extract_memory: u64,

    /// How long a submission may wait for workers to say whether any kernel has what it names, in milliseconds; one that
    /// none has is refused. 0: submissions are stored untried. Default: 10000.
    pub tryout_ms: u32,

    /// How many livepatches may be open at once; a submission beyond is refused. Default: 1000.
    pub max_open_livepatches: u32,

    /// How many tasks one livepatch may start with, one for each codestream and architecture. Default: 2000.
    pub max_platforms: u32,

    /// How often an idle connection is probed, in milliseconds, so that a half-open one is noticed. Default: 10000.
    pub keepalive_ms: u32,

    /// How long a probe may stay unanswered before the connection is closed, in milliseconds. Default: 10000.
    pub keepalive_timeout_ms: u32,

    /// Free room on the disk of `data_dir` below which new livepatches are refused, in bytes; below half of it logs wait
    /// at their workers too, and what is left is for outcomes and artifacts. 0: until the disk is full.
    /// Default: 268435456 (256 MiB).
    pub min_free_bytes: u64,

    /// How often logs of attempts that have ended are compressed, in milliseconds. Default: 10000.
    pub log_compact_ms: u32,

    /// How often what nobody needs is removed, in milliseconds: artifacts that no livepatch names, an hour after they
    /// came, and livepatches past `retain_ended_days`. Default: 3600000 (1 hour).
    pub gc_period_ms: u32,

    /// How many days after its end a livepatch is forgotten, with its tasks, events, logs and artifacts. 0: never.
    /// Default: 0.
    pub retain_ended_days: u32,

    /// How long one request may take until its answer begins, in milliseconds. An upload's answer comes after its last
    /// byte. Default: 120000.
    pub request_timeout_ms: u32,

    /// How many requests of one connection are worked on at once; further ones wait. Default: 256.
    pub max_requests_per_connection: u32,

    /// How many queries read the database at once. Default: 4.
    pub readers: u32,

    /// How long open requests may take to end at shutdown, in milliseconds. Default: 5000.
    pub shutdown_ms: u32,

    /// A table, so it comes last: branches of the kernel-source repository that scans look into, by product, beside those
    /// that are known (12.5, 15.4 to 15.7, 16.0, 6.0 and what they share) or in their place. A product is a SUSE
    /// codestream's name without its update, or any other codestream's whole name. Default: none.
    pub branches: BTreeMap<Product, RefName>,
}

/// Branches that may be configured: each scan's order names them.
const MAX_BRANCHES: usize = 200;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            http_listen: None,
            http_names: Vec::new(),
            http_origins: Vec::new(),
            insecure: false,
            anonymous: None,
            worker_certificate_ms: 30 * 86_400_000,
            requests_per_second: 500,
            requests_burst: 20_000,
            worker_requests_per_second: 5_000,
            worker_requests_burst: 20_000,
            auth_failures_per_minute: 30,
            retain_audit_days: 365,
            data_dir: default_data_dir(),
            artifacts: Place::DataDir,
            artifacts_endpoint: None,
            artifacts_region: "us-east-1".to_owned(),
            artifacts_plain_http: false,
            artifacts_credentials: None,
            catalog: None,
            log_format: LogFormat::Human,
            otlp_endpoint: None,
            lease_ms: 30_000,
            restart_grace_ms: 15_000,
            heartbeat_ms: 5_000,
            match_period_ms: 1_000,
            fault_limit: 5,
            death_limit: 2,
            quarantine_after: 3,
            quarantine_ms: 30_000,
            quarantine_max_ms: 1_800_000,
            backoff_ms: 1_000,
            backoff_max_ms: 60_000,
            time_limit_ms: 600_000,
            memory_limit: 4 << 30,
            check_memory: 256 << 20,
            extract_memory: 1 << 30,
            tryout_ms: 10_000,
            max_open_livepatches: 1_000,
            max_platforms: 2_000,
            keepalive_ms: 10_000,
            keepalive_timeout_ms: 10_000,
            min_free_bytes: 256 << 20,
            log_compact_ms: 10_000,
            gc_period_ms: 3_600_000,
            retain_ended_days: 0,
            request_timeout_ms: 120_000,
            max_requests_per_connection: 256,
            readers: 4,
            shutdown_ms: 5_000,
            branches: BTreeMap::new(),
        }
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Unusable(#[from] klp_settings::Problem),
    /// Every setting that can't be, a line each.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

impl Config {
    /// # Errors
    /// The file can't be read, or is not TOML with only these settings. Values are checked by [`Config::validate`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(klp_settings::File::read(path)?.parse()?)
    }

    /// # Errors
    /// All settings that are out of range, each named with what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut bad = Vec::new();
        let mut check = |setting: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                bad.push(format!("setting {setting} is {value}; it must be {low} to {high}"));
            }
        };
        const DAY: u64 = 86_400_000;
        check("lease_ms", self.lease_ms.into(), 100, DAY);
        check("restart_grace_ms", self.restart_grace_ms.into(), 0, DAY);
        check("heartbeat_ms", self.heartbeat_ms.into(), 10, DAY);
        check("match_period_ms", self.match_period_ms.into(), 10, 60_000);
        check("fault_limit", self.fault_limit.into(), 1, 100);
        check("death_limit", self.death_limit.into(), 1, 100);
        check("quarantine_after", self.quarantine_after.into(), 1, 1_000);
        check("quarantine_ms", self.quarantine_ms.into(), 1, DAY);
        let shortest = self.quarantine_ms.into();
        check("quarantine_max_ms", self.quarantine_max_ms.into(), shortest, DAY);
        check("check_memory", self.check_memory, 0, 1 << 40);
        check("extract_memory", self.extract_memory, 0, 1 << 40);
        check("backoff_ms", self.backoff_ms.into(), 1, DAY);
        check(
            "backoff_max_ms",
            self.backoff_max_ms.into(),
            self.backoff_ms.into(),
            DAY,
        );
        check("time_limit_ms", self.time_limit_ms, 1_000, DAY);
        check("memory_limit", self.memory_limit, 64 << 20, 1 << 50);
        check("tryout_ms", self.tryout_ms.into(), 0, 60_000);
        check("max_open_livepatches", self.max_open_livepatches.into(), 1, 1_000_000);
        check("max_platforms", self.max_platforms.into(), 1, 1_000_000);
        check("keepalive_ms", self.keepalive_ms.into(), 100, DAY);
        check("keepalive_timeout_ms", self.keepalive_timeout_ms.into(), 100, DAY);
        check("min_free_bytes", self.min_free_bytes, 0, 1 << 50);
        check("log_compact_ms", self.log_compact_ms.into(), 10, DAY);
        check("gc_period_ms", self.gc_period_ms.into(), 10, DAY);
        check("retain_ended_days", self.retain_ended_days.into(), 0, 36_500);
        check("worker_certificate_ms", self.worker_certificate_ms, 5_000, 3650 * DAY);
        const MANY: u64 = 1_000_000;
        check("requests_per_second", self.requests_per_second.into(), 1, MANY);
        check("requests_burst", self.requests_burst.into(), 1, MANY);
        let (each, burst) = (self.worker_requests_per_second, self.worker_requests_burst);
        check("worker_requests_per_second", each.into(), 1, MANY);
        check("worker_requests_burst", burst.into(), 1, MANY);
        check(
            "auth_failures_per_minute",
            self.auth_failures_per_minute.into(),
            1,
            MANY,
        );
        check("retain_audit_days", self.retain_audit_days.into(), 0, 36_500);
        check("request_timeout_ms", self.request_timeout_ms.into(), 1_000, DAY);
        check(
            "max_requests_per_connection",
            self.max_requests_per_connection.into(),
            1,
            100_000,
        );
        check("readers", self.readers.into(), 1, 64);
        check("shutdown_ms", self.shutdown_ms.into(), 1, 600_000);
        if u64::from(self.heartbeat_ms) * 3 >= u64::from(self.lease_ms) {
            bad.push(format!(
                "setting heartbeat_ms is {}; it must be less than a third of lease_ms, which is {}",
                self.heartbeat_ms, self.lease_ms
            ));
        }
        if self.branches.len() > MAX_BRANCHES {
            let count = self.branches.len();
            bad.push(format!(
                "setting branches names {count} products; it must be at most {MAX_BRANCHES}"
            ));
        }
        if self.data_dir.as_os_str().is_empty() {
            bad.push("setting data_dir is empty; name the folder that holds the coordinator's data".to_owned());
        }
        artifacts::check(self, &mut bad);
        for (setting, address) in [("listen", Some(self.listen)), ("http_listen", self.http_listen)] {
            let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) else {
                continue;
            };
            if self.insecure {
                bad.push(format!(
                    "setting insecure is true, and {setting} is {address}; without TLS only loopback is served: leave insecure \
                     out, and make certificates with `klp-coordinator init`"
                ));
            } else if self.anonymous.is_some() {
                bad.push(format!(
                    "setting anonymous is for loopback alone, and {setting} is {address}; leave it out, and make tokens with \
                     `klp-farm token create`"
                ));
            }
        }
        if self.anonymous == Some(Role::Worker) {
            bad.push("setting anonymous is worker; workers need certificates, see `klp-farm enroll`".to_owned());
        }
        if let Some(Err(why)) = self.otlp_endpoint.as_deref().map(export::parse_endpoint) {
            bad.push(format!("setting otlp_endpoint {why}"));
        }
        if bad.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Invalid(bad))
        }
    }

    /// As a configuration file.
    pub fn to_toml(&self) -> String {
        // Numbers, an address, names and a path always serialise, except for a path that is not UTF-8.
        toml::to_string(self).unwrap_or_else(|e| format!("# this configuration has no text: {e}\n"))
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.into())
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            retry: Retry {
                fault_limit: self.fault_limit,
                death_limit: self.death_limit,
                backoff_ms: self.backoff_ms,
                backoff_max_ms: self.backoff_max_ms,
            },
            quarantine: Policy {
                after: self.quarantine_after,
                pause_ms: self.quarantine_ms,
                pause_max_ms: self.quarantine_max_ms,
            },
        }
    }

    /// The branches that are known, as they are configured.
    pub(crate) fn all_branches(&self) -> Branches {
        let mut branches = Branches::default();
        branches.extend(self.branches.clone());
        branches
    }

    /// What a task of this kind needs, in bytes.
    pub(crate) fn memory(&self, kind: TaskKind, spec: &Spec) -> u64 {
        match kind {
            TaskKind::Check | TaskKind::Verify => self.check_memory,
            TaskKind::Extract => spec.memory.unwrap_or(self.extract_memory),
        }
    }
}

fn default_data_dir() -> PathBuf {
    let system = PathBuf::from("/var/lib/klp-farm");
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    match absolute("HOME") {
        // A service without a home is a system service too.
        None => system,
        // So is the one whose home is that folder.
        Some(home) if home == Path::new("/root") || home == system => system,
        Some(home) => absolute("XDG_STATE_HOME")
            .unwrap_or_else(|| home.join(".local/state"))
            .join("klp-farm"),
    }
}

mod artifacts;
mod current;
#[cfg(test)]
mod tests;

//! The settings of `klp-worker`: what each does, its unit and its default.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use klp_livepatch::CodestreamFilter;
use klp_livepatch::names::WorkerName;
use klp_telemetry::{LogFormat, export};
use serde::{Deserialize, Deserializer, Serialize};
use tonic::transport::Uri;

use super::{MAX_SLOTS, ToolPaths, Tunable, Tuned, WorkerConfig};
use crate::identity::{self, Papers};
use crate::isolation::{self, Policy};

/// Read where no other is named, if it is there.
pub const USUAL_CONFIG: &str = "/etc/klp-farm/worker.toml";

/// What a running worker takes over of a configuration that is read again.
pub const RELOADABLE: &[&str] = &["codestreams", "grace", "memory", "readiness_period"];

/// All settings. Every one has a working default; an unknown one in the file is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the coordinator listens. Default: http://127.0.0.1:7420.
    pub coordinator: Address,

    /// This worker's name, unique on the farm. Default: its certificate's, or the host's where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<WorkerName>,

    /// Holds the worker's key and certificate, the outbox, scratch folders and, unless `trees` says otherwise, the trees. One
    /// worker at a time may use it. Default: `$XDG_DATA_HOME/klp-farm`, else `~/.local/share/klp-farm`.
    pub data_dir: PathBuf,

    /// Holds the kernel trees, which are only read; workers may share it. Default: `trees` in `data_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trees: Option<PathBuf>,

    /// Holds SUSE's kernels as klp-build keeps them, which are found by themselves and only read. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suse_data_dir: Option<PathBuf>,

    /// The catalog of codestreams, which says which of them SUSE's kernels are: klp-build's supported.csv, or TOML. Default:
    /// none, they go by their kernels' names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<PathBuf>,

    /// A clone of SUSE's kernel-source: scans look for fixes in it. Default: none, this worker makes no scans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_source: Option<PathBuf>,

    /// Only trees whose codestream matches this regular expression from its start on are announced. Default: all.
    #[serde(deserialize_with = "parsed")]
    pub codestreams: CodestreamFilter,

    /// How many attempts run at a time, 1 to 1024. Default: one for each core, at most 64.
    pub slots: u32,

    /// Memory that it lends to attempts, as in "12G" or in bytes; 0: no limit. Default: what the machine or its control group
    /// has, less 1 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,

    /// How often trees and tools are looked at thoroughly, in seconds; what can't be used is announced with the reason.
    /// Default: 60.
    pub readiness_period: u64,

    /// How long running attempts may go on when the worker is to stop, in seconds, before they are handed back. Default: 30.
    pub grace: u64,

    /// klp-ccp's program. Default: the one in PATH, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub klp_ccp: Option<PathBuf>,

    /// Folders of klp-ccp's policy, separated by colons, where it isn't installed with the program. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub klp_ccp_policy: Option<String>,

    /// clang-extract's program. Default: the one in PATH, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clang_extract: Option<PathBuf>,

    /// What tools must be kept from: `required`, all of the fences; `best`, what this host gives; `none`; or the names of those
    /// that are required, separated by commas: user, files, processes, network, ipc, landlock, syscalls, cgroup. Default: best.
    pub isolation: Policy,

    /// Whom tools run as where the worker runs as root, by name or number. Default: klp-farm-tool, if there is such a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_user: Option<String>,

    /// What an attempt may have in its scratch folder, as in "8G" or in bytes. Default: 8 GiB.
    pub scratch_limit: Size,

    /// Files and folders that tools may read beside the system, the folders in PATH and their kernel's tree. Default: none.
    pub expose: Vec<PathBuf>,

    /// How log lines look, on standard error: `human`, for people, or `json`, an object on each line. Default: human.
    pub log_format: LogFormat,

    /// The OTLP collector that spans are sent to, by gRPC, as in `http://127.0.0.1:4317`; comes before the environment's
    /// OTEL_EXPORTER_OTLP_ENDPOINT. Default: none; without either no spans are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            coordinator: Address(Uri::from_static("http://127.0.0.1:7420")),
            name: None,
            data_dir: super::default_data_dir(),
            trees: None,
            suse_data_dir: None,
            catalog: None,
            kernel_source: None,
            codestreams: CodestreamFilter::all(),
            slots: super::default_slots(),
            memory: None,
            readiness_period: 60,
            grace: 30,
            klp_ccp: None,
            klp_ccp_policy: None,
            clang_extract: None,
            isolation: Policy::default(),
            tool_user: None,
            scratch_limit: Size(isolation::SCRATCH_LIMIT),
            expose: Vec::new(),
            log_format: LogFormat::Human,
            otlp_endpoint: None,
        }
    }
}

impl Settings {
    /// # Errors
    /// All settings that are out of range, a line each.
    pub fn validate(&self) -> anyhow::Result<()> {
        let mut bad = Vec::new();
        if !(1..=MAX_SLOTS).contains(&self.slots) {
            bad.push(format!("setting slots is {}; it must be 1 to {MAX_SLOTS}", self.slots));
        }
        for (setting, seconds) in [("readiness_period", self.readiness_period), ("grace", self.grace)] {
            if seconds > 86_400 {
                bad.push(format!("setting {setting} is {seconds}; it must be 0 to 86400"));
            }
        }
        if self.scratch_limit.0 == 0 {
            bad.push("setting scratch_limit is 0; an attempt needs some room, as in \"8G\"".to_owned());
        }
        for path in &self.expose {
            if !path.is_absolute() || path.parent().is_none() {
                bad.push(format!(
                    "setting expose has {}; give absolute paths, but not the root of all",
                    path.display()
                ));
            }
        }
        if self.data_dir.as_os_str().is_empty() {
            bad.push("setting data_dir is empty; name a folder".to_owned());
        }
        if let Some(Err(why)) = self.otlp_endpoint.as_deref().map(export::parse_endpoint) {
            bad.push(format!("setting otlp_endpoint {why}"));
        }
        anyhow::ensure!(bad.is_empty(), "{}", bad.join("\n"));
        Ok(())
    }

    /// Where the kernel trees are.
    pub fn trees_dir(&self) -> PathBuf {
        self.trees.clone().unwrap_or_else(|| self.data_dir.join("trees"))
    }

    /// What may change while the worker runs.
    pub fn tuned(&self) -> Tuned {
        Tuned {
            codestreams: self.codestreams.clone(),
            memory: self.memory.map_or_else(super::default_memory, |size| size.0),
            readiness_period: Duration::from_secs(self.readiness_period),
            grace: Duration::from_secs(self.grace),
        }
    }

    /// What a worker is started with.
    ///
    /// # Errors
    /// It has no name: a certificate is missing where one is needed.
    pub fn into_config(self) -> anyhow::Result<WorkerConfig> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if identity::is_secure(&self.coordinator.0) => Papers::of(&self.data_dir).name()?,
            None => super::default_name(),
        };
        // An empty variable says nothing.
        let said = |path: &PathBuf| !path.as_os_str().is_empty();
        Ok(WorkerConfig {
            name,
            trees_dir: self.trees_dir(),
            tuned: Tunable::new(self.tuned()),
            tools: ToolPaths {
                ccp: self.klp_ccp.filter(said),
                policy: self.klp_ccp_policy.filter(|text| !text.is_empty()),
                clang_extract: self.clang_extract.filter(said),
            },
            isolation: isolation::Settings {
                policy: self.isolation,
                tool_user: self.tool_user,
                scratch_limit: self.scratch_limit.0,
                expose: self.expose,
            },
            coordinator: self.coordinator.0,
            catalog: self.catalog,
            suse_data_dir: self.suse_data_dir,
            data_dir: self.data_dir,
            kernel_source: self.kernel_source,
            slots: self.slots,
        })
    }

    /// The settings with those of the folders replaced that a command was told of.
    pub(crate) fn folders(&self, data_dir: Option<&Path>, trees: Option<&Path>) -> (PathBuf, PathBuf) {
        let data = data_dir.unwrap_or(&self.data_dir).to_owned();
        let trees = match (trees, data_dir) {
            (Some(trees), _) => trees.to_owned(),
            // Whoever names a data folder means its trees.
            (None, Some(data)) => data.join("trees"),
            (None, None) => self.trees_dir(),
        };
        (data, trees)
    }
}

/// A coordinator's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub Uri);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        super::parse_coordinator(text).map(Self)
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0.to_string()
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "u64")]
pub struct Size(pub u64);

/// How one is written in a file.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of bytes, or a text such as \"12G\"")]
enum Written {
    Bytes(u64),
    #[serde(deserialize_with = "parsed")]
    Text(Size),
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        super::parse_size(text).map(Self)
    }
}

impl From<Written> for Size {
    fn from(written: Written) -> Self {
        match written {
            Written::Bytes(bytes) => Self(bytes),
            Written::Text(size) => size,
        }
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> Self {
        size.0
    }
}

/// Reads what is written as text, with the text's own rules.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;

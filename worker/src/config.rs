//! What a worker is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use klp_livepatch::CodestreamFilter;
use klp_livepatch::names::WorkerName;
use tonic::transport::Uri;

/// The most attempts one worker may run at a time.
pub const MAX_SLOTS: u32 = 1024;

#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where the coordinator listens, as in `http://127.0.0.1:7420`.
    pub coordinator: Uri,
    /// Unique on the farm.
    pub name: WorkerName,
    /// Holds the outbox and the scratch folders. One worker at a time may use it.
    pub data_dir: PathBuf,
    /// Holds the kernel trees; several workers may share it, for trees are only read.
    pub trees_dir: PathBuf,
    /// Which of the trees to announce.
    pub codestreams: CodestreamFilter,
    /// How many attempts run at a time.
    pub slots: u32,
    /// How long a stopping worker lets its attempts go on before it hands them back.
    pub grace: Duration,
}

/// `$XDG_DATA_HOME/klp-farm`, else `~/.local/share/klp-farm`; below the current folder for a user without a home.
pub fn default_data_dir() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || set("HOME").map(|home| home.join(".local/share"));
    set("XDG_DATA_HOME").or_else(home).unwrap_or_default().join("klp-farm")
}

/// Parses a coordinator's address.
///
/// # Errors
/// It is not of the form `http://HOST:PORT`.
pub fn parse_coordinator(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|e| format!("{e}; give it like http://127.0.0.1:7420"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(_)) => Ok(uri),
        (Some("https"), _) => Err("TLS is not supported yet; give it like http://127.0.0.1:7420".to_owned()),
        _ => Err("give it like http://127.0.0.1:7420".to_owned()),
    }
}

/// The name of the worker within `klp-farm up`: another than [`default_name`], for both may run on one host.
pub fn laptop_name() -> WorkerName {
    let host = default_name();
    format!("{}-up", &host.as_str()[..host.as_str().len().min(60)])
        .parse()
        .unwrap_or(host)
}

/// The host's name reduced to what a worker may be called.
pub fn default_name() -> WorkerName {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|h| h.into_string().ok())
        .unwrap_or_default();
    let plain: String = host
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "_-.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    let trimmed = plain.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    trimmed.parse().unwrap_or_else(|_| {
        #[expect(clippy::expect_used, reason = "the literal is a valid name")]
        "worker".parse().expect("valid name")
    })
}

//! What a worker is told at its start, and while it runs.

mod settings;
mod tuned;

use std::path::{Path, PathBuf};

use klp_livepatch::names::WorkerName;
use tonic::transport::Uri;

pub use settings::{Address, RELOADABLE, Settings, Size, USUAL_CONFIG};
pub use tuned::{Tunable, Tuned};

/// The most attempts one worker may run at a time.
pub const MAX_SLOTS: u32 = 1024;

/// The variable that names the folder of SUSE's kernels.
pub const SUSE_DATA_DIR: &str = "KLP_DATA_DIR";

/// What is made of the kernels in [`SUSE_DATA_DIR`] is in this folder of the worker's own.
pub const SUSE_INDEXES: &str = "suse-symbols";

#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where the coordinator listens, as in `https://farm.example:7420`.
    pub coordinator: Uri,
    /// Unique on the farm.
    pub name: WorkerName,
    /// Holds the outbox and the scratch folders. One worker at a time may use it.
    pub data_dir: PathBuf,
    /// Holds the kernel trees; several workers may share it, for trees are only read.
    pub trees_dir: PathBuf,
    /// A clone of SUSE's kernel-source, which scans look for fixes in; `None`: this worker makes no scans.
    pub kernel_source: Option<PathBuf>,
    /// The catalog of codestreams, which says which of them SUSE's kernels are; `None`: they go by their kernels' names.
    pub catalog: Option<PathBuf>,
    /// Holds SUSE's kernels as klp-build keeps them; only read. See [`crate::trees::suse`].
    pub suse_data_dir: Option<PathBuf>,
    /// How many attempts run at a time.
    pub slots: u32,
    /// Where the tools of others are.
    pub tools: ToolPaths,
    /// What tools are kept from.
    pub isolation: crate::isolation::Settings,
    /// What may change while it runs.
    pub tuned: Tunable,
}

/// Where the extraction tools of others are, where they are not in PATH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolPaths {
    /// klp-ccp's program.
    pub ccp: Option<PathBuf>,
    /// Folders of klp-ccp's policy, where it isn't installed with the program; separated by colons.
    pub policy: Option<String>,
    /// clang-extract's program.
    pub clang_extract: Option<PathBuf>,
}

impl ToolPaths {
    /// As the environment says: `KLP_FARM_CCP`, `KLP_CCP_PYTHONPOLICY_PATH`, `KLP_FARM_CLANG_EXTRACT`.
    pub fn from_env() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            ccp: set("KLP_FARM_CCP").map(PathBuf::from),
            policy: set("KLP_CCP_PYTHONPOLICY_PATH").map(|value| value.to_string_lossy().into_owned()),
            clang_extract: set("KLP_FARM_CLANG_EXTRACT").map(PathBuf::from),
        }
    }

    /// klp-ccp's program, from here or from PATH.
    pub fn ccp(&self) -> Option<PathBuf> {
        self.ccp.clone().or_else(|| in_path("klp-ccp"))
    }

    /// clang-extract's program, from here or from PATH.
    pub fn clang_extract(&self) -> Option<PathBuf> {
        self.clang_extract.clone().or_else(|| in_path("clang-extract"))
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
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

/// The data folder that klp-build's users know: `$KLP_DATA_DIR`, if it is set.
pub fn default_suse_data_dir() -> Option<PathBuf> {
    std::env::var_os(SUSE_DATA_DIR)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// One slot for each core: extraction is a computation.
pub fn default_slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(64) as u32)
}

/// What is left of this machine's memory, or of what its control group allows, when 1 GiB is kept for the rest; at least
/// 512 MiB. 0, for no limit, where neither is known.
pub fn default_memory() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let group = read("/proc/self/cgroup");
    // Version 2 has one line, `0::/path`.
    let group = group
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    // A limit holds for everything below it, so the lowest on the way up counts.
    let own = root.join(group);
    let groups = own.ancestors().take_while(|dir| dir.starts_with(root));
    let limits = groups.filter_map(|dir| std::fs::read_to_string(dir.join("memory.max")).ok());
    lendable(&read("/proc/meminfo"), limits)
}

fn lendable(meminfo: &str, limits: impl IntoIterator<Item = String>) -> u64 {
    const KEPT: u64 = 1 << 30;
    const LEAST: u64 = 512 << 20;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let total = total.map(|kib| kib.saturating_mul(1024));
    // One that says `max` limits nothing.
    let limits = limits.into_iter().filter_map(|limit| limit.trim().parse().ok());
    match limits.chain(total).min() {
        None => 0,
        Some(all) => all.saturating_sub(KEPT).max(LEAST),
    }
}

/// A number of bytes with an optional K, M, G or T for powers of 1024.
///
/// # Errors
/// It is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        unit => return Err(format!("unknown unit `{unit}`; one of K, M, G, T")),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number, as in 8G".to_owned())?;
    let bytes = number.checked_shl(shift).filter(|bytes| bytes >> shift == number);
    bytes.ok_or_else(|| "too large".to_owned())
}

/// Parses a coordinator's address.
///
/// # Errors
/// It is not of the form `https://HOST:PORT` or `http://HOST:PORT`.
pub fn parse_coordinator(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|e| format!("{e}; give it like https://farm.example:7420"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err("give it like https://farm.example:7420, or on its own machine http://127.0.0.1:7420".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_machine_and_group_is_lent_but_for_what_the_rest_needs() {
        const MEMINFO: &str = "MemTotal:       4194304 kB\nMemFree: 1 kB\n";
        let lent = |limits: &[&str]| lendable(MEMINFO, limits.iter().map(|limit| format!("{limit}\n")));
        assert_eq!(lent(&["max"]), 3 << 30);
        assert_eq!(lent(&["max", "2147483648"]), 1 << 30);
        assert_eq!(lent(&["1000"]), 512 << 20);
        assert_eq!(lendable("", None), 0);
        assert!(default_memory() >= 512 << 20);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(parse_size("8X").unwrap_err().contains("`X`"));
        assert!(parse_size("G").is_err() && parse_size("-1").is_err());
        assert_eq!(parse_size("99999999T"), Err("too large".to_owned()));
    }
}

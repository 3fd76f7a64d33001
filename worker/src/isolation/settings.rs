//! What an operator says about the confinement of tools.

use std::path::PathBuf;

use super::fence::Policy;

/// Bytes that an attempt may have in its scratch folder: a view with every folder of a kernel has some 50 MiB, an extraction
/// some 100.
pub const SCRATCH_LIMIT: u64 = 8 << 30;

#[derive(Clone, Debug)]
pub struct Settings {
    pub policy: Policy,
    /// Whom tools run as where the worker runs as root, by name or number; `None`: see [`super::user`].
    pub tool_user: Option<String>,
    /// Bytes that an attempt may have in its scratch folder.
    pub scratch_limit: u64,
    /// Files and folders that tools may read beside the system, the folders in PATH and their kernel's tree.
    pub expose: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            tool_user: None,
            scratch_limit: SCRATCH_LIMIT,
            expose: Vec::new(),
        }
    }
}

/// The same on the command line.
#[derive(clap::Args)]
pub struct IsolationArgs {
    /// What tools must be kept from: required, best (what this host gives), none, or fences that are required, of user, files,
    /// processes, network, ipc, landlock, syscalls, cgroup
    #[arg(long, value_name = "POLICY", env = "KLP_FARM_ISOLATION", default_value = "best")]
    isolation: Policy,
    /// Whom tools run as where the worker runs as root [default: klp-farm-tool, if there is such a user]
    #[arg(long, value_name = "USER")]
    tool_user: Option<String>,
    /// What an attempt may have in its scratch folder, such as 8G
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = crate::config::parse_size)]
    scratch_limit: u64,
    /// A file or folder that tools may read beside the system, the folders in PATH and their kernel's tree; may be repeated
    #[arg(long, value_name = "PATH")]
    expose: Vec<PathBuf>,
}

impl From<IsolationArgs> for Settings {
    fn from(args: IsolationArgs) -> Self {
        Self {
            policy: args.isolation,
            tool_user: args.tool_user,
            scratch_limit: args.scratch_limit,
            expose: args.expose,
        }
    }
}

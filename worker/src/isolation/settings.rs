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

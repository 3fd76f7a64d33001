//! What an extraction was made with, as its worker measured it. Reports of former versions have none.
//!
//! Paths of the machine are replaced by words that mean the same everywhere, so that two workers measure alike:
//! `${source}`, `${patched}` (the sources with fixes applied), `${objects}`, `${symvers}`, `${scratch}`, `${policy}`.

use serde::{Deserialize, Serialize};

use super::digests::{Digests, Sha256};
use crate::names::SourcePath;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The version of the worker's program.
    pub worker_version: String,
    pub tool: ToolUsed,
    pub limits: Limits,
    /// Symbols that were to be copied: those that the livepatch names, and those of the round.
    pub avoided: Vec<String>,
    pub tree: TreeUsed,
    /// The patches that were applied, in their order, by their names.
    pub fixes: Vec<FileUsed>,
    pub targets: Vec<TargetOrigin>,
}

/// The extraction tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolUsed {
    /// `native`, `ccp` or `clang-extract`.
    pub name: String,
    pub version: String,
    /// Of its executable, if it is a program of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

/// What one target's extraction was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Milliseconds of wall time.
    pub time_ms: u64,
    /// Bytes of address space.
    pub memory: u64,
}

/// The kernel tree. Of its thousands of files those are measured that all else depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeUsed {
    /// `debian`, `kdir` or `suse`.
    pub kind: String,
    pub release: String,
    /// The compiler that its configuration names.
    pub compiler: String,
    /// Its configuration and Module.symvers come first, as [`CONFIG`] and [`SYMVERS`].
    pub files: Vec<FileUsed>,
}

pub const CONFIG: &str = "config";
pub const SYMVERS: &str = "Module.symvers";

impl TreeUsed {
    /// Of all that is known of the tree.
    pub fn digest(&self) -> Sha256 {
        // It is made of text alone, which is always written.
        Sha256::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// A file, and what was in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUsed {
    pub name: String,
    #[serde(flatten)]
    pub digests: Digests,
}

/// What one target was extracted from and with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetOrigin {
    pub file: SourcePath,
    /// The source file as it was read, fixes applied.
    pub source: Digests,
    /// The tool's command line; variables come first, as in `NAME=value`. For the native tool: what libclang was given.
    pub command: Vec<String>,
    /// The command line of the compile check.
    pub compile: Vec<String>,
    /// The compiler, as it names itself.
    pub compiler: String,
}

impl TargetOrigin {
    /// Of both command lines.
    pub fn command_digest(&self) -> Sha256 {
        // It is made of text alone, which is always written.
        Sha256::of(&serde_json::to_vec(&(&self.command, &self.compile)).unwrap_or_default())
    }
}

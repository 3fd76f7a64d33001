//! What the process that becomes a tool is told to do first, as one argument of its command line.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::fence::Fence;
use super::layout::Layout;

/// The first argument of our programs when they are to confine themselves and then become another program; the plan follows,
/// then that program and its arguments.
pub(super) const CONFINE: &str = "confine";

/// How this worker gets the right to make namespaces, and whom tools run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Means {
    /// It has the right, and becomes this user and group afterwards.
    Root { user: u32, group: u32 },
    /// By a user namespace, in which it stays who it is.
    UserNamespace { user: u32, group: u32 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub fences: BTreeSet<Fence>,
    pub means: Means,
    pub layout: Layout,
    /// The tool's folder.
    pub dir: PathBuf,
    /// A control group made for it.
    pub cgroup: Option<PathBuf>,
    /// The pipe that a failure is told to; it is closed when the tool runs.
    pub tell: RawFd,
}

impl Plan {
    pub fn has(&self, fence: Fence) -> bool {
        self.fences.contains(&fence)
    }
}

/// What went wrong before there was a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Trouble {
    Fence {
        fence: Fence,
        why: String,
    },
    /// The tool could not be started.
    Start {
        errno: i32,
    },
}

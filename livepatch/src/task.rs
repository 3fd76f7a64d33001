//! Tasks and attempts: how units of work are named.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Arch, Codestream};

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Can every target be patched here: its CONFIG, file, object and symbols.
    Check,
    /// Run the extraction tool, and compile what it gives.
    Extract,
    /// Are the symbols that other architectures' sources externalize on this one too.
    Verify,
}

impl TaskKind {
    pub const ALL: [TaskKind; 3] = [TaskKind::Check, TaskKind::Extract, TaskKind::Verify];

    pub fn as_str(self) -> &'static str {
        match self {
            TaskKind::Check => "check",
            TaskKind::Extract => "extract",
            TaskKind::Verify => "verify",
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskKind {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        TaskKind::ALL
            .into_iter()
            .find(|k| k.as_str() == s)
            .ok_or_else(|| format!("unknown task kind `{}`", s.escape_debug()))
    }
}

/// A codestream on an architecture: what a worker holds a tree for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub codestream: Codestream,
    pub arch: Arch,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.codestream, self.arch)
    }
}

/// What makes a task the same task within its livepatch: planning twice creates nothing twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    pub kind: TaskKind,
    pub platform: Platform,
    /// From 1; a further round repeats a kind with what the former one found.
    pub round: u32,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.platform)?;
        if self.round > 1 {
            write!(f, " round {}", self.round)?;
        }
        Ok(())
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                // Only the hyphenated form, so that one id has one text.
                match Uuid::try_parse(s) {
                    Ok(id) if s.len() == 36 => Ok(Self(id)),
                    _ => Err(concat!(stringify!($name), " is not a hyphenated UUID").to_owned()),
                }
            }
        }
    };
}

id_type!(
    /// A livepatch's id, chosen by whoever submits it, so that a repeated submission is harmless.
    LivepatchId
);
id_type!(
    /// A task's id, chosen by the coordinator.
    TaskId
);
id_type!(
    /// One start of a worker process; a restarted worker is a new incarnation.
    Incarnation
);

/// One execution of a task under one lease. The number fences: only the task's current attempt may commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    pub task: TaskId,
    /// From 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number)
    }
}

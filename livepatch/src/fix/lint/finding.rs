//! One thing to know about a fix.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Worth stopping for.
    Warning,
}

/// What a finding is about, for those who filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// A type's layout or meaning.
    Layout,
    /// Static data and initialisers.
    Data,
    Header,
    /// `__init` and `__exit`.
    Init,
    Assembly,
    StaticKey,
    Tracepoint,
    PerCpu,
    /// A function that can't be traced, and so not replaced.
    Untraceable,
    /// Parameters or result of a function.
    Signature,
    Macro,
    /// Kconfig and Makefiles.
    Build,
    /// Added, removed and renamed files, and those that are not text.
    Files,
    /// A thread's loop that may never be left.
    EndlessLoop,
    /// A hunk that does not fit: a patch before it is missing.
    Prerequisite,
    /// Functions by which a system call is reached.
    Syscall,
    /// What could not be looked at.
    Unread,
}

/// One thing to know about a fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub topic: Topic,
    pub file: String,
    /// From 1, in the file as the patch leaves it; 0: the whole file. For [`Topic::Prerequisite`], a line of the patch.
    pub line: usize,
    /// Empty where it is about no symbol.
    pub symbol: String,
    /// Why, and what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.text)
    }
}

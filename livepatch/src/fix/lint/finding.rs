//! One thing to know about a fix.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::quoted;

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
    /// A changed function that the livepatch does not replace.
    Target,
    /// What could not be looked at.
    Unread,
}

impl Topic {
    pub const ALL: [Topic; 18] = [
        Topic::Layout,
        Topic::Data,
        Topic::Header,
        Topic::Init,
        Topic::Assembly,
        Topic::StaticKey,
        Topic::Tracepoint,
        Topic::PerCpu,
        Topic::Untraceable,
        Topic::Signature,
        Topic::Macro,
        Topic::Build,
        Topic::Files,
        Topic::EndlessLoop,
        Topic::Prerequisite,
        Topic::Syscall,
        Topic::Target,
        Topic::Unread,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Layout => "layout",
            Topic::Data => "data",
            Topic::Header => "header",
            Topic::Init => "init",
            Topic::Assembly => "assembly",
            Topic::StaticKey => "static-key",
            Topic::Tracepoint => "tracepoint",
            Topic::PerCpu => "per-cpu",
            Topic::Untraceable => "untraceable",
            Topic::Signature => "signature",
            Topic::Macro => "macro",
            Topic::Build => "build",
            Topic::Files => "files",
            Topic::EndlessLoop => "endless-loop",
            Topic::Prerequisite => "prerequisite",
            Topic::Syscall => "syscall",
            Topic::Target => "target",
            Topic::Unread => "unread",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Topic {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let known = Topic::ALL.into_iter().find(|topic| topic.as_str() == s);
        known.ok_or_else(|| format!("{} is no topic of findings", quoted(s)))
    }
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

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
        })
    }
}

/// As compilers write it, with the topic where they name the option that a warning is switched by.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {} [{}]", self.text, self.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_written_alike_everywhere() {
        for topic in Topic::ALL {
            assert_eq!(topic.as_str().parse(), Ok(topic));
            let json = serde_json::to_string(&topic).unwrap();
            assert_eq!(json, format!("\"{topic}\""));
        }
        assert!("Layout".parse::<Topic>().is_err());
    }

    #[test]
    fn a_finding_reads_like_a_compiler_s() {
        let mut finding = Finding {
            severity: Severity::Warning,
            topic: Topic::PerCpu,
            file: "fs/x.c".to_owned(),
            line: 12,
            symbol: "f".to_owned(),
            text: "f is odd".to_owned(),
        };
        assert_eq!(finding.to_string(), "warning: fs/x.c:12: f is odd [per-cpu]");
        finding.line = 0;
        assert_eq!(finding.to_string(), "warning: fs/x.c: f is odd [per-cpu]");
    }
}

//! A validated livepatch. A [`Draft`] holds what somebody sent; [`Spec::parse`] turns it into a [`Spec`] or into the
//! whole list of what is wrong with it. Code that holds a `Spec` has nothing left to check.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod draft;
mod scopes;

pub use draft::{Draft, FixDraft, TargetDraft};
pub use scopes::{Idle, scopes};

use crate::names::{
    ConfigName, Cve, FixName, FixScope, FunctionName, LivepatchName, ObjectName, SourcePath, SymbolName, quoted,
};
use crate::outcome::Digest;
use crate::{Arch, CodestreamFilter};

pub const MAX_TARGETS: usize = 100;
pub const MAX_FUNCTIONS: usize = 200;
/// Bytes of all targets together. Each assignment repeats them, and a worker is sent all its assignments at once.
pub const MAX_TARGETS_TEXT: usize = 48 << 10;
pub const MAX_AVOIDED: usize = 200;
/// Bytes of all avoided symbols' names together.
pub const MAX_AVOIDED_TEXT: usize = 16 << 10;
pub const MAX_FIXES: usize = 500;
/// Fixes of one scope: each assignment names them.
pub const MAX_FIXES_OF_SCOPE: usize = 64;
/// The largest fix patch, and all of them together, in bytes.
pub const MAX_FIX: u64 = 1 << 20;
pub const MAX_FIXES_SIZE: u64 = 64 << 20;
/// What one extraction may ask for, in bytes.
pub const MEMORY: std::ops::RangeInclusive<u64> = (64 << 20)..=(1 << 40);

/// What a user asks for, valid in every field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub name: LivepatchName,
    pub cve: Option<Cve>,
    /// At least one, each with another file.
    pub targets: Vec<Target>,
    pub codestreams: CodestreamFilter,
    /// Empty: every architecture the farm holds.
    pub archs: BTreeSet<Arch>,
    pub backend: Backend,
    /// Bytes that one extraction needs; `None`: what the farm takes it to need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default)]
    pub goal: Goal,
    /// What checks find wrong with symbols is only told, and stops nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub forgiving: bool,
    /// Symbols that are copied into the livepatch rather than externalized, where that can be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub avoid: BTreeSet<SymbolName>,
    /// What is applied to a codestream's sources before anything is extracted from them. In order, each scope with each name
    /// once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fixes: Vec<Fix>,
    /// The fixes are kept with the livepatch and not applied.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unpatched: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How far a livepatch goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Its targets are checked; what is extracted is decided when their findings are known.
    Checks,
    #[default]
    Sources,
}

/// A patch that fixes what the livepatch is for, stored by the digest of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    pub scope: FixScope,
    pub name: FixName,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// A source file, the functions to replace in it, its CONFIG and the object that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub file: SourcePath,
    /// At least one, none twice.
    pub functions: Vec<FunctionName>,
    pub config: ConfigName,
    /// Where the functions are looked for when `config` is `m`; with `y` they are in `vmlinux`, whatever this says.
    pub object: ObjectName,
}

/// The extraction tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    Native,
    Ccp,
    ClangExtract,
}

impl Backend {
    pub const ALL: [Backend; 3] = [Backend::Native, Backend::Ccp, Backend::ClangExtract];

    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Native => "native",
            Backend::Ccp => "ccp",
            Backend::ClangExtract => "clang-extract",
        }
    }

    /// The folder klp-build users know its outputs by.
    pub fn output_dir(self) -> &'static str {
        match self {
            Backend::Native => "native",
            Backend::Ccp => "ccp",
            Backend::ClangExtract => "ce",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Backend::ALL
            .into_iter()
            .find(|b| b.as_str() == s)
            .ok_or_else(|| format!("unknown backend {}; one of native, ccp, clang-extract", quoted(s)))
    }
}

impl Backend {
    /// Whether the tool reads kernels of this architecture. On those that it can't, the symbols that a source from
    /// another needs are verified.
    pub fn extracts(self, arch: Arch) -> bool {
        match self {
            Backend::Native => true,
            Backend::Ccp => matches!(arch, Arch::X86_64 | Arch::Aarch64),
            // Its fixed idea of registers and of inline assembly is x86_64's.
            Backend::ClangExtract => arch == Arch::X86_64,
        }
    }
}

/// One thing that is wrong with a draft: the field, as in `targets[0].file`, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub field: String,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn draft() -> Draft {
        Draft {
            name: "bsc1197597".into(),
            cve: "2022-1048".into(),
            targets: vec![TargetDraft {
                file: "sound/core/pcm.c".into(),
                functions: vec!["snd_pcm_attach_substream".into(), "snd_pcm_detach_substream".into()],
                config: "CONFIG_SND_PCM".into(),
                object: "snd-pcm".into(),
            }],
            codestreams: "debian12-6.1".into(),
            archs: vec!["x86_64".into()],
            backend: String::new(),
            ..Default::default()
        }
    }

    #[test]
    fn a_good_draft_parses_and_comes_back() {
        let spec = Spec::parse(&draft()).unwrap();
        assert_eq!(spec.backend, Backend::Native);
        assert_eq!(Spec::parse(&spec.to_draft()).unwrap(), spec);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    }

    #[test]
    fn every_violation_is_reported_at_once() {
        let mut bad = draft();
        bad.name = "../x".into();
        bad.cve = "CVE-2022-1048".into();
        bad.codestreams = "(".into();
        bad.archs.push("vax".into());
        bad.backend = "magic".into();
        bad.memory = 5;
        bad.targets[0].config = "SND_PCM".into();
        bad.targets[0].functions.push("snd_pcm_attach_substream".into());
        bad.targets.push(TargetDraft {
            file: "sound/core/pcm.c".into(),
            functions: vec!["a-b".into()],
            ..Default::default()
        });
        let fields: Vec<_> = Spec::parse(&bad).unwrap_err().into_iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "name",
                "cve",
                "targets[1].file",
                "targets[0].functions[2]",
                "targets[0].config",
                "targets[1].functions[0]",
                "targets[1].config",
                "codestreams",
                "archs[1]",
                "backend",
                "memory",
            ]
        );
    }

    #[test]
    fn empty_lists_are_named() {
        let fields: Vec<_> = Spec::parse(&Draft {
            name: "a".into(),
            ..Default::default()
        })
        .unwrap_err()
        .into_iter()
        .map(|v| v.field)
        .collect();
        assert_eq!(fields, ["targets"]);
    }

    pub(super) fn fix(scope: &str, name: &str) -> FixDraft {
        FixDraft {
            scope: scope.into(),
            name: name.into(),
            digest: Digest::of(name.as_bytes()).to_string(),
            size: 1,
        }
    }

    #[test]
    fn fixes_and_avoided_symbols_are_checked() {
        let mut bad = draft();
        bad.avoid = vec!["f".into(), "a/b".into()];
        bad.fixes = vec![fix("15.6", "a"), fix("15.6", "a"), fix("../x", "b"), fix("", "../c")];
        bad.fixes[0].size = MAX_FIX + 1;
        let fields: Vec<_> = Spec::parse(&bad).unwrap_err().into_iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "avoid[1]",
                "fixes[0].size",
                "fixes[1].name",
                "fixes[2].scope",
                "fixes[3].name"
            ]
        );
        let mut many = draft();
        many.fixes = (0..=MAX_FIXES_OF_SCOPE).map(|i| fix("all", &format!("{i}"))).collect();
        assert_eq!(Spec::parse(&many).unwrap_err()[0].field, "fixes");
    }

    #[test]
    fn what_is_decided_later_makes_no_other_submission() {
        let spec = Spec::parse(&draft()).unwrap();
        let later = Spec {
            backend: Backend::Ccp,
            goal: Goal::Checks,
            ..spec.clone()
        };
        assert!(spec.repeats(&later));
        assert!(!spec.repeats(&Spec {
            forgiving: true,
            ..spec.clone()
        }));
    }

    #[test]
    fn lists_are_bounded() {
        let mut big = draft();
        big.targets[0].functions = (0..=MAX_FUNCTIONS).map(|i| format!("f{i}")).collect();
        assert_eq!(Spec::parse(&big).unwrap_err()[0].field, "targets[0].functions");
        let long = |file: usize| TargetDraft {
            file: format!("{file:0>97}.c"),
            functions: (0..10).map(|i| format!("f{i:0>89}")).collect(),
            ..draft().targets[0].clone()
        };
        big.targets = (0..10).map(long).collect();
        let with = big.targets[0].text_len();
        big.targets = (0..MAX_TARGETS_TEXT / with).map(long).collect();
        assert!(Spec::parse(&big).is_ok());
        big.targets.push(long(99));
        assert_eq!(Spec::parse(&big).unwrap_err()[0].field, "targets");
    }
}

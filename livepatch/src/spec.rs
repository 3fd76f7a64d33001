//! A validated livepatch. A [`Draft`] holds what somebody sent; [`Spec::parse`] turns it into a [`Spec`] or into the
//! whole list of what is wrong with it. Code that holds a `Spec` has nothing left to check.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{ConfigName, Cve, FunctionName, LivepatchName, ObjectName, SourcePath, quoted};
use crate::{Arch, CodestreamFilter};

pub const MAX_TARGETS: usize = 100;
pub const MAX_FUNCTIONS: usize = 200;
/// Bytes of all targets together. Each assignment repeats them, and a worker is sent all its assignments at once.
pub const MAX_TARGETS_TEXT: usize = 48 << 10;
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

/// A spec as it arrives: any text in any field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    pub name: String,
    /// Empty: none.
    pub cve: String,
    pub targets: Vec<TargetDraft>,
    pub codestreams: String,
    pub archs: Vec<String>,
    /// Empty: native.
    pub backend: String,
    /// Bytes; 0: not said.
    pub memory: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetDraft {
    pub file: String,
    pub functions: Vec<String>,
    pub config: String,
    /// Empty: vmlinux.
    pub object: String,
}

impl TargetDraft {
    /// Bytes of all its names.
    fn text_len(&self) -> usize {
        let functions: usize = self.functions.iter().map(String::len).sum();
        self.file.len() + functions + self.config.len() + self.object.len()
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

/// Collects violations while the fields are parsed, so that one bad field does not hide the next.
#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            message: message.into(),
        });
    }

    fn parse<T: FromStr>(&mut self, field: impl Into<String>, text: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, T::Err::to_string(&error));
                None
            }
        }
    }
}

impl Spec {
    /// # Errors
    /// Every violation in the draft, in field order; never an empty list.
    pub fn parse(draft: &Draft) -> Result<Spec, Vec<Violation>> {
        let mut bad = Violations::default();
        let name = bad.parse("name", &draft.name);
        let cve = if draft.cve.is_empty() {
            Some(None)
        } else {
            bad.parse("cve", &draft.cve).map(Some)
        };
        let targets = parse_targets(&draft.targets, &mut bad);
        let codestreams = bad.parse("codestreams", &draft.codestreams);
        let archs: BTreeSet<Arch> = draft
            .archs
            .iter()
            .enumerate()
            .filter_map(|(i, arch)| bad.parse(format!("archs[{i}]"), arch))
            .collect();
        let backend = if draft.backend.is_empty() {
            Some(Backend::Native)
        } else {
            bad.parse("backend", &draft.backend)
        };
        if draft.memory != 0 && !MEMORY.contains(&draft.memory) {
            bad.add("memory", format!("{} bytes; it must be 64 MiB to 1 TiB", draft.memory));
        }
        match (name, cve, codestreams, backend) {
            (Some(name), Some(cve), Some(codestreams), Some(backend)) if bad.0.is_empty() => Ok(Spec {
                name,
                cve,
                targets,
                codestreams,
                archs,
                backend,
                memory: Some(draft.memory).filter(|memory| *memory > 0),
            }),
            _ => Err(bad.0),
        }
    }

    /// The draft that parses to this spec: for sending it over the wire.
    pub fn to_draft(&self) -> Draft {
        Draft {
            name: self.name.to_string(),
            cve: self.cve.as_ref().map(ToString::to_string).unwrap_or_default(),
            targets: self.targets.iter().map(Target::to_draft).collect(),
            codestreams: self.codestreams.as_str().to_owned(),
            archs: self.archs.iter().map(ToString::to_string).collect(),
            backend: self.backend.to_string(),
            memory: self.memory.unwrap_or_default(),
        }
    }
}

impl Target {
    pub fn to_draft(&self) -> TargetDraft {
        TargetDraft {
            file: self.file.to_string(),
            functions: self.functions.iter().map(ToString::to_string).collect(),
            config: self.config.to_string(),
            object: self.object.to_string(),
        }
    }

    /// # Errors
    /// Every violation, with fields named below `path`.
    pub fn parse(draft: &TargetDraft, path: &str) -> Result<Target, Vec<Violation>> {
        let mut bad = Violations::default();
        match parse_target(draft, path, &mut bad) {
            Some(target) if bad.0.is_empty() => Ok(target),
            _ => Err(bad.0),
        }
    }
}

fn parse_targets(drafts: &[TargetDraft], bad: &mut Violations) -> Vec<Target> {
    if drafts.is_empty() {
        bad.add("targets", "no target: name at least one file with its functions");
    }
    if drafts.len() > MAX_TARGETS {
        bad.add("targets", format!("{} targets; at most {MAX_TARGETS}", drafts.len()));
        return Vec::new();
    }
    let text: usize = drafts.iter().map(TargetDraft::text_len).sum();
    if text > MAX_TARGETS_TEXT {
        bad.add("targets", format!("{text} bytes of names; at most {MAX_TARGETS_TEXT}"));
        return Vec::new();
    }
    for (i, draft) in drafts.iter().enumerate() {
        if let Some(first) = drafts[..i].iter().position(|d| d.file == draft.file) {
            bad.add(
                format!("targets[{i}].file"),
                format!(
                    "{} is already targets[{first}]; name all functions of a file in one target",
                    quoted(&draft.file)
                ),
            );
        }
    }
    drafts
        .iter()
        .enumerate()
        .filter_map(|(i, d)| parse_target(d, &format!("targets[{i}]"), bad))
        .collect()
}

fn parse_target(draft: &TargetDraft, path: &str, bad: &mut Violations) -> Option<Target> {
    let file = bad.parse(format!("{path}.file"), &draft.file);
    let functions = parse_functions(&draft.functions, path, bad);
    let config = bad.parse(format!("{path}.config"), &draft.config);
    let object = if draft.object.is_empty() {
        Some(ObjectName::vmlinux())
    } else {
        bad.parse(format!("{path}.object"), &draft.object)
    };
    Some(Target {
        file: file?,
        functions,
        config: config?,
        object: object?,
    })
}

fn parse_functions(names: &[String], path: &str, bad: &mut Violations) -> Vec<FunctionName> {
    let field = format!("{path}.functions");
    if names.is_empty() {
        bad.add(&field, "no function: name at least one to replace");
    }
    if names.len() > MAX_FUNCTIONS {
        bad.add(&field, format!("{} functions; at most {MAX_FUNCTIONS}", names.len()));
        return Vec::new();
    }
    let mut parsed: Vec<FunctionName> = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let Some(function) = bad.parse(format!("{field}[{i}]"), name) else {
            continue;
        };
        if parsed.contains(&function) {
            bad.add(format!("{field}[{i}]"), format!("{} is named twice", quoted(name)));
        } else {
            parsed.push(function);
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
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
            memory: 0,
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

//! Drafts of specs, and how they are parsed: every field is looked at, so that all that is wrong is told at once.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{
    Backend, Fix, Goal, MAX_AVOIDED, MAX_AVOIDED_TEXT, MAX_FIX, MAX_FIXES, MAX_FIXES_OF_SCOPE, MAX_FIXES_SIZE,
    MAX_FUNCTIONS, MAX_TARGETS, MAX_TARGETS_TEXT, MEMORY, Spec, Target, Violation,
};
use crate::Arch;
use crate::names::{FixScope, FunctionName, ObjectName, SymbolName, quoted};

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
    /// Only checks, no sources.
    pub checks_only: bool,
    pub forgiving: bool,
    pub avoid: Vec<String>,
    pub fixes: Vec<FixDraft>,
    pub unpatched: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixDraft {
    /// Empty: all codestreams.
    pub scope: String,
    pub name: String,
    pub digest: String,
    pub size: u64,
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
    pub(super) fn text_len(&self) -> usize {
        let functions: usize = self.functions.iter().map(String::len).sum();
        self.file.len() + functions + self.config.len() + self.object.len()
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
        let avoid = parse_avoid(&draft.avoid, &mut bad);
        let fixes = parse_fixes(&draft.fixes, &mut bad);
        match (name, cve, codestreams, backend) {
            (Some(name), Some(cve), Some(codestreams), Some(backend)) if bad.0.is_empty() => Ok(Spec {
                name,
                cve,
                targets,
                codestreams,
                archs,
                backend,
                memory: Some(draft.memory).filter(|memory| *memory > 0),
                goal: if draft.checks_only { Goal::Checks } else { Goal::Sources },
                forgiving: draft.forgiving,
                avoid,
                fixes,
                unpatched: draft.unpatched,
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
            checks_only: self.goal == Goal::Checks,
            forgiving: self.forgiving,
            avoid: self.avoid.iter().map(ToString::to_string).collect(),
            fixes: self.fixes.iter().map(Fix::to_draft).collect(),
            unpatched: self.unpatched,
        }
    }

    /// Whether a submission of `other` repeats one of this: they differ at most in what is decided after the checks.
    pub fn repeats(&self, other: &Spec) -> bool {
        let undecided = |spec: &Spec| Spec {
            goal: Goal::Sources,
            backend: Backend::Native,
            avoid: BTreeSet::new(),
            unpatched: false,
            ..spec.clone()
        };
        undecided(self) == undecided(other)
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

impl Fix {
    pub fn to_draft(&self) -> FixDraft {
        FixDraft {
            scope: self.scope.to_string(),
            name: self.name.to_string(),
            digest: self.digest.to_string(),
            size: self.size,
        }
    }

    /// # Errors
    /// Every violation, with fields named below `path`.
    pub fn parse(draft: &FixDraft, path: &str) -> Result<Fix, Vec<Violation>> {
        let mut bad = Violations::default();
        match parse_fix(draft, path, &mut bad) {
            Some(fix) if bad.0.is_empty() => Ok(fix),
            _ => Err(bad.0),
        }
    }
}

fn parse_avoid(names: &[String], bad: &mut Violations) -> BTreeSet<SymbolName> {
    if names.len() > MAX_AVOIDED {
        bad.add("avoid", format!("{} symbols; at most {MAX_AVOIDED}", names.len()));
        return BTreeSet::new();
    }
    let text: usize = names.iter().map(String::len).sum();
    if text > MAX_AVOIDED_TEXT {
        bad.add("avoid", format!("{text} bytes of names; at most {MAX_AVOIDED_TEXT}"));
        return BTreeSet::new();
    }
    let parsed = names
        .iter()
        .enumerate()
        .filter_map(|(i, name)| bad.parse(format!("avoid[{i}]"), name));
    parsed.collect()
}

fn parse_fixes(drafts: &[FixDraft], bad: &mut Violations) -> Vec<Fix> {
    if drafts.len() > MAX_FIXES {
        bad.add("fixes", format!("{} patches; at most {MAX_FIXES}", drafts.len()));
        return Vec::new();
    }
    let mut fixes: Vec<Fix> = Vec::with_capacity(drafts.len());
    for (i, draft) in drafts.iter().enumerate() {
        let Some(fix) = parse_fix(draft, &format!("fixes[{i}]"), bad) else {
            continue;
        };
        if fixes.iter().any(|f| f.scope == fix.scope && f.name == fix.name) {
            bad.add(
                format!("fixes[{i}].name"),
                format!("{} is named twice in {}", quoted(&draft.name), fix.scope),
            );
        }
        fixes.push(fix);
    }
    let crowded = fixes.iter().map(|f| &f.scope).find(|scope| {
        let of_scope = fixes.iter().filter(|f| f.scope == **scope);
        of_scope.count() > MAX_FIXES_OF_SCOPE
    });
    if let Some(scope) = crowded {
        bad.add(
            "fixes",
            format!("more than {MAX_FIXES_OF_SCOPE} patches are for {scope}"),
        );
    }
    let total: u64 = fixes.iter().map(|f| f.size).sum();
    if total > MAX_FIXES_SIZE {
        bad.add("fixes", format!("{total} bytes together; at most {MAX_FIXES_SIZE}"));
    }
    fixes
}

fn parse_fix(draft: &FixDraft, path: &str, bad: &mut Violations) -> Option<Fix> {
    let scope = match draft.scope.as_str() {
        "" => Some(FixScope::all()),
        scope => bad.parse(format!("{path}.scope"), scope),
    };
    let name = bad.parse(format!("{path}.name"), &draft.name);
    let digest = bad.parse(format!("{path}.digest"), &draft.digest);
    if draft.size > MAX_FIX {
        bad.add(
            format!("{path}.size"),
            format!("{} bytes; at most {MAX_FIX}", draft.size),
        );
    }
    Some(Fix {
        scope: scope?,
        name: name?,
        digest: digest?,
        size: draft.size,
    })
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

//! What an attempt found, target by target: the evidence a person reviews.

use serde::{Deserialize, Serialize};

use crate::fix::lint::Finding;
use crate::names::{FunctionName, ObjectName, SourcePath};
use crate::provenance::Origin;
use crate::words::amount;

/// What a successful or failed attempt tells about its targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Report {
    Check(CheckReport),
    Extract(ExtractReport),
    Verify(VerifyReport),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    pub targets: Vec<TargetCheck>,
    /// What came of the livepatch's fixes here; nothing if it has none, or none is needed.
    #[serde(default, skip_serializing_if = "FixesCheck::is_empty")]
    pub fixes: FixesCheck,
}

/// What came of applying a livepatch's fixes to a kernel's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixesCheck {
    /// The first patch that does not apply, in a sentence that names codestream, arch, patch, file and hunk. Empty: all do.
    pub problems: Vec<String>,
    /// Where fuzz was needed, and what has no effect.
    pub warnings: Vec<String>,
    /// What makes a livepatch of them hard, and what it does not replace; warnings first.
    pub findings: Vec<Finding>,
    /// How many more findings the attempt's log has.
    #[serde(default)]
    pub omitted: u32,
}

impl FixesCheck {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a CONFIG is set on one codestream and architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigValue {
    #[serde(rename = "y")]
    BuiltIn,
    #[serde(rename = "m")]
    Module,
}

impl ConfigValue {
    pub fn as_str(self) -> &'static str {
        match self {
            ConfigValue::BuiltIn => "y",
            ConfigValue::Module => "m",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetCheck {
    pub file: SourcePath,
    /// `None`: not set, or neither y nor m.
    pub config: Option<ConfigValue>,
    /// The object that holds the functions here; `None` if it was not found.
    pub object: Option<ObjectName>,
    /// The object's file below the folder of modules, as in `kernel/sound/core/snd-pcm.ko`; `None` for vmlinux.
    #[serde(default)]
    pub module_path: Option<String>,
    /// Why this kernel needs no livepatch of this file, such as a CONFIG that is not set: nothing is wrong, and nothing is
    /// extracted.
    #[serde(default)]
    pub left_out: Option<String>,
    /// The functions that are in the object's symbol table.
    #[serde(default)]
    pub functions: Vec<FunctionCheck>,
    /// What is wrong, each in a sentence that names codestream, arch, file and symbol, and what would fix it.
    pub problems: Vec<String>,
    /// What a reviewer should know though it stops nothing.
    pub warnings: Vec<String>,
}

impl CheckReport {
    /// All that is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.targets
            .iter()
            .flat_map(|t| &t.problems)
            .chain(&self.fixes.problems)
    }

    /// Whether nothing is to be patched here, and nothing is wrong.
    pub fn leaves_out(&self) -> bool {
        !self.targets.is_empty()
            && self
                .targets
                .iter()
                .all(|t| t.left_out.is_some() && t.problems.is_empty())
    }
}

/// A function that its object has, as the kernel's own livepatching sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCheck {
    pub function: FunctionName,
    /// Which of the object's symbols of this name, from 1, in the order the kernel looks them up; 0: it is the only one.
    pub sympos: u32,
    pub traced: Traced,
    /// What the compiler made of it beside it, as in `f.isra.0`.
    pub clones: Vec<String>,
    /// Functions that hold an inlined copy, which stays as it is unless they are patched too.
    pub inlined_into: Vec<String>,
}

/// Whether ftrace has a location at a function's entry: only then can the kernel divert its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traced {
    Yes,
    No,
    /// The tree does not tell.
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractReport {
    /// The tool and its version.
    pub tool: String,
    /// The kernel has indirect branch tracking: externalized symbols are resolved by relocation, not by kallsyms.
    #[serde(default)]
    pub ibt: bool,
    pub targets: Vec<TargetExtraction>,
    /// What it was made with; `None` in reports of former versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
}

/// Which symbols that other architectures' sources externalize are on this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub symbols: Vec<VerifiedSymbol>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VerifiedSymbol {
    /// The object that was asked, by its name where the source comes from.
    pub object: ObjectName,
    pub symbol: String,
    /// The object that holds it here: what is a module there may be built in here. `None`: it is missing.
    pub found_in: Option<ObjectName>,
    /// Its position among namesakes there; 0: it is the only one.
    pub sympos: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetExtraction {
    pub file: SourcePath,
    /// The object that is patched here.
    pub object: ObjectName,
    /// The name of the artifact that holds the source.
    pub source_artifact: String,
    pub patched: Vec<PatchedFunction>,
    pub externalized: Vec<ExternalizedSymbol>,
    pub warnings: Vec<String>,
    pub compile: CompileCheck,
    /// Wall time of the tool, in milliseconds.
    pub tool_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchedFunction {
    pub function: FunctionName,
    /// The function's name in the livepatch: `klpp_` before the original's.
    pub replacement: FunctionName,
    /// A C declaration of the replacement, with its semicolon.
    pub prototype: String,
    /// The function's position among namesakes in its object, from 1; 0: it is the only one.
    #[serde(default)]
    pub sympos: u32,
}

/// A symbol that the livepatch reaches at run time because a module can't link to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExternalizedSymbol {
    pub symbol: String,
    /// The object that provides it: `vmlinux` or a module.
    pub object: ObjectName,
    /// What the source calls it: a pointer variable, `klpe_` before the symbol's name, or the symbol itself.
    pub variable: String,
    /// Its position among namesakes in its object, from 1; 0: it is the only one.
    #[serde(default)]
    pub sympos: u32,
}

/// Whether the extracted source compiles with the kernel's own compiler and flags, and could be linked and loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileCheck {
    /// The compiler accepted the source, every replacement is defined, nothing is unresolved.
    pub passed: bool,
    /// The compiler's first errors.
    pub errors: Vec<String>,
    /// Replacements that the object does not define.
    pub missing_functions: Vec<String>,
    /// Undefined symbols that are neither exported nor externalized.
    pub unresolved: Vec<String>,
}

impl CompileCheck {
    /// What failed, in one line; empty if it passed.
    pub fn summary(&self) -> String {
        if self.passed {
            return String::new();
        }
        let mut parts = Vec::new();
        if let Some(first) = self.errors.first() {
            parts.push(match self.errors.len() {
                1 => first.clone(),
                n => format!("{first} (and {})", amount(n - 1, "more error", "more errors")),
            });
        }
        if !self.missing_functions.is_empty() {
            parts.push(format!("not defined: {}", self.missing_functions.join(", ")));
        }
        if !self.unresolved.is_empty() {
            parts.push(format!("unresolved: {}", self.unresolved.join(", ")));
        }
        parts.join("; ")
    }
}

//! What an attempt found, target by target: the evidence a person reviews.

use serde::{Deserialize, Serialize};

use crate::names::{FunctionName, ObjectName, SourcePath};

/// What a successful or failed attempt tells about its targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Report {
    Check(CheckReport),
    Extract(ExtractReport),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    pub targets: Vec<TargetCheck>,
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
    /// The functions that are in the object's symbol table.
    pub functions_found: Vec<FunctionName>,
    /// What is wrong, each in a sentence that names codestream, arch, file and symbol, and what would fix it.
    pub problems: Vec<String>,
    /// What a reviewer should know though it stops nothing.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractReport {
    /// The tool and its version.
    pub tool: String,
    pub targets: Vec<TargetExtraction>,
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
}

/// A symbol that the livepatch reaches at run time because a module can't link to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExternalizedSymbol {
    pub symbol: String,
    /// The object that provides it: `vmlinux` or a module.
    pub object: ObjectName,
    /// The pointer variable that holds its address, `klpe_` before the symbol's name.
    pub variable: String,
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
                n => format!("{first} (and {} more errors)", n - 1),
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

//! What attempts reported, as it is shown.

use serde::Serialize;
use utoipa::ToSchema;

use super::text;
use crate::v1;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Fixes {
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    pub findings: Vec<FixFinding>,
    pub omitted: u32,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FixFinding {
    pub severity: &'static str,
    pub topic: String,
    pub file: String,
    pub line: u32,
    pub symbol: String,
    pub text: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    pub file: String,
    pub config_value: Option<String>,
    pub object: Option<String>,
    pub module_path: Option<String>,
    pub left_out: Option<String>,
    pub functions: Vec<Function>,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Function {
    pub function: String,
    pub sympos: u32,
    pub traced: Option<bool>,
    pub clones: Vec<String>,
    pub inlined_into: Vec<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Extraction {
    pub file: String,
    pub object: String,
    pub tool: String,
    pub tool_ms: u64,
    pub patched: Vec<Patched>,
    pub externalized: Vec<Externalized>,
    pub warnings: Vec<String>,
    pub compile_check: CompileCheck,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Patched {
    pub function: String,
    pub replacement: String,
    pub prototype: String,
    pub sympos: u32,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Externalized {
    pub symbol: String,
    pub object: String,
    pub variable: String,
    pub sympos: u32,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Verified {
    pub symbol: String,
    pub object: String,
    /// `None`: it is missing here.
    pub found_in: Option<String>,
    pub sympos: u32,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CompileCheck {
    pub passed: bool,
    pub errors: Vec<String>,
    pub missing_functions: Vec<String>,
    pub unresolved: Vec<String>,
}

pub(super) type Reports = (Vec<Check>, Option<Fixes>, Vec<Extraction>, Vec<Verified>);

pub(super) fn report(report: Option<v1::Report>) -> Reports {
    match report.and_then(|r| r.report) {
        None => Reports::default(),
        Some(v1::report::Report::Check(check)) => {
            let checks = check.targets.into_iter().map(Check::from).collect();
            (checks, check.fixes.map(Fixes::from), Vec::new(), Vec::new())
        }
        Some(v1::report::Report::Extract(extract)) => {
            let tool = extract.tool;
            (
                Vec::new(),
                None,
                extract.targets.into_iter().map(|t| extraction(t, &tool)).collect(),
                Vec::new(),
            )
        }
        Some(v1::report::Report::Verify(verify)) => {
            let symbols = verify.symbols.into_iter().map(Verified::from).collect();
            (Vec::new(), None, Vec::new(), symbols)
        }
    }
}

impl From<v1::FixesCheck> for Fixes {
    fn from(f: v1::FixesCheck) -> Self {
        let finding = |f: v1::FixFinding| FixFinding {
            severity: if f.warning { "warning" } else { "note" },
            topic: f.topic,
            file: f.file,
            line: f.line,
            symbol: f.symbol,
            text: f.text,
        };
        Fixes {
            problems: f.problems,
            warnings: f.warnings,
            findings: f.findings.into_iter().map(finding).collect(),
            omitted: f.omitted,
        }
    }
}

impl From<v1::TargetCheck> for Check {
    fn from(c: v1::TargetCheck) -> Self {
        Check {
            file: c.file,
            config_value: text(c.config_value),
            object: text(c.object),
            module_path: text(c.module_path),
            left_out: text(c.left_out),
            functions: c.functions.into_iter().map(Function::from).collect(),
            problems: c.problems,
            warnings: c.warnings,
        }
    }
}

impl From<v1::VerifiedSymbol> for Verified {
    fn from(s: v1::VerifiedSymbol) -> Self {
        Verified {
            symbol: s.symbol,
            object: s.object,
            found_in: text(s.found_in),
            sympos: s.sympos,
        }
    }
}

impl From<v1::FunctionCheck> for Function {
    fn from(f: v1::FunctionCheck) -> Self {
        Function {
            traced: match f.traced() {
                v1::Traced::Yes => Some(true),
                v1::Traced::No => Some(false),
                v1::Traced::Unspecified => None,
            },
            function: f.function,
            sympos: f.sympos,
            clones: f.clones,
            inlined_into: f.inlined_into,
        }
    }
}

fn extraction(t: v1::TargetExtraction, tool: &str) -> Extraction {
    let compile = t.compile.unwrap_or_default();
    Extraction {
        file: t.file,
        object: t.object,
        tool: tool.to_owned(),
        tool_ms: t.tool_ms,
        patched: t
            .patched
            .into_iter()
            .map(|p| Patched {
                function: p.function,
                replacement: p.replacement,
                prototype: p.prototype,
                sympos: p.sympos,
            })
            .collect(),
        externalized: t
            .externalized
            .into_iter()
            .map(|e| Externalized {
                symbol: e.symbol,
                object: e.object,
                variable: e.variable,
                sympos: e.sympos,
            })
            .collect(),
        warnings: t.warnings,
        compile_check: CompileCheck {
            passed: compile.passed,
            errors: compile.errors,
            missing_functions: compile.missing_functions,
            unresolved: compile.unresolved,
        },
    }
}

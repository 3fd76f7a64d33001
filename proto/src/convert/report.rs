//! Reports on the wire and in the domain.

use klp_livepatch::fix::lint::{Finding, Severity, Topic};
use klp_livepatch::names::{ObjectName, SourcePath};
use klp_livepatch::report::{
    CheckReport, CompileCheck, ConfigValue, ExternalizedSymbol, ExtractReport, FixesCheck, FunctionCheck,
    PatchedFunction, Report, TargetCheck, TargetExtraction, Traced, VerifiedSymbol, VerifyReport,
};
use klp_livepatch::spec::Violation;

use super::{Result, parse, required, violation};
use crate::v1;

impl From<&Report> for v1::Report {
    fn from(report: &Report) -> Self {
        use v1::report::Report as Wire;
        let wire = match report {
            Report::Check(check) => Wire::Check(check.into()),
            Report::Extract(extract) => Wire::Extract(extract.into()),
            Report::Verify(verify) => Wire::Verify(verify.into()),
        };
        v1::Report { report: Some(wire) }
    }
}

impl TryFrom<v1::Report> for Report {
    type Error = Violation;

    fn try_from(wire: v1::Report) -> Result<Self> {
        use v1::report::Report as Wire;
        Ok(match required("report", wire.report)? {
            Wire::Check(check) => Report::Check(CheckReport {
                targets: check
                    .targets
                    .into_iter()
                    .map(TargetCheck::try_from)
                    .collect::<Result<_>>()?,
                fixes: FixesCheck::try_from(check.fixes.unwrap_or_default())?,
            }),
            Wire::Extract(extract) => Report::Extract(ExtractReport {
                tool: extract.tool,
                ibt: extract.ibt,
                origin: extract
                    .origin
                    .map(|origin| origin.try_into().map(Box::new))
                    .transpose()?,
                targets: extract
                    .targets
                    .into_iter()
                    .map(TargetExtraction::try_from)
                    .collect::<Result<_>>()?,
            }),
            Wire::Verify(verify) => Report::Verify(VerifyReport {
                symbols: verify
                    .symbols
                    .into_iter()
                    .map(VerifiedSymbol::try_from)
                    .collect::<Result<_>>()?,
            }),
        })
    }
}

impl From<&CheckReport> for v1::CheckReport {
    fn from(report: &CheckReport) -> Self {
        v1::CheckReport {
            targets: report
                .targets
                .iter()
                .map(|t| v1::TargetCheck {
                    file: t.file.to_string(),
                    config_value: t.config.map(ConfigValue::as_str).unwrap_or_default().to_owned(),
                    object: t.object.as_ref().map(ToString::to_string).unwrap_or_default(),
                    functions: t.functions.iter().map(v1::FunctionCheck::from).collect(),
                    left_out: t.left_out.clone().unwrap_or_default(),
                    module_path: t.module_path.clone().unwrap_or_default(),
                    problems: t.problems.clone(),
                    warnings: t.warnings.clone(),
                })
                .collect(),
            fixes: Some(&report.fixes).filter(|fixes| !fixes.is_empty()).map(Into::into),
        }
    }
}

impl From<&FixesCheck> for v1::FixesCheck {
    fn from(fixes: &FixesCheck) -> Self {
        v1::FixesCheck {
            problems: fixes.problems.clone(),
            warnings: fixes.warnings.clone(),
            findings: fixes.findings.iter().map(v1::FixFinding::from).collect(),
            omitted: fixes.omitted,
        }
    }
}

impl TryFrom<v1::FixesCheck> for FixesCheck {
    type Error = Violation;

    fn try_from(wire: v1::FixesCheck) -> Result<Self> {
        Ok(FixesCheck {
            problems: wire.problems,
            warnings: wire.warnings,
            findings: wire
                .findings
                .into_iter()
                .map(Finding::try_from)
                .collect::<Result<_>>()?,
            omitted: wire.omitted,
        })
    }
}

impl From<&Finding> for v1::FixFinding {
    fn from(finding: &Finding) -> Self {
        v1::FixFinding {
            warning: finding.severity == Severity::Warning,
            topic: finding.topic.to_string(),
            file: finding.file.clone(),
            // No file of a kernel has that many lines.
            line: u32::try_from(finding.line).unwrap_or(u32::MAX),
            symbol: finding.symbol.clone(),
            text: finding.text.clone(),
        }
    }
}

impl TryFrom<v1::FixFinding> for Finding {
    type Error = Violation;

    fn try_from(wire: v1::FixFinding) -> Result<Self> {
        let topic: Topic = wire
            .topic
            .parse()
            .map_err(|why: String| violation("report.fixes.findings.topic", why))?;
        Ok(Finding {
            severity: if wire.warning {
                Severity::Warning
            } else {
                Severity::Note
            },
            topic,
            file: wire.file,
            line: wire.line as usize,
            symbol: wire.symbol,
            text: wire.text,
        })
    }
}

impl TryFrom<v1::TargetCheck> for TargetCheck {
    type Error = Violation;

    fn try_from(wire: v1::TargetCheck) -> Result<Self> {
        Ok(TargetCheck {
            file: parse::<SourcePath>("report.file", &wire.file)?,
            config: match wire.config_value.as_str() {
                "" => None,
                "y" => Some(ConfigValue::BuiltIn),
                "m" => Some(ConfigValue::Module),
                _ => return Err(violation("report.config_value", "not y, m or empty")),
            },
            object: match wire.object.as_str() {
                "" => None,
                object => Some(parse::<ObjectName>("report.object", object)?),
            },
            module_path: Some(wire.module_path).filter(|path| !path.is_empty()),
            left_out: Some(wire.left_out).filter(|why| !why.is_empty()),
            functions: wire
                .functions
                .into_iter()
                .map(FunctionCheck::try_from)
                .collect::<Result<_>>()?,
            problems: wire.problems,
            warnings: wire.warnings,
        })
    }
}

impl From<&FunctionCheck> for v1::FunctionCheck {
    fn from(f: &FunctionCheck) -> Self {
        v1::FunctionCheck {
            function: f.function.to_string(),
            sympos: f.sympos,
            traced: match f.traced {
                Traced::Yes => v1::Traced::Yes,
                Traced::No => v1::Traced::No,
                Traced::Unknown => v1::Traced::Unspecified,
            }
            .into(),
            clones: f.clones.clone(),
            inlined_into: f.inlined_into.clone(),
        }
    }
}

impl TryFrom<v1::FunctionCheck> for FunctionCheck {
    type Error = Violation;

    fn try_from(wire: v1::FunctionCheck) -> Result<Self> {
        Ok(FunctionCheck {
            function: parse("report.functions.function", &wire.function)?,
            sympos: wire.sympos,
            traced: match v1::Traced::try_from(wire.traced) {
                Ok(v1::Traced::Yes) => Traced::Yes,
                Ok(v1::Traced::No) => Traced::No,
                Ok(v1::Traced::Unspecified) | Err(_) => Traced::Unknown,
            },
            clones: wire.clones,
            inlined_into: wire.inlined_into,
        })
    }
}

impl From<&VerifyReport> for v1::VerifyReport {
    fn from(report: &VerifyReport) -> Self {
        let symbol = |s: &VerifiedSymbol| v1::VerifiedSymbol {
            object: s.object.to_string(),
            symbol: s.symbol.clone(),
            found_in: s.found_in.as_ref().map(ToString::to_string).unwrap_or_default(),
            sympos: s.sympos,
        };
        v1::VerifyReport {
            symbols: report.symbols.iter().map(symbol).collect(),
        }
    }
}

impl TryFrom<v1::VerifiedSymbol> for VerifiedSymbol {
    type Error = Violation;

    fn try_from(wire: v1::VerifiedSymbol) -> Result<Self> {
        Ok(VerifiedSymbol {
            object: parse("report.symbols.object", &wire.object)?,
            symbol: wire.symbol,
            found_in: match wire.found_in.as_str() {
                "" => None,
                object => Some(parse("report.symbols.found_in", object)?),
            },
            sympos: wire.sympos,
        })
    }
}

impl From<&ExtractReport> for v1::ExtractReport {
    fn from(report: &ExtractReport) -> Self {
        v1::ExtractReport {
            tool: report.tool.clone(),
            ibt: report.ibt,
            origin: report.origin.as_deref().map(Into::into),
            targets: report.targets.iter().map(v1::TargetExtraction::from).collect(),
        }
    }
}

impl From<&TargetExtraction> for v1::TargetExtraction {
    fn from(t: &TargetExtraction) -> Self {
        v1::TargetExtraction {
            file: t.file.to_string(),
            object: t.object.to_string(),
            source_artifact: t.source_artifact.clone(),
            patched: t
                .patched
                .iter()
                .map(|p| v1::PatchedFunction {
                    function: p.function.to_string(),
                    replacement: p.replacement.to_string(),
                    prototype: p.prototype.clone(),
                    sympos: p.sympos,
                })
                .collect(),
            externalized: t
                .externalized
                .iter()
                .map(|e| v1::ExternalizedSymbol {
                    symbol: e.symbol.clone(),
                    object: e.object.to_string(),
                    variable: e.variable.clone(),
                    sympos: e.sympos,
                })
                .collect(),
            warnings: t.warnings.clone(),
            compile: Some(v1::CompileCheck {
                passed: t.compile.passed,
                errors: t.compile.errors.clone(),
                missing_functions: t.compile.missing_functions.clone(),
                unresolved: t.compile.unresolved.clone(),
            }),
            tool_ms: t.tool_ms,
        }
    }
}

impl TryFrom<v1::TargetExtraction> for TargetExtraction {
    type Error = Violation;

    fn try_from(wire: v1::TargetExtraction) -> Result<Self> {
        let compile = required("report.compile", wire.compile)?;
        Ok(TargetExtraction {
            file: parse("report.file", &wire.file)?,
            object: parse("report.object", &wire.object)?,
            source_artifact: wire.source_artifact,
            patched: wire
                .patched
                .into_iter()
                .map(|p| {
                    Ok(PatchedFunction {
                        function: parse("report.patched.function", &p.function)?,
                        replacement: parse("report.patched.replacement", &p.replacement)?,
                        prototype: p.prototype,
                        sympos: p.sympos,
                    })
                })
                .collect::<Result<_>>()?,
            externalized: wire
                .externalized
                .into_iter()
                .map(|e| {
                    Ok(ExternalizedSymbol {
                        object: parse("report.externalized.object", &e.object)?,
                        symbol: e.symbol,
                        variable: e.variable,
                        sympos: e.sympos,
                    })
                })
                .collect::<Result<_>>()?,
            warnings: wire.warnings,
            compile: CompileCheck {
                passed: compile.passed,
                errors: compile.errors,
                missing_functions: compile.missing_functions,
                unresolved: compile.unresolved,
            },
            tool_ms: wire.tool_ms,
        })
    }
}

//! What checks and extractions warn of, as a section of a table.

use std::fmt::Write as _;

use klp_proto::v1;
use klp_proto::view::findings::{Finding, found};

/// How many findings a table shows; `-O json` has them all.
const SHOWN: usize = 30;
/// How many platforms a finding names.
const NAMED: usize = 4;

/// The findings as a section of a table, empty if there are none.
pub fn describe(tasks: &[v1::Task]) -> String {
    let found = found(tasks);
    let mut text = String::new();
    if found.is_empty() {
        return text;
    }
    text.push_str("\nTo be looked at:\n");
    for Finding { sentence, platforms } in found.iter().take(SHOWN) {
        let named = platforms.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = match platforms.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {sentence}\n    {named}{more}");
    }
    if found.len() > SHOWN {
        let _ = writeln!(text, "  … and {} more; --output json has them all", found.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use klp_proto::v1::report::Report;

    use super::*;

    #[test]
    fn a_sentence_is_told_once_with_whom_it_concerns() {
        let task = |codestream: &str, warning: &str| v1::Task {
            platform: Some(v1::Platform {
                codestream: codestream.into(),
                arch: "x86_64".into(),
            }),
            report: Some(v1::Report {
                report: Some(Report::Check(v1::CheckReport {
                    targets: vec![v1::TargetCheck {
                        warnings: vec![warning.into()],
                        ..Default::default()
                    }],
                    fixes: None,
                })),
            }),
            ..Default::default()
        };
        let tasks = [
            task("15.6u1", "15.6u1/x86_64: a.c: f was inlined into g"),
            task("15.6u2", "15.6u2/x86_64: a.c: f was inlined into g"),
            task("15.6u3", "15.6u3/x86_64: a.c: other"),
        ];
        insta::assert_snapshot!(describe(&tasks), @r"

        To be looked at:
          a.c: f was inlined into g
            15.6u1/x86_64, 15.6u2/x86_64
          a.c: other
            15.6u3/x86_64
        ");
        assert_eq!(describe(&[]), "");
    }

    #[test]
    fn findings_of_fixes_are_gathered_over_their_lines_and_notes_come_last() {
        let finding = |warning, line, text: &str| v1::FixFinding {
            warning,
            topic: "data".into(),
            file: "fs/x.c".into(),
            line,
            symbol: "v".into(),
            text: text.into(),
        };
        let task = |codestream: &str, findings: Vec<v1::FixFinding>| v1::Task {
            platform: Some(v1::Platform {
                codestream: codestream.into(),
                arch: "x86_64".into(),
            }),
            report: Some(v1::Report {
                report: Some(Report::Check(v1::CheckReport {
                    targets: Vec::new(),
                    fixes: Some(v1::FixesCheck {
                        warnings: vec![format!("{codestream}/x86_64: patch `a` needed fuzz")],
                        findings,
                        ..Default::default()
                    }),
                })),
            }),
            ..Default::default()
        };
        let mut extracted = task("15.6u1", Vec::new());
        extracted.report = Some(v1::Report {
            report: Some(Report::Extract(v1::ExtractReport {
                targets: vec![v1::TargetExtraction {
                    file: "fs/x.c".into(),
                    warnings: vec!["15.6u1/x86_64: patch `a` needed fuzz".into(), "odd".into()],
                    ..Default::default()
                }],
                ..Default::default()
            })),
        });
        let mut third = task(
            "15.6u3",
            vec![finding(true, 12, "v changed"), finding(true, 0, "as a whole")],
        );
        if let Some(Report::Check(check)) = third.report.as_mut().and_then(|r| r.report.as_mut()) {
            check.fixes.as_mut().unwrap().omitted = 7;
        }
        let tasks = [
            task(
                "15.6u1",
                vec![finding(false, 1, "w is added"), finding(true, 12, "v changed")],
            ),
            task(
                "15.6u2",
                vec![finding(true, 9, "v changed"), finding(true, 3, "u changed")],
            ),
            third,
            extracted,
        ];
        insta::assert_snapshot!(describe(&tasks), @r"

        To be looked at:
          patch `a` needed fuzz
            15.6u1/x86_64, 15.6u2/x86_64, 15.6u3/x86_64
          warning: fs/x.c:9 to 12: v changed [data]
            15.6u1/x86_64, 15.6u2/x86_64, 15.6u3/x86_64
          warning: fs/x.c:3: u changed [data]
            15.6u2/x86_64
          warning: fs/x.c: as a whole [data]
            15.6u3/x86_64
          fs/x.c: odd
            15.6u1/x86_64
          note: fs/x.c:1: w is added [data]
            15.6u1/x86_64
          … and 7 more of the fixes; the log of the check has them all
            15.6u3/x86_64
        ");
    }

    #[test]
    fn what_the_last_round_still_needs_and_is_missing_is_told() {
        let task = |arch: &str, round, report| v1::Task {
            platform: Some(v1::Platform {
                codestream: "15.6u1".into(),
                arch: arch.into(),
            }),
            round,
            report: Some(v1::Report { report: Some(report) }),
            ..Default::default()
        };
        let extract = |symbols: &[&str]| {
            let externalized = symbols.iter().map(|symbol| v1::ExternalizedSymbol {
                symbol: (*symbol).into(),
                object: "vmlinux".into(),
                ..Default::default()
            });
            Report::Extract(v1::ExtractReport {
                targets: vec![v1::TargetExtraction {
                    externalized: externalized.collect(),
                    ..Default::default()
                }],
                ..Default::default()
            })
        };
        let verify = |symbol: &str, found_in: &str| {
            Report::Verify(v1::VerifyReport {
                symbols: vec![v1::VerifiedSymbol {
                    object: "vmlinux".into(),
                    symbol: symbol.into(),
                    found_in: found_in.into(),
                    sympos: 0,
                }],
            })
        };
        let tasks = [
            task("x86_64", 1, extract(&["copied", "kept", "there"])),
            task("s390x", 1, verify("copied", "")),
            task("x86_64", 2, extract(&["kept", "there"])),
            task("s390x", 2, verify("kept", "")),
            task("s390x", 2, verify("there", "vmlinux")),
        ];
        insta::assert_snapshot!(describe(&tasks), @r"

        To be looked at:
          kept of vmlinux is needed by the source and missing here: the livepatch would not load
            15.6u1/s390x
        ");
    }
}

//! What checks and extractions warn of, and what sources need that is missing; each sentence once with whom it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use klp_proto::v1;
use klp_proto::v1::report::Report;

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
    for Found {
        saying,
        lines,
        platforms,
    } in found.iter().take(SHOWN)
    {
        let named = platforms.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = match platforms.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {}\n    {named}{more}", saying.at(*lines));
    }
    if found.len() > SHOWN {
        let _ = writeln!(text, "  … and {} more; --output json has them all", found.len() - SHOWN);
    }
    text
}

/// What is said, apart from the line: that is another on each codestream, and the same may be said of several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Saying {
    /// Only worth knowing: told after all else.
    note: bool,
    before: String,
    /// What follows the line.
    after: String,
}

impl Saying {
    fn plain(sentence: &str) -> Self {
        Self {
            note: false,
            before: sentence.to_owned(),
            after: String::new(),
        }
    }

    /// The whole of it; lines are from the first to the last, 0 for none.
    fn at(&self, lines: (u32, u32)) -> String {
        let Self { before, after, .. } = self;
        match lines {
            (_, 0) => format!("{before}{after}"),
            (first, last) if first == last => format!("{before}:{first}{after}"),
            (first, last) => format!("{before}:{first} to {last}{after}"),
        }
    }
}

impl From<&v1::FixFinding> for Saying {
    fn from(finding: &v1::FixFinding) -> Self {
        let severity = if finding.warning { "warning" } else { "note" };
        Self {
            note: !finding.warning,
            before: format!("{severity}: {}", finding.file),
            after: format!(": {} [{}]", finding.text, finding.topic),
        }
    }
}

/// What is said, and of which platforms.
struct Found {
    saying: Saying,
    lines: (u32, u32),
    platforms: Vec<String>,
}

/// All that is said, in the order it comes up, notes last.
fn found(tasks: &[v1::Task]) -> Vec<Found> {
    let mut order: Vec<Found> = Vec::new();
    let mut places: BTreeMap<Saying, usize> = BTreeMap::new();
    let needed = needed(tasks);
    for task in tasks {
        let of = task.platform.clone().unwrap_or_default();
        let platform = format!("{}/{}", of.codestream, of.arch);
        let needed = needed.get(of.codestream.as_str());
        let sentences = warnings(task, &platform).into_iter().chain(missing(task, needed));
        let sayings = sentences.map(|sentence| (Saying::plain(&sentence), 0));
        for (saying, line) in sayings.chain(fixes(task)) {
            let place = *places.entry(saying.clone()).or_insert_with(|| {
                order.push(Found {
                    saying,
                    lines: (line, line),
                    platforms: Vec::new(),
                });
                order.len() - 1
            });
            let Found { lines, platforms, .. } = &mut order[place];
            *lines = (lines.0.min(line), lines.1.max(line));
            if !platforms.contains(&platform) {
                platforms.push(platform.clone());
            }
        }
    }
    order.sort_by_key(|found| found.saying.note);
    order
}

/// What a check found of the livepatch's fixes, with its lines.
fn fixes(task: &v1::Task) -> Vec<(Saying, u32)> {
    let Some(Report::Check(v1::CheckReport { fixes: Some(fixes), .. })) = report(task) else {
        return Vec::new();
    };
    let mut sayings: Vec<_> = fixes.findings.iter().map(|f| (Saying::from(f), f.line)).collect();
    if fixes.omitted > 0 {
        let more = format!(
            "… and {} more of the fixes; the log of the check has them all",
            fixes.omitted
        );
        sayings.push((
            Saying {
                note: true,
                ..Saying::plain(&more)
            },
            0,
        ));
    }
    sayings
}

/// A symbol and the object that provides it where the source was extracted.
type Symbol<'a> = (&'a str, &'a str);

/// The symbols that the sources of each codestream need at run time: those of each architecture's last round.
fn needed(tasks: &[v1::Task]) -> BTreeMap<&str, BTreeSet<Symbol<'_>>> {
    let mut last: BTreeMap<(&str, &str), (u32, &v1::ExtractReport)> = BTreeMap::new();
    for task in tasks {
        if let (Some(platform), Some(Report::Extract(extract))) = (&task.platform, report(task)) {
            let of = last
                .entry((&platform.codestream, &platform.arch))
                .or_insert((task.round, extract));
            if of.0 < task.round {
                *of = (task.round, extract);
            }
        }
    }
    let mut needed: BTreeMap<&str, BTreeSet<Symbol<'_>>> = BTreeMap::new();
    for ((codestream, _), (_, extract)) in last {
        let symbols = extract.targets.iter().flat_map(|t| &t.externalized);
        let of = needed.entry(codestream).or_default();
        of.extend(symbols.map(|e| (e.object.as_str(), e.symbol.as_str())));
    }
    needed
}

/// What was looked for on this platform in vain, and is still needed.
fn missing(task: &v1::Task, needed: Option<&BTreeSet<Symbol<'_>>>) -> Vec<String> {
    let (Some(Report::Verify(verify)), Some(needed)) = (report(task), needed) else {
        return Vec::new();
    };
    let gone = verify.symbols.iter().filter(|s| s.found_in.is_empty());
    gone.filter(|s| needed.contains(&(s.object.as_str(), s.symbol.as_str())))
        .map(|s| {
            format!(
                "{} of {} is needed by the source and missing here: the livepatch would not load",
                s.symbol, s.object
            )
        })
        .collect()
}

fn report(task: &v1::Task) -> Option<&Report> {
    task.report.as_ref()?.report.as_ref()
}

/// Sentences without the platform that they begin with.
fn warnings(task: &v1::Task, platform: &str) -> Vec<String> {
    let begins = format!("{platform}: ");
    match report(task) {
        Some(Report::Check(check)) => {
            let targets = check.targets.iter().flat_map(|t| &t.warnings);
            let all = targets.chain(check.fixes.iter().flat_map(|fixes| &fixes.warnings));
            all.map(|w| w.strip_prefix(&begins).unwrap_or(w).to_owned()).collect()
        }
        Some(Report::Extract(extract)) => {
            let of = |t: &v1::TargetExtraction| {
                let file = t.file.clone();
                let told = t.warnings.iter().map(|w| match w.strip_prefix(&begins) {
                    // Of the fixes, as their check has said it.
                    Some(rest) => rest.to_owned(),
                    None => format!("{file}: {w}"),
                });
                told.collect::<Vec<_>>()
            };
            extract.targets.iter().flat_map(of).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
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

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
    for (sentence, platforms) in found.iter().take(SHOWN) {
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

/// Sentences with the platforms they are about, in the order they come up.
fn found(tasks: &[v1::Task]) -> Vec<(String, Vec<String>)> {
    let mut order: Vec<(String, Vec<String>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let needed = needed(tasks);
    for task in tasks {
        let of = task.platform.clone().unwrap_or_default();
        let platform = format!("{}/{}", of.codestream, of.arch);
        let needed = needed.get(of.codestream.as_str());
        for warning in warnings(task).into_iter().chain(missing(task, needed)) {
            // A check's sentences begin with the platform, an extraction's don't.
            let sentence = warning
                .strip_prefix(&format!("{platform}: "))
                .unwrap_or(&warning)
                .to_owned();
            let place = *places.entry(sentence.clone()).or_insert_with(|| {
                order.push((sentence, Vec::new()));
                order.len() - 1
            });
            if !order[place].1.contains(&platform) {
                order[place].1.push(platform.clone());
            }
        }
    }
    order
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

fn warnings(task: &v1::Task) -> Vec<String> {
    match report(task) {
        Some(Report::Check(check)) => check.targets.iter().flat_map(|t| t.warnings.clone()).collect(),
        Some(Report::Extract(extract)) => {
            let of = |t: &v1::TargetExtraction| {
                let file = t.file.clone();
                t.warnings
                    .iter()
                    .map(move |w| format!("{file}: {w}"))
                    .collect::<Vec<_>>()
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

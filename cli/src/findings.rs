//! What checks and extractions warn of, each sentence once with whom it concerns.

use std::collections::BTreeMap;
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
    for task in tasks {
        let platform = task.platform.clone().unwrap_or_default();
        let platform = format!("{}/{}", platform.codestream, platform.arch);
        for warning in warnings(task) {
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

fn warnings(task: &v1::Task) -> Vec<String> {
    match task.report.as_ref().and_then(|r| r.report.as_ref()) {
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
}

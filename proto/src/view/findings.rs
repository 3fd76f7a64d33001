//! What checks and extractions warn of, and what sources need that is missing; each sentence once with whom it concerns.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use crate::v1;
use crate::v1::report::Report;

/// A sentence, and the platforms that it is about, as in `15.6u1/x86_64`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    pub sentence: String,
    pub platforms: Vec<String>,
}

/// What a livepatch's tasks found, in the order in which it comes up.
pub fn found(tasks: &[v1::Task]) -> Vec<Finding> {
    let mut order: Vec<Finding> = Vec::new();
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
                order.push(Finding {
                    sentence,
                    platforms: Vec::new(),
                });
                order.len() - 1
            });
            if !order[place].platforms.contains(&platform) {
                order[place].platforms.push(platform.clone());
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

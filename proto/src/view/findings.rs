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

/// What a livepatch's tasks found, in the order in which it comes up, notes last.
pub fn found(tasks: &[v1::Task]) -> Vec<Finding> {
    let sentence = |found: Found| Finding {
        sentence: found.saying.at(found.lines),
        platforms: found.platforms,
    };
    gathered(tasks).into_iter().map(sentence).collect()
}

fn gathered(tasks: &[v1::Task]) -> Vec<Found> {
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

/// The newest extraction of each codestream and architecture that reported something.
pub fn newest(tasks: &[v1::Task]) -> BTreeMap<(&str, &str), (&v1::Task, &v1::ExtractReport)> {
    let mut newest: BTreeMap<(&str, &str), (&v1::Task, &v1::ExtractReport)> = BTreeMap::new();
    for task in tasks {
        if let (Some(platform), Some(Report::Extract(extract))) = (&task.platform, report(task)) {
            let of = newest
                .entry((&platform.codestream, &platform.arch))
                .or_insert((task, extract));
            if of.0.round < task.round {
                *of = (task, extract);
            }
        }
    }
    newest
}

/// The symbols that the sources of each codestream need at run time: those of each architecture's last round.
fn needed(tasks: &[v1::Task]) -> BTreeMap<&str, BTreeSet<Symbol<'_>>> {
    let mut needed: BTreeMap<&str, BTreeSet<Symbol<'_>>> = BTreeMap::new();
    for ((codestream, _), (_, extract)) in newest(tasks) {
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

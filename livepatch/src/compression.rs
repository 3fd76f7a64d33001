//! Group compression: codestreams in a line as SUSE klp-build's tools write and read them, `15.2u10-11 15.3u10`.
//!
//! A line is codestreams with a blank between them, in natural order. Updates of one product may be written as a run:
//! `15.6u9-11` is all from 9 to 11 that there are. klp-build has two defects here that we do not share. It writes a run
//! across a codestream that is in another group, so that what it reads back is not what it grouped. And it skips a line
//! with a minor version of two digits, or misreads updates of three; so no such run is written, as none of its tools
//! could read it, but all of them are read.
//!
//! A codestream may be called like a run. Such a run is never written where that codestream is known, and the text is
//! taken for the name there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use crate::codestream::{Codestream, natural_cmp};
use crate::names::quoted;
use crate::suse::SuseName;

/// Longest accepted line and file, in bytes.
const MAX_LINE: usize = 1 << 20;
const MAX_FILE: usize = 4 << 20;

/// The klp-build `groups` file for codestreams that were split into `groups`: a line for each, without a final newline.
pub fn groups_file(groups: &[Vec<Codestream>]) -> String {
    let known = Known::new(groups.iter().flatten());
    let mut lines: Vec<String> = groups.iter().map(|group| compress(group, &known)).collect();
    lines.sort_by(|a, b| natural_cmp(a, b));
    lines.join("\n")
}

/// The codestreams there are: what a run may skip or must not.
pub struct Known<'a> {
    names: BTreeSet<&'a str>,
    suse: BTreeSet<SuseName>,
}

impl<'a> Known<'a> {
    pub fn new(codestreams: impl IntoIterator<Item = &'a Codestream>) -> Self {
        let (mut names, mut suse) = (BTreeSet::new(), BTreeSet::new());
        for codestream in codestreams {
            names.insert(codestream.as_str());
            suse.extend(SuseName::of(codestream));
        }
        Self { names, suse }
    }
}

/// One group's line: `15.2u10-11 15.3u10-12`. All of the group must be known.
pub fn compress(group: &[Codestream], known: &Known) -> String {
    let members: BTreeSet<&Codestream> = group.iter().collect();
    let mut runs: Vec<Vec<&Codestream>> = Vec::new();
    for member in members {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| follows(last, member, known)) => run.push(member),
            _ => runs.push(vec![member]),
        }
    }
    let texts = runs.iter().map(|run| match run_text(run) {
        Some(text) if !known.names.contains(text.as_str()) => text,
        _ => run.iter().map(|member| member.as_str()).collect::<Vec<_>>().join(" "),
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// Whether `b` is the first known codestream after `a` in its product, and klp-build can read both.
fn follows(a: &Codestream, b: &Codestream, known: &Known) -> bool {
    match (readable(a), readable(b)) {
        (Some(a), Some(b)) if (SuseName { update: b.update, ..a }) == b => {
            known.suse.range((Excluded(a), Unbounded)).next() == Some(&b)
        }
        _ => false,
    }
}

fn run_text(run: &[&Codestream]) -> Option<String> {
    let (first, last) = (run.first()?, SuseName::of(run.last()?)?);
    (run.len() > 1).then(|| format!("{first}-{}", last.update))
}

/// The name's parts if klp-build's tools can read it, which take two digits of version and update and one of minor.
fn readable(codestream: &Codestream) -> Option<SuseName> {
    SuseName::of(codestream).filter(|name| name.major < 100 && name.minor < 10 && name.update < 100)
}

/// Why a line or a file of groups can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupsError {
    #[error("{0} bytes long; at most {1}")]
    TooLong(usize, usize),
    #[error("an empty group; it must name codestreams, like 15.2u10-11 15.3u10")]
    Empty,
    #[error("{} is neither a codestream's name nor a run of updates like 15.6u9-11", quoted(.0))]
    NotAName(String),
    #[error("the run {} ends before it begins", quoted(.0))]
    Backwards(String),
    #[error("{} is none of the known codestreams; is the file of another livepatch?", quoted(.0))]
    Unknown(String),
    #[error("{0} is named twice")]
    Twice(Codestream),
    #[error("{0} is in two groups: its own name is in both lines")]
    InTwoGroups(Codestream),
    #[error(
        "{0} lies within a run of two groups ({1} and {2}), and nothing tells which one it is in; group the outputs again"
    )]
    Ambiguous(Codestream, String, String),
    #[error("nothing is left of the group {}: other lines name all of it that is known", quoted(.0))]
    Emptied(String),
    #[error("line {line}: {error}")]
    InLine {
        /// From 1.
        line: usize,
        error: Box<GroupsError>,
    },
}

/// What a part of a line says.
enum Part {
    One(Codestream),
    /// Codestreams of one product, from the first's update to the other.
    Run(SuseName, u32),
}

impl Part {
    fn parse(text: &str, known: &BTreeSet<&Codestream>) -> Result<Self, GroupsError> {
        let name = text.parse::<Codestream>();
        if let Some((first, last)) = run_of(text)
            && !name.as_ref().is_ok_and(|name| known.contains(name))
        {
            return if first.update < last {
                Ok(Self::Run(first, last))
            } else {
                Err(GroupsError::Backwards(text.to_owned()))
            };
        }
        name.map(Self::One).map_err(|_| GroupsError::NotAName(text.to_owned()))
    }

    /// Those it must mean, and those it may mean: a run's ends were grouped, what lies between only if klp-build is right.
    fn members<'a>(&self, known: &BTreeSet<&'a Codestream>, suse: &BTreeMap<SuseName, &'a Codestream>) -> Members<'a> {
        match self {
            Self::One(name) => Members {
                surely: known.get(name).copied().into_iter().collect(),
                perhaps: Vec::new(),
            },
            &Self::Run(first, last) => {
                let last = SuseName { update: last, ..first };
                let all = suse.range(first..=last);
                let (surely, perhaps): (Vec<_>, Vec<_>) = all.partition(|(name, _)| **name == first || **name == last);
                let codestreams = |list: Vec<(_, &&'a Codestream)>| list.into_iter().map(|(_, c)| *c).collect();
                Members {
                    surely: codestreams(surely),
                    perhaps: codestreams(perhaps),
                }
            }
        }
    }
}

struct Members<'a> {
    surely: Vec<&'a Codestream>,
    perhaps: Vec<&'a Codestream>,
}

/// `15.6u9-11` as the run's first name and its last update.
fn run_of(text: &str) -> Option<(SuseName, u32)> {
    let (first, last) = text.rsplit_once('-')?;
    let first = SuseName::parse(first)?;
    let last = SuseName::parse(&format!("{}u{last}", first.base()))?;
    Some((first, last.update))
}

/// The members of one line, each with whether it is named: a run's ends are, what lies between them is not.
fn members<'a>(line: &str, index: &Index<'a>) -> Result<BTreeMap<&'a Codestream, bool>, GroupsError> {
    if line.len() > MAX_LINE {
        return Err(GroupsError::TooLong(line.len(), MAX_LINE));
    }
    let mut all = BTreeMap::new();
    for text in line.split_ascii_whitespace() {
        let members = Part::parse(text, &index.names)?.members(&index.names, &index.suse);
        let count = members.surely.len() + members.perhaps.len();
        if count == 0 {
            return Err(GroupsError::Unknown(text.to_owned()));
        }
        let named = members.surely.into_iter().map(|c| (c, true));
        for (codestream, named) in named.chain(members.perhaps.into_iter().map(|c| (c, false))) {
            if all.insert(codestream, named).is_some() {
                return Err(GroupsError::Twice(codestream.clone()));
            }
        }
    }
    if all.is_empty() {
        return Err(GroupsError::Empty);
    }
    Ok(all)
}

/// The known codestreams by name and by parts.
struct Index<'a> {
    names: BTreeSet<&'a Codestream>,
    suse: BTreeMap<SuseName, &'a Codestream>,
}

impl<'a> Index<'a> {
    fn new(known: &'a [Codestream]) -> Self {
        let suse = known.iter().filter_map(|c| Some((SuseName::of(c)?, c)));
        Self {
            names: known.iter().collect(),
            suse: suse.collect(),
        }
    }
}

/// The known codestreams that a group's line names, in natural order.
///
/// # Errors
/// What in the line is no codestream or run, or none that is known.
pub fn expand(line: &str, known: &[Codestream]) -> Result<Vec<Codestream>, GroupsError> {
    let members = members(line, &Index::new(known))?;
    Ok(members.into_keys().cloned().collect())
}

/// The groups of a `groups` file, written by us or by klp-build; each in natural order, in the file's order. Blank lines are
/// nothing.
///
/// Where klp-build wrote a run across a codestream that another line names, that codestream is in the line that names it.
///
/// # Errors
/// The first line that can't be read, or a codestream of which the file doesn't tell its group.
pub fn parse_groups_file(text: &str, known: &[Codestream]) -> Result<Vec<Vec<Codestream>>, GroupsError> {
    if text.len() > MAX_FILE {
        return Err(GroupsError::TooLong(text.len(), MAX_FILE));
    }
    let index = Index::new(known);
    let mut lines = Vec::new();
    // Each codestream's line so far, and whether that line names it.
    let mut homes: BTreeMap<&Codestream, (usize, bool)> = BTreeMap::new();
    let mut contested = BTreeMap::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let in_line = |error| GroupsError::InLine {
            line: number,
            error: Box::new(error),
        };
        for (codestream, named) in members(line, &index).map_err(in_line)? {
            match homes.get(codestream) {
                Some((_, true)) if named => return Err(in_line(GroupsError::InTwoGroups(codestream.clone()))),
                Some((_, true)) => {}
                Some((other, false)) if !named => {
                    contested.insert(codestream, (*other, lines.len()));
                }
                _ => {
                    homes.insert(codestream, (lines.len(), named));
                }
            }
        }
        lines.push(line.trim());
    }
    for (codestream, (one, other)) in contested {
        if homes.get(codestream).is_some_and(|(_, named)| !named) {
            let text = |line: usize| quoted(lines[line]);
            return Err(GroupsError::Ambiguous(codestream.clone(), text(one), text(other)));
        }
    }
    let mut groups = vec![Vec::new(); lines.len()];
    for (codestream, (line, _)) in homes {
        groups[line].push(codestream.clone());
    }
    match groups.iter().position(Vec::is_empty) {
        Some(line) => Err(GroupsError::Emptied(lines[line].to_owned())),
        None => Ok(groups),
    }
}

#[cfg(test)]
mod tests;

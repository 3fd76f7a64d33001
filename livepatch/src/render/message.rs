//! What goes with the sources to whoever reviews them: the commit message and the cover letter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use similar::TextDiff;

use super::input::Author;
use super::notice::bug;
use crate::Arch;
use crate::names::{Cve, FunctionName, LivepatchName, ObjectName, SourcePath};

/// What a commit message tells.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    pub name: &'a LivepatchName,
    pub cve: Option<&'a Cve>,
    /// The bug's title; empty: not known.
    pub title: &'a str,
    /// Each a commit's id and subject: `1f2e3d4c5b6a ("ALSA: pcm: fix")`.
    pub upstream: &'a [String],
    pub author: &'a Author,
}

/// `commit.msg`.
pub fn commit_message(commit: &Commit<'_>) -> String {
    let cve = commit
        .cve
        .map_or_else(|| "CVE-XXXX-XXXX".to_owned(), |cve| format!("CVE-{cve}"));
    let title = line(commit.title);
    let title = if title.is_empty() {
        title
    } else {
        format!(" (\"{title}\")")
    };
    let mut out = format!("Fix for {cve}{title}\n\nLive patch for {cve}.");
    match commit.upstream {
        [] => out.push('\n'),
        commits => {
            let _ = writeln!(out, " Upstream commit{}:", if commits.len() == 1 { "" } else { "s" });
        }
    }
    for upstream in commit.upstream {
        let _ = writeln!(out, "- {}", line(upstream));
    }
    let references = bug(commit.name.as_str()).map(|bug| bug + " ").unwrap_or_default();
    let _ = write!(
        out,
        "\nKLP: {cve}\nReferences: {references}{cve}\nSigned-off-by: {}\n",
        line(&commit.author.address())
    );
    out
}

/// What one group's sources patch.
#[derive(Clone, Debug)]
pub struct GroupSummary {
    /// The group as the `groups` file has it: `15.6u9-11 15.7u0`.
    pub codestreams: String,
    pub targets: Vec<(SourcePath, ObjectName, BTreeSet<FunctionName>)>,
}

/// What a cover letter tells.
#[derive(Clone, Debug)]
pub struct CoverLetter<'a> {
    pub name: &'a LivepatchName,
    pub cve: Option<&'a Cve>,
    pub author: &'a Author,
    /// As a mail's header has it.
    pub date: &'a str,
    /// Of the series, from 1.
    pub version: u32,
    /// How many patches follow.
    pub patches: usize,
    pub upstream: &'a [String],
    pub archs: &'a BTreeSet<Arch>,
    /// Codestreams that have the fix, as the `groups` file would write them.
    pub patched: &'a str,
    pub affected: &'a str,
    pub groups: &'a [GroupSummary],
    /// What [`manual_work`] found.
    pub manual_work: &'a str,
}

/// `patches/0000-cover-letter.patch`.
pub fn cover_letter(letter: &CoverLetter<'_>) -> String {
    let cve = letter.cve.map(|cve| format!(" CVE-{cve}")).unwrap_or_default();
    let name = bug(letter.name.as_str()).unwrap_or_else(|| letter.name.to_string());
    let digits = letter.patches.to_string().len();
    let mut out = format!(
        "From {:040} Mon Sep 17 00:00:00 2001\nFrom: {}\nDate: {}\n\
         Subject: [Klp-patches][PATCH v{} {:0digits$}/{}] livepatch{cve} {name}\n\n",
        0,
        line(&letter.author.address()),
        line(letter.date),
        letter.version,
        0,
        letter.patches,
    );
    out.push_str("# Description:\nLivepatch for the following commits:\n");
    for upstream in letter.upstream {
        let _ = writeln!(out, " - {}", line(upstream));
    }
    let archs: Vec<&str> = letter.archs.iter().map(|arch| arch.as_str()).collect();
    let _ = write!(
        out,
        "\n# Affected archs:\n - {}\n\n# Patched codestreams:\n - {}\n\n# Affected codestreams:\n - {}\n",
        archs.join(", "),
        line(letter.patched),
        line(letter.affected)
    );
    if !letter.groups.is_empty() {
        out.push_str("\n# Grouped codestreams:\n");
    }
    for group in letter.groups {
        let _ = writeln!(out, " - {}", line(&group.codestreams));
        for (file, object, functions) in &group.targets {
            let functions: Vec<&str> = functions.iter().map(FunctionName::as_str).collect();
            let _ = writeln!(
                out,
                "\t* File: {file}\n\t* Module: {object}\n\t* Symbols: {}",
                functions.join("\n\t\t   ")
            );
        }
    }
    let _ = write!(out, "\n# Manual work:\n{}\n", letter.manual_work.trim_end());
    out
}

/// What somebody changed of the files that were written, as a diff; the word `None` if nothing.
pub fn manual_work(written: &BTreeMap<String, String>, edited: &BTreeMap<String, String>) -> String {
    let names: BTreeSet<&String> = written.keys().chain(edited.keys()).collect();
    let mut out = String::new();
    for name in names {
        let (old, new) = (written.get(name), edited.get(name));
        if old == new {
            continue;
        }
        let side = |side: &str, text: Option<&String>| match text {
            Some(_) => format!("{side}/{name}"),
            None => "/dev/null".to_owned(),
        };
        let empty = String::new();
        let diff = TextDiff::from_lines(old.unwrap_or(&empty), new.unwrap_or(&empty));
        let _ = write!(out, "{}", diff.unified_diff().header(&side("a", old), &side("b", new)));
    }
    if out.is_empty() { "None\n".to_owned() } else { out }
}

/// Text that stays in its line.
fn line(text: &str) -> String {
    text.split(char::is_control)
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}

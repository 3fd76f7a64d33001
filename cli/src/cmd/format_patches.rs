//! `klp-farm format-patches`: a livepatch as mails for its reviewers, one for each group.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use klp_livepatch::compression::{Known, compress};
use klp_livepatch::date::Date;
use klp_livepatch::names::LivepatchName;
use klp_livepatch::render::{CoverLetter, GroupSummary, cover_letter};
use klp_livepatch::spec::{Draft, Spec};
use klp_livepatch::{Codestream, layout};

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use crate::results;
use crate::settings::Settings;

use super::get::{self, digests, merged_groups};

const EXAMPLES: &str = "\
Examples:
  klp-farm get bsc1197597 && klp-farm format-patches --name bsc1197597 -v 1

Writes <work folder>/<name>/patches/: a cover letter, and for each group of codestreams a patch that adds the files of its
`lp` folder, as they are on disk: what was edited by hand is in it, and the cover letter shows it as manual work.

Exit codes: 0 written, 1 failed.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct FormatPatchesArgs {
    #[arg(long, short)]
    pub name: LivepatchName,
    /// The version of the series
    #[arg(long = "series-version", short = 'v', value_name = "N", value_parser = clap::value_parser!(u32).range(1..1000))]
    series: u32,
    /// The work folder [default: KLP_WORK_DIR, the configured one, or .]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

pub async fn run(args: FormatPatchesArgs, client: &Client, settings: &Settings, mode: Mode) -> Result<(), Failed> {
    let response = client.get(&args.name).await?;
    let livepatch = response.livepatch.unwrap_or_default();
    let spec = Spec::parse(&Draft::from(livepatch.spec.clone().unwrap_or_default())).map_err(Failed::Invalid)?;
    let results = results::gather(response.tasks).map_err(|v| anyhow::anyhow!("the coordinator sent: {v}"))?;
    let work_dir = args.work_dir.as_deref().unwrap_or(&settings.work_dir);
    let groups = merged_groups(&digests(&client.groups(&args.name).await?));
    let known = Known::new(groups.iter().flatten());
    let date = mail_date();
    let mut written = Vec::new();
    let mut summaries = Vec::new();
    let mut manual = String::new();
    for (n, group) in (1..).zip(&groups) {
        let line = compress(group, &known);
        let Some(first) = group.first() else { continue };
        let files = on_disk(&work_dir.join(layout::lp_dir(&spec, first, None)))?;
        let fresh = get::rendered(client, settings, &livepatch, &spec, &results, first).await?;
        let edited = klp_livepatch::render::manual_work(&fresh, &files);
        if edited != "None\n" {
            let _ = writeln!(manual, "## {line}\n{edited}");
        }
        let subject = format!(
            "[Klp-patches][PATCH v{} {n}/{}] {}: {line}",
            args.series,
            groups.len(),
            spec.name
        );
        let text = mail(settings, &date, &subject, &spec.name, &files);
        written.push((format!("{n:04}-{}.patch", line.replace(' ', "_")), text));
        summaries.push(summary(&results, first, line));
    }
    let archs = results
        .values()
        .flat_map(|platforms| platforms.keys().copied())
        .collect();
    let all: Vec<Codestream> = results.keys().cloned().collect();
    let letter = CoverLetter {
        name: &spec.name,
        cve: spec.cve.as_ref(),
        author: &settings.author,
        date: &date,
        version: args.series,
        patches: written.len(),
        upstream: &[],
        archs: &archs,
        patched: "",
        affected: &compress(&all, &Known::new(&all)),
        groups: &summaries,
        manual_work: if manual.is_empty() { "None\n" } else { &manual },
    };
    written.insert(0, ("0000-cover-letter.patch".to_owned(), cover_letter(&letter)));
    let folder = work_dir.join(spec.name.as_str()).join("patches");
    let paths: Vec<PathBuf> = written.iter().map(|(name, _)| folder.join(name)).collect();
    for (path, (_, text)) in paths.iter().zip(&written) {
        get::write_file(path, text.as_bytes())?;
    }
    match mode {
        Mode::Json => output::json(&paths),
        Mode::Table => paths
            .iter()
            .try_for_each(|path| output::print(&path.display().to_string())),
    }
}

fn summary(results: &results::Results, first: &Codestream, line: String) -> GroupSummary {
    let sources = results
        .get(first)
        .into_iter()
        .flat_map(BTreeMap::values)
        .filter_map(|p| p.source.as_ref());
    let mut targets: BTreeMap<_, (_, BTreeSet<_>)> = BTreeMap::new();
    for target in sources.flat_map(|s| &s.report.targets) {
        let entry = targets
            .entry(target.file.clone())
            .or_insert_with(|| (target.object.clone(), BTreeSet::new()));
        entry.1.extend(target.patched.iter().map(|p| p.function.clone()));
    }
    GroupSummary {
        codestreams: line,
        targets: targets
            .into_iter()
            .map(|(file, (object, functions))| (file, object, functions))
            .collect(),
    }
}

/// The text files of a folder, by name.
fn on_disk(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let missing = || format!("can't read {}; write it first with `klp-farm get`", folder.display());
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(missing)? {
        let entry = entry.with_context(missing)?;
        if entry.file_type().with_context(missing)?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = fs::read(entry.path()).with_context(|| format!("can't read {}", entry.path().display()))?;
            files.insert(name, String::from_utf8_lossy(&text).into_owned());
        }
    }
    Ok(files)
}

/// A patch that adds the files, in the form of `git format-patch`.
fn mail(
    settings: &Settings,
    date: &str,
    subject: &str,
    name: &LivepatchName,
    files: &BTreeMap<String, String>,
) -> String {
    let mut out = format!(
        "From {:040} Mon Sep 17 00:00:00 2001\nFrom: {}\nDate: {date}\nSubject: {subject}\n\n---\n\n",
        0,
        settings.author.address()
    );
    for (file, text) in files {
        let lines = text.lines().count();
        // Writing to a String can't fail.
        let _ = write!(
            out,
            "diff --git a/{name}/{file} b/{name}/{file}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}/{file}\n@@ -0,0 +1,{lines} @@\n"
        );
        for line in text.lines() {
            let _ = writeln!(out, "+{line}");
        }
        if !text.ends_with('\n') {
            out.push_str("\\ No newline at end of file\n");
        }
    }
    out.push_str("-- \n");
    out
}

/// Now, as a mail's header has it, in UTC.
fn mail_date() -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let now = SystemTime::now();
    let date = Date::of(now);
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    // The first day of Unix's time was a Thursday.
    let day = DAYS[(date.unix_days().rem_euclid(7)) as usize];
    let month = MONTHS[usize::from(date.month().clamp(1, 12)) - 1];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{day}, {} {month} {} {hour:02}:{minute:02}:{second:02} +0000",
        date.day(),
        date.year()
    )
}

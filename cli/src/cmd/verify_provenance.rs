//! `klp-farm verify-provenance`: checks offline that sources are what the farm made, and from what.

use std::path::PathBuf;

use clap::Args;
use klp_identity::Trusted;
use klp_livepatch::words::amount;

use crate::output::{self, Failed, Mode, now_ms};
use crate::provenance::report::{By, Problem, Report};
use crate::provenance::verify;
use crate::settings::Settings;

const PROVES: &str = "\
What is proven, if nothing is wrong:
  - the statements are signed by a key that the farm's CA certified for it (or by the key that you name with --key), and by
    no worker's; the certificate was valid when the extraction ended
  - they are about the livepatch, tool and codestream that the folders are called by
  - provenance/<arch>/... are the sources that the named worker extracted, from the inputs that the statements list by digest
  - each file of lp/, of every architecture, is what this version renders from these sources and from what the codestream's
    tasks found; work_<file>/ and fixes/ are by digest what was stored
What is not:
  - that a whole codestream, or the newest attempt, is there: only what is in DIR is looked at
  - that the worker's host told the truth of what it measured; of a kernel tree's thousands of files the statements list
    those that all else depends on, and not each header
  - whose name is in the comments: provenance/written-by.json says it, and is not signed
  - files that are told as not covered: commit.msg, codestreams.json, and what others put there

Exit codes: 0 verified; 1 something is wrong; 2 wrong usage; 3 with --strict: verified, and there are files that are not covered.";

#[derive(Args)]
#[command(after_help = PROVES)]
pub struct VerifyProvenanceArgs {
    /// A folder that `get` wrote: the livepatch's, or one below it
    dir: PathBuf,
    /// The key to believe, in PEM: a public key, or its certificate; for a farm without a CA, or to believe no other
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Files that nothing is stated of are an error
    #[arg(long)]
    strict: bool,
}

pub fn run(args: &VerifyProvenanceArgs, settings: &Settings, mode: Mode) -> Result<(), Failed> {
    let usage = |error: &dyn std::fmt::Display| Failed::Usage(error.to_string());
    let trusted = match (&args.key, &settings.ca) {
        (Some(key), _) => Trusted::key(key),
        (None, Some(ca)) => Trusted::authorities(ca),
        (None, None) => {
            return Err(usage(
                &"whom to believe has to be known: name the farm's ca.pem with --ca or KLP_FARM_CA, or as `ca` in the \
                  configuration; or with --key the public key of a farm without a CA",
            ));
        }
    };
    let trusted = trusted.map_err(|error| usage(&error))?;
    let report = verify(&args.dir, &trusted, now_ms())?;
    match mode {
        Mode::Json => output::json(&report)?,
        Mode::Table => tell(&report)?,
    }
    match (report.verified, report.not_covered.is_empty()) {
        (false, _) => Err(Failed::Told),
        (true, false) if args.strict => Err(Failed::NotAllSucceeded),
        _ => Ok(()),
    }
}

fn tell(report: &Report) -> Result<(), Failed> {
    for checked in report.codestreams.iter().filter(|checked| checked.verified) {
        let count = |by| checked.files.iter().filter(|file| file.by == by).count();
        output::print(&format!(
            "{}  {} by digest, {} by rendering",
            checked.folder,
            amount(count(By::Digest), "file", "files"),
            amount(count(By::Rendering), "file", "files")
        ))?;
        for extraction in &checked.extractions {
            output::print(&format!(
                "  {}: extracted by {}, {}",
                extraction.arch, extraction.builder, extraction.finished_on
            ))?;
        }
        for note in &checked.notes {
            output::print(&format!("  note: {note}"))?;
        }
    }
    for Problem {
        path,
        what,
        expected,
        found,
    } in &report.problems
    {
        output::print(&format!("wrong: {path}: {what}"))?;
        for (label, digest) in [("expected", expected), ("found", found)] {
            if let Some(digest) = digest {
                output::print(&format!("  {label} SHA-256 {digest}"))?;
            }
        }
    }
    for path in &report.not_covered {
        output::print(&format!("not covered: {path}"))?;
    }
    let verdict = match report.problems.len() {
        0 => "verified".to_owned(),
        n => format!("NOT verified: {}", amount(n, "problem", "problems")),
    };
    output::print(&verdict)
}

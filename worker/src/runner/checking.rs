//! A check: can each target be patched on this kernel, and do the livepatch's fixes apply to it?

use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::report::{CheckReport, FixesCheck, Report};
use klp_livepatch::spec::Target;
use klp_livepatch::words::amount;

use super::{Context, Job, aside, disk_is_full, disk_s_fault};
use crate::check::inlining::{self, Lab};
use crate::check::{self, CheckOptions};
use crate::fixes;
use crate::outbox::Product;
use crate::process::Limits;
use crate::trees::Tree;
use crate::trees::overlay::Staged;
use crate::worker::Shared;

/// Findings of fixes that a report has.
const MAX_FINDINGS: usize = 50;

pub(super) async fn run(shared: &Shared, tree: &Tree, job: &Job, context: &Context) -> Result<Product, Failure> {
    context.progress("checking configs, files, objects and symbols");
    let options = CheckOptions {
        forgiving: job.forgiving,
        // Somebody waits for a tryout, which only looks for slips.
        full: !job.tryout,
    };
    let inlining = match options.full {
        true => {
            let limits = Limits {
                // What was inlined is one question of many: who hangs over it leaves time for the others.
                wall: context.time_limit / 4,
                memory: Some(context.memory_limit),
                ..Limits::default()
            };
            let room = context.room("inlining")?;
            let lab = Lab {
                room: &room,
                cell: &context.cell,
                limits,
                cancel: &context.cancel,
            };
            let found = inlining::gather(tree, &job.targets, &lab).await;
            found.map_err(|e| super::farm(e.to_string()))?
        }
        false => Default::default(),
    };
    let (kernel, targets) = (tree.clone(), job.targets.clone());
    let mut report = aside("check", move || {
        check::check_with(&kernel, &targets, options, &inlining)
    })
    .await?;
    // Where nothing is extracted, nothing has to apply.
    if !job.fixes.is_empty() && !report.leaves_out() {
        report.fixes = try_fixes(shared, tree, job, context).await?;
    }
    for target in &mut report.targets {
        for problem in &target.problems {
            context.log.line(&format!("error: {problem}"));
        }
        for warning in &target.warnings {
            context.log.line(&format!("warning: {warning}"));
        }
        if let Some(why) = &target.left_out {
            context.log.line(&format!("left out: {why}"));
        }
        shorten(&mut target.problems);
        shorten(&mut target.warnings);
    }
    Ok(Product {
        ending: ending(&report),
        report: Some(Report::Check(report)),
        files: Vec::new(),
    })
}

/// Applies the fixes as an extraction would, to the files that they name, and looks at what they make of these.
///
/// A tryout applies them, too: they are stored before it begins, a patch or two of some KiB, and a patch that fits no kernel is
/// a slip like any other. What is to be known beside that can wait for the check.
async fn try_fixes(shared: &Shared, tree: &Tree, job: &Job, context: &Context) -> Result<FixesCheck, Failure> {
    context.progress(&format!("applying {}", amount(job.fixes.len(), "fix", "fixes")));
    let patches = fixes::fetch(&shared.courier, &job.fixes, job.parent).await?;
    let dir = context.scratch.join("fixes");
    let staged = match Staged::new(tree, &dir, &patches, &context.cell, &context.cancel).await {
        Ok(staged) => staged,
        Err(failure) if failure.cause() == Cause::Farm => return Err(failure.into()),
        Err(failure) if disk_is_full(&context.scratch) => return Err(disk_s_fault(shared, &failure.into())),
        Err(failure) => {
            let problem = failure.to_string();
            context.log.line(&format!("error: {problem}"));
            return Ok(FixesCheck {
                problems: vec![problem],
                ..FixesCheck::default()
            });
        }
    };
    for warning in &staged.warnings {
        context.log.line(&format!("warning: {warning}"));
    }
    let mut fixes = FixesCheck {
        warnings: staged.warnings,
        ..FixesCheck::default()
    };
    shorten(&mut fixes.warnings);
    if job.tryout {
        return Ok(fixes);
    }
    let (before, after, cancel) = (tree.src.clone(), staged.copies, context.cancel.clone());
    let (touched, targets) = (staged.touched, job.targets.clone());
    let looking = move || check::fixes::findings(&before, &after, touched, &targets, &cancel);
    fixes.findings = aside("look at the fixes", looking).await?;
    for finding in &fixes.findings {
        context.log.line(&finding.to_string());
    }
    let omitted = fixes.findings.len().saturating_sub(MAX_FINDINGS);
    fixes.findings.truncate(MAX_FINDINGS);
    fixes.omitted = u32::try_from(omitted).unwrap_or(u32::MAX);
    Ok(fixes)
}

/// What a check says of targets, without asking what was inlined.
pub(super) async fn of(tree: &Tree, targets: &[Target], forgiving: bool) -> Result<CheckReport, Failure> {
    let (tree, targets) = (tree.clone(), targets.to_vec());
    let options = CheckOptions { full: false, forgiving };
    aside("check", move || {
        check::check_with(&tree, &targets, options, &Default::default())
    })
    .await
}

/// Keeps the first of many sentences: the log has them all, and a report must fit into a message.
fn shorten(sentences: &mut Vec<String>) {
    const MOST: usize = 50;
    if sentences.len() > MOST {
        let more = sentences.len() - MOST;
        sentences.truncate(MOST);
        sentences.push(format!("… and {more} more; the attempt's log has them all"));
    }
}

/// A check succeeds if nothing has a problem; else the failure is the user's and says all of them.
fn ending(report: &CheckReport) -> Ending {
    let problems: Vec<&str> = report.problems().map(String::as_str).collect();
    if problems.is_empty() {
        return Ending::Succeeded;
    }
    Ending::Failed(Failure::new(Cause::Yours, problems.join("\n")))
}

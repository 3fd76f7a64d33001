//! A check: can each target be patched on this kernel?

use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::report::{CheckReport, Report};
use klp_livepatch::spec::Target;

use super::{Context, Job, aside};
use crate::check::inlining::{self, Lab};
use crate::check::{self, CheckOptions};
use crate::outbox::Product;
use crate::process::Limits;
use crate::trees::Tree;

pub(super) async fn run(tree: Tree, job: Job, context: &Context) -> Result<Product, Failure> {
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
            let lab = Lab {
                scratch: &context.scratch,
                limits,
                cancel: &context.cancel,
            };
            let found = inlining::gather(&tree, &job.targets, &lab).await;
            found.map_err(|e| super::farm(e.to_string()))?
        }
        false => Default::default(),
    };
    let targets = job.targets;
    let mut report = aside("check", move || check::check_with(&tree, &targets, options, &inlining)).await?;
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

/// A check succeeds if no target has a problem; else the failure is the user's and says all of them.
fn ending(report: &CheckReport) -> Ending {
    let problems: Vec<&str> = report
        .targets
        .iter()
        .flat_map(|t| &t.problems)
        .map(String::as_str)
        .collect();
    if problems.is_empty() {
        return Ending::Succeeded;
    }
    Ending::Failed(Failure::new(Cause::Yours, problems.join("\n")))
}

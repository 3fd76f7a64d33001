//! What a livepatch's tasks found, put together by codestream: the ground for everything that is written or compared.

mod compose;
mod folder;
mod project;

use std::collections::BTreeMap;

use klp_livepatch::outcome::Artifact;
use klp_livepatch::provenance::TaskFindings;
use klp_livepatch::provenance::codestream::TaskEnding;
use klp_livepatch::report::{CheckReport, ExtractReport, Report, VerifiedSymbol};
use klp_livepatch::spec::Violation;
use klp_livepatch::task::{Platform, TaskKind};
use klp_livepatch::{Arch, Codestream};
use klp_proto::{convert, v1};

pub use compose::{Part, compose};
pub use folder::{Folder, Rendering, Sources};
pub use project::facts;

/// By codestream, then architecture.
pub type Results = BTreeMap<Codestream, BTreeMap<Arch, PlatformResult>>;

/// What is known of one codestream x architecture.
#[derive(Clone, Debug, Default)]
pub struct PlatformResult {
    pub check: Option<CheckReport>,
    /// Nothing is to be patched here.
    pub left_out: bool,
    /// Of the newest round.
    pub source: Option<Source>,
    /// All that was looked for here on behalf of other architectures.
    pub verified: Vec<VerifiedSymbol>,
    /// What has failed, as people call it.
    pub failed: Option<String>,
    /// Something of it is still to be done.
    pub open: bool,
}

/// An extraction's outcome.
#[derive(Clone, Debug)]
pub struct Source {
    pub compiles: bool,
    pub round: u32,
    pub report: ExtractReport,
    pub artifacts: Vec<Artifact>,
}

/// # Errors
/// The coordinator sent what no task could have.
pub fn gather(tasks: Vec<v1::Task>) -> Result<Results, Violation> {
    let mut results = Results::new();
    for task in tasks {
        let (codestream, task) = findings(task)?;
        let platforms = results.entry(codestream).or_default();
        platforms.entry(task.arch).or_default().take(task);
    }
    Ok(results)
}

/// As [`gather`], of one codestream, by what was stated of its tasks.
pub fn of_statement(tasks: &[TaskFindings]) -> BTreeMap<Arch, PlatformResult> {
    let mut platforms: BTreeMap<Arch, PlatformResult> = BTreeMap::new();
    for task in tasks {
        platforms.entry(task.arch).or_default().take(task.clone());
    }
    platforms
}

fn findings(task: v1::Task) -> Result<(Codestream, TaskFindings), Violation> {
    let Platform { codestream, arch } = convert::platform(task.platform.clone())?;
    let ending = match task.state() {
        v1::TaskState::Succeeded => TaskEnding::Succeeded,
        v1::TaskState::Failed => TaskEnding::Failed,
        v1::TaskState::Cancelled => TaskEnding::Cancelled,
        _ => TaskEnding::Open,
    };
    let artifacts = task.artifacts.into_iter().map(Artifact::try_from);
    let task = TaskFindings {
        arch,
        kind: convert::task_kind(task.kind)?,
        round: task.round,
        ending,
        left_out: task.left_out,
        report: task.report.map(Report::try_from).transpose()?,
        artifacts: artifacts.collect::<Result<_, _>>()?,
    };
    Ok((codestream, task))
}

impl PlatformResult {
    fn take(&mut self, task: TaskFindings) {
        let kind = task.kind;
        match task.ending {
            TaskEnding::Succeeded => {}
            TaskEnding::Failed => self.failed = Some(format!("{kind} failed")),
            TaskEnding::Cancelled => self.failed = Some(format!("{kind} was cancelled")),
            TaskEnding::Open => self.open = true,
        }
        self.left_out |= task.left_out;
        match (kind, task.report) {
            (TaskKind::Check, Some(Report::Check(check))) => self.check = Some(check),
            (TaskKind::Verify, Some(Report::Verify(verify))) => self.verified.extend(verify.symbols),
            (TaskKind::Extract, Some(Report::Extract(report)))
                if self.source.as_ref().is_none_or(|s| s.round < task.round) =>
            {
                self.source = Some(Source {
                    compiles: task.ending == TaskEnding::Succeeded,
                    round: task.round,
                    report,
                    artifacts: task.artifacts,
                });
            }
            _ => {}
        }
    }

    /// Whether its check said that it can be patched.
    pub fn can_be_patched(&self) -> bool {
        let fine = |check: &CheckReport| check.problems().next().is_none();
        !self.left_out && self.check.as_ref().is_some_and(fine)
    }

    /// Why there is no source of this platform; `None` if it has one or needs none of its own.
    pub fn why_missing(&self) -> Option<String> {
        if self.left_out || self.source.as_ref().is_some_and(|s| s.compiles) {
            return None;
        }
        match (&self.failed, self.open) {
            (Some(failed), _) => Some(failed.clone()),
            (None, true) => Some("not done yet".to_owned()),
            // Another architecture's source is for it, too.
            (None, false) => None,
        }
    }
}

//! What is shown of a farm: the values that `--output json` prints and the HTTP API answers, under stable names apart from
//! the wire format, and the words in which terminals and pages say the same.
//!
//! Times are milliseconds since the Unix epoch.

pub mod access;
pub mod cell;
pub mod findings;
mod report;
pub mod words;
mod worker;

use serde::Serialize;
use utoipa::ToSchema;

use crate::v1;

pub use report::{Check, CompileCheck, Externalized, Extraction, FixFinding, Fixes, Function, Patched, Verified};
pub use worker::{Fence, Platform, Running, Tool, Unready, Worker, isolation, skew_mark, skew_word, worker_state};

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Livepatch {
    pub name: String,
    pub id: String,
    pub cve: Option<String>,
    pub state: &'static str,
    pub verdict: String,
    /// Who submitted it, as they said.
    pub submitted_by: Option<String>,
    pub created_ms: i64,
    pub ended_ms: Option<i64>,
    pub last_event: u64,
    pub backend: String,
    pub codestream_filter: String,
    pub archs: Vec<String>,
    pub priority: i32,
    pub weight: u32,
    pub paused_ms: Option<i64>,
    pub pause_reason: Option<String>,
    pub targets: Vec<Target>,
    pub tasks: Counts,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Target {
    pub file: String,
    pub functions: Vec<String>,
    pub config: String,
    pub object: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Counts {
    pub waiting: u32,
    pub leased: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub cancelled: u32,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Task {
    pub id: String,
    pub kind: &'static str,
    pub codestream: String,
    pub arch: String,
    pub round: u32,
    pub state: &'static str,
    pub waiting_for: Option<String>,
    pub attempt: u32,
    pub worker: Option<String>,
    pub progress: Option<String>,
    pub failure: Option<Failure>,
    pub created_ms: i64,
    /// When its newest attempt was leased.
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    /// It is a check that succeeded and found that nothing needs to be patched here.
    pub left_out: bool,
    pub checks: Vec<Check>,
    /// What a check found of the livepatch's fixes; null if it has none.
    pub fixes: Option<Fixes>,
    pub extractions: Vec<Extraction>,
    pub verified: Vec<Verified>,
    pub artifacts: Vec<Artifact>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failure {
    pub cause: &'static str,
    pub message: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Artifact {
    pub name: String,
    pub digest: String,
    pub size: u64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Group {
    pub arch: String,
    pub codestreams: Vec<String>,
    pub digest: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    pub number: u64,
    pub time_ms: i64,
    pub message: String,
    pub task: Option<Task>,
    pub ended: Option<Livepatch>,
}

/// A text that may be absent.
fn text(s: String) -> Option<String> {
    (!s.is_empty()).then_some(s)
}

/// A time that may be absent.
fn time(ms: i64) -> Option<i64> {
    (ms != 0).then_some(ms)
}

pub fn livepatch_state(livepatch: &v1::Livepatch) -> &'static str {
    match livepatch.state() {
        v1::LivepatchState::Running => "running",
        v1::LivepatchState::Succeeded => "succeeded",
        v1::LivepatchState::Partial => "partial",
        v1::LivepatchState::Failed => "failed",
        v1::LivepatchState::Cancelled => "cancelled",
        v1::LivepatchState::Unspecified => "unknown",
    }
}

pub fn task_state(task: &v1::Task) -> &'static str {
    match task.state() {
        v1::TaskState::Waiting => "waiting",
        v1::TaskState::Leased => "running",
        v1::TaskState::Succeeded => "succeeded",
        v1::TaskState::Failed => "failed",
        v1::TaskState::Cancelled => "cancelled",
        v1::TaskState::Unspecified => "unknown",
    }
}

pub fn task_kind(task: &v1::Task) -> &'static str {
    kind_word(task.kind())
}

fn kind_word(kind: v1::TaskKind) -> &'static str {
    match kind {
        v1::TaskKind::Check => "check",
        v1::TaskKind::Extract => "extract",
        v1::TaskKind::Verify => "verify",
        v1::TaskKind::Unspecified => "unknown",
    }
}

fn cause(failure: &v1::Failure) -> &'static str {
    match failure.cause() {
        v1::Cause::Yours => "yours",
        v1::Cause::Codestream => "codestream",
        v1::Cause::Farm => "farm",
        v1::Cause::Unspecified => "unknown",
    }
}

impl From<v1::Failure> for Failure {
    fn from(failure: v1::Failure) -> Self {
        Failure {
            cause: cause(&failure),
            message: failure.message,
        }
    }
}

impl From<v1::Livepatch> for Livepatch {
    fn from(l: v1::Livepatch) -> Self {
        let state = livepatch_state(&l);
        let spec = l.spec.unwrap_or_default();
        let counts = l.counts.unwrap_or_default();
        let share = l.share.unwrap_or_default();
        Livepatch {
            state,
            name: spec.name,
            id: l.id,
            cve: text(spec.cve),
            verdict: l.verdict,
            submitted_by: text(l.submitted_by),
            created_ms: l.created_ms,
            ended_ms: time(l.ended_ms),
            last_event: l.last_event,
            backend: spec.backend,
            codestream_filter: spec.codestreams,
            archs: spec.archs,
            priority: share.priority,
            weight: share.weight,
            paused_ms: time(l.paused_ms),
            pause_reason: text(l.pause_reason),
            targets: spec
                .targets
                .into_iter()
                .map(|t| Target {
                    file: t.file,
                    functions: t.functions,
                    config: t.config,
                    object: t.object,
                })
                .collect(),
            tasks: Counts {
                waiting: counts.waiting,
                leased: counts.leased,
                succeeded: counts.succeeded,
                failed: counts.failed,
                cancelled: counts.cancelled,
            },
        }
    }
}

impl From<v1::Task> for Task {
    fn from(t: v1::Task) -> Self {
        let (kind, state) = (task_kind(&t), task_state(&t));
        let platform = t.platform.unwrap_or_default();
        let (checks, fixes, extractions, verified) = report::report(t.report);
        Task {
            id: t.id,
            kind,
            codestream: platform.codestream,
            arch: platform.arch,
            round: t.round,
            state,
            waiting_for: text(t.waiting_for),
            attempt: t.attempt,
            worker: text(t.worker),
            progress: text(t.progress),
            failure: t.failure.map(Failure::from),
            created_ms: t.created_ms,
            started_ms: time(t.started_ms),
            ended_ms: time(t.ended_ms),
            left_out: t.left_out,
            checks,
            fixes,
            extractions,
            verified,
            artifacts: t
                .artifacts
                .into_iter()
                .map(|a| Artifact {
                    name: a.name,
                    digest: a.digest,
                    size: a.size,
                })
                .collect(),
        }
    }
}

impl From<v1::Group> for Group {
    fn from(g: v1::Group) -> Self {
        Group {
            arch: g.arch,
            codestreams: g.codestreams,
            digest: g.digest,
        }
    }
}

impl From<v1::Event> for Event {
    fn from(e: v1::Event) -> Self {
        Event {
            number: e.number,
            time_ms: e.time_ms,
            message: e.message,
            task: e.task.map(Task::from),
            ended: e.ended.map(Livepatch::from),
        }
    }
}

/// One execution of a task by one worker.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Attempt {
    pub task_id: String,
    pub number: u32,
    pub worker: String,
    pub state: &'static str,
    pub started_ms: i64,
    pub ended_ms: Option<i64>,
    pub failure: Option<Failure>,
}

pub fn attempt_state(attempt: &v1::AttemptRecord) -> &'static str {
    match attempt.state() {
        v1::AttemptState::Leased => "running",
        v1::AttemptState::Succeeded => "succeeded",
        v1::AttemptState::Failed => "failed",
        v1::AttemptState::HandedBack => "handed back",
        v1::AttemptState::TakenBack => "taken back",
        v1::AttemptState::Lost => "lost",
        v1::AttemptState::Died => "died",
        v1::AttemptState::Cancelled => "cancelled",
        v1::AttemptState::Unspecified => "unknown",
    }
}

impl From<v1::AttemptRecord> for Attempt {
    fn from(a: v1::AttemptRecord) -> Self {
        Attempt {
            state: attempt_state(&a),
            task_id: a.task_id,
            number: a.number,
            worker: a.worker,
            started_ms: a.started_ms,
            ended_ms: time(a.ended_ms),
            failure: a.failure.map(Failure::from),
        }
    }
}

/// Ready tasks that wait for the same.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Waiting {
    pub reason: String,
    pub tasks: u32,
    /// When the one was ready that has waited the longest.
    pub oldest_ms: i64,
    /// The names of some whose tasks they are.
    pub livepatches: Vec<String>,
    /// No slot that becomes free will do: somebody has to do something.
    pub blocked: bool,
}

impl From<v1::Waiting> for Waiting {
    fn from(w: v1::Waiting) -> Self {
        Waiting {
            reason: w.reason,
            tasks: w.tasks,
            oldest_ms: w.oldest_ms,
            livepatches: w.livepatches,
            blocked: w.blocked,
        }
    }
}

/// A codestream on one architecture, and who holds its tree.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CodestreamInfo {
    pub codestream: String,
    pub arch: String,
    pub workers: Vec<String>,
    pub kernel: Option<String>,
    /// The last day of support, as in `2026-11-15`.
    pub end_of_support: Option<String>,
    pub project: Option<String>,
    pub patchid: Option<String>,
}

impl From<v1::CodestreamInfo> for CodestreamInfo {
    fn from(c: v1::CodestreamInfo) -> Self {
        let platform = c.platform.unwrap_or_default();
        CodestreamInfo {
            codestream: platform.codestream,
            arch: platform.arch,
            workers: c.workers,
            kernel: text(c.kernel),
            end_of_support: text(c.end_of_support),
            project: text(c.project),
            patchid: text(c.patchid),
        }
    }
}

//! Ending attempts: by their worker's commit, or because the worker was lost. One transaction holds the outcome, its
//! event, what is planned next, and the livepatch's verdict if that was its last task.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Cause, Digest, Ending, Failure, Outcome};
use klp_livepatch::report::Report;
use klp_livepatch::task::{AttemptId, LivepatchId, Platform, TaskKind};
use klp_livepatch::{Codestream, Reason};

use super::{Now, create, fleet, record};
use crate::lifecycle::{self, Holder, Retry, State, Step, Taken};
use crate::plan::{self, Lacking, Planned};
use crate::standing::Policy;
use crate::store::{self, Change, EndedAttempt, OpenTask, StoreError, Tx};

/// What the configuration says about failures by the farm's fault.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// For tasks.
    pub retry: Retry,
    /// For workers.
    pub quarantine: Policy,
}

/// A worker's commit of an attempt's outcome.
#[derive(Clone, Debug)]
pub struct Committing {
    pub attempt: AttemptId,
    pub by: Holder,
    pub outcome: Outcome,
    /// Which of the outcome's artifacts are not stored.
    pub missing: Vec<Digest>,
}

/// What the worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    Committed,
    Superseded,
    ArtifactsMissing(Vec<Digest>),
}

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("there is no attempt {0}")]
    Unknown(AttemptId),
    /// The outcome can't be one of this task.
    #[error("the outcome contradicts itself or its task: {0}")]
    Contradiction(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for CommitError {
    fn from(error: rusqlite::Error) -> Self {
        CommitError::Store(error.into())
    }
}

/// Records an outcome if its attempt is the task's current one and its artifacts are stored.
///
/// # Errors
/// The attempt was never given out, or the outcome does not fit it; nothing was changed.
pub fn commit(tx: &mut Tx<'_>, committing: &Committing, rules: &Rules, now: Now) -> Result<Disposition, CommitError> {
    let Committing {
        attempt: id,
        by,
        outcome,
        missing,
    } = committing;
    let unknown = CommitError::Unknown(*id);
    let Some(task) = store::open_task(tx, id.task)? else {
        return Err(unknown);
    };
    let Some(attempt) = store::attempt(tx, id.task, id.number)? else {
        return Err(unknown);
    };
    let step = match task.status.commit(
        id.number,
        attempt.state,
        &attempt.holder,
        by,
        &outcome.ending,
        &rules.retry,
        now.ms,
        now.noise(),
    ) {
        lifecycle::Commit::Superseded => return Ok(Disposition::Superseded),
        lifecycle::Commit::Repeated => return Ok(Disposition::Committed),
        lifecycle::Commit::Accepted(step) => step,
    };
    if let Some(problem) = contradiction(task.key.kind, outcome) {
        return Err(CommitError::Contradiction(problem));
    }
    if !missing.is_empty() {
        return Ok(Disposition::ArtifactsMissing(missing.clone()));
    }
    match &outcome.ending {
        Ending::Failed(failure) if failure.cause == Cause::Farm => {
            fleet::fault(tx, &by.worker, &failure.message, &rules.quarantine, now)?;
        }
        Ending::Succeeded | Ending::Failed(_) => fleet::success(tx, &by.worker)?,
        Ending::HandedBack { .. } => {}
    }
    settle(tx, &task, *id, step, Some(outcome), &rules.retry, now)?;
    Ok(Disposition::Committed)
}

/// What makes an outcome impossible for a task of this kind; an extraction that does not compile is no success.
fn contradiction(kind: TaskKind, outcome: &Outcome) -> Option<&'static str> {
    let succeeded = outcome.ending == Ending::Succeeded;
    match (kind, &outcome.report) {
        (TaskKind::Check, Some(Report::Extract(_) | Report::Verify(_)))
        | (TaskKind::Extract, Some(Report::Check(_) | Report::Verify(_)))
        | (TaskKind::Verify, Some(Report::Check(_) | Report::Extract(_))) => {
            Some("it reported what another kind of task finds")
        }
        (_, None) if succeeded => Some("it succeeded without a report"),
        (_, Some(Report::Check(report))) if succeeded && report.problems().next().is_some() => {
            Some("the check succeeded and reports problems")
        }
        (_, Some(Report::Extract(report))) if succeeded && report.targets.iter().any(|t| !t.compile.passed) => {
            Some("the extraction succeeded and reports a source that does not compile")
        }
        _ => None,
    }
}

/// An attempt that its worker will not bring to an end, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub attempt: AttemptId,
    pub worker: WorkerName,
    pub taken: Taken,
    pub reason: String,
}

/// Takes attempts from workers that were lost. One that is not running any more is left alone.
///
/// # Errors
/// The database's.
pub fn lose(tx: &mut Tx<'_>, losses: &[Loss], rules: &Rules, now: Now) -> Result<(), StoreError> {
    // However many attempts it lost at once, it was one fault of the worker.
    let mut faulty: BTreeMap<&WorkerName, &str> = BTreeMap::new();
    for (n, loss) in (0u128..).zip(losses) {
        let Some(task) = store::open_task(tx, loss.attempt.task)? else {
            continue;
        };
        // Each has its own noise, so that what was lost together does not come back together.
        let now = Now {
            seed: now.seed.wrapping_add(n * 7919),
            ..now
        };
        let (number, reason) = (loss.attempt.number, &loss.reason);
        let step = task
            .status
            .take(number, loss.taken, reason, &rules.retry, now.ms, now.noise());
        if let Some(step) = step {
            settle(tx, &task, loss.attempt, step, None, &rules.retry, now)?;
            if loss.taken != Taken::Unstarted {
                faulty.insert(&loss.worker, reason);
            }
        }
    }
    for (worker, reason) in faulty {
        fleet::fault(tx, worker, reason, &rules.quarantine, now)?;
    }
    Ok(())
}

fn settle(
    tx: &mut Tx<'_>,
    task: &OpenTask,
    id: AttemptId,
    mut step: Step,
    outcome: Option<&Outcome>,
    retry: &Retry,
    now: Now,
) -> Result<(), StoreError> {
    let report = outcome.and_then(|o| o.report.as_ref());
    let started = store::end_attempt(tx, id, step.attempt, step.failure.as_ref(), report, now.ms)?;
    tx.note(Change::Attempt(EndedAttempt {
        livepatch: task.livepatch,
        kind: task.key.kind,
        state: step.attempt,
        cause: step.failure.as_ref().map(|f| f.cause),
        again: step.task.is_open(),
        lasted: now.ms - started,
    }));
    if let Some(outcome) = outcome {
        store::add_artifacts(tx, id, &outcome.artifacts)?;
        if let Some(Report::Check(check)) = report
            && check.leaves_out()
        {
            store::set_left_out(tx, task.id, true)?;
        }
    }
    if step.sets_aside(retry) {
        step.failure = Some(Failure::new(Cause::Farm, set_aside(tx, task)?));
    }
    let message = message(task, &step, now);
    let ended = !step.task.is_open();
    record(tx, task, step.task, step.failure.as_ref(), &message, now)?;
    match ended {
        true => follow_up(tx, task, now),
        false => Ok(()),
    }
}

/// Plans what comes after a task that has just ended, and ends the livepatch if that was all.
pub(super) fn follow_up(tx: &mut Tx<'_>, task: &OpenTask, now: Now) -> Result<(), StoreError> {
    let platform = &task.key.platform;
    let aim = store::aim(tx, task.livepatch)?;
    let tasks = store::planned(tx, task.livepatch, Some(&platform.codestream))?;
    let mut next = plan::next(platform, &tasks, &aim);
    if next.is_empty() && plan::wants_reconciling(&tasks) {
        let found = store::findings(tx, task.livepatch, &platform.codestream)?;
        next = plan::reconcile(&tasks, &found);
    }
    create(tx, task.livepatch, next, now)?;
    conclude(tx, task.livepatch, None, now)
}

/// Records a livepatch's verdict if nothing of it is left to do; `why` is what whoever ended it said.
pub(super) fn conclude(
    tx: &mut Tx<'_>,
    livepatch: LivepatchId,
    why: Option<&Reason>,
    now: Now,
) -> Result<(), StoreError> {
    if store::has_open_task(tx, livepatch)? {
        return Ok(());
    }
    let tasks = store::planned(tx, livepatch, None)?;
    let lacking = lacking(tx, livepatch, &tasks)?;
    if let Some(mut verdict) = plan::verdict(&tasks, &store::aim(tx, livepatch)?, &lacking) {
        if let Some(why) = why {
            verdict.sentence += &format!(" ({why})");
        }
        store::end_livepatch(tx, livepatch, &verdict, now.ms)?;
        store::append_event(tx, livepatch, now.ms, &verdict.sentence, None, true)?;
        tx.note(Change::Ended { livepatch });
    }
    Ok(())
}

/// What is missing where another architecture's source is to load.
fn lacking(tx: &Tx<'_>, livepatch: LivepatchId, tasks: &[Planned]) -> Result<Lacking, StoreError> {
    let verified = tasks.iter().filter(|t| t.key.kind == TaskKind::Verify);
    let codestreams: BTreeSet<&Codestream> = verified.map(|t| &t.key.platform.codestream).collect();
    let mut lacking = Lacking::new();
    for codestream in codestreams {
        let of: Vec<Planned> = tasks
            .iter()
            .filter(|t| t.key.platform.codestream == *codestream)
            .cloned()
            .collect();
        let found = store::findings(tx, livepatch, codestream)?;
        lacking.extend(plan::lacking(&of, &found).into_iter().map(|(arch, count)| {
            let codestream = codestream.clone();
            (Platform { codestream, arch }, count)
        }));
    }
    Ok(lacking)
}

/// Why a task is not tried any more whose workers died, and where to look.
pub(super) fn set_aside(tx: &Tx<'_>, task: &OpenTask) -> Result<String, StoreError> {
    let deaths: Vec<String> = store::deaths_of(tx, task.id)?
        .iter()
        .map(|(number, worker)| format!("attempt {number} on {worker}"))
        .collect();
    let name = store::livepatch(tx, task.livepatch)?.map(|l| l.spec.name.to_string());
    let name = name.unwrap_or_default();
    let (kind, Platform { codestream, arch }) = (task.key.kind, &task.key.platform);
    Ok(format!(
        "set aside, because its workers died under it: {}; read what each logged with `klp-farm logs {name} --codestreams \
         '{codestream}$' --arch {arch} --kind {kind} --attempt N`, and when the cause is gone `klp-farm retry {name}`",
        deaths.join(", ")
    ))
}

fn message(task: &OpenTask, step: &Step, now: Now) -> String {
    let key = &task.key;
    let why = step
        .failure
        .as_ref()
        .map(|f| format!(" ({}): {}", f.cause, f.message))
        .unwrap_or_default();
    match step.task.state {
        State::Succeeded => format!("{key} succeeded"),
        State::Failed => format!("{key} failed{why}"),
        State::Waiting { not_before } => {
            let pause = (not_before - now.ms).max(0) as f64 / 1000.0;
            let reason = step.failure.as_ref().map_or("", |f| f.message.as_str());
            format!("{key} will be tried again in {pause:.1} s: {reason}")
        }
        // A step ends an attempt, so it never leaves a lease.
        State::Leased(_) => format!("{key} is leased"),
        // Nor does one that cancels.
        State::Cancelled => format!("{key} cancelled"),
    }
}

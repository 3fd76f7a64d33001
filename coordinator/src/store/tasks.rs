//! Tasks: reading and writing their rows.

use std::sync::Arc;

use klp_livepatch::Codestream;
use klp_livepatch::outcome::{Artifact, Failure};
use klp_livepatch::report::Report;
use klp_livepatch::round::Input;
use klp_livepatch::task::{LivepatchId, TaskId, TaskKey};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::attempts::{artifacts, faulty_workers};
use super::rows::{failure, json, parsed, task_key, to_json, unreadable};
use super::{OpenTask, attempts};
use crate::lifecycle::{Holder, Lease, Millis, State, Status};
use crate::plan::{Planned, Progress};

/// A task with what its newest attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    pub id: TaskId,
    pub livepatch: LivepatchId,
    pub key: TaskKey,
    pub seq: i64,
    pub status: Status,
    pub failure: Option<Failure>,
    pub created: Millis,
    pub ended: Option<Millis>,
    /// Of the newest attempt.
    pub worker: Option<String>,
    pub started: Option<Millis>,
    pub report: Option<Report>,
    pub artifacts: Vec<Artifact>,
    /// It is a check that succeeded and found nothing to patch.
    pub left_out: bool,
    pub input: Option<Arc<Input>>,
}

/// A task to be created.
#[derive(Clone, Copy, Debug)]
pub struct NewTask<'a> {
    pub id: TaskId,
    pub livepatch: LivepatchId,
    pub key: &'a TaskKey,
    pub input: Option<&'a Input>,
}

/// A task with the columns of its newest attempt.
const SELECT: &str = "SELECT t.seq, t.id, t.livepatch, t.kind, t.codestream, t.arch, t.round, t.state, t.attempt, \
     t.faults, t.deaths, t.not_before_ms, t.failure_cause, t.failure_message, t.created_ms, t.ended_ms, \
     t.left_out, t.input, a.worker, a.incarnation, a.lease_expires_ms, a.started_ms, a.report \
     FROM tasks t LEFT JOIN attempts a ON a.task = t.id AND a.number = t.attempt";

/// Creates a task, unless its livepatch has one with this key. Answers whether it did.
pub fn insert_task(db: &Connection, task: NewTask<'_>, now: Millis) -> rusqlite::Result<bool> {
    let key = task.key;
    let created = db
        .prepare_cached(
            "INSERT INTO tasks (id, livepatch, kind, codestream, arch, round, input, state, created_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?) \
             ON CONFLICT (livepatch, kind, codestream, arch, round) DO NOTHING",
        )?
        .execute(params![
            task.id.to_string(),
            task.livepatch.to_string(),
            key.kind.as_str(),
            key.platform.codestream.as_str(),
            key.platform.arch.as_str(),
            key.round,
            task.input.map(to_json).transpose()?,
            now
        ])?;
    Ok(created == 1)
}

/// Records a task's new status.
pub fn update_task(
    db: &Connection,
    id: TaskId,
    status: &Status,
    failure: Option<&Failure>,
    now: Millis,
) -> rusqlite::Result<()> {
    let not_before = match status.state {
        State::Waiting { not_before } => not_before,
        _ => 0,
    };
    db.prepare_cached(
        "UPDATE tasks SET state = ?, attempt = ?, faults = ?, deaths = ?, not_before_ms = ?, failure_cause = ?, \
         failure_message = ?, ended_ms = ? WHERE id = ?",
    )?
    .execute(params![
        state_text(&status.state),
        status.attempt,
        status.faults,
        status.deaths,
        not_before,
        failure.map(|f| f.cause.as_str()),
        failure.map(|f| &f.message),
        (!status.is_open()).then_some(now),
        id.to_string()
    ])?;
    Ok(())
}

pub fn task(db: &Connection, id: TaskId) -> rusqlite::Result<Option<TaskRow>> {
    db.prepare_cached(&format!("{SELECT} WHERE t.id = ?"))?
        .query_row([id.to_string()], read)
        .optional()?
        .map(|row| with_artifacts(db, row))
        .transpose()
}

/// All tasks of a livepatch, in natural order of codestream, then arch, kind and round.
pub fn tasks_of(db: &Connection, livepatch: LivepatchId) -> rusqlite::Result<Vec<TaskRow>> {
    let rows = in_order(db, SELECT, livepatch)?;
    rows.into_iter().map(|row| with_artifacts(db, row)).collect()
}

/// As [`tasks_of`], without what attempts reported and stored.
pub fn bare_tasks_of(db: &Connection, livepatch: LivepatchId) -> rusqlite::Result<Vec<TaskRow>> {
    in_order(db, &SELECT.replace("a.report", "NULL AS report"), livepatch)
}

fn in_order(db: &Connection, select: &str, livepatch: LivepatchId) -> rusqlite::Result<Vec<TaskRow>> {
    let mut rows = db
        .prepare_cached(&format!("{select} WHERE t.livepatch = ?"))?
        .query_map([livepatch.to_string()], read)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    rows.sort_by(|a, b| {
        let order = |row: &TaskRow| (row.key.kind, row.key.round);
        a.key
            .platform
            .cmp(&b.key.platform)
            .then_with(|| order(a).cmp(&order(b)))
    });
    Ok(rows)
}

/// Marks a check as one that found nothing to patch, or takes that back.
pub fn set_left_out(db: &Connection, id: TaskId, left_out: bool) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE tasks SET left_out = ? WHERE id = ?")?
        .execute(params![left_out, id.to_string()])?;
    Ok(())
}

/// A livepatch's tasks as planning sees them; with a codestream, only those of it.
pub fn planned(db: &Connection, livepatch: LivepatchId, of: Option<&Codestream>) -> rusqlite::Result<Vec<Planned>> {
    let read = |row: &Row<'_>| {
        let state: String = row.get("state")?;
        Ok(Planned {
            key: task_key(row)?,
            progress: match state.as_str() {
                "waiting" | "leased" => Progress::Open,
                "succeeded" if row.get("left_out")? => Progress::LeftOut,
                "succeeded" => Progress::Succeeded,
                "failed" => Progress::Failed,
                "cancelled" => Progress::Cancelled,
                other => return Err(unreadable("state", other)),
            },
        })
    };
    const SELECT: &str = "SELECT kind, codestream, arch, round, state, left_out FROM tasks WHERE livepatch = ?1";
    let id = livepatch.to_string();
    match of {
        None => db.prepare_cached(SELECT)?.query_map([id], read)?.collect(),
        // One look-up in the unique index for each kind: a commit must not cost more the larger its livepatch is.
        Some(codestream) => db
            .prepare_cached(&format!(
                "{SELECT} AND kind IN ('check', 'extract', 'verify') AND codestream = ?2"
            ))?
            .query_map(params![id, codestream.as_str()], read)?
            .collect(),
    }
}

/// Whether a livepatch has an open task. Costs the same however many it has.
pub fn has_open_task(db: &Connection, livepatch: LivepatchId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM tasks WHERE livepatch = ? AND state IN ('waiting', 'leased') LIMIT 1")?
        .exists([livepatch.to_string()])
}

/// What decides about tasks, without what their attempts found: cheap whatever they reported.
const SELECT_OPEN: &str = "SELECT t.seq, t.id, t.livepatch, t.kind, t.codestream, t.arch, t.round, t.state, t.attempt, \
     t.faults, t.deaths, t.not_before_ms, t.created_ms, t.input, a.worker, a.incarnation, a.lease_expires_ms \
     FROM tasks t LEFT JOIN attempts a ON t.state = 'leased' AND a.task = t.id AND a.number = t.attempt";

fn read_open(row: &Row<'_>) -> rusqlite::Result<OpenTask> {
    Ok(OpenTask {
        id: parsed(row, "id")?,
        livepatch: parsed(row, "livepatch")?,
        key: task_key(row)?,
        seq: row.get("seq")?,
        created: row.get("created_ms")?,
        status: status(row)?,
        input: input(row)?,
        avoid: Default::default(),
    })
}

/// A task as the farm keeps it, but for the workers it avoids.
pub fn open_task(db: &Connection, id: TaskId) -> rusqlite::Result<Option<OpenTask>> {
    db.prepare_cached(&format!("{SELECT_OPEN} WHERE t.id = ?"))?
        .query_row([id.to_string()], read_open)
        .optional()
}

/// All open tasks, as the farm keeps them.
pub fn open_tasks(db: &Connection) -> rusqlite::Result<Vec<OpenTask>> {
    let mut tasks = db
        .prepare(&format!("{SELECT_OPEN} WHERE t.state IN ('waiting', 'leased')"))?
        .query_map([], read_open)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for task in tasks.iter_mut().filter(|t| t.status.faults > 0) {
        task.avoid = faulty_workers(db, task.id)?;
    }
    Ok(tasks)
}

/// A livepatch's open tasks, but for the workers they avoid.
pub fn open_tasks_of(db: &Connection, livepatch: LivepatchId) -> rusqlite::Result<Vec<OpenTask>> {
    db.prepare_cached(&format!(
        "{SELECT_OPEN} WHERE t.livepatch = ? AND t.state IN ('waiting', 'leased') ORDER BY t.seq"
    ))?
    .query_map([livepatch.to_string()], read_open)?
    .collect()
}

/// A livepatch's tasks that failed or were cancelled.
pub fn ended_in_vain(db: &Connection, livepatch: LivepatchId) -> rusqlite::Result<Vec<OpenTask>> {
    db.prepare_cached(&format!(
        "{SELECT_OPEN} WHERE t.livepatch = ? AND t.state IN ('failed', 'cancelled') ORDER BY t.seq"
    ))?
    .query_map([livepatch.to_string()], read_open)?
    .collect()
}

fn with_artifacts(db: &Connection, mut row: TaskRow) -> rusqlite::Result<TaskRow> {
    if !row.status.is_open() {
        row.artifacts = artifacts(db, row.id, row.status.attempt)?;
    }
    Ok(row)
}

fn read(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    let report: Option<String> = row.get("report")?;
    Ok(TaskRow {
        id: parsed(row, "id")?,
        livepatch: parsed(row, "livepatch")?,
        key: task_key(row)?,
        seq: row.get("seq")?,
        status: status(row)?,
        failure: failure(row)?,
        created: row.get("created_ms")?,
        ended: row.get("ended_ms")?,
        worker: row.get("worker")?,
        started: row.get("started_ms")?,
        report: report.map(|text| json("report", &text)).transpose()?,
        artifacts: Vec::new(),
        left_out: row.get("left_out")?,
        input: input(row)?,
    })
}

fn input(row: &Row<'_>) -> rusqlite::Result<Option<Arc<Input>>> {
    let text: Option<String> = row.get("input")?;
    text.map(|text| json("input", &text).map(Arc::new)).transpose()
}

fn status(row: &Row<'_>) -> rusqlite::Result<Status> {
    let state: String = row.get("state")?;
    Ok(Status {
        state: match state.as_str() {
            "waiting" => State::Waiting {
                not_before: row.get("not_before_ms")?,
            },
            "leased" => State::Leased(Lease {
                holder: Holder {
                    worker: parsed(row, "worker")?,
                    incarnation: parsed(row, "incarnation")?,
                },
                expires: row.get("lease_expires_ms")?,
            }),
            "succeeded" => State::Succeeded,
            "failed" => State::Failed,
            "cancelled" => State::Cancelled,
            other => return Err(unreadable("state", other)),
        },
        attempt: row.get("attempt")?,
        faults: row.get("faults")?,
        deaths: row.get("deaths")?,
    })
}

pub(super) fn state_text(state: &State) -> &'static str {
    match state {
        State::Waiting { .. } => "waiting",
        State::Leased(_) => "leased",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// A task as it was at an event: its row, with what an event keeps put in place of what has changed since.
pub(super) fn task_as_of(
    db: &Connection,
    id: TaskId,
    at: Millis,
    state: &str,
    number: u32,
    failure: Option<Failure>,
) -> rusqlite::Result<Option<TaskRow>> {
    let Some(mut row) = db
        .prepare_cached(&format!("{SELECT} WHERE t.id = ?"))?
        .query_row([id.to_string()], read)
        .optional()?
    else {
        return Ok(None);
    };
    let attempt = attempts::attempt(db, id, number)?;
    row.worker = attempt.as_ref().map(|a| a.holder.worker.to_string());
    row.started = attempt.as_ref().map(|a| a.started);
    row.status.attempt = number;
    row.failure = failure;
    let ended = matches!(state, "succeeded" | "failed" | "cancelled");
    row.ended = ended.then_some(at);
    row.status.state = match (state, attempt) {
        ("succeeded", _) => State::Succeeded,
        ("failed", _) => State::Failed,
        ("cancelled", _) => State::Cancelled,
        ("leased", Some(attempt)) => State::Leased(Lease {
            holder: attempt.holder,
            expires: attempt.lease_expires,
        }),
        _ => State::Waiting { not_before: 0 },
    };
    row.report = None;
    if state != "leased" {
        row.report = attempts::report(db, id, number)?;
    }
    with_artifacts(db, row).map(Some)
}

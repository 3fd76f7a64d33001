//! Attempts and their artifacts: reading and writing their rows.

use std::collections::BTreeSet;

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Artifact, Failure};
use klp_livepatch::report::Report;
use klp_livepatch::task::{AttemptId, Incarnation, LivepatchId, TaskId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{attempt_state, failure, json, parsed, to_json};
use crate::lifecycle::{AttemptState, Holder, Lease, Millis};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    pub state: AttemptState,
    pub holder: Holder,
    pub lease_expires: Millis,
    pub started: Millis,
}

/// An attempt as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastAttempt {
    pub id: AttemptId,
    pub worker: WorkerName,
    pub state: AttemptState,
    pub started: Millis,
    pub ended: Option<Millis>,
    pub failure: Option<Failure>,
}

/// A task's attempts, oldest first.
pub fn attempts_of_task(db: &Connection, task: TaskId) -> rusqlite::Result<Vec<PastAttempt>> {
    db.prepare_cached(&format!("{PAST} WHERE a.task = ? ORDER BY a.number"))?
        .query_map([task.to_string()], past)?
        .collect()
}

/// The newest `limit` attempts of a livepatch, by task and number.
pub fn attempts_of(db: &Connection, livepatch: LivepatchId, limit: u32) -> rusqlite::Result<Vec<PastAttempt>> {
    let mut attempts = db
        .prepare_cached(&format!(
            "{PAST} JOIN tasks t ON t.id = a.task WHERE t.livepatch = ? ORDER BY a.started_ms DESC LIMIT ?"
        ))?
        .query_map(params![livepatch.to_string(), limit], past)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    attempts.sort_by_key(|attempt| attempt.id);
    Ok(attempts)
}

const PAST: &str = "SELECT a.task, a.number, a.worker, a.state, a.started_ms, a.ended_ms, a.failure_cause, \
     a.failure_message FROM attempts a";

fn past(row: &Row<'_>) -> rusqlite::Result<PastAttempt> {
    let state: String = row.get("state")?;
    Ok(PastAttempt {
        id: AttemptId {
            task: parsed(row, "task")?,
            number: row.get("number")?,
        },
        worker: parsed(row, "worker")?,
        state: attempt_state("state", &state)?,
        started: row.get("started_ms")?,
        ended: row.get("ended_ms")?,
        failure: failure(row)?,
    })
}

pub fn insert_attempt(db: &Connection, id: AttemptId, lease: &Lease, now: Millis) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO attempts (task, number, worker, incarnation, state, lease_expires_ms, started_ms) \
         VALUES (?, ?, ?, ?, 'leased', ?, ?)",
    )?
    .execute(params![
        id.task.to_string(),
        id.number,
        lease.holder.worker.as_str(),
        lease.holder.incarnation.to_string(),
        lease.expires,
        now
    ])?;
    Ok(())
}

/// Records how an attempt ended; answers when it had begun.
pub fn end_attempt(
    db: &Connection,
    id: AttemptId,
    state: AttemptState,
    failure: Option<&Failure>,
    report: Option<&Report>,
    now: Millis,
) -> rusqlite::Result<Millis> {
    let ended = params![
        state.as_str(),
        now,
        failure.map(|f| f.cause.as_str()),
        failure.map(|f| &f.message),
        report.map(to_json).transpose()?,
        id.task.to_string(),
        id.number
    ];
    db.prepare_cached(
        "UPDATE attempts SET state = ?, ended_ms = ?, failure_cause = ?, failure_message = ?, report = ? \
         WHERE task = ? AND number = ? RETURNING started_ms",
    )?
    .query_row(ended, |row| row.get(0))
}

pub fn attempt(db: &Connection, task: TaskId, number: u32) -> rusqlite::Result<Option<AttemptRow>> {
    db.prepare_cached(
        "SELECT state, worker, incarnation, lease_expires_ms, started_ms FROM attempts WHERE task = ? AND number = ?",
    )?
    .query_row(params![task.to_string(), number], |row| {
        let state: String = row.get("state")?;
        Ok(AttemptRow {
            state: attempt_state("state", &state)?,
            holder: Holder {
                worker: parsed(row, "worker")?,
                incarnation: parsed(row, "incarnation")?,
            },
            lease_expires: row.get("lease_expires_ms")?,
            started: row.get("started_ms")?,
        })
    })
    .optional()
}

pub(super) fn report(db: &Connection, task: TaskId, number: u32) -> rusqlite::Result<Option<Report>> {
    let text: Option<Option<String>> = db
        .prepare_cached("SELECT report FROM attempts WHERE task = ? AND number = ?")?
        .query_row(params![task.to_string(), number], |row| row.get(0))
        .optional()?;
    text.flatten().map(|text| json("report", &text)).transpose()
}

/// The workers on which a task failed by the farm's fault. (A failure of another kind ends the task.)
pub fn faulty_workers(db: &Connection, task: TaskId) -> rusqlite::Result<BTreeSet<WorkerName>> {
    db.prepare_cached("SELECT DISTINCT worker FROM attempts WHERE task = ? AND state IN ('failed', 'lost', 'died')")?
        .query_map([task.to_string()], |row| parsed(row, "worker"))?
        .collect()
}

/// How many attempts of a task, from this one on, failed by the farm's fault.
pub fn faults_since(db: &Connection, id: AttemptId) -> rusqlite::Result<u32> {
    db.prepare_cached(
        "SELECT count(*) FROM attempts WHERE task = ? AND number >= ? AND state IN ('failed', 'lost', 'died')",
    )?
    .query_row(params![id.task.to_string(), id.number], |row| row.get(0))
}

/// Marks what an incarnation of a worker lost as ended with it; answers which attempts these are.
pub fn bury_lost(db: &Connection, worker: &WorkerName, incarnation: Incarnation) -> rusqlite::Result<Vec<AttemptId>> {
    db.prepare_cached(
        "UPDATE attempts SET state = 'died' WHERE worker = ? AND incarnation = ? AND state = 'lost' \
         RETURNING task, number",
    )?
    .query_map(params![worker.as_str(), incarnation.to_string()], |row| {
        Ok(AttemptId {
            task: parsed(row, "task")?,
            number: row.get("number")?,
        })
    })?
    .collect()
}

/// The attempts of a task whose workers died, oldest first.
pub fn deaths_of(db: &Connection, task: TaskId) -> rusqlite::Result<Vec<(u32, WorkerName)>> {
    db.prepare_cached("SELECT number, worker FROM attempts WHERE task = ? AND state = 'died' ORDER BY number")?
        .query_map([task.to_string()], |row| {
            Ok((row.get("number")?, parsed(row, "worker")?))
        })?
        .collect()
}

pub fn add_artifacts(db: &Connection, id: AttemptId, artifacts: &[Artifact]) -> rusqlite::Result<()> {
    let mut insert =
        db.prepare_cached("INSERT INTO artifacts (task, attempt, name, digest, size) VALUES (?, ?, ?, ?, ?)")?;
    for artifact in artifacts {
        insert.execute(params![
            id.task.to_string(),
            id.number,
            artifact.name,
            artifact.digest.to_string(),
            // At most MAX_ARTIFACT.
            artifact.size as i64
        ])?;
    }
    Ok(())
}

pub(super) fn artifacts(db: &Connection, task: TaskId, number: u32) -> rusqlite::Result<Vec<Artifact>> {
    db.prepare_cached("SELECT name, digest, size FROM artifacts WHERE task = ? AND attempt = ? ORDER BY name")?
        .query_map(params![task.to_string(), number], |row| {
            let size: i64 = row.get("size")?;
            Ok(Artifact {
                name: row.get("name")?,
                digest: parsed(row, "digest")?,
                size: size.unsigned_abs(),
            })
        })?
        .collect()
}

//! Events: numbered without gaps within their livepatch.

use klp_livepatch::outcome::Failure;
use klp_livepatch::task::{LivepatchId, TaskId};
use rusqlite::{Connection, Row, params};

use super::rows::{failure, parsed};
use super::tasks::{TaskRow, state_text, task_as_of};
use super::{Change, Tx};
use crate::lifecycle::{Millis, Status};

/// An event as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    pub number: u64,
    pub time: Millis,
    pub message: String,
    /// The livepatch ended with it.
    pub ended: bool,
    /// The task as it was after the event.
    pub task: Option<TaskRow>,
}

/// Appends the livepatch's next event and notes it for those who wait for it. `ended` marks its last.
pub fn append_event(
    tx: &mut Tx<'_>,
    livepatch: LivepatchId,
    now: Millis,
    message: &str,
    task: Option<(TaskId, &Status, Option<&Failure>)>,
    ended: bool,
) -> rusqlite::Result<()> {
    let id = livepatch.to_string();
    let number: i64 = tx
        .prepare_cached("UPDATE livepatches SET last_event = last_event + 1 WHERE id = ? RETURNING last_event")?
        .query_row([&id], |row| row.get(0))?;
    let failure = task.and_then(|(_, _, failure)| failure);
    tx.prepare_cached(
        "INSERT INTO events (livepatch, number, time_ms, message, ended, task, task_state, attempt, failure_cause, \
         failure_message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        id,
        number,
        now,
        message,
        ended,
        task.map(|(task, _, _)| task.to_string()),
        task.map(|(_, status, _)| state_text(&status.state)),
        task.map(|(_, status, _)| status.attempt),
        failure.map(|f| f.cause.as_str()),
        failure.map(|f| &f.message),
    ])?;
    tx.note(Change::Event {
        livepatch,
        number: number.unsigned_abs(),
    });
    Ok(())
}

/// Up to `limit` events with numbers above `after`, in order.
pub fn events_after(
    db: &Connection,
    livepatch: LivepatchId,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<EventRow>> {
    let mut query = db.prepare_cached(
        "SELECT number, time_ms, message, ended, task, task_state, attempt, failure_cause, failure_message \
         FROM events WHERE livepatch = ? AND number > ? ORDER BY number LIMIT ?",
    )?;
    // Numbers beyond i64 are beyond every event.
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    query
        .query_map(params![livepatch.to_string(), after, limit], |row| read(db, row))?
        .collect()
}

fn read(db: &Connection, row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let time = row.get("time_ms")?;
    let about: Option<String> = row.get("task")?;
    let task = match about {
        None => None,
        Some(_) => {
            let state: String = row.get("task_state")?;
            let id = parsed(row, "task")?;
            task_as_of(db, id, time, &state, row.get("attempt")?, failure(row)?)?
        }
    };
    Ok(EventRow {
        number: row.get::<_, i64>("number")?.unsigned_abs(),
        time,
        message: row.get("message")?,
        ended: row.get("ended")?,
        task,
    })
}

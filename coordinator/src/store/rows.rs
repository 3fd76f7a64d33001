//! Columns as domain values. What is in the database was written by this program, so a value that can't be read means
//! that somebody else changed it; the error names the column.

use std::fmt;
use std::str::FromStr;

use klp_livepatch::outcome::Failure;
use klp_livepatch::task::{Platform, TaskKey};
use rusqlite::Row;
use rusqlite::types::Type;
use serde::de::DeserializeOwned;

use crate::lifecycle::AttemptState;

pub(super) fn unreadable(column: &str, error: impl fmt::Display) -> rusqlite::Error {
    let error = format!("column {column} holds what this program did not write: {error}");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into())
}

pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let text = row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e))?;
    text.parse().map_err(|e| unreadable(column, e))
}

pub(super) fn json<T: DeserializeOwned>(column: &str, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|e| unreadable(column, e))
}

/// # Errors
/// Never for the domain's types: their maps have text keys.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

pub(super) fn task_key(row: &Row<'_>) -> rusqlite::Result<TaskKey> {
    Ok(TaskKey {
        kind: parsed(row, "kind")?,
        platform: platform(row)?,
        round: row.get("round")?,
    })
}

pub(super) fn platform(row: &Row<'_>) -> rusqlite::Result<Platform> {
    Ok(Platform {
        codestream: parsed(row, "codestream")?,
        arch: parsed(row, "arch")?,
    })
}

pub(super) fn failure(row: &Row<'_>) -> rusqlite::Result<Option<Failure>> {
    let message: Option<String> = row.get("failure_message")?;
    message
        .map(|message| {
            Ok(Failure {
                cause: parsed(row, "failure_cause")?,
                message,
            })
        })
        .transpose()
}

pub(super) fn attempt_state(column: &str, text: &str) -> rusqlite::Result<AttemptState> {
    const ALL: [AttemptState; 8] = [
        AttemptState::Leased,
        AttemptState::Succeeded,
        AttemptState::Failed,
        AttemptState::HandedBack,
        AttemptState::TakenBack,
        AttemptState::Lost,
        AttemptState::Died,
        AttemptState::Cancelled,
    ];
    let known = ALL.into_iter().find(|s| s.as_str() == text);
    known.ok_or_else(|| unreadable(column, text))
}

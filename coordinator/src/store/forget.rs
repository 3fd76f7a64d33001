//! Forgetting livepatches that ended long ago.

use std::path::Path;

use klp_livepatch::names::LivepatchName;
use klp_livepatch::task::{LivepatchId, TaskId};
use rusqlite::{Connection, TransactionBehavior};

use super::configure;
use super::rows::parsed;
use crate::failpoint::{self, Point};
use crate::lifecycle::Millis;

/// What of a livepatch goes, referring rows before those they refer to.
const ROWS: &[&str] = &[
    "DELETE FROM events WHERE livepatch = ?1",
    "DELETE FROM artifacts WHERE task IN (SELECT id FROM tasks WHERE livepatch = ?1)",
    "DELETE FROM attempts WHERE task IN (SELECT id FROM tasks WHERE livepatch = ?1)",
    "DELETE FROM tasks WHERE livepatch = ?1",
    "DELETE FROM fixes WHERE livepatch = ?1",
    "DELETE FROM livepatches WHERE id = ?1",
];

/// Opens a connection of its own to forget with, beside the one that writes all else; its transactions are short. SQLite
/// does not check references here, as that would look through all events for each task: [`ROWS`] names all that refers.
///
/// # Errors
/// The database's.
pub fn open_to_forget(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    configure(&connection)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    Ok(connection)
}

/// The livepatches that ended before a time, oldest first.
///
/// # Errors
/// The database's.
pub fn ended_before(db: &Connection, time: Millis) -> rusqlite::Result<Vec<(LivepatchId, LivepatchName)>> {
    db.prepare("SELECT id, name FROM livepatches WHERE ended_ms < ? ORDER BY ended_ms")?
        .query_map([time], |row| Ok((parsed(row, "id")?, parsed(row, "name")?)))?
        .collect()
}

/// # Errors
/// The database's.
pub fn tasks(db: &Connection, livepatch: LivepatchId) -> rusqlite::Result<Vec<TaskId>> {
    db.prepare_cached("SELECT id FROM tasks WHERE livepatch = ?")?
        .query_map([livepatch.to_string()], |row| parsed(row, "id"))?
        .collect()
}

/// Forgets a livepatch, if it did end before the time; answers whether it did.
///
/// # Errors
/// The database's; then nothing is forgotten.
pub fn forget(db: &mut Connection, livepatch: LivepatchId, before: Millis) -> rusqlite::Result<bool> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let id = livepatch.to_string();
    let ended = "SELECT 1 FROM livepatches WHERE id = ? AND ended_ms < ?";
    // It may have been opened again since it was listed.
    if !tx.prepare_cached(ended)?.exists((&id, before))? {
        return Ok(false);
    }
    for delete in ROWS {
        tx.prepare_cached(delete)?.execute([&id])?;
    }
    failpoint::pass(Point::BeforeCommit);
    tx.commit()?;
    failpoint::pass(Point::AfterCommit);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever adds a table that belongs to livepatches adds it to [`ROWS`].
    #[test]
    fn all_that_refers_to_a_livepatch_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("farm.db");
        drop(crate::store::Store::open(&path, 1, crate::aside::Aside::Threads, |_| {}).unwrap());
        let db = open_to_forget(&path).unwrap();
        let mut referring: Vec<String> = db
            .prepare(
                "WITH RECURSIVE refers(name) AS (VALUES ('livepatches') UNION SELECT m.name FROM sqlite_schema m, \
                 pragma_foreign_key_list(m.name) f JOIN refers r ON f.\"table\" = r.name WHERE m.type = 'table') \
                 SELECT name FROM refers",
            )
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let mut cleared: Vec<&str> = ROWS.iter().map(|row| row.split(' ').nth(2).unwrap()).collect();
        referring.sort();
        cleared.sort();
        assert_eq!(referring, cleared);
    }
}

//! What must be so in every database of this schema, asked of the database itself; and where it refers to files.

use std::path::Path;

use klp_livepatch::outcome::Digest;
use klp_livepatch::task::TaskId;
use rusqlite::{Connection, OptionalExtension};

use super::rows::parsed;
use super::{MIGRATIONS, StoreError, open_reader};
use crate::lifecycle::Millis;

/// Each rule with a query for what breaks it: a sentence for each breach.
const RULES: &[(&str, &str)] = &[
    (
        "a leased task has one leased attempt, its newest, and no other task has any",
        "SELECT 'task ' || t.id || ' is ' || t.state || ' at attempt ' || t.attempt || ', its leased attempts are: ' || \
         coalesce((SELECT group_concat(number) FROM attempts WHERE task = t.id AND state = 'leased'), 'none') FROM tasks t \
         WHERE coalesce((SELECT group_concat(number) FROM attempts WHERE task = t.id AND state = 'leased'), '') \
         != iif(t.state = 'leased', CAST(t.attempt AS TEXT), '')",
    ),
    (
        "a task that succeeded has its newest attempt to thank",
        "SELECT 'task ' || t.id || ' succeeded and its attempt ' || t.attempt || ' is ' || coalesce(a.state, 'not there') \
         FROM tasks t LEFT JOIN attempts a ON a.task = t.id AND a.number = t.attempt \
         WHERE t.state = 'succeeded' AND a.state IS NOT 'succeeded'",
    ),
    (
        "attempts of a task are numbered from 1 to its newest",
        "SELECT 'task ' || t.id || ' has ' || count(a.number) || ' attempts up to ' || coalesce(max(a.number), 0) || \
         ', and says its newest is ' || t.attempt FROM tasks t LEFT JOIN attempts a ON a.task = t.id GROUP BY t.id \
         HAVING count(a.number) != t.attempt OR coalesce(max(a.number), 0) != t.attempt",
    ),
    (
        "events of a livepatch are numbered from 1 to its newest",
        "SELECT 'livepatch ' || l.name || ' has ' || count(e.number) || ' events from ' || coalesce(min(e.number), 0) || \
         ' to ' || coalesce(max(e.number), 0) || ', and says its newest is ' || l.last_event \
         FROM livepatches l LEFT JOIN events e ON e.livepatch = l.id GROUP BY l.id \
         HAVING count(e.number) != l.last_event OR coalesce(max(e.number), 0) != l.last_event \
         OR coalesce(min(e.number), 1) != 1",
    ),
    (
        "a livepatch has ended if and only if it has no open task",
        "SELECT 'livepatch ' || l.name || iif(l.ended_ms IS NULL, ' is running without an open task', \
         ' has ended with an open task') FROM livepatches l WHERE (l.ended_ms IS NULL) != EXISTS \
         (SELECT 1 FROM tasks t WHERE t.livepatch = l.id AND t.ended_ms IS NULL)",
    ),
    (
        "a task has ended if and only if it is not open",
        "SELECT 'task ' || id || ' is ' || state || iif(ended_ms IS NULL, ' without', ' with') || ' a time of its end' \
         FROM tasks WHERE (state IN ('waiting', 'leased')) != (ended_ms IS NULL)",
    ),
];

/// A breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub rule: &'static str,
    pub what: String,
}

/// How much a database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Amounts {
    pub livepatches: u64,
    pub tasks: u64,
    pub attempts: u64,
    pub events: u64,
}

/// Opens an existing database for reading, beside whoever writes it.
///
/// # Errors
/// It can't be opened, or has another schema than this program.
pub fn open_existing(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| StoreError::Open {
        path: path.to_owned(),
        error,
    };
    let connection = open_reader(path).map_err(failed)?;
    let version: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let (found, known) = (version as usize, MIGRATIONS.len());
    if found == known {
        return Ok(connection);
    }
    let path = path.to_owned();
    Err(match found > known {
        true => StoreError::Newer { path, found, known },
        false => StoreError::Commit(format!(
            "{} has schema {found}, older than this program's {known}: start the coordinator on it once, which brings it up \
             to date",
            path.display()
        )),
    })
}

/// All breaches of what SQLite itself and the rules above ask.
///
/// # Errors
/// The database can't be read.
pub fn breaches(db: &Connection) -> rusqlite::Result<Vec<Breach>> {
    let mut breaches = Vec::new();
    let mut look = |rule, query: &str| -> rusqlite::Result<()> {
        let mut statement = db.prepare(query)?;
        let found = statement.query_map([], |row| row.get(0))?;
        for what in found {
            breaches.push(Breach { rule, what: what? });
        }
        Ok(())
    };
    look(
        "the database is sound",
        "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check != 'ok'",
    )?;
    look(
        "what a row refers to is there",
        "SELECT 'a row of ' || \"table\" || ' refers to one of ' || parent || ' that is not there' \
         FROM pragma_foreign_key_check",
    )?;
    for (rule, query) in RULES {
        look(rule, query)?;
    }
    Ok(breaches)
}

/// # Errors
/// The database's.
pub fn amounts(db: &Connection) -> rusqlite::Result<Amounts> {
    let count = |table: &str| {
        let rows: i64 = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        Ok::<_, rusqlite::Error>(rows.unsigned_abs())
    };
    Ok(Amounts {
        livepatches: count("livepatches")?,
        tasks: count("tasks")?,
        attempts: count("attempts")?,
        events: count("events")?,
    })
}

/// Calls `take` with the digest and size of each content that outcomes and fixes name, and one that does; a digest again
/// if it is named with another size.
///
/// # Errors
/// The database's, or what `take` answers.
pub fn each_content<E: From<rusqlite::Error>>(
    db: &Connection,
    mut take: impl FnMut(Digest, u64, String) -> Result<(), E>,
) -> Result<(), E> {
    let mut query = db.prepare(
        "SELECT digest, size, min(task || '#' || attempt || ' ' || name) AS user FROM artifacts GROUP BY digest, size \
         UNION ALL SELECT digest, size, min(livepatch || ' fix') AS user FROM fixes GROUP BY digest, size",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let size: i64 = row.get("size")?;
        take(parsed(row, "digest")?, size.unsigned_abs(), row.get("user")?)?;
    }
    Ok(())
}

/// Whether an outcome or a fix names this content, other than of livepatches that ended before a time.
///
/// # Errors
/// The database's.
pub fn names_content(db: &Connection, digest: &Digest, ended_before: Millis) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM artifacts a LEFT JOIN tasks t ON t.id = a.task LEFT JOIN livepatches l ON l.id = t.livepatch \
         WHERE a.digest = ?1 AND (l.ended_ms IS NULL OR l.ended_ms >= ?2) \
         UNION ALL SELECT 1 FROM fixes f JOIN livepatches l ON l.id = f.livepatch \
         WHERE f.digest = ?1 AND (l.ended_ms IS NULL OR l.ended_ms >= ?2) LIMIT 1",
    )?
    .exists((digest.to_string(), ended_before))
}

/// # Errors
/// The database's.
pub fn has_task(db: &Connection, task: TaskId) -> rusqlite::Result<bool> {
    let found: Option<i64> = db
        .prepare_cached("SELECT 1 FROM tasks WHERE id = ?")?
        .query_row([task.to_string()], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

//! The coordinator's data as anybody may read it, beside the coordinator.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use klp_coordinator::store::audit;
use klp_livepatch::outcome::Digest;
use klp_livepatch::task::AttemptId;
use rusqlite::{Connection, OpenFlags, Params, Row};

pub struct Database {
    dir: PathBuf,
    connection: Connection,
}

/// An attempt as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub state: String,
    ended: Option<i64>,
}

impl Recorded {
    /// Whether its worker's outcome was taken.
    pub fn is_outcome(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "handed-back")
    }
}

impl Database {
    /// Opens that of a coordinator that has started once.
    pub fn open(dir: &Path) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(dir.join("farm.db"), flags);
        Self {
            dir: dir.to_owned(),
            connection: connection.expect("there is a database"),
        }
    }

    fn rows<T>(&self, sql: &str, given: impl Params, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let mut query = self.connection.prepare_cached(sql).expect("a query");
        let rows = query.query_map(given, |row| read(row)).expect("readable");
        rows.collect::<Result<_, _>>().expect("readable")
    }

    pub fn attempts(&self) -> BTreeMap<AttemptId, Recorded> {
        let rows = self.rows("SELECT task, number, state, ended_ms FROM attempts", [], |row| {
            let recorded = Recorded {
                state: row.get(2)?,
                ended: row.get(3)?,
            };
            Ok((row.get::<_, String>(0)?, row.get(1)?, recorded))
        });
        let read = |(task, number, recorded): (String, u32, Recorded)| {
            let task = task.parse().expect("an id");
            (AttemptId { task, number }, recorded)
        };
        rows.into_iter().map(read).collect()
    }

    /// Each livepatch with the number of its newest event, and whether it has ended.
    pub fn livepatches(&self) -> Vec<(String, u32, bool)> {
        let sql = "SELECT id, last_event, ended_ms IS NOT NULL FROM livepatches ORDER BY seq";
        self.rows(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }

    /// A livepatch's events after a number.
    pub fn events(&self, livepatch: &str, after: u32) -> Vec<String> {
        let sql = "SELECT message FROM events WHERE livepatch = ? AND number > ? ORDER BY number";
        self.rows(sql, (livepatch, after), |row| row.get(0))
    }

    /// Those of an outcome's artifacts whose content is not stored, or is another.
    pub fn missing(&self, id: AttemptId) -> Vec<String> {
        let sql = "SELECT digest FROM artifacts WHERE task = ? AND attempt = ?";
        let mut named: Vec<String> = self.rows(sql, (id.task.to_string(), id.number), |row| row.get(0));
        let stored = |digest: &String| {
            let content = fs::read(self.dir.join("blobs").join(&digest[..2]).join(digest));
            content.is_ok_and(|content| Digest::of(&content).to_string() == *digest)
        };
        named.retain(|digest| !stored(digest));
        named
    }

    /// What is not as it must be in every database.
    pub fn breaches(&self) -> Vec<String> {
        let breaches = audit::breaches(&self.connection).expect("readable").into_iter();
        let mut breaches: Vec<String> = breaches.map(|b| format!("{}: {}", b.rule, b.what)).collect();
        // A success is told once, in the event of the attempt that it is due to.
        let told = "SELECT 'task ' || a.task || ' attempt ' || a.number || ' is ' || a.state || ', and events tell of its \
                    success ' || count(e.number) || ' times' FROM attempts a LEFT JOIN events e ON e.task = a.task AND \
                    e.attempt = a.number AND e.task_state = 'succeeded' GROUP BY a.task, a.number \
                    HAVING count(e.number) != (a.state = 'succeeded')";
        breaches.extend(self.rows(told, [], |row| row.get::<_, String>(0)));
        let sound = self.rows("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        breaches.extend(sound.into_iter().filter(|line| line != "ok"));
        breaches
    }
}

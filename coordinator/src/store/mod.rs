//! The database: SQLite in WAL mode with `synchronous=FULL`, one thread that writes, a few connections that read.
//!
//! A write is a closure over a [`Tx`]. The writer runs those that wait in one transaction, each in a savepoint, commits
//! once, hands their [`Change`]s to the farm in commit order, and only then answers them: what was answered is durable,
//! and whoever hears an answer knows that the farm was told before.

mod access;
mod attempts;
pub mod audit;
mod change;
#[cfg(test)]
pub mod direct;
mod events;
mod findings;
mod fleet;
pub mod forget;
mod livepatches;
mod reader;
mod rows;
mod tasks;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use klp_livepatch::names::WorkerName;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use crate::aside::Aside;

pub use access::{
    AuditRow, CertificateRow, EnrollmentRow, TokenRow, append_audit, audit_before, certificates, end_enrollments,
    enrollment, prune_audit, put_certificate, put_enrollment, put_token, tokens,
};
pub use attempts::{
    AttemptRow, Leased, PastAttempt, add_artifacts, attempt, attempts_of, attempts_of_task, bury_lost, deaths_of,
    end_attempt, faults_since, faulty_workers, insert_attempt, leased_now,
};
pub use change::{Change, EndedAttempt, OpenTask};
pub use events::{EventRow, append_event, events_after};
pub use findings::findings;
pub use fleet::{
    Known, Registration, forget_worker, holders, holds_lease, incarnation, known_platforms, register, registrations,
    set_standing, standing,
};
pub use livepatches::{
    Counts, LivepatchRow, LivepatchState, OpenLivepatch, Pause, Search, aim, count_open, end_livepatch, find_livepatch,
    insert_livepatch, livepatch, livepatch_page, open_livepatches, reopen_livepatch, set_extraction, set_pause,
    set_share,
};
pub use tasks::{
    NewTask, TaskRow, bare_tasks_of, ended_in_vain, has_open_task, insert_task, open_task, open_tasks, open_tasks_of,
    planned, set_left_out, task, tasks_of, update_task,
};
pub use writer::{Group, Sink, Tx, Writing};

const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("0001_first.sql")),
    M::up(include_str!("0002_control.sql")).foreign_key_check(),
    M::up(include_str!("0003_rounds.sql")),
    M::up(include_str!("0004_submitter.sql")),
    M::up(include_str!("0005_identity.sql")),
    M::up(include_str!("0006_isolation.sql")),
    M::up(include_str!("0007_trust.sql")),
];

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("can't open the database {path}: {error}")]
    Open {
        path: std::path::PathBuf,
        error: rusqlite::Error,
    },
    #[error(
        "the database {path} has schema {found}, and this program knows up to {known}: it was written by a newer \
         coordinator; start that one, or restore a backup"
    )]
    Newer {
        path: std::path::PathBuf,
        found: usize,
        known: usize,
    },
    #[error("can't bring the database {path} up to date: {error}")]
    Migrate {
        path: std::path::PathBuf,
        error: rusqlite_migration::Error,
    },
    #[error("the disk that holds the database is full; make room in the coordinator's data_dir")]
    Full,
    #[error("database: {0}")]
    Sql(rusqlite::Error),
    #[error("the database's transaction failed: {0}")]
    Commit(String),
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if is_full(&error) {
            StoreError::Full
        } else {
            StoreError::Sql(error)
        }
    }
}

impl StoreError {
    /// Whether the database's file is damaged.
    pub fn is_corrupt(&self) -> bool {
        match self {
            StoreError::Open { error, .. } | StoreError::Sql(error) => is_corrupt(error),
            StoreError::Migrate {
                error: rusqlite_migration::Error::RusqliteError { err, .. },
                ..
            } => is_corrupt(err),
            _ => false,
        }
    }
}

/// Whether the error says that the disk is full: for the files themselves, or for the index of the log of changes.
fn is_full(error: &rusqlite::Error) -> bool {
    let index = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|e| e.extended_code == index)
}

/// Whether the error says that the database's file is damaged.
pub fn is_corrupt(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// A handle to the open database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: writer::Writer,
    readers: Arc<reader::Readers>,
}

impl Store {
    /// Opens the database at `path`, made and brought up to date if need be. `sink` is told of all changes of each
    /// committed transaction, in order; it must not block. What is answered beside the store ends after its writer.
    ///
    /// # Errors
    /// The file can't be opened or migrated, or is of a newer version.
    pub fn open(path: &Path, readers: usize, aside: Aside, sink: impl Sink) -> Result<(Self, Writing), StoreError> {
        let failed = |error| StoreError::Open {
            path: path.to_owned(),
            error,
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        configure(&connection).map_err(failed)?;
        migrate(path, &mut connection)?;
        let readers = (0..readers.max(1))
            .map(|_| open_reader(path))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let (writer, writing) = writer::start(connection, aside, sink)?;
        let readers = Arc::new(reader::Readers::new(readers, aside));
        Ok((Self { writer, readers }, writing))
    }

    /// Runs `work` in a transaction that commits before this answers. If `work` fails, it changed nothing.
    ///
    /// # Errors
    /// What `work` answers, or that the database could not commit.
    pub async fn write<T, E>(&self, work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.writer.write(work).await
    }

    /// Runs `query` on one snapshot of the database.
    ///
    /// # Errors
    /// What `query` answers.
    pub async fn read<T, E>(&self, query: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.readers.read(query).await
    }
}

/// All that is open, and all workers: what a coordinator starts from.
pub struct Open {
    pub livepatches: Vec<OpenLivepatch>,
    pub tasks: Vec<OpenTask>,
    pub workers: BTreeMap<WorkerName, Known>,
}

pub fn open(db: &Connection) -> rusqlite::Result<Open> {
    Ok(Open {
        livepatches: open_livepatches(db)?,
        tasks: open_tasks(db)?,
        workers: registrations(db)?,
    })
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Room, in KiB, for the pages that a busy farm changes again and again.
    connection.pragma_update(None, "cache_size", -(16 << 10))?;
    // What a savepoint overwrites is kept for a rollback: in memory, not in a file.
    connection.pragma_update(None, "temp_store", "memory")?;
    // The log is copied into the database each 16 MiB, and is not left larger than this, however far a long read, such as
    // a backup's, had held that up.
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.busy_timeout(std::time::Duration::from_secs(5))
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let found = version as usize;
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: MIGRATIONS.len(),
        });
    }
    let failed = |error| StoreError::Migrate {
        path: path.to_owned(),
        error,
    };
    // A table that others refer to can be made anew only while nobody looks.
    let look = |connection: &Connection, on: bool| {
        let set = connection.pragma_update(None, "foreign_keys", on);
        set.map_err(|error| failed(error.into()))
    };
    look(connection, false)?;
    let migrated = Migrations::from_slice(MIGRATIONS).to_latest(connection);
    look(connection, true)?;
    migrated.map_err(failed)
}

#[cfg(test)]
mod tests;

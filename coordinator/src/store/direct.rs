//! A database in memory, written by whoever holds it, one transaction at a time: for the simulator.

use std::ops::Deref;
use std::path::Path;

use rusqlite::Connection;

use super::{Change, StoreError, Tx, configure, migrate};

pub struct Direct {
    connection: Connection,
}

impl Direct {
    pub fn new() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        configure(&connection)?;
        migrate(Path::new(":memory:"), &mut connection)?;
        Ok(Self { connection })
    }

    /// Runs `work` in a transaction of its own. If it fails, it changed nothing.
    pub fn write<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<(T, Vec<Change>), E> {
        let transaction = self.connection.transaction().map_err(StoreError::from)?;
        let mut tx = Tx::new(&transaction);
        let done = work(&mut tx)?;
        let changes = tx.into_changes();
        transaction.commit().map_err(StoreError::from)?;
        Ok((done, changes))
    }
}

impl Deref for Direct {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

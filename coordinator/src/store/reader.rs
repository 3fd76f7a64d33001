//! Read-only connections, shared by all queries.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::StoreError;
use crate::aside::Aside;

pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    aside: Aside,
}

impl Readers {
    pub(super) fn new(connections: Vec<Connection>, aside: Aside) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(connections.len())),
            idle: Mutex::new(connections),
            aside,
        }
    }

    /// Runs `query` in a read transaction, so that all its statements see one state.
    pub(super) async fn read<T, E>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let task = self.aside.run(move || {
            let _permit = permit;
            let lent = Lent {
                connection: Some(readers.take()?),
                readers: &readers,
            };
            let Some(connection) = &lent.connection else {
                return Err(StoreError::Closed.into());
            };
            let snapshot = connection.unchecked_transaction().map_err(StoreError::from)?;
            query(&snapshot)
        });
        task.await.map_err(|_| StoreError::Closed)?
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().ok_or(StoreError::Closed)
    }
}

/// A connection that goes back to the pool even if its query panics.
struct Lent<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(connection);
        }
    }
}

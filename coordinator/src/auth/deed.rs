//! What a caller did, for the audit log.

use tonic::Status;

use super::Caller;
use crate::lifecycle::Millis;
use crate::store::{self, AuditRow, Store, StoreError, Tx};

/// The most that is kept of a text, in characters.
const MAX_TEXT: usize = 300;

/// Something that is about to be done. What becomes of it is recorded with [`Deed::done`] or [`Deed::refused`].
#[derive(Clone, Debug)]
pub struct Deed {
    caller: String,
    role: &'static str,
    address: String,
    method: &'static str,
    time: Millis,
}

impl Deed {
    pub fn new(caller: &Caller, method: &'static str, time: Millis) -> Self {
        Self {
            caller: caller.name.clone(),
            role: caller.role_name(),
            address: caller.address.map(|ip| ip.to_string()).unwrap_or_default(),
            method,
            time,
        }
    }

    fn entry(&self, object: &str, outcome: &str) -> AuditRow {
        let short = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        AuditRow {
            number: 0,
            time: self.time,
            caller: self.caller.clone(),
            role: self.role.to_owned(),
            address: self.address.clone(),
            method: self.method.to_owned(),
            object: short(object),
            outcome: short(outcome),
        }
    }

    /// It is done, if this transaction is.
    ///
    /// # Errors
    /// The database's.
    pub fn done(&self, tx: &Tx<'_>, object: &str) -> Result<(), StoreError> {
        Ok(store::append_audit(tx, &self.entry(object, "done"))?)
    }

    /// It was not done, and changed nothing.
    pub async fn refused(&self, store: &Store, object: &str, status: &Status) {
        let entry = self.entry(object, &format!("refused: {}", status.message()));
        let recorded = store
            .write(move |tx| store::append_audit(tx, &entry).map_err(StoreError::from))
            .await;
        if let Err(error) = recorded {
            tracing::warn!(%error, method = self.method, caller = self.caller, "a refusal is not in the audit log");
        }
    }
}

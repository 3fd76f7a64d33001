//! Remembering what a worker is and has.

use klp_livepatch::names::WorkerName;

use super::Now;
use crate::store::{self, Registration, StoreError, Tx};

/// Records workers' registrations.
///
/// # Errors
/// The database's.
pub fn register(tx: &mut Tx<'_>, workers: &[(WorkerName, Registration)], now: Now) -> Result<(), StoreError> {
    for (name, registration) in workers {
        store::register(tx, name, registration, now.ms)?;
    }
    Ok(())
}

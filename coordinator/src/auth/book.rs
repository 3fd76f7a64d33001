//! The tokens and certificates that are known, in memory: a fold over the store's changes, so that what was revoked is
//! refused from the moment on in which that was answered.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use klp_identity::TokenId;
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use crate::store::{self, CertificateRow, Change, TokenRow};

#[derive(Clone, Default)]
pub struct Book(Arc<RwLock<Pages>>);

#[derive(Default)]
struct Pages {
    tokens: HashMap<TokenId, (TokenRow, CancellationToken)>,
    certificates: HashMap<String, (CertificateRow, CancellationToken)>,
}

impl Book {
    /// Reads all that is stored.
    ///
    /// # Errors
    /// The database's.
    pub fn read(&self, db: &Connection) -> rusqlite::Result<()> {
        let tokens = store::tokens(db)?.into_iter().map(Change::Token);
        let certificates = store::certificates(db)?.into_iter().map(Change::Certificate);
        self.take_in(&tokens.chain(certificates).collect::<Vec<_>>());
        Ok(())
    }

    pub fn take_in(&self, changes: &[Change]) {
        let concerns = |change: &&Change| matches!(change, Change::Token(_) | Change::Certificate(_));
        let mut concerned = changes.iter().filter(concerns).peekable();
        if concerned.peek().is_none() {
            return;
        }
        // Every change is one map operation, so the pages are whole whatever panicked.
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for change in concerned {
            match change {
                Change::Token(row) => {
                    let held = pages
                        .tokens
                        .entry(row.id)
                        .or_insert_with(|| (row.clone(), CancellationToken::new()));
                    held.0.clone_from(row);
                    if row.revoked.is_some() {
                        held.1.cancel();
                    }
                }
                Change::Certificate(row) => {
                    let new = || (row.clone(), CancellationToken::new());
                    let held = pages.certificates.entry(row.serial.clone()).or_insert_with(new);
                    held.0.clone_from(row);
                    if row.revoked.is_some() {
                        held.1.cancel();
                    }
                }
                _ => {}
            }
        }
    }

    pub fn token(&self, id: TokenId) -> Option<(TokenRow, CancellationToken)> {
        let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pages.tokens.get(&id).cloned()
    }

    pub fn certificate(&self, serial: &str) -> Option<(CertificateRow, CancellationToken)> {
        let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pages.certificates.get(serial).cloned()
    }
}

//! Tokens, certificates and the audit log, for machines.

use serde::Serialize;

use super::{text, time};
use crate::v1;

#[derive(Clone, Debug, Serialize)]
pub struct Token {
    /// What it is revoked by.
    pub id: String,
    pub name: String,
    pub role: String,
    pub created_ms: i64,
    pub created_by: String,
    pub expires_ms: Option<i64>,
    pub revoked_ms: Option<i64>,
}

impl From<v1::Token> for Token {
    fn from(t: v1::Token) -> Self {
        Self {
            id: t.id,
            name: t.name,
            role: t.role,
            created_ms: t.created_ms,
            created_by: t.created_by,
            expires_ms: time(t.expires_ms),
            revoked_ms: time(t.revoked_ms),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    pub worker: String,
    pub serial: String,
    pub issued_ms: i64,
    pub expires_ms: i64,
    pub revoked_ms: Option<i64>,
    /// The fingerprint of the CA that made it; absent: the farm's first.
    pub ca_sha256: Option<String>,
}

impl From<v1::Certificate> for Certificate {
    fn from(c: v1::Certificate) -> Self {
        Self {
            worker: c.worker,
            serial: c.serial,
            issued_ms: c.issued_ms,
            expires_ms: c.expires_ms,
            revoked_ms: time(c.revoked_ms),
            ca_sha256: text(c.ca_sha256),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct AuditEntry {
    pub number: u64,
    pub time_ms: i64,
    pub caller: String,
    pub role: String,
    pub address: String,
    pub method: String,
    pub object: String,
    /// `done`, or why not.
    pub outcome: String,
}

impl From<v1::AuditEntry> for AuditEntry {
    fn from(e: v1::AuditEntry) -> Self {
        Self {
            number: e.number,
            time_ms: e.time_ms,
            caller: e.caller,
            role: e.role,
            address: e.address,
            method: e.method,
            object: e.object,
            outcome: e.outcome,
        }
    }
}

/// How a token or a certificate is, in words.
pub fn standing(expires_ms: Option<i64>, revoked_ms: Option<i64>, now_ms: i64) -> String {
    use super::words::{ago, left};
    match (revoked_ms, expires_ms) {
        (Some(when), _) => format!("revoked {}", ago(when, now_ms)),
        (None, Some(when)) if when <= now_ms => format!("expired {}", ago(when, now_ms)),
        (None, Some(when)) => format!("valid for {}", left(when, now_ms)),
        (None, None) => "valid".to_owned(),
    }
}

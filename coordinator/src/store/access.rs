//! Tokens, enrollments, certificates and the audit log: reading and writing their rows.

use klp_identity::token::Hashed;
use klp_identity::{Role, TokenId};
use klp_livepatch::names::WorkerName;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{json, parsed, to_json};
use super::{Change, Tx};
use crate::lifecycle::Millis;

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: TokenId,
    pub name: String,
    pub role: Role,
    pub hash: Hashed,
    pub created: Millis,
    /// The caller who made it.
    pub created_by: String,
    pub expires: Option<Millis>,
    pub revoked: Option<Millis>,
}

/// A certificate of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRow {
    pub serial: String,
    pub worker: WorkerName,
    pub issued: Millis,
    pub expires: Millis,
    pub revoked: Option<Millis>,
    /// The CAs that the worker was told to trust, the one that made the certificate first; empty: the farm's first.
    pub trusts: Vec<String>,
}

/// A token that lets one worker in, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentRow {
    pub id: TokenId,
    pub worker: WorkerName,
    pub hash: Hashed,
    pub expires: Millis,
    pub ended: Option<Millis>,
}

/// Something that somebody did, or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub number: u64,
    pub time: Millis,
    pub caller: String,
    pub role: String,
    pub address: String,
    pub method: String,
    pub object: String,
    pub outcome: String,
}

/// Stores a token as it is now, in place of what it was.
pub fn put_token(tx: &mut Tx<'_>, token: &TokenRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO tokens (id, name, role, hash, created_ms, created_by, expires_ms, revoked_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET revoked_ms = excluded.revoked_ms",
    )?
    .execute(params![
        token.id.to_string(),
        token.name,
        token.role.as_str(),
        token.hash.0,
        token.created,
        token.created_by,
        token.expires,
        token.revoked,
    ])?;
    tx.note(Change::Token(token.clone()));
    Ok(())
}

/// All tokens, the newest first.
pub fn tokens(db: &Connection) -> rusqlite::Result<Vec<TokenRow>> {
    let mut query = db.prepare_cached(
        "SELECT id, name, role, hash, created_ms, created_by, expires_ms, revoked_ms FROM tokens \
         ORDER BY created_ms DESC, id",
    )?;
    query
        .query_map([], |row| {
            Ok(TokenRow {
                id: parsed(row, "id")?,
                name: row.get("name")?,
                role: parsed(row, "role")?,
                hash: hash(row)?,
                created: row.get("created_ms")?,
                created_by: row.get("created_by")?,
                expires: row.get("expires_ms")?,
                revoked: row.get("revoked_ms")?,
            })
        })?
        .collect()
}

pub fn put_enrollment(db: &Connection, enrollment: &EnrollmentRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO enrollments (id, worker, hash, expires_ms, ended_ms) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET ended_ms = excluded.ended_ms",
    )?
    .execute(params![
        enrollment.id.to_string(),
        enrollment.worker.as_str(),
        enrollment.hash.0,
        enrollment.expires,
        enrollment.ended,
    ])?;
    Ok(())
}

pub fn enrollment(db: &Connection, id: TokenId) -> rusqlite::Result<Option<EnrollmentRow>> {
    db.prepare_cached("SELECT id, worker, hash, expires_ms, ended_ms FROM enrollments WHERE id = ?")?
        .query_row([id.to_string()], |row| {
            Ok(EnrollmentRow {
                id,
                worker: parsed(row, "worker")?,
                hash: hash(row)?,
                expires: row.get("expires_ms")?,
                ended: row.get("ended_ms")?,
            })
        })
        .optional()
}

/// Ends all enrollments of a worker that are open; answers how many these were.
pub fn end_enrollments(db: &Connection, worker: &WorkerName, now: Millis) -> rusqlite::Result<usize> {
    db.prepare_cached("UPDATE enrollments SET ended_ms = ? WHERE worker = ? AND ended_ms IS NULL")?
        .execute(params![now, worker.as_str()])
}

/// Stores a certificate as it is now, in place of what it was.
pub fn put_certificate(tx: &mut Tx<'_>, certificate: &CertificateRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO certificates (serial, worker, issued_ms, expires_ms, revoked_ms, trusts) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (serial) DO UPDATE SET revoked_ms = excluded.revoked_ms",
    )?
    .execute(params![
        certificate.serial,
        certificate.worker.as_str(),
        certificate.issued,
        certificate.expires,
        certificate.revoked,
        to_json(&certificate.trusts)?,
    ])?;
    tx.note(Change::Certificate(certificate.clone()));
    Ok(())
}

/// All certificates, the newest first.
pub fn certificates(db: &Connection) -> rusqlite::Result<Vec<CertificateRow>> {
    let mut query = db.prepare_cached(
        "SELECT serial, worker, issued_ms, expires_ms, revoked_ms, trusts FROM certificates \
         ORDER BY issued_ms DESC, serial",
    )?;
    query
        .query_map([], |row| {
            Ok(CertificateRow {
                serial: row.get("serial")?,
                worker: parsed(row, "worker")?,
                issued: row.get("issued_ms")?,
                expires: row.get("expires_ms")?,
                revoked: row.get("revoked_ms")?,
                trusts: json("trusts", &row.get::<_, String>("trusts")?)?,
            })
        })?
        .collect()
}

fn hash(row: &Row<'_>) -> rusqlite::Result<Hashed> {
    let bytes: Vec<u8> = row.get("hash")?;
    let hash = bytes.try_into().map(Hashed);
    hash.map_err(|_| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, "column hash is not 32 bytes".into()))
}

/// Appends to the audit log; the entry's number is given here.
pub fn append_audit(db: &Connection, entry: &AuditRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO audit (time_ms, caller, role, address, method, object, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        entry.time,
        entry.caller,
        entry.role,
        entry.address,
        entry.method,
        entry.object,
        entry.outcome,
    ])?;
    Ok(())
}

/// Up to `limit` entries with numbers below `before`, the newest first.
pub fn audit_before(db: &Connection, before: u64, limit: u32) -> rusqlite::Result<Vec<AuditRow>> {
    let mut query = db.prepare_cached(
        "SELECT number, time_ms, caller, role, address, method, object, outcome FROM audit WHERE number < ? \
         ORDER BY number DESC LIMIT ?",
    )?;
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    query
        .query_map(params![before, limit], |row| {
            Ok(AuditRow {
                number: row.get::<_, i64>("number")?.unsigned_abs(),
                time: row.get("time_ms")?,
                caller: row.get("caller")?,
                role: row.get("role")?,
                address: row.get("address")?,
                method: row.get("method")?,
                object: row.get("object")?,
                outcome: row.get("outcome")?,
            })
        })?
        .collect()
}

/// Forgets audit entries from before a time, and what can't be used since before it: enrollments and certificates. Answers
/// how many entries went.
///
/// # Errors
/// The database's.
pub fn prune_audit(db: &Connection, before: Millis) -> rusqlite::Result<usize> {
    db.execute("DELETE FROM enrollments WHERE expires_ms < ?", [before])?;
    db.execute("DELETE FROM certificates WHERE expires_ms < ?", [before])?;
    db.execute("DELETE FROM audit WHERE time_ms < ?", [before])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::store::direct::Direct;

    #[test]
    fn what_is_pruned_is_old_and_of_no_use() {
        let mut db = Direct::new().unwrap();
        let entry = |time| AuditRow {
            number: 0,
            time,
            caller: "jane".to_owned(),
            role: "admin".to_owned(),
            address: String::new(),
            method: "AccessService/CreateToken".to_owned(),
            object: String::new(),
            outcome: "done".to_owned(),
        };
        let certificate = |serial: &str, expires| CertificateRow {
            serial: serial.to_owned(),
            worker: "w".parse().unwrap(),
            issued: 0,
            expires,
            revoked: None,
            trusts: vec!["ab".to_owned()],
        };
        let fill = |tx: &mut Tx<'_>| {
            append_audit(tx, &entry(10))?;
            append_audit(tx, &entry(20))?;
            put_certificate(tx, &certificate("a", 10))?;
            put_certificate(tx, &certificate("b", 20))?;
            Ok::<_, StoreError>(())
        };
        db.write(fill).unwrap();
        assert_eq!(prune_audit(&db, 15).unwrap(), 1);
        let left = audit_before(&db, u64::MAX, 10).unwrap();
        // Numbers are never given twice.
        assert_eq!((left.len(), left[0].number, left[0].time), (1, 2, 20));
        assert_eq!(certificates(&db).unwrap(), [certificate("b", 20)]);
    }
}

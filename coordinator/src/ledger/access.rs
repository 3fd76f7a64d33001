//! Letting in and putting out: tokens, enrollments and certificates.

use klp_identity::{Authority, Issued, Kind, Role, Token, TokenId};
use klp_livepatch::names::WorkerName;

use crate::lifecycle::Millis;
use crate::store::{self, CertificateRow, EnrollmentRow, StoreError, TokenRow, Tx};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("there is no token `{0}`; `klp-farm token list` shows all")]
    NoToken(TokenId),
    #[error("this is no enrollment token of this farm; it is one that `klp-farm enroll` prints")]
    NoEnrollment,
    #[error("this enrollment token was used or revoked; ask for another with `klp-farm enroll {0}`")]
    Ended(WorkerName),
    #[error("this enrollment token has expired; ask for another with `klp-farm enroll {0}`")]
    Expired(WorkerName),
    #[error("worker `{0}` never had a certificate or an enrollment; `klp-farm certificates` shows who has")]
    NoCertificate(WorkerName),
    #[error("{0}")]
    Request(#[from] klp_identity::Problem),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AccessError {
    fn from(error: rusqlite::Error) -> Self {
        AccessError::Store(error.into())
    }
}

/// Stores a new token.
///
/// # Errors
/// The database's.
pub fn add_token(
    tx: &mut Tx<'_>,
    token: &Token,
    (name, role): (&str, Role),
    created_by: &str,
    expires: Option<Millis>,
    now: Millis,
) -> Result<TokenRow, StoreError> {
    let row = TokenRow {
        id: token.id,
        name: name.to_owned(),
        role,
        hash: token.hashed(),
        created: now,
        created_by: created_by.to_owned(),
        expires,
        revoked: None,
    };
    store::put_token(tx, &row)?;
    Ok(row)
}

/// Puts a token out for good.
///
/// # Errors
/// There is none of that id.
pub fn revoke_token(tx: &mut Tx<'_>, id: TokenId, now: Millis) -> Result<TokenRow, AccessError> {
    let found = store::tokens(tx)?.into_iter().find(|token| token.id == id);
    let mut row = found.ok_or(AccessError::NoToken(id))?;
    if row.revoked.is_none() {
        row.revoked = Some(now);
        store::put_token(tx, &row)?;
    }
    Ok(row)
}

/// Stores what will let a worker in, once.
///
/// # Errors
/// The database's.
pub fn add_enrollment(tx: &mut Tx<'_>, token: &Token, worker: &WorkerName, expires: Millis) -> Result<(), StoreError> {
    let row = EnrollmentRow {
        id: token.id,
        worker: worker.clone(),
        hash: token.hashed(),
        expires,
        ended: None,
    };
    Ok(store::put_enrollment(tx, &row)?)
}

/// Uses an enrollment up: answers the worker's name, and puts out who had it before.
///
/// # Errors
/// The token lets nobody in, or not any more.
pub fn enroll(tx: &mut Tx<'_>, token: &Token, now: Millis) -> Result<WorkerName, AccessError> {
    let found = match token.kind {
        Kind::Enrollment => store::enrollment(tx, token.id)?,
        Kind::Access => None,
    };
    let mut row = found
        .filter(|row| row.hash.is_of(token))
        .ok_or(AccessError::NoEnrollment)?;
    if row.ended.is_some() {
        return Err(AccessError::Ended(row.worker));
    }
    if row.expires <= now {
        return Err(AccessError::Expired(row.worker));
    }
    row.ended = Some(now);
    store::put_enrollment(tx, &row)?;
    revoke_certificates(tx, &row.worker, now)?;
    Ok(row.worker)
}

/// Makes a certificate for a worker, and remembers it.
///
/// # Errors
/// It is asked for with what is no request.
pub fn certify(
    tx: &mut Tx<'_>,
    authority: &Authority,
    request: &str,
    worker: &WorkerName,
    span: klp_identity::authority::Span,
    now: Millis,
) -> Result<Issued, AccessError> {
    let issued = authority.worker(request, worker, span)?;
    let row = CertificateRow {
        serial: issued.serial.clone(),
        worker: worker.clone(),
        issued: now,
        expires: issued.until_ms,
        revoked: None,
        trusts: authority.told_to_trust()?,
    };
    store::put_certificate(tx, &row)?;
    Ok(issued)
}

/// Puts a worker out: every certificate and every enrollment of it. Answers how many certificates were valid.
///
/// # Errors
/// It never had any.
pub fn revoke_worker(tx: &mut Tx<'_>, worker: &WorkerName, now: Millis) -> Result<u32, AccessError> {
    let known = store::certificates(tx)?.iter().any(|row| row.worker == *worker);
    let enrollments = store::end_enrollments(tx, worker, now)?;
    if !known && enrollments == 0 {
        return Err(AccessError::NoCertificate(worker.clone()));
    }
    revoke_certificates(tx, worker, now)
}

fn revoke_certificates(tx: &mut Tx<'_>, worker: &WorkerName, now: Millis) -> Result<u32, AccessError> {
    let own = store::certificates(tx)?.into_iter().filter(|row| row.worker == *worker);
    let mut revoked = 0;
    for mut row in own.filter(|row| row.revoked.is_none()) {
        revoked += u32::from(row.expires > now);
        row.revoked = Some(now);
        store::put_certificate(tx, &row)?;
    }
    Ok(revoked)
}

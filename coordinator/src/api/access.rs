//! AccessService: tokens, certificates, and the audit log.

use std::sync::Arc;
use std::time::Duration;

use klp_identity::authority::Span;
use klp_identity::{Authority, Issued, Kind, Problem, Role, Token, TokenId};
use klp_livepatch::names::WorkerName;
use klp_proto::v1;
use klp_proto::v1::access_service_server::AccessService;
use tonic::{Request, Response, Status};

use super::fleet::about;
use super::{Failed, Shared, stopping, store_status, wire};
use crate::auth::{Caller, Deed, files};
use crate::ledger::access::{self, AccessError};
use crate::lifecycle::Millis;
use crate::store;

/// How long an enrollment token may be used, unless it is said, and at most.
const ENROLLMENT: Millis = 3_600_000;
const MAX_ENROLLMENT: u64 = 7 * 86_400_000;
/// Bytes of a request for a certificate.
const MAX_REQUEST: usize = 16 << 10;
const MAX_NAME: usize = 64;
/// Audit entries in an answer.
const SOME: u32 = 100;
const MAX_ENTRIES: u32 = 1000;

pub struct Access(pub Arc<Shared>);

#[tonic::async_trait]
impl AccessService for Access {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (caller, deed, now) = self.asked(&request, "AccessService/CreateToken")?;
        let request = request.into_inner();
        let name = token_name(request.name)?;
        let role: Role = wire::field("role", &request.role)?;
        if role == Role::Worker {
            let text = "workers have certificates, not tokens: `klp-farm enroll NAME` lets one in";
            return Err(wire::invalid("role", text));
        }
        let expires = Some(request.expires_ms).filter(|ms| *ms != 0);
        if expires.is_some_and(|at| at <= now) {
            return Err(wire::invalid("expires_ms", "is in the past"));
        }
        let token = Token::new(Kind::Access).map_err(internal)?;
        let secret = token.reveal();
        let create = move |tx: &mut store::Tx<'_>| {
            let row = access::add_token(tx, &token, (&name, role), &caller.name, expires, now)?;
            deed.done(tx, &format!("token {} of {name}, {role}", row.id))?;
            Ok::<_, AccessError>(row)
        };
        let row = self.0.store.write(create).await.map_err(status)?;
        tracing::info!(token = %row.id, name = row.name, role = row.role.as_str(), "token made");
        let token = Some(told(row));
        Ok(Response::new(v1::CreateTokenResponse { token, secret }))
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensResponse>, Status> {
        let tokens = self.0.store.read(|db| store::tokens(db).map_err(Failed::from)).await?;
        let tokens = tokens.into_iter().map(told).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let (_, deed, now) = self.asked(&request, "AccessService/RevokeToken")?;
        let id: TokenId = wire::field("id", &request.into_inner().id)?;
        let done = deed.clone();
        let revoke = move |tx: &mut store::Tx<'_>| {
            let row = access::revoke_token(tx, id, now)?;
            done.done(tx, &format!("token {id} of {}", row.name))?;
            Ok::<_, AccessError>(row)
        };
        let row = self.0.change(&deed, &format!("token {id}"), revoke, status).await?;
        tracing::info!(token = %row.id, name = row.name, "token revoked");
        let token = Some(told(row));
        Ok(Response::new(v1::RevokeTokenResponse { token }))
    }

    async fn create_enrollment(
        &self,
        request: Request<v1::CreateEnrollmentRequest>,
    ) -> Result<Response<v1::CreateEnrollmentResponse>, Status> {
        let (_, deed, now) = self.asked(&request, "AccessService/CreateEnrollment")?;
        let request = request.into_inner();
        let worker: WorkerName = wire::field("worker", &request.worker)?;
        if request.valid_ms > MAX_ENROLLMENT {
            let text = format!("{}; at most {MAX_ENROLLMENT}, 7 days", request.valid_ms);
            return Err(wire::invalid("valid_ms", text));
        }
        let valid = Some(request.valid_ms).filter(|ms| *ms != 0);
        // Bounded just now.
        let expires = now + valid.map_or(ENROLLMENT, |ms| Millis::try_from(ms).unwrap_or(ENROLLMENT));
        let authority = self.authority().await?;
        let ca_sha256 = authority.fingerprint().map_err(internal)?.to_string();
        let token = Token::new(Kind::Enrollment).map_err(internal)?;
        let secret = token.reveal();
        let create = move |tx: &mut store::Tx<'_>| {
            access::add_enrollment(tx, &token, &worker, expires)?;
            deed.done(tx, &about(&worker))?;
            Ok::<_, AccessError>(())
        };
        self.0.store.write(create).await.map_err(status)?;
        Ok(Response::new(v1::CreateEnrollmentResponse {
            secret,
            expires_ms: expires,
            ca_sha256,
        }))
    }

    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::CertificateResponse>, Status> {
        let (caller, deed, now) = self.asked(&request, "AccessService/Enroll")?;
        self.0.gate.may_try(caller.address)?;
        let request = request.into_inner();
        let token = request.token.parse::<Token>();
        let token = token.map_err(|error| {
            self.0.gate.failed(caller.address);
            wire::invalid("token", error)
        })?;
        let asked = csr(request.request_pem)?;
        let authority = self.authority().await?;
        let roots = authority.trusted().to_owned();
        let span = self.span(now)?;
        let enroll = move |tx: &mut store::Tx<'_>| {
            let worker = access::enroll(tx, &token, now)?;
            let issued = access::certify(tx, &authority, &asked, &worker, span, now)?;
            deed.done(tx, &format!("worker {worker}, certificate {}", issued.serial))?;
            Ok::<_, AccessError>((worker, issued))
        };
        let enrolled = self.0.store.write(enroll).await;
        let (worker, issued) = enrolled.map_err(|error| {
            if let AccessError::NoEnrollment | AccessError::Ended(_) | AccessError::Expired(_) = &error {
                self.0.gate.failed(caller.address);
                tracing::warn!(address = caller.address.map(tracing::field::display), %error, "enrollment refused");
            }
            status(error)
        })?;
        tracing::info!(klp.worker = %worker, certificate = issued.serial, "enrolled");
        Ok(certificate(issued, roots, &worker))
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::CertificateResponse>, Status> {
        use crate::auth::caller::Speaks;
        let (caller, deed, now) = self.asked(&request, "AccessService/RenewCertificate")?;
        let Speaks::For(worker) = caller.speaks else {
            let text = "only a worker with a certificate can renew it; let one in with `klp-farm enroll NAME`";
            return Err(Status::failed_precondition(text));
        };
        let asked = csr(request.into_inner().request_pem)?;
        let authority = self.authority().await?;
        let roots = authority.trusted().to_owned();
        let (span, name) = (self.span(now)?, worker.clone());
        let renew = move |tx: &mut store::Tx<'_>| {
            let issued = access::certify(tx, &authority, &asked, &name, span, now)?;
            deed.done(tx, &format!("worker {name}, certificate {}", issued.serial))?;
            Ok::<_, AccessError>(issued)
        };
        let issued = self.0.store.write(renew).await.map_err(status)?;
        tracing::info!(klp.worker = %worker, certificate = issued.serial, "certificate renewed");
        Ok(certificate(issued, roots, &worker))
    }

    async fn authorities(
        &self,
        _: Request<v1::AuthoritiesRequest>,
    ) -> Result<Response<v1::AuthoritiesResponse>, Status> {
        let ca_pem = self.authority().await?.trusted().to_owned();
        Ok(Response::new(v1::AuthoritiesResponse { ca_pem }))
    }

    async fn list_certificates(
        &self,
        _: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::ListCertificatesResponse>, Status> {
        let rows = self
            .0
            .store
            .read(|db| store::certificates(db).map_err(Failed::from))
            .await?;
        let told = |row: store::CertificateRow| v1::Certificate {
            worker: row.worker.to_string(),
            serial: row.serial,
            issued_ms: row.issued,
            expires_ms: row.expires,
            revoked_ms: row.revoked.unwrap_or(0),
            ca_sha256: row.trusts.into_iter().next().unwrap_or_default(),
        };
        let certificates = rows.into_iter().map(told).collect();
        Ok(Response::new(v1::ListCertificatesResponse { certificates }))
    }

    async fn revoke_worker(
        &self,
        request: Request<v1::RevokeWorkerRequest>,
    ) -> Result<Response<v1::RevokeWorkerResponse>, Status> {
        let (_, deed, now) = self.asked(&request, "AccessService/RevokeWorker")?;
        let worker: WorkerName = wire::field("worker", &request.into_inner().worker)?;
        let (name, done) = (worker.clone(), deed.clone());
        let revoke = move |tx: &mut store::Tx<'_>| {
            let revoked = access::revoke_worker(tx, &name, now)?;
            done.done(tx, &about(&name))?;
            Ok::<_, AccessError>(revoked)
        };
        let revoked = self.0.change(&deed, &about(&worker), revoke, status).await?;
        tracing::info!(klp.worker = %worker, "worker revoked");
        Ok(Response::new(v1::RevokeWorkerResponse { revoked }))
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let request = request.into_inner();
        if request.limit > MAX_ENTRIES {
            return Err(wire::invalid(
                "limit",
                format!("{}; at most {MAX_ENTRIES}", request.limit),
            ));
        }
        let before = Some(request.before).filter(|number| *number != 0).unwrap_or(u64::MAX);
        let limit = Some(request.limit).filter(|limit| *limit != 0).unwrap_or(SOME);
        let query = move |db: &rusqlite::Connection| store::audit_before(db, before, limit).map_err(Failed::from);
        let told = |row: store::AuditRow| v1::AuditEntry {
            number: row.number,
            time_ms: row.time,
            caller: row.caller,
            role: row.role,
            address: row.address,
            method: row.method,
            object: row.object,
            outcome: row.outcome,
        };
        let entries = self.0.store.read(query).await?.into_iter().map(told).collect();
        Ok(Response::new(v1::ListAuditResponse { entries }))
    }
}

impl Access {
    fn asked<T>(&self, request: &Request<T>, method: &'static str) -> Result<(Caller, Deed, Millis), Status> {
        let (caller, now) = (Caller::of(request)?, self.0.clock.now());
        let deed = Deed::new(&caller, method, now);
        Ok((caller, deed, now))
    }

    /// The farm's CA, with all that are to be trusted. It is read each time: it may have been replaced.
    async fn authority(&self) -> Result<Authority, Status> {
        if self.0.config.now().insecure {
            let text = "this coordinator serves without TLS, so its workers need no certificates";
            return Err(Status::failed_precondition(text));
        }
        let folder = files::folder(&self.0.config.now().data_dir);
        let read = move || {
            let roots = klp_identity::files::read(&files::ca(&folder))?;
            let key = klp_identity::files::read(&files::ca_key(&folder))?;
            Authority::open(&roots, &key)
        };
        let read = self.0.blobs.aside().run(read).await.map_err(|_| stopping())?;
        read.map_err(internal)
    }

    fn span(&self, now: Millis) -> Result<Span, Status> {
        let life = Duration::from_millis(self.0.config.now().worker_certificate_ms);
        Span::from_now(now, life).map_err(internal)
    }
}

fn certificate(issued: Issued, ca_pem: String, worker: &WorkerName) -> Response<v1::CertificateResponse> {
    Response::new(v1::CertificateResponse {
        certificate_pem: issued.pem,
        ca_pem,
        worker: worker.to_string(),
        expires_ms: issued.until_ms,
    })
}

fn told(row: store::TokenRow) -> v1::Token {
    v1::Token {
        id: row.id.to_string(),
        name: row.name,
        role: row.role.to_string(),
        created_ms: row.created,
        created_by: row.created_by,
        expires_ms: row.expires.unwrap_or(0),
        revoked_ms: row.revoked.unwrap_or(0),
    }
}

fn token_name(name: String) -> Result<String, Status> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+@".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        let text = format!("must be 1 to {MAX_NAME} letters, digits, `_`, `-`, `.`, `+` or `@`, as in jane@desk");
        return Err(wire::invalid("name", text));
    }
    Ok(name)
}

fn csr(pem: String) -> Result<String, Status> {
    match pem.len() <= MAX_REQUEST {
        true => Ok(pem),
        false => Err(wire::invalid(
            "request_pem",
            format!("{} bytes; at most {MAX_REQUEST}", pem.len()),
        )),
    }
}

/// What went wrong with this machine's keys is told in the log alone.
fn internal(problem: Problem) -> Status {
    tracing::error!(error = %problem, "the farm's CA can't be used");
    Status::internal("the coordinator's CA can't be used; its log says why")
}

fn status(error: AccessError) -> Status {
    match error {
        AccessError::NoToken(_) | AccessError::NoCertificate(_) => Status::not_found(error.to_string()),
        AccessError::NoEnrollment | AccessError::Ended(_) | AccessError::Expired(_) => {
            Status::unauthenticated(error.to_string())
        }
        AccessError::Request(problem) => wire::invalid("request_pem", problem.to_string()),
        AccessError::Store(error) => store_status(error),
    }
}

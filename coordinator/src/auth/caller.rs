//! Who calls, as the gate has found out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use klp_identity::{Certificate, Role, TokenId};
use klp_livepatch::names::WorkerName;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::lifecycle::Millis;

/// What is known of the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    pub tls: bool,
    /// The certificate that it came with, or why that can't be believed.
    pub certificate: Option<Result<Arc<Certificate>, Arc<str>>>,
}

impl Peer {
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip().to_canonical())
    }
}

/// By what a caller is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Token(TokenId),
    Certificate(String),
    /// Nothing: it is only known where it calls from.
    Address(Option<IpAddr>),
}

/// Which workers a caller may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaks {
    ForNobody,
    For(WorkerName),
    /// On a farm without identities.
    ForAnybody,
}

#[derive(Clone, Debug)]
pub struct Caller {
    /// A token's name, `worker NAME`, or `anonymous`.
    pub name: String,
    /// `None`: it may do what anybody may.
    pub role: Option<Role>,
    pub speaks: Speaks,
    pub address: Option<IpAddr>,
    pub key: Key,
    /// When it is nobody any more.
    pub expires: Option<Millis>,
    /// Cancelled when it is put out.
    pub revoked: Option<CancellationToken>,
}

impl Caller {
    /// Somebody, of whom only the address is known.
    pub fn anonymous(address: Option<IpAddr>, role: Option<Role>, speaks: Speaks) -> Self {
        Self {
            name: "anonymous".to_owned(),
            role,
            speaks,
            address,
            key: Key::Address(address),
            expires: None,
            revoked: None,
        }
    }

    /// Who called a method of a service.
    ///
    /// # Errors
    /// Nobody looked who it was: the request did not come through the gate.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        caller.ok_or_else(|| Status::internal("this request was not asked who sends it"))
    }

    /// The request as this caller's, for a service that is called from within.
    pub fn asks<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(self.clone());
        request
    }

    pub fn covers(&self, needed: Role) -> bool {
        self.role.is_some_and(|role| role.covers(needed))
            || (needed == Role::Worker && self.speaks != Speaks::ForNobody)
    }

    /// Whether it may speak for a worker.
    ///
    /// # Errors
    /// It may not, with what to do.
    pub fn speaks_for(&self, worker: &WorkerName) -> Result<(), Status> {
        match &self.speaks {
            Speaks::ForAnybody => Ok(()),
            Speaks::For(own) if own == worker => Ok(()),
            Speaks::For(own) => Err(Status::permission_denied(format!(
                "this is the certificate of worker `{own}`, which can't speak for worker `{worker}`; start it without --name, \
                 or let `{worker}` in with `klp-farm enroll {worker}`"
            ))),
            Speaks::ForNobody => Err(Status::permission_denied(format!(
                "{} is no worker, and can't speak for worker `{worker}`",
                self.name
            ))),
        }
    }

    pub fn role_name(&self) -> &'static str {
        self.role.map_or("none", Role::as_str)
    }
}

//! Decides about each request: who sends it, and whether that caller may. All that it asks is in memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use klp_identity::{Certificate, Kind, Role, Token, TokenId};
use tonic::Status;

use super::book::Book;
use super::caller::{Caller, Key, Peer, Speaks};
use super::deed::Deed;
use super::limits::Limits;
use super::methods::Needs;
use super::sessions::Sessions;
use crate::clock::{Clock, utc};
use crate::config::Config;
use crate::lifecycle::Millis;
use crate::store::Store;

/// By what a request says who sends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The header `authorization`.
    pub authorization: Option<&'a [u8]>,
    /// The session of a browser.
    pub session: Option<&'a str>,
    /// Somebody else's request, brought by a proxy on this machine.
    pub forwarded: bool,
}

pub struct Gate {
    book: Book,
    pub sessions: Sessions,
    limits: Limits,
    /// There is no TLS, and who is on this machine needs no token.
    insecure: bool,
    /// What who says nothing may do.
    anonymous: Option<Role>,
    clock: Clock,
    store: Store,
}

impl Gate {
    pub fn new(config: &Config, book: Book, clock: Clock, store: Store) -> Self {
        Self {
            book,
            sessions: Sessions::default(),
            limits: Limits::new(config),
            insecure: config.insecure,
            anonymous: config.anonymous,
            clock,
            store,
        }
    }

    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// Nobody is known by what it presents, or who it is may not do this, or has done it too often.
    pub fn admit(
        &self,
        peer: &Peer,
        presented: Presented<'_>,
        needs: Option<Needs>,
        method: &str,
    ) -> Result<Caller, Status> {
        let address = peer.ip();
        let caller = match needs {
            Some(Needs::Nothing) => self.recognise(peer, presented).unwrap_or_else(|_| stranger(address)),
            _ => {
                // A worker whose certificate is good is not to suffer for its neighbours.
                if !matches!(peer.certificate, Some(Ok(_))) {
                    self.may_try(address)?;
                }
                self.recognise(peer, presented).inspect_err(|status| {
                    if presented.authorization.is_some() || matches!(peer.certificate, Some(Err(_))) {
                        tracing::warn!(
                            method,
                            address = address.map(tracing::field::display),
                            reason = status.message(),
                            "a caller was not recognised"
                        );
                        self.limits.failed(address);
                    }
                })?
            }
        };
        if self.trusts(&caller) && needs.is_some() {
            return Ok(caller);
        }
        let counted = self.limits.count(&caller);
        counted.map_err(|wait| too_often(wait, &format!("{} asked", caller.name)))?;
        match needs {
            Some(Needs::Nothing) => Ok(caller),
            Some(Needs::Role(needed)) if caller.covers(needed) => Ok(caller),
            Some(Needs::Role(needed)) => Err(self.refuse(&caller, needed, method)),
            None => Err(Status::unimplemented(format!("there is no method {method}"))),
        }
    }

    /// Says how often an address may fail to enroll, too.
    ///
    /// # Errors
    /// It failed too often.
    pub fn may_try(&self, address: Option<IpAddr>) -> Result<(), Status> {
        self.limits
            .may_try(address)
            .map_err(|wait| too_often(wait, "this address failed to say who it is"))
    }

    pub fn failed(&self, address: Option<IpAddr>) {
        self.limits.failed(address);
    }

    /// Whoever uses a farm without identities is not limited: it is the machine's own user.
    fn trusts(&self, caller: &Caller) -> bool {
        self.insecure && caller.speaks == Speaks::ForAnybody
    }

    fn recognise(&self, peer: &Peer, presented: Presented<'_>) -> Result<Caller, Status> {
        let address = peer.ip();
        if let Some(header) = presented.authorization {
            let token = bearer(header).map_err(Status::unauthenticated)?;
            return self.by_token(&token, address);
        }
        let now = self.clock.now();
        if let Some(session) = presented.session.and_then(|cookie| self.sessions.find(cookie, now)) {
            return self.of_token(session.token, address, now);
        }
        match &peer.certificate {
            Some(Ok(certificate)) => return self.by_certificate(certificate, address, now),
            Some(Err(why)) => return Err(Status::unauthenticated(why.as_ref())),
            None => {}
        }
        // A listener for strangers is on loopback, but its proxy speaks for others.
        match (self.anonymous, self.insecure, presented.forwarded) {
            (None, true, false) => Ok(Caller::anonymous(address, Some(Role::Admin), Speaks::ForAnybody)),
            (None, true, true) => Ok(Caller::anonymous(address, Some(Role::Viewer), Speaks::ForNobody)),
            (Some(role), _, _) => Ok(Caller::anonymous(address, Some(role), Speaks::ForNobody)),
            (None, false, _) => Err(Status::unauthenticated(
                "this farm wants to know who asks: people and scripts need a token (KLP_FARM_TOKEN, or token_file in the \
                 configuration; an admin makes one with `klp-farm token create`), workers a certificate (`klp-farm enroll`)",
            )),
        }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// Nobody's, or it is not valid any more.
    pub fn by_token(&self, token: &Token, address: Option<IpAddr>) -> Result<Caller, Status> {
        if token.kind == Kind::Enrollment {
            let text = "an enrollment token only lets a worker in, with `klp-worker enroll`";
            return Err(Status::unauthenticated(text));
        }
        let known = self.book.token(token.id).filter(|(row, _)| row.hash.is_of(token));
        if known.is_none() {
            return Err(Status::unauthenticated(
                "the farm doesn't know this token; an admin makes one with `klp-farm token create`",
            ));
        }
        self.of_token(token.id, address, self.clock.now())
    }

    fn of_token(&self, id: TokenId, address: Option<IpAddr>, now: Millis) -> Result<Caller, Status> {
        let gone = || Status::unauthenticated("the farm doesn't know this token any more");
        let (row, revoked) = self.book.token(id).ok_or_else(gone)?;
        let bad = |what: &str, when: Millis| {
            let name = &row.name;
            Status::unauthenticated(format!(
                "the token of `{name}` {what} at {}; ask an admin for another",
                utc(when)
            ))
        };
        if let Some(when) = row.revoked {
            return Err(bad("was revoked", when));
        }
        if let Some(when) = row.expires.filter(|when| *when <= now) {
            return Err(bad("expired", when));
        }
        Ok(Caller {
            name: row.name,
            role: Some(row.role),
            speaks: Speaks::ForNobody,
            address,
            key: Key::Token(id),
            expires: row.expires,
            revoked: Some(revoked),
        })
    }

    fn by_certificate(&self, shown: &Arc<Certificate>, address: Option<IpAddr>, now: Millis) -> Result<Caller, Status> {
        let Some(worker) = &shown.worker else {
            return Err(Status::unauthenticated(
                "this certificate is no worker's; leave it out, and come with a token",
            ));
        };
        let again = format!("let it in again with `klp-farm enroll {worker}`");
        let bad =
            |what: String| Status::unauthenticated(format!("the certificate of worker `{worker}` {what}; {again}"));
        let known = self
            .book
            .certificate(&shown.serial)
            .filter(|(row, _)| row.worker == *worker);
        let (row, revoked) = known.ok_or_else(|| bad("is not among those that this coordinator gave".to_owned()))?;
        if let Some(when) = row.revoked {
            return Err(bad(format!("was revoked at {}", utc(when))));
        }
        if row.expires <= now {
            return Err(bad(format!("expired at {}", utc(row.expires))));
        }
        Ok(Caller {
            name: format!("worker {worker}"),
            role: Some(Role::Worker),
            speaks: Speaks::For(worker.clone()),
            address,
            key: Key::Certificate(shown.serial.clone()),
            expires: Some(row.expires),
            revoked: Some(revoked),
        })
    }

    /// Refuses a caller, and records it: who is known answers for what it tries.
    fn refuse(&self, caller: &Caller, needed: Role, method: &str) -> Status {
        let (name, own) = (&caller.name, caller.role_name());
        let short = method.rsplit('/').next().unwrap_or(method);
        let status = Status::permission_denied(match needed {
            Role::Worker => format!("{short} is for workers, by their certificates; {name} is {own}"),
            _ => format!(
                "{short} needs the role {needed}; {name} is {own}. An admin makes another token with `klp-farm token create`"
            ),
        });
        tracing::warn!(method, caller = name, role = own, needed = needed.as_str(), "refused");
        let (deed, store, object) = (
            Deed::new(caller, "refused", self.clock.now()),
            self.store.clone(),
            method.to_owned(),
        );
        let told = status.clone();
        tokio::spawn(async move { deed.refused(&store, &object, &told).await });
        status
    }
}

fn stranger(address: Option<IpAddr>) -> Caller {
    Caller::anonymous(address, None, Speaks::ForNobody)
}

fn bearer(header: &[u8]) -> Result<Token, &'static str> {
    let text = std::str::from_utf8(header).ok().and_then(|text| text.split_once(' '));
    match text {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.parse(),
        _ => Err("the header `authorization` must be `Bearer` and a token"),
    }
}

fn too_often(wait: Duration, why: &str) -> Status {
    let wait = wait.as_secs_f32().max(0.1);
    Status::resource_exhausted(format!("{why} too often: wait {wait:.1} s"))
}

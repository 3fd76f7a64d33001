//! Who is who on a farm: what its three programs share of roles, tokens, certificates and the client side of TLS.
//!
//! A caller is a person or a script with a [`token`], or a worker with a [`certificate`]; each has a [`role`]. The farm's
//! [`authority`] makes certificates, [`files`] keeps keys to their owner, [`trust`] is what a client connects with, and
//! [`explain`] says in words why a connection was refused. What the coordinator states it signs as a [`signer`], and anybody
//! checks it with a [`verifier`]. Who is let in is the coordinator's business.

pub mod authority;
pub mod certificate;
pub mod explain;
pub mod files;
pub mod fingerprint;
pub mod role;
pub mod signer;
pub mod token;
pub mod trust;
pub mod verifier;

pub use authority::{Authority, Issued};
pub use certificate::Certificate;
pub use fingerprint::Fingerprint;
pub use role::Role;
pub use signer::Signer;
pub use token::{Kind, Token, TokenId};
pub use trust::Trust;
pub use verifier::{Trusted, Verifier};

/// Why something about keys, certificates or tokens could not be done; names the thing and the next step.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub String);

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

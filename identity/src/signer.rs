//! The key that a coordinator signs statements with: it is for nothing else, and its certificate says so.
//!
//! Key and certificate are one file, so both are replaced at once. The key is of Ed25519, whose signature over the same bytes
//! is always the same.

use std::path::Path;

use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};

use crate::authority::{Authority, SIGNER_LIFE, Span};
use crate::token::hex;
use crate::{Problem, certificate, files};

/// A key to sign with.
pub struct Signer {
    key: KeyPair,
    /// The farm that it signs for.
    farm: String,
    /// Its certificate, followed by the authority's; or the public key, where there is no authority.
    public: String,
}

/// What a farm without an authority is called.
const LOCAL: &str = "local";

impl Signer {
    /// A new key in `path`, certified by the authority if there is one.
    ///
    /// # Errors
    /// The machine can't make keys, or the disk's.
    pub fn make(path: &Path, authority: Option<&Authority>, now_ms: i64) -> Result<(), Problem> {
        let failed = |error| Problem::new(format!("a key to sign with can't be made: {error}"));
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
        let public = match authority {
            Some(authority) => authority.signer(&key, Span::from_now(now_ms, SIGNER_LIFE)?)?.pem,
            None => key.public_key_pem(),
        };
        files::write_private(path, &(key.serialize_pem() + &public))
    }

    /// # Errors
    /// The file can't be read, or is not what it should be.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let text = files::read(path)?;
        let bad = |error| Problem::new(format!("{} holds no key to sign with: {error}", path.display()));
        let key = KeyPair::from_pem(&text).map_err(bad)?;
        let Some(begin) = text.find("-----BEGIN CERTIFICATE-----") else {
            let public = key.public_key_pem();
            return Ok(Self {
                key,
                farm: LOCAL.to_owned(),
                public,
            });
        };
        let public = text[begin..].to_owned();
        let first = certificate::first(&public)?;
        let farm = certificate::signer_of(&first)?;
        let farm = farm.filter(|_| certificate::has_key(&first, &key).unwrap_or(false));
        let wrong = || {
            Problem::new(format!(
                "key and certificate in {} don't belong together; make new ones with `klp-coordinator init --rotate-signer`",
                path.display()
            ))
        };
        Ok(Self {
            key,
            farm: farm.ok_or_else(wrong)?,
            public,
        })
    }

    /// The farm's name, as the certificate has it.
    pub fn farm(&self) -> &str {
        &self.farm
    }

    /// What whoever verifies needs beside the authority's certificate: it is no secret.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// By which the key is told from others.
    pub fn key_id(&self) -> String {
        key_id(&self.key.subject_public_key_info())
    }

    /// # Errors
    /// Never for a key that could be opened.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Problem> {
        let failed = |error| Problem::new(format!("it can't be signed: {error}"));
        self.key.sign(bytes).map_err(failed)
    }

    /// Until when its certificate lasts, in milliseconds since the Unix epoch; `None`: there is none.
    ///
    /// # Errors
    /// Never for one that could be opened.
    pub fn until_ms(&self) -> Result<Option<i64>, Problem> {
        match certificate::first(&self.public) {
            Ok(first) => Ok(Some(crate::Certificate::read(&first)?.until_ms)),
            Err(_) => Ok(None),
        }
    }
}

/// The SHA-256 of a public key.
pub fn key_id(public: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(public))
}

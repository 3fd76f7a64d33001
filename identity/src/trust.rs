//! What a client connects with: whom it trusts, and as whom it comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::fingerprint::Pinned;
use crate::{Fingerprint, Problem, Token, files};

/// The cryptography that all of the farm uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// By what a client recognises the farm.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Certificates of authorities, as PEM.
    Authority(String),
    /// The farm's authority has this fingerprint; for a client that doesn't have its certificate yet.
    Fingerprint(Fingerprint),
}

impl Trust {
    /// The authorities in a file.
    ///
    /// # Errors
    /// It can't be read, or holds none.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let text = files::read(path)?;
        let checked = crate::certificate::all(&text);
        checked.map_err(|error| Problem::new(format!("{}: {error}", path.display())))?;
        Ok(Trust::Authority(text))
    }

    /// The same way over TLS, coming with a key and certificate if there are any.
    ///
    /// # Errors
    /// The texts are not what they should be.
    pub fn secure(&self, endpoint: Endpoint, own: Option<&str>) -> Result<Endpoint, Problem> {
        let mut tls = ClientTlsConfig::new();
        if let Some(pem) = own {
            tls = tls.identity(Identity::from_pem(pem, pem));
        }
        let secured = match self {
            Trust::Authority(pem) => endpoint.tls_config(tls.ca_certificate(Certificate::from_pem(pem))),
            Trust::Fingerprint(fingerprint) => {
                let fingerprint = *fingerprint;
                endpoint.tls_config_with_verifier(tls, Arc::new(Pinned { fingerprint }))
            }
        };
        let inner = |error: &dyn std::error::Error| match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        secured.map_err(|error| Problem::new(format!("TLS can't be used: {}", inner(&error))))
    }
}

/// Where a client's token comes from: a file, or the environment.
///
/// # Errors
/// The file can't be read, or what is there is no token.
pub fn token(file: Option<PathBuf>, environment: Option<String>) -> Result<Option<Token>, Problem> {
    let (text, place) = match (file, environment.filter(|text| !text.is_empty())) {
        (Some(path), _) => (files::read(&path)?, path.display().to_string()),
        (None, Some(text)) => (text, "KLP_FARM_TOKEN".to_owned()),
        (None, None) => return Ok(None),
    };
    let token = text.parse::<Token>();
    token
        .map(Some)
        .map_err(|error| Problem::new(format!("{place}: {error}")))
}

/// A token as it travels: in the metadata `authorization`, never shown in logs.
pub fn bearer(token: &Token) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.reveal()).parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

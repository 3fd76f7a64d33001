//! A certificate's fingerprint, by which a new worker recognises the farm's authority before it has its certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

use crate::token::{hex, unhex};
use crate::trust::provider;
use crate::{Problem, certificate};

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Of several certificates in their order, however their text is written.
    ///
    /// # Errors
    /// There is none, or one can't be read.
    pub fn of_all(pem: &str) -> Result<Self, Problem> {
        let mut hash = Sha256::new();
        for certificate in certificate::all(pem)? {
            hash.update(&certificate);
        }
        Ok(Self(hash.finalize().into()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    /// Also with colons and in capitals, as other programs write it.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let plain: String = text.chars().filter(|c| *c != ':').collect();
        let bytes = unhex(&plain.to_ascii_lowercase());
        bytes
            .map(Self)
            .ok_or("a SHA-256 fingerprint is 64 digits of 0-9 and a-f")
    }
}

/// Trusts the one authority that has the fingerprint, if the server sends its certificate along; all else is verified as
/// usual.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub fingerprint: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut sent = intermediates.iter();
        let authority = sent.find(|certificate| Fingerprint::of(certificate) == self.fingerprint);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_others_write_it() {
        let print = Fingerprint([0xab; 32]);
        let plain = print.to_string();
        assert_eq!(plain.parse(), Ok(print));
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(colons.parse(), Ok(print));
        assert!(plain[1..].parse::<Fingerprint>().is_err());
    }
}

//! Checks what a coordinator has signed, without asking it: by the farm's authority, or by the key itself.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity, anchor_from_trusted_cert};

use crate::signer::key_id;
use crate::{Certificate, Problem, certificate, files};

/// id-kp-codeSigning, 1.3.6.1.5.5.7.3.3, by which alone a certificate is one of a signer.
const CODE_SIGNING: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 3];

/// Whom to believe.
pub enum Trusted {
    /// Keys that one of these has certified to sign.
    Authorities(Vec<CertificateDer<'static>>),
    /// One key: the DER of its `SubjectPublicKeyInfo`.
    Key(SubjectPublicKeyInfoDer<'static>),
}

/// A key that signatures can be checked with.
pub struct Verifier {
    key: SubjectPublicKeyInfoDer<'static>,
    /// What its certificate says, if the key is believed because of it.
    pub certified: Option<Certified>,
}

/// What the certificate of a signer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The farm that it signs for.
    pub farm: String,
    /// Milliseconds since the Unix epoch.
    pub from_ms: i64,
    pub until_ms: i64,
}

impl Trusted {
    /// Authorities, as in a farm's `ca.pem`.
    ///
    /// # Errors
    /// The file can't be read, or holds no certificate.
    pub fn authorities(path: &std::path::Path) -> Result<Self, Problem> {
        let all = certificate::all(&files::read(path)?);
        let all = all.map_err(|error| Problem::new(format!("{}: {error}", path.display())))?;
        Ok(Self::Authorities(all))
    }

    /// One key, from its own PEM or from that of its certificate.
    ///
    /// # Errors
    /// The file can't be read, or holds neither.
    pub fn key(path: &std::path::Path) -> Result<Self, Problem> {
        let text = files::read(path)?;
        let bad = |error: String| Problem::new(format!("{}: {error}", path.display()));
        if let Ok(first) = certificate::first(&text) {
            return Ok(Self::Key(
                certificate::public_key(&first).map_err(|e| bad(e.to_string()))?,
            ));
        }
        let key = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes());
        let none = |error| bad(format!("it holds neither a public key nor a certificate: {error}"));
        Ok(Self::Key(key.map_err(none)?))
    }
}

impl Verifier {
    /// The key that is to be believed. `signer`: what came with the signatures; it says which key an authority has certified.
    ///
    /// # Errors
    /// It is certified by nobody who is trusted, or for something else.
    pub fn new(trusted: &Trusted, signer: &str) -> Result<Self, Problem> {
        let authorities = match trusted {
            Trusted::Key(key) => {
                return Ok(Self {
                    key: key.clone(),
                    certified: None,
                });
            }
            Trusted::Authorities(authorities) => authorities,
        };
        if !signer.contains("-----BEGIN CERTIFICATE-----") {
            return Err(Problem::new(
                "it is a bare key, as of a farm without a CA: get its public key from whoever runs the farm, and name it with --key",
            ));
        }
        let first = certificate::first(signer)?;
        let said = Certificate::read(&first)?;
        certified_by(authorities, &first, said.from_ms)?;
        let farm = certificate::signer_of(&first)?;
        let farm = farm.ok_or_else(|| Problem::new("it is the CA's, but not one for signing statements"))?;
        Ok(Self {
            key: certificate::public_key(&first)?,
            certified: Some(Certified {
                farm,
                from_ms: said.from_ms,
                until_ms: said.until_ms,
            }),
        })
    }

    /// Whether the key has signed these bytes.
    pub fn signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let key = RawPublicKeyEntity::try_from(&self.key);
        key.is_ok_and(|key| key.verify_signature(webpki::ring::ED25519, bytes, signature).is_ok())
    }

    /// By which the key is told from others.
    pub fn key_id(&self) -> String {
        key_id(&self.key)
    }
}

/// Whether one of the authorities has certified it to sign. Validity is not asked: it counts when something was signed, and
/// whoever knows that asks for it.
fn certified_by(
    authorities: &[CertificateDer<'static>],
    certificate: &CertificateDer<'_>,
    when_ms: i64,
) -> Result<(), Problem> {
    let unreadable = |error| Problem::new(format!("it can't be read: {error}"));
    let end = EndEntityCert::try_from(certificate).map_err(unreadable)?;
    let anchors: Result<Vec<TrustAnchor<'_>>, _> = authorities.iter().map(anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|error| Problem::new(format!("the CA's certificate can't be read: {error}")))?;
    let when = std::time::Duration::from_millis(u64::try_from(when_ms).unwrap_or_default());
    let verified = end.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &[],
        UnixTime::since_unix_epoch(when),
        KeyUsage::required(CODE_SIGNING),
        None,
        None,
    );
    match verified {
        Ok(_) => Ok(()),
        Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => Err(Problem::new(
            "it was not made by the CA that you trust: another farm signed this, or somebody who pretends",
        )),
        Err(webpki::Error::RequiredEkuNotFoundContext(_)) => Err(Problem::new(
            "it is the CA's, but not one for signing statements: a worker or a server pretends to be the coordinator",
        )),
        Err(error) => Err(Problem::new(format!("it is not to be believed: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signer;
    use crate::authority::{AUTHORITY_LIFE, Authority, Span, request};

    const NOW: i64 = 1_800_000_000_000;

    fn authority() -> Authority {
        let span = Span::from_now(NOW, AUTHORITY_LIFE).unwrap();
        Authority::new("klp-farm of farm.example.org", span).unwrap().0
    }

    fn trust(authority: &Authority) -> Trusted {
        Trusted::Authorities(certificate::all(authority.pem()).unwrap())
    }

    #[test]
    fn a_signature_is_believed_by_the_authority_and_by_the_key_itself() {
        let (folder, ca) = (tempfile::tempdir().unwrap(), authority());
        let path = folder.path().join("signer.pem");
        Signer::make(&path, Some(&ca), NOW).unwrap();
        let signer = Signer::open(&path).unwrap();
        assert_eq!(signer.farm(), "farm.example.org");
        let signature = signer.sign(b"text").unwrap();
        assert_eq!(signer.sign(b"text").unwrap(), signature, "the same, always");
        let verifier = Verifier::new(&trust(&ca), signer.public()).unwrap();
        assert!(verifier.signed(b"text", &signature) && !verifier.signed(b"texts", &signature));
        assert!(!verifier.signed(b"text", &signature[1..]));
        assert_eq!(verifier.key_id(), signer.key_id());
        assert_eq!(verifier.certified.as_ref().unwrap().farm, "farm.example.org");

        let other = Verifier::new(&trust(&authority()), signer.public()).err().unwrap();
        assert!(other.to_string().contains("the CA that you trust"), "{other}");
        let pinned = folder.path().join("public.pem");
        std::fs::write(&pinned, signer.public()).unwrap();
        let pinned = Verifier::new(&Trusted::key(&pinned).unwrap(), "").unwrap();
        assert!(pinned.signed(b"text", &signature));
    }

    #[test]
    fn a_worker_s_certificate_signs_no_statements() {
        let ca = authority();
        let (_, asked) = request(&"build7".parse().unwrap()).unwrap();
        let span = Span::from_now(NOW, std::time::Duration::from_secs(60)).unwrap();
        let issued = ca.worker(&asked, &"build7".parse().unwrap(), span).unwrap();
        let error = Verifier::new(&trust(&ca), &issued.pem).err().unwrap().to_string();
        assert!(error.contains("not one for signing"), "{error}");
    }

    #[test]
    fn a_bare_key_is_believed_only_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signer.pem");
        Signer::make(&path, None, NOW).unwrap();
        let signer = Signer::open(&path).unwrap();
        assert_eq!((signer.farm(), signer.until_ms().unwrap()), ("local", None));
        let error = Verifier::new(&trust(&authority()), signer.public()).err().unwrap();
        assert!(error.to_string().contains("--key"), "{error}");
        let public = folder.path().join("public.pem");
        std::fs::write(&public, signer.public()).unwrap();
        let verifier = Verifier::new(&Trusted::key(&public).unwrap(), signer.public()).unwrap();
        assert!(verifier.signed(b"x", &signer.sign(b"x").unwrap()));
        std::fs::write(&public, "no key").unwrap();
        assert!(Trusted::key(&public).is_err());
    }
}

//! TLS as the coordinator speaks it: 1.3 alone, with the certificate that is in its folder now, and asking for a certificate
//! that only workers have.
//!
//! A handshake takes any certificate whose key the peer has; whether to believe what it says is judged afterwards, so that who
//! is refused can be told why.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use klp_identity::{Authority, Certificate, Fingerprint, Problem, certificate, trust};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio_util::sync::CancellationToken;

use crate::clock::utc;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where the coordinator's keys and certificates are.
pub mod files {
    use std::path::{Path, PathBuf};

    pub fn folder(data_dir: &Path) -> PathBuf {
        data_dir.join("tls")
    }

    pub fn ca(folder: &Path) -> PathBuf {
        folder.join("ca.pem")
    }

    pub fn ca_key(folder: &Path) -> PathBuf {
        folder.join("ca.key")
    }

    /// The key of an authority that is trusted already and issues nothing yet.
    pub fn ca_next_key(folder: &Path) -> PathBuf {
        folder.join("ca-next.key")
    }

    /// Authorities that were trusted once. Statements that they certified are verified by them still.
    pub fn ca_former(folder: &Path) -> PathBuf {
        folder.join("ca-former.pem")
    }

    /// The coordinator's own certificate, followed by the authority's.
    pub fn server(folder: &Path) -> PathBuf {
        folder.join("server.pem")
    }

    pub fn server_key(folder: &Path) -> PathBuf {
        folder.join("server.key")
    }

    /// What statements are signed with: the key, its certificate, and the authority's.
    pub fn signer(folder: &Path) -> PathBuf {
        folder.join("signer.pem")
    }

    /// The same of a farm without an authority, in its data folder.
    pub fn bare_signer(data_dir: &Path) -> PathBuf {
        data_dir.join("signer.pem")
    }
}

/// As the files are now.
#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// By whom certificates were made that are not believed any more.
    former: Option<Arc<dyn ClientCertVerifier>>,
    /// The fingerprint of all that are trusted, whoever issues first.
    trust: Arc<str>,
    stamps: Vec<Option<(SystemTime, u64)>>,
}

/// TLS with whatever is in the files; cheap to clone.
#[derive(Clone)]
pub struct Tls {
    folder: Arc<Path>,
    current: Arc<RwLock<Current>>,
}

impl Tls {
    /// # Errors
    /// A file is missing or not what it should be.
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        let current = read(folder)?;
        Ok(Self {
            folder: folder.into(),
            current: Arc::new(RwLock::new(current)),
        })
    }

    fn now(&self) -> Current {
        // It is put in whole.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.now().config
    }

    /// What to make of a certificate that a peer has come with.
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<Result<Arc<Certificate>, Arc<str>>> {
        let (own, rest) = chain.split_first()?;
        let read = match Certificate::read(own) {
            Ok(read) => read,
            Err(error) => return Some(Err(error.to_string().into())),
        };
        let now = self.now();
        let by = |verifier: &Arc<dyn ClientCertVerifier>| verifier.verify_client_cert(own, rest, UnixTime::now());
        Some(match by(&now.verifier) {
            Ok(_) => Ok(Arc::new(read)),
            Err(error) => {
                let former = now.former.as_ref().is_some_and(|former| by(former).is_ok());
                Err(distrusted(&read, &error, former).into())
            }
        })
    }

    /// The fingerprint of the CAs that workers should trust now.
    pub fn trust(&self) -> Arc<str> {
        self.now().trust
    }

    /// Takes what has changed in the files, until `stop`. What makes no sense is told once, and what was there stays.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        let mut told = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            let stamps = stamps(&self.folder);
            if stamps == self.now().stamps || told.as_ref() == Some(&stamps) {
                continue;
            }
            match read(&self.folder) {
                Ok(current) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                    tracing::info!(folder = %self.folder.display(), "new connections get the certificate that is there now");
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificate can't be used; the former one stays");
                    told = Some(stamps);
                }
            }
        }
    }
}

fn distrusted(certificate: &Certificate, error: &Error, former: bool) -> String {
    let whose = match &certificate.worker {
        Some(worker) => format!("the certificate of worker `{worker}`"),
        None => "this certificate".to_owned(),
    };
    let again = match &certificate.worker {
        Some(worker) => format!("let it in again with `klp-farm enroll {worker}`"),
        None => "leave it out, and come with a token".to_owned(),
    };
    let what = match error {
        _ if former => "was issued by a CA that this farm has replaced since".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "was not issued by this farm's CA".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("expired at {}", utc(certificate.until_ms))
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            format!(
                "is valid only from {} on; are the clocks of both machines right?",
                utc(certificate.from_ms)
            )
        }
        other => format!("can't be believed ({other})"),
    };
    format!("{whose} {what}; {again}")
}

fn paths(folder: &Path) -> [PathBuf; 5] {
    [
        files::ca(folder),
        files::server(folder),
        files::server_key(folder),
        files::ca_key(folder),
        files::ca_former(folder),
    ]
}

fn stamps(folder: &Path) -> Vec<Option<(SystemTime, u64)>> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.ino()))
    };
    paths(folder).iter().map(stamp).collect()
}

fn read(folder: &Path) -> Result<Current, Problem> {
    // Before they are read: what changes meanwhile is read again.
    let stamps = stamps(folder);
    let [ca, server, key, ca_key, former] = paths(folder);
    let named = |path: &Path, error: Problem| Problem(format!("{}: {error}", path.display()));
    let text = |path: &Path| klp_identity::files::read(path);
    let authorities = text(&ca)?;
    let verifier = verifier(&authorities).map_err(|error| named(&ca, error))?;
    let former = match former.exists() {
        true => Some(self::verifier(&text(&former)?).map_err(|error| named(&former, error))?),
        false => None,
    };
    // A key that is kept elsewhere issues nothing here; then the order is that of the file.
    let trusted = match ca_key.exists() {
        true => Authority::open(&authorities, &text(&ca_key)?)?.trusted().to_owned(),
        false => authorities,
    };
    let chain = certificate::all(&text(&server)?).map_err(|error| named(&server, error))?;
    let secret = certificate::key(&text(&key)?).map_err(|error| named(&key, error))?;
    let config =
        ServerConfig::builder_with_provider(trust::provider()).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.map_err(|error| Problem(format!("TLS 1.3 can't be used: {error}")))?;
    let asking = Arc::new(Asking(verifier.clone()));
    let config = config.with_client_cert_verifier(asking).with_single_cert(chain, secret);
    let mut config =
        config.map_err(|error| named(&server, Problem(format!("{error}; is {} its key?", key.display()))))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed connection would bring the certificate that its worker had then.
    config.send_tls13_tickets = 0;
    let config = Arc::new(config);
    Ok(Current {
        config,
        verifier,
        former,
        trust: Fingerprint::of_all(&trusted)?.to_string().into(),
        stamps,
    })
}

/// Verifies by these authorities.
fn verifier(authorities: &str) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let mut roots = RootCertStore::empty();
    for root in certificate::all(authorities)? {
        let added = roots.add(root);
        added.map_err(|error| Problem(format!("this is no CA: {error}")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), trust::provider())
        .allow_unauthenticated()
        .build();
    verifier.map_err(|error| Problem(error.to_string()))
}

/// Asks for a certificate, and takes whichever comes with a proof that its key is there.
#[derive(Debug)]
struct Asking(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Judged when the handshake is done, by `Tls::judge`.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

//! Artifacts in a bucket that is asked over TLS: by an authority that the environment names, and by no other.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

#[path = "../../tests/src/s3.rs"]
mod s3;
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use klp_identity::authority::Span;
use klp_identity::{Authority, certificate};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::process::BINARY;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const DAY: Duration = Duration::from_secs(86_400);

/// Speaks TLS in front of a server, under the name `localhost`; answers its port. Its authority is written to a file.
async fn front(server: &s3::S3, authority_file: &Path) -> u16 {
    let now = klp_coordinator::Clock::system().now();
    let span = || Span::from_now(now, DAY).unwrap();
    let (authority, _) = Authority::new(&certificate::authority_name("storage"), span()).unwrap();
    std::fs::write(authority_file, authority.pem()).unwrap();
    let (issued, key) = authority.server(&["localhost".to_owned()], span()).unwrap();
    let chain = CertificateDer::pem_slice_iter(issued.pem.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = server.endpoint().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else {
                    return;
                };
                let mut server = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_bucket_over_tls_is_trusted_by_the_authority_that_is_named_and_not_without() {
    let Some(server) = s3::S3::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let port = front(&server, &authority).await;
    let settings = server
        .settings("klp")
        .replace(&server.endpoint(), &format!("https://localhost:{port}"))
        .replace("artifacts_plain_http = true\n", "");
    let config = folder.path().join("coordinator.toml");
    std::fs::write(&config, settings).unwrap();
    let command = || {
        let mut command = Command::new(BINARY);
        command
            .args(["--insecure", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("SSL_CERT_DIR");
        tokio::process::Command::from(command)
    };

    // An authority, but another one.
    let other = folder.path().join("other.pem");
    front(&server, &other).await;
    let refused = command().env("SSL_CERT_FILE", &other).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.status.code() == Some(1)
            && said.contains("can't be kept at s3://farm-artifacts/klp")
            && said.contains("certificate"),
        "{said}"
    );
    assert!(server.keys().is_empty());

    let mut trusted = command();
    let mut trusted = trusted
        .env("SSL_CERT_FILE", &authority)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(trusted.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
    let first = first.unwrap().unwrap().unwrap_or_default();
    assert!(first.starts_with("listening on "), "{first}");
    assert_eq!(server.keys(), ["klp/owner"]);
}

//! Who this worker is: its key and certificate, which it gets once by [`enroll`] and renews by itself before they expire.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use klp_identity::{Certificate, Fingerprint, Token, Trust, authority, explain, files};
use klp_livepatch::names::WorkerName;
use klp_proto::v1;
use klp_proto::v1::access_service_client::AccessServiceClient;
use klp_telemetry::redact;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::delivery::endpoint;
use crate::line::Line;

/// The shortest and the longest time between two tries to renew.
const SOON: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(3600);
/// Between two tries because of other CAs.
const AGAIN: Duration = Duration::from_secs(10);

/// Where the papers are: one file with key and certificate, so that both are replaced at once, and one with the farm's CA.
#[derive(Clone, Debug)]
pub struct Papers {
    folder: PathBuf,
}

impl Papers {
    pub fn of(data_dir: &Path) -> Self {
        let folder = data_dir.join("tls");
        Self { folder }
    }

    fn own(&self) -> PathBuf {
        self.folder.join("worker.pem")
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// What the certificate says.
    ///
    /// # Errors
    /// There is none.
    pub fn certificate(&self) -> anyhow::Result<Certificate> {
        let path = self.own();
        let missing = || {
            let dir = self.folder.parent().unwrap_or(&self.folder).display();
            format!(
                "this worker has no certificate in {dir}: have an admin run `klp-farm enroll NAME`, and run what that prints here, \
                 with the same --data-dir"
            )
        };
        let text = files::read(&path).with_context(missing)?;
        Certificate::first_of(&text).with_context(|| format!("{} is damaged; enroll this worker anew", path.display()))
    }

    /// The name that the farm knows this worker by.
    ///
    /// # Errors
    /// There is no certificate, or it is no worker's.
    pub fn name(&self) -> anyhow::Result<WorkerName> {
        let worker = self.certificate()?.worker;
        worker.with_context(|| format!("the certificate in {} is no worker's", self.own().display()))
    }

    fn channel(&self, coordinator: &Uri) -> anyhow::Result<Channel> {
        let own = files::read(&self.own())?;
        let trust = Trust::read(&self.ca())?;
        Ok(trust.secure(endpoint(coordinator.clone()), Some(&own))?.connect_lazy())
    }

    /// The fingerprint of the CAs that are trusted.
    fn trust(&self) -> anyhow::Result<String> {
        Ok(Fingerprint::of_all(&files::read(&self.ca())?)?.to_string())
    }

    fn keep(&self, key: &str, given: &v1::CertificateResponse) -> anyhow::Result<()> {
        files::private_folder(&self.folder)?;
        // First, so that a certificate is never there without whom it is for.
        files::write_public(&self.ca(), &given.ca_pem)?;
        files::write_private(&self.own(), &(key.to_owned() + &given.certificate_pem))?;
        Ok(())
    }
}

pub fn is_secure(coordinator: &Uri) -> bool {
    coordinator.scheme_str() == Some("https")
}

/// The way to the coordinator, with this worker's papers where it speaks TLS.
///
/// # Errors
/// The papers are missing, or another worker's.
pub fn line(coordinator: &Uri, data_dir: &Path, name: &WorkerName) -> anyhow::Result<Line> {
    if !is_secure(coordinator) {
        return Ok(Line::new(endpoint(coordinator.clone()).connect_lazy()));
    }
    let papers = Papers::of(data_dir);
    let own = papers.name()?;
    ensure!(
        own == *name,
        "the certificate in {} is that of worker `{own}`, and this worker is to be `{name}`; leave --name out, or let `{name}` \
         in with `klp-farm enroll {name}` and a --data-dir of its own",
        data_dir.display()
    );
    Ok(Line::new(papers.channel(coordinator)?))
}

/// Gets this worker's first certificate, from a farm whose CA has this fingerprint; answers the worker's name.
///
/// # Errors
/// The coordinator is another's, or doesn't let this worker in.
pub async fn enroll(coordinator: &Uri, token: &Token, ca: Fingerprint, data_dir: &Path) -> anyhow::Result<WorkerName> {
    ensure!(
        is_secure(coordinator),
        "a worker enrolls over TLS: give the coordinator as https://{}",
        coordinator
            .authority()
            .map_or("HOST:PORT", |authority| authority.as_str())
    );
    let endpoint = Endpoint::from(coordinator.clone()).connect_timeout(Duration::from_secs(10));
    let connected = Trust::Fingerprint(ca).secure(endpoint, None)?.connect().await;
    let connected = connected.map_err(|error| {
        let why = explain::tls(&error)
            .unwrap_or_else(|| redact::scrub(&format!("{:#}", anyhow::Error::from(error))).into_owned());
        anyhow::anyhow!("can't enroll at {}: {why}", redact::url(coordinator))
    })?;
    // The farm says which name it is to be; the one in the request is nobody's.
    let (key, request_pem) = authority::request(&crate::config::default_name())?;
    let request = v1::EnrollRequest {
        token: token.reveal(),
        request_pem,
    };
    let given = match AccessServiceClient::new(connected).enroll(request).await {
        Ok(given) => given.into_inner(),
        Err(status) => bail!(
            "the coordinator at {} refused: {}",
            redact::url(coordinator),
            status.message()
        ),
    };
    let name = given
        .worker
        .parse()
        .context("the coordinator gave this worker a name that is none")?;
    Papers::of(data_dir).keep(&key, &given)?;
    Ok(name)
}

/// Renews the certificate when two thirds of its time have passed, again and again; and at once when the coordinator tells
/// that other CAs are to be trusted than came with it.
pub async fn keep_renewed(line: Line, coordinator: Uri, data_dir: PathBuf, mut told: watch::Receiver<String>) {
    if !is_secure(&coordinator) {
        return;
    }
    let papers = Papers::of(&data_dir);
    let mut failed = false;
    // What was told when a certificate was fetched because of it: once for each, whatever came with it.
    let mut followed = String::new();
    loop {
        let certificate = match papers.certificate() {
            Ok(certificate) => certificate,
            Err(error) => {
                return tracing::error!(error = format!("{error:#}"), "this worker can't renew its certificate");
            }
        };
        let trust = told.borrow_and_update().clone();
        let other = !trust.is_empty() && trust != followed && papers.trust().is_ok_and(|own| own != trust);
        let wait = match (other, failed) {
            (true, false) => Duration::ZERO,
            (true, true) => AGAIN,
            (false, _) => due_in(&certificate, now_ms(), failed),
        };
        if !wait.is_zero() {
            tokio::select! {
                // In steps: clocks may be set meanwhile.
                () = tokio::time::sleep(wait.min(LATE)) => failed = false,
                Ok(()) = told.changed() => {}
            }
            continue;
        }
        match renew(&line, &papers, &coordinator).await {
            Ok(until) => {
                let why = if other {
                    "the farm's CAs have changed"
                } else {
                    "it was time"
                };
                tracing::info!(expires_ms = until, why, "this worker's certificate is renewed");
                followed = trust;
            }
            Err(error) => {
                failed = true;
                tracing::warn!(
                    error = format!("{error:#}"),
                    "this worker's certificate can't be renewed yet; will try again"
                );
            }
        }
    }
}

async fn renew(line: &Line, papers: &Papers, coordinator: &Uri) -> anyhow::Result<i64> {
    let (key, request_pem) = authority::request(&papers.name()?)?;
    let request = v1::RenewCertificateRequest { request_pem };
    let given = AccessServiceClient::new(line.clone()).renew_certificate(request).await;
    let given = given
        .map_err(|status| anyhow::anyhow!("{}", status.message()))?
        .into_inner();
    papers.keep(&key, &given)?;
    line.replace(papers.channel(coordinator)?);
    Ok(given.expires_ms)
}

/// How long to wait until the certificate is to be renewed; after a failure, a tenth of what is left, and a bit.
fn due_in(certificate: &Certificate, now_ms: i64, failed: bool) -> Duration {
    let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let life = certificate.until_ms - certificate.from_ms;
    let due = certificate.from_ms + life / 3 * 2;
    match failed {
        false => ms(due - now_ms),
        true => (ms(certificate.until_ms - now_ms) / 10).clamp(SOON, LATE),
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_long_before_it_expires() {
        let certificate = Certificate {
            worker: None,
            serial: String::new(),
            from_ms: 0,
            until_ms: 30_000_000,
        };
        assert_eq!(due_in(&certificate, 0, false), Duration::from_secs(20_000));
        assert_eq!(due_in(&certificate, 20_000_000, false), Duration::ZERO);
        assert_eq!(due_in(&certificate, 20_000_000, true), Duration::from_secs(1000));
        assert_eq!(due_in(&certificate, 29_999_999, true), SOON);
    }
}

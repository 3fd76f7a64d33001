//! The farm's own certificate authority: makes the coordinator's certificate and those of workers.

use std::time::Duration;

use klp_livepatch::names::WorkerName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::certificate::{self, signer_uri, worker_uri};
use crate::token::hex;
use crate::{Fingerprint, Problem};

/// How long the authority is trusted, and how long a coordinator's certificate lasts.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
pub const SERVER_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// How long a key may sign statements.
pub const SIGNER_LIFE: Duration = Duration::from_secs(3 * 365 * 86_400);

/// How far before now a certificate begins to be valid, for clocks that are behind; less for one of a short life.
const BACKDATED: Duration = Duration::from_secs(300);

/// Makes certificates. Whoever holds its key can be anybody on the farm.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    /// With all that are trusted beside it, it first.
    trusted: String,
}

/// A certificate that was made, with what is remembered of it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Followed by the authority's own.
    pub pem: String,
    /// In hexadecimal digits.
    pub serial: String,
    /// Milliseconds since the Unix epoch.
    pub from_ms: i64,
    pub until_ms: i64,
}

/// Between these a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    from: OffsetDateTime,
    until: OffsetDateTime,
}

impl Span {
    /// # Errors
    /// The times are out of the calendar.
    pub fn of_ms(from_ms: i64, until_ms: i64) -> Result<Self, Problem> {
        let time = |ms: i64| {
            let time = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000));
            time.map_err(|error| Problem::new(format!("{ms} ms is no time of a certificate: {error}")))
        };
        // Certificates count whole seconds; one that is cut off must not end early.
        let (from, until) = (time(from_ms)?, time(until_ms.saturating_add(999))?);
        Ok(Self { from, until })
    }

    /// From now on for `life`.
    ///
    /// # Errors
    /// As [`Span::of_ms`].
    pub fn from_now(now_ms: i64, life: Duration) -> Result<Self, Problem> {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let back = ms(BACKDATED.min(life / 8));
        Self::of_ms(now_ms.saturating_sub(back), now_ms.saturating_add(ms(life)))
    }
}

fn failed(error: rcgen::Error) -> Problem {
    Problem::new(format!("a certificate can't be made: {error}"))
}

impl Authority {
    /// A new authority, and its key.
    ///
    /// # Errors
    /// The machine can't make keys.
    pub fn new(name: &str, span: Span) -> Result<(Self, String), Problem> {
        let key = KeyPair::generate().map_err(failed)?;
        let secret = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (span.from, span.until);
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        let issuer = Issuer::new(params, key);
        let authority = Self {
            issuer,
            trusted: certificate.clone(),
            certificate,
        };
        Ok((authority, secret))
    }

    /// The authority of these texts: of all that are trusted, the one that the key belongs to. So another one issues from the
    /// moment on in which the key is replaced.
    ///
    /// # Errors
    /// They are not what they should be, or don't belong together.
    pub fn open(certificates: &str, key: &str) -> Result<Self, Problem> {
        let key =
            KeyPair::from_pem(key).map_err(|error| Problem::new(format!("the CA's key can't be read: {error}")))?;
        let mut own = None;
        for (at, found) in certificate::all(certificates)?.iter().enumerate() {
            if certificate::has_key(found, &key)? {
                own = Some((at, found.clone()));
            }
        }
        let Some((at, own)) = own else {
            let text = "no certificate of ca.pem belongs to ca.key; put both back as they were";
            return Err(Problem::new(text));
        };
        let unread = |error| Problem::new(format!("the CA's certificate can't be read: {error}"));
        let issuer = Issuer::from_ca_cert_der(&own, key).map_err(unread)?;
        let mut blocks = certificate::blocks(certificates);
        if at >= blocks.len() {
            return Err(Problem::new(
                "ca.pem is not laid out as certificates are: each between lines of its own",
            ));
        }
        let certificate = blocks.remove(at);
        let trusted = certificate.clone() + &blocks.concat();
        Ok(Self {
            issuer,
            certificate,
            trusted,
        })
    }

    /// Its certificate, which whoever trusts the farm needs.
    pub fn pem(&self) -> &str {
        &self.certificate
    }

    /// The certificates of all authorities that are trusted, its own first.
    pub fn trusted(&self) -> &str {
        &self.trusted
    }

    /// The fingerprints of all that are trusted, in that order.
    ///
    /// # Errors
    /// Never for an authority that could be opened.
    pub fn told_to_trust(&self) -> Result<Vec<String>, Problem> {
        let all = certificate::all(&self.trusted)?;
        Ok(all.iter().map(|one| Fingerprint::of(one).to_string()).collect())
    }

    /// # Errors
    /// Never for an authority that could be opened.
    pub fn fingerprint(&self) -> Result<Fingerprint, Problem> {
        Ok(Fingerprint::of(&certificate::first(&self.certificate)?))
    }

    /// A key and certificate for the coordinator under these names and addresses.
    ///
    /// # Errors
    /// A name is none, or the machine can't make keys.
    pub fn server(&self, names: &[String], span: Span) -> Result<(Issued, String), Problem> {
        let bad = |error| {
            Problem::new(format!(
                "these can't be a coordinator's names: {}: {error}",
                names.join(", ")
            ))
        };
        let mut params = CertificateParams::new(names).map_err(bad)?;
        let name = names.first().map_or("klp-coordinator", String::as_str);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(failed)?;
        Ok((self.sign(params, &key, span)?, key.serialize_pem()))
    }

    /// A certificate for a worker. Of the request only its key counts, which it proves to have.
    ///
    /// # Errors
    /// It is no request.
    pub fn worker(&self, request: &str, worker: &WorkerName, span: Span) -> Result<Issued, Problem> {
        let bad = |error| Problem::new(format!("this is no request for a certificate: {error}"));
        let request = CertificateSigningRequestParams::from_pem(request).map_err(bad)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, worker.as_str());
        let uri = worker_uri(worker).try_into().map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &request.public_key, span)
    }

    /// A certificate for the key that statements are signed with.
    ///
    /// # Errors
    /// Never for an authority that could be opened.
    pub fn signer(&self, key: &KeyPair, span: Span) -> Result<Issued, Problem> {
        let farm = certificate::farm_of(&certificate::first(&self.certificate)?)?;
        let mut params = CertificateParams::default();
        let name = format!("{farm} signs statements");
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = signer_uri(&farm).try_into().map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        self.sign(params, key, span)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl rcgen::PublicKeyData,
        span: Span,
    ) -> Result<Issued, Problem> {
        let serial = serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (span.from, span.until);
        let made = params.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(Issued {
            pem: made.pem() + &self.certificate,
            serial: hex(&serial),
            from_ms: span.from.unix_timestamp() * 1000,
            until_ms: span.until.unix_timestamp() * 1000,
        })
    }
}

/// A key that never leaves its machine, and the request for its certificate.
///
/// # Errors
/// The machine can't make keys.
pub fn request(worker: &WorkerName) -> Result<(String, String), Problem> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, worker.as_str());
    let request = params.serialize_request(&key).and_then(|request| request.pem());
    Ok((key.serialize_pem(), request.map_err(failed)?))
}

/// Positive, and of one length.
fn serial() -> Result<[u8; 16], Problem> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)
        .map_err(|error| Problem::new(format!("this machine gives no random bits: {error}")))?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Certificate;

    const NOW: i64 = 1_800_000_000_000;

    fn authority() -> (Authority, String) {
        Authority::new("a farm", Span::from_now(NOW, AUTHORITY_LIFE).unwrap()).unwrap()
    }

    #[test]
    fn a_worker_is_named_by_the_farm_whatever_it_asks_for() {
        let (authority, key) = authority();
        let authority = Authority::open(&format!("{}\n", authority.pem()), &key).unwrap();
        let (_, asked) = request(&"mallory".parse().unwrap()).unwrap();
        let span = Span::from_now(NOW, Duration::from_secs(60)).unwrap();
        let issued = authority.worker(&asked, &"build7".parse().unwrap(), span).unwrap();
        let read = Certificate::read(&certificate::first(&issued.pem).unwrap()).unwrap();
        assert_eq!(read.worker.as_ref().map(|w| w.as_str()), Some("build7"));
        assert_eq!((read.serial, read.until_ms), (issued.serial, issued.until_ms));
        assert_eq!(issued.until_ms, NOW + 60_000);
        assert!(issued.from_ms < NOW);
    }

    #[test]
    fn of_several_authorities_the_one_issues_whose_key_is_there() {
        let ((one, first), (other, second)) = (authority(), authority());
        let both = format!("# of a farm\n{}\n\n{}", one.pem(), other.pem());
        let opened = |key| Authority::open(&both, key).unwrap();
        assert_eq!(opened(&first).pem(), one.pem());
        assert_eq!(opened(&first).trusted(), format!("{}{}", one.pem(), other.pem()));
        assert_eq!(opened(&second).trusted(), format!("{}{}", other.pem(), one.pem()));
        let (_, asked) = request(&"a".parse().unwrap()).unwrap();
        let span = Span::from_now(NOW, Duration::from_secs(60)).unwrap();
        let issued = opened(&second).worker(&asked, &"a".parse().unwrap(), span).unwrap();
        assert!(issued.pem.ends_with(other.pem()));
    }

    #[test]
    fn what_does_not_belong_together_is_told() {
        let ((one, _), (_, key)) = (authority(), authority());
        let error = Authority::open(one.pem(), &key).err().unwrap().to_string();
        assert!(error.contains("ca.key"), "{error}");
        let error = Authority::open("nothing", &key).err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
        let error = one.worker("nothing", &"a".parse().unwrap(), Span::of_ms(0, 1).unwrap());
        assert!(error.unwrap_err().to_string().contains("request"));
    }
}

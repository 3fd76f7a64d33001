//! Reading certificates: whose they are and until when. Whether to believe them is decided elsewhere.

use std::net::IpAddr;

use klp_livepatch::names::WorkerName;
use rcgen::PublicKeyData;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Problem;
use crate::token::hex;

const WORKER: &str = "klp-farm:worker/";
const SIGNER: &str = "klp-farm:statements-of/";
/// What an authority's name begins with; the farm's follows.
const AUTHORITY: &str = "klp-farm of ";

/// The name of a worker as its certificate has it.
pub fn worker_uri(worker: &WorkerName) -> String {
    format!("{WORKER}{worker}")
}

/// What the certificate of a key is for that signs a farm's statements.
pub fn signer_uri(farm: &str) -> String {
    format!("{SIGNER}{farm}")
}

/// The name of an authority.
pub fn authority_name(farm: &str) -> String {
    format!("{AUTHORITY}{farm}")
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, if it is a worker's.
    pub worker: Option<WorkerName>,
    /// In hexadecimal digits.
    pub serial: String,
    /// Milliseconds since the Unix epoch.
    pub from_ms: i64,
    pub until_ms: i64,
}

impl Certificate {
    /// # Errors
    /// It is none.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, Problem> {
        let certificate = parse(der)?;
        let mut workers = uris(&certificate).filter_map(|uri| uri.strip_prefix(WORKER)?.parse().ok());
        let validity = certificate.validity();
        Ok(Self {
            worker: workers.next(),
            serial: hex(certificate.raw_serial()),
            from_ms: validity.not_before.timestamp().saturating_mul(1000),
            until_ms: validity.not_after.timestamp().saturating_mul(1000),
        })
    }

    /// The first of those in a text.
    ///
    /// # Errors
    /// There is none.
    pub fn first_of(pem: &str) -> Result<Self, Problem> {
        Self::read(&first(pem)?)
    }
}

/// The texts of a certificate that name what it is for.
fn uris<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a str> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names
        .map(|names| names.value.general_names.as_slice())
        .unwrap_or_default();
    names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}

/// The farm whose statements this certificate's key signs; `None`: it is for something else.
///
/// # Errors
/// It can't be read.
pub fn signer_of(der: &CertificateDer<'_>) -> Result<Option<String>, Problem> {
    let certificate = parse(der)?;
    let mut farms = uris(&certificate).filter_map(|uri| uri.strip_prefix(SIGNER));
    Ok(farms.next().map(str::to_owned))
}

/// The farm of an authority, in plain characters.
///
/// # Errors
/// It can't be read.
pub fn farm_of(der: &CertificateDer<'_>) -> Result<String, Problem> {
    let certificate = parse(der)?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    let name = name.strip_prefix(AUTHORITY).unwrap_or(name);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-.:".contains(c) {
            c
        } else {
            '-'
        }
    };
    Ok(name.chars().map(plain).take(200).collect())
}

/// A certificate's key.
///
/// # Errors
/// It can't be read.
pub fn public_key(der: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Problem> {
    Ok(parse(der)?.public_key().raw.to_vec().into())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Problem> {
    let parsed = X509Certificate::from_der(der);
    let (_, certificate) = parsed.map_err(|error| Problem::new(format!("this is no certificate: {error}")))?;
    Ok(certificate)
}

/// All certificates of a text.
///
/// # Errors
/// There is none, or one can't be read.
pub fn all(pem: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| Problem::new(format!("a certificate can't be read: {error}")))?;
    match all.is_empty() {
        true => Err(Problem::new("there is no certificate in it")),
        false => Ok(all),
    }
}

/// The first certificate of a text.
///
/// # Errors
/// There is none.
pub fn first(pem: &str) -> Result<CertificateDer<'static>, Problem> {
    let first = all(pem)?.into_iter().next();
    first.ok_or_else(|| Problem::new("there is no certificate in it"))
}

/// The first private key of a text.
///
/// # Errors
/// There is none.
pub fn key(pem: &str) -> Result<PrivateKeyDer<'static>, Problem> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    key.map_err(|error| Problem::new(format!("a private key can't be read: {error}")))
}

/// The texts of the certificates alone, each with its line's end.
pub(crate) fn blocks(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let (mut blocks, mut rest) = (Vec::new(), pem);
    while let Some(begin) = rest.find("-----BEGIN CERTIFICATE-----") {
        let Some(length) = rest[begin..].find(END) else { break };
        let end = begin + length + END.len();
        blocks.push(rest[begin..end].to_owned() + "\n");
        rest = &rest[end..];
    }
    blocks
}

/// Whether a certificate is of this key.
pub(crate) fn has_key(der: &CertificateDer<'_>, key: &rcgen::KeyPair) -> Result<bool, Problem> {
    Ok(parse(der)?.public_key().raw == key.subject_public_key_info().as_slice())
}

/// The names and addresses that a server's certificate is for.
///
/// # Errors
/// It can't be read.
pub fn names(der: &CertificateDer<'_>) -> Result<Vec<String>, Problem> {
    let certificate = parse(der)?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names
        .map(|names| names.value.general_names.as_slice())
        .unwrap_or_default();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    };
    Ok(names.iter().filter_map(name).collect())
}

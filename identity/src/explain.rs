//! Why a connection over TLS was not made, in words for whoever has to do something about it.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// What TLS says is wrong, if an error's causes tell of it.
pub fn tls(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = of(error) {
            return Some(words(found));
        }
        next = error.source();
    }
    None
}

fn of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let wrapped = || error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Error>();
    error.downcast_ref::<Error>().or_else(wrapped)
}

fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate was not issued by the CA that is trusted here; give the farm's own ca.pem, as it is now, or enroll a worker \
                 anew"
                    .to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; there, `klp-coordinator init --rotate-server` makes a new one".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; are the clocks of both machines right?".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for other names than the one it was asked by; there, `klp-coordinator init --rotate-server \
                 --name NAME` adds it"
                    .to_owned()
            }
            other => format!("its certificate is not valid: {other:?}"),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS; ask it by http://, if it is on this machine".to_owned()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => "it speaks another version of TLS".to_owned(),
        other => format!("TLS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_found_among_the_causes() {
        let error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        assert!(tls(&error).unwrap().contains("ca.pem"));
        assert_eq!(tls(&io::Error::from(io::ErrorKind::NotFound)), None);
    }
}

//! Signed envelopes, as DSSE has them (<https://github.com/secure-systems-lab/dsse>): a payload, its type, and signatures over
//! both. In a file there is one a line.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};

use super::{MAX_ENVELOPE, MAX_ENVELOPES, PAYLOAD, Unreadable};

/// The most signatures that are looked at.
const MAX_SIGNATURES: usize = 16;

/// A payload with signatures, none of which has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub payload: Vec<u8>,
    /// At least one.
    pub signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// A hint which key it is by.
    pub keyid: String,
    pub bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// What a signature is over: a payload with its type, so that neither can be taken for another.
pub fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// In one line, without its end.
    pub fn to_line(&self) -> String {
        let signatures = self.signatures.iter().map(|signature| WireSignature {
            keyid: signature.keyid.clone(),
            sig: STANDARD.encode(&signature.bytes),
        });
        let wire = Wire {
            payload: STANDARD.encode(&self.payload),
            payload_type: PAYLOAD.to_owned(),
            signatures: signatures.collect(),
        };
        // It is made of text alone, which is always written.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// # Errors
    /// It is none, or too large, or holds something else than a statement.
    pub fn parse(line: &str) -> Result<Self, Unreadable> {
        if line.len() > MAX_ENVELOPE {
            let most = MAX_ENVELOPE >> 20;
            return Err(Unreadable::new(format!("the envelope has more than {most} MiB")));
        }
        let wire: Wire = serde_json::from_str(line)
            .map_err(|error| Unreadable::new(format!("this is no DSSE envelope: {error}")))?;
        if wire.payload_type != PAYLOAD {
            let is = crate::names::quoted(&wire.payload_type);
            return Err(Unreadable::new(format!("the envelope holds {is}, not {PAYLOAD}")));
        }
        if wire.signatures.is_empty() || wire.signatures.len() > MAX_SIGNATURES {
            let has = wire.signatures.len();
            return Err(Unreadable::new(format!(
                "the envelope has {has} signatures; 1 to {MAX_SIGNATURES} can be checked"
            )));
        }
        let signatures = wire.signatures.into_iter().map(|signature| {
            Ok(Signature {
                keyid: signature.keyid,
                bytes: decode("signature", &signature.sig)?,
            })
        });
        Ok(Self {
            payload: decode("payload", &wire.payload)?,
            signatures: signatures.collect::<Result<_, Unreadable>>()?,
        })
    }

    /// All of a file, an envelope a line.
    ///
    /// # Errors
    /// A line holds none, with its number; or there are none, or too many.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Unreadable> {
        let mut all = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            if all.len() == MAX_ENVELOPES {
                return Err(Unreadable::new(format!(
                    "there are more than {MAX_ENVELOPES} envelopes"
                )));
            }
            all.push(Self::parse(line).map_err(|why| Unreadable::new(format!("line {}: {why}", i + 1)))?);
        }
        match all.is_empty() {
            true => Err(Unreadable::new("there is no envelope in it")),
            false => Ok(all),
        }
    }
}

/// Either of the alphabets that DSSE allows.
fn decode(what: &str, text: &str) -> Result<Vec<u8>, Unreadable> {
    let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
    decoded.map_err(|error| Unreadable::new(format!("the envelope's {what} is no base64: {error}")))
}

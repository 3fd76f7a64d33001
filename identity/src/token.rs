//! Tokens: `klpf_<id>_<secret>` for people and scripts, `klpe_<id>_<secret>` to enroll one worker once.
//!
//! The id is what a token is looked up by, and may be shown. The secret is 256 random bits; whoever checks it keeps only
//! its SHA-256, for which no slow hash is needed: nobody can try 2^256 secrets.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::Problem;

const ID: usize = 8;
const SECRET: usize = 32;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Calls the farm, again and again.
    Access,
    /// Lets one worker in, once.
    Enrollment,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Access => "klpf",
            Kind::Enrollment => "klpe",
        }
    }
}

/// What a token is looked up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; ID]);

/// What is kept of a token's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed(pub [u8; 32]);

/// A token as it is shown to its owner, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub id: TokenId,
    secret: [u8; SECRET],
}

impl Token {
    /// # Errors
    /// The machine gives no random bits.
    pub fn new(kind: Kind) -> Result<Self, Problem> {
        let (mut id, mut secret) = ([0; ID], [0; SECRET]);
        let filled = getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret));
        filled.map_err(|error| Problem::new(format!("this machine gives no random bits: {error}")))?;
        let id = TokenId(id);
        Ok(Self { kind, id, secret })
    }

    pub fn hashed(&self) -> Hashed {
        Hashed(Sha256::digest(self.secret).into())
    }

    /// The token itself: for its owner, and for the wire.
    pub fn reveal(&self) -> String {
        format!("{}_{}_{}", self.kind.prefix(), self.id, hex(&self.secret))
    }
}

impl Hashed {
    /// Whether this is kept of that token; takes as long whatever the answer.
    pub fn is_of(&self, token: &Token) -> bool {
        bool::from(self.0.ct_eq(&token.hashed().0))
    }
}

/// Without the secret, so that no log ever holds it.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_***", self.kind.prefix(), self.id)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = unhex(text).ok_or_else(|| "a token's id is 16 digits of 0-9 and a-f".to_owned())?;
        Ok(Self(bytes))
    }
}

impl FromStr for Token {
    type Err = &'static str;

    /// The error holds nothing of the text, which may be a secret with a slip in it.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "this is no token: one is klpf_, its id, _ and its secret, 86 characters in all; copy it whole";
        let mut parts = text.trim().splitn(3, '_');
        let kind = match parts.next() {
            Some("klpf") => Kind::Access,
            Some("klpe") => Kind::Enrollment,
            _ => return Err(FORM),
        };
        let id = parts.next().and_then(|id| id.parse().ok()).ok_or(FORM)?;
        let secret = parts.next().and_then(unhex).ok_or(FORM)?;
        Ok(Self { kind, id, secret })
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of exactly so many lower-case hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_two_tokens_are_alike_and_only_its_own_fits() {
        let (one, other) = (Token::new(Kind::Access).unwrap(), Token::new(Kind::Access).unwrap());
        assert!(one.id != other.id && one.hashed() != other.hashed());
        assert!(one.hashed().is_of(&one) && !one.hashed().is_of(&other));
        let shown = one.reveal();
        assert_eq!(shown.len(), 86);
        assert!(!format!("{one:?}").contains(&shown[22..]), "{one:?}");
    }

    proptest! {
        #[test]
        fn what_is_revealed_is_read(id: [u8; ID], secret: [u8; SECRET], enrolls: bool) {
            let kind = if enrolls { Kind::Enrollment } else { Kind::Access };
            let token = Token { kind, id: TokenId(id), secret };
            prop_assert_eq!(token.reveal().parse::<Token>(), Ok(token.clone()));
            prop_assert_eq!(format!(" {}\n", token.reveal()).parse::<Token>(), Ok(token));
        }

        #[test]
        fn whatever_is_read_is_revealed_as_it_was(text in "(klp[fe]_)?[0-9a-f]{15,17}_[0-9a-fA-F_]{62,66}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.reveal(), text);
            }
        }

        #[test]
        fn no_text_breaks_it_and_no_error_repeats_it(text in ".*") {
            if let Err(error) = text.parse::<Token>() {
                prop_assert!(text.len() < 9 || !error.contains(&text));
            }
        }
    }
}

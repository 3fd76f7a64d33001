//! How an attempt ended, and whose matter a failure is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// What a worker commits for an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub ending: Ending,
    pub report: Option<Report>,
    pub artifacts: Vec<Artifact>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "kebab-case")]
pub enum Ending {
    Succeeded,
    Failed(Failure),
    /// The worker gave the task back unfinished; somebody else may have it.
    HandedBack {
        reason: String,
    },
}

/// A failure, in words that name the thing, the place and the next step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub cause: Cause,
    pub message: String,
}

/// The longest text a failure may hold, in bytes.
pub const MAX_FAILURE_TEXT: usize = 16 << 10;

impl Failure {
    /// A failure whose message is cut, with a note, where it is longer than [`MAX_FAILURE_TEXT`].
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        const NOTE: &str = "\n… and more; the attempt's log has it all";
        let mut message = message.into();
        if message.len() > MAX_FAILURE_TEXT {
            let mut end = MAX_FAILURE_TEXT - NOTE.len();
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push_str(NOTE);
        }
        Self { cause, message }
    }
}

/// Whose matter a failure is; it decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The spec asks for something that is not there; not retried.
    Yours,
    /// The tool failed on this source; not retried elsewhere.
    Codestream,
    /// A worker was lost, a disk full, a tool missing; retried elsewhere.
    Farm,
}

impl Cause {
    pub const ALL: [Cause; 3] = [Cause::Yours, Cause::Codestream, Cause::Farm];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Yours => "yours",
            Cause::Codestream => "codestream",
            Cause::Farm => "farm",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Cause {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Cause::ALL
            .into_iter()
            .find(|c| c.as_str() == s)
            .ok_or_else(|| format!("unknown cause `{}`", s.escape_debug()))
    }
}

/// A file an attempt produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name within the attempt: a relative path without `..`, such as `sound/core/pcm.c`.
    pub name: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Whether a text may name an artifact: 1 to 512 bytes, relative, plain path components.
pub fn is_artifact_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 512
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./+,".contains(&b))
        && name
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.starts_with('-'))
}

/// The BLAKE3 digest of a file's bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub fn from_hasher(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let lower = s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match blake3::Hash::from_hex(s) {
            Ok(hash) if lower => Ok(Self(*hash.as_bytes())),
            _ => Err("digest is not 64 lower-case hexadecimal digits".to_owned()),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifact_names_stay_inside_their_folder() {
        for bad in ["", "/a", "../a", "a/../b", "a//b", "-a", "a b", "a\0", "a/./b"] {
            assert!(!is_artifact_name(bad), "{bad:?}");
        }
        assert!(is_artifact_name("sound/core/pcm.c"));
    }

    #[test]
    fn a_long_failure_is_cut_between_characters() {
        let failure = Failure::new(Cause::Yours, "é".repeat(MAX_FAILURE_TEXT));
        assert!(failure.message.len() <= MAX_FAILURE_TEXT && failure.message.ends_with("has it all"));
        assert_eq!(Failure::new(Cause::Yours, "short").message, "short");
    }

    #[test]
    fn a_digest_has_one_text() {
        let text = Digest::of(b"x").to_string();
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        assert!(text.to_uppercase().parse::<Digest>().is_err());
        assert!("00".parse::<Digest>().is_err());
    }
}

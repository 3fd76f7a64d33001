//! What can go wrong with artifacts' bytes, told so that a person knows what to do.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use klp_livepatch::outcome::Digest;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("the bytes have the digest {found}, not {expected}; nothing was stored")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("the upload has {found} bytes where {expected} were announced; nothing was stored")]
    WrongSize { expected: u64, found: u64 },
    #[error("{what} {path}: {error}")]
    Io {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    /// The storage is elsewhere, and did not do it. What was asked is still to be done, by whoever asked.
    #[error("{what} the artifacts at {place}: {why}")]
    Remote {
        what: &'static str,
        place: String,
        why: String,
    },
    /// What is configured can't be; a coordinator does not start with it.
    #[error("the artifacts can't be kept at {place}: {why}; {next_step}")]
    Unusable {
        place: String,
        why: String,
        next_step: String,
    },
}

pub(super) fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BlobError + 'a {
    move |error| BlobError::Io {
        what,
        path: path.to_owned(),
        error,
    }
}

/// What a storage or the way to it said, in one line: S3's own code and message where there are any, else the innermost
/// cause, which says more than all that is around it.
pub(super) fn why(error: &object_store::Error) -> String {
    let mut innermost: &dyn Error = error;
    let mut texts = vec![error.to_string()];
    while let Some(source) = innermost.source() {
        innermost = source;
        texts.push(source.to_string());
    }
    let between = |open: &str, close: &str| {
        texts.iter().find_map(|text| {
            let (_, rest) = text.split_once(open)?;
            rest.split_once(close).map(|(inner, _)| inner)
        })
    };
    let said = match (between("<Code>", "</Code>"), between("<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{message} ({code})"),
        (Some(code), None) => code.to_owned(),
        _ => {
            let status = texts
                .iter()
                .find_map(|text| text.split_once("non-2xx status code: ").map(|(_, rest)| rest));
            let status = status.map(|rest| format!("it answered {}", rest.trim_end_matches([':', ' '])));
            status.unwrap_or_else(|| innermost.to_string())
        }
    };
    let mut line: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| line.is_char_boundary(at));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

/// Of what a storage says; it may answer with a page for people.
const LONGEST: usize = 300;

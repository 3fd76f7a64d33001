//! What a check has found.

use serde::Serialize;

/// Of everything below the folder that was named.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nothing is wrong, and there was something to check.
    pub verified: bool,
    pub codestreams: Vec<Checked>,
    /// What is wrong, each with the file it is about.
    pub problems: Vec<Problem>,
    /// Files that nothing is stated of.
    pub not_covered: Vec<String>,
}

/// A codestream's folder.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    /// Relative to the folder that was named.
    pub folder: String,
    pub livepatch: String,
    pub codestream: String,
    /// Who extracted what, and when.
    pub extractions: Vec<Extraction>,
    pub files: Vec<Covered>,
    /// What is not wrong, and worth knowing.
    pub notes: Vec<String>,
    /// Nothing of it is wrong.
    pub verified: bool,
}

#[derive(Debug, Serialize)]
pub struct Extraction {
    pub arch: String,
    pub builder: String,
    pub finished_on: String,
    pub compiles: bool,
}

/// A file that is what it should be.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Covered {
    pub path: String,
    pub by: By,
}

/// Why a file is taken for what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Its digest is signed.
    Digest,
    /// It was rendered again from what is signed, and is the same.
    Rendering,
    /// It is what says all that, or what whoever wrote it chose.
    Statement,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub path: String,
    pub what: String,
    /// SHA-256 of what it should be, and of what it is, where it is about a file's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

impl Problem {
    pub fn new(path: impl ToString, what: impl Into<String>) -> Self {
        Self {
            path: path.to_string(),
            what: what.into(),
            expected: None,
            found: None,
        }
    }
}

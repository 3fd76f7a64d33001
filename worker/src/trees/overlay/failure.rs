//! Why a view could not be made: which patch, which file, which hunk, on which codestream, and what to do next.

use std::fmt;
use std::path::Path;

use klp_livepatch::outcome::{Cause, Failure};
use klp_livepatch::task::Platform;

use super::diff::FileDiff;
use crate::process::ProcessError;

/// A patch that can't be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchFailure {
    /// Whose tree it is, and the patch, quoted; filled in where they are known.
    pub(super) about: Option<(Platform, String)>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// It asks for what it may not do, or is no patch.
    Refused(String),
    /// A file that is not there, or is there already.
    File {
        file: String,
        why: String,
        applied: Applied,
    },
    /// A hunk that matches nowhere; `None`: the file as a whole.
    Hunk {
        file: String,
        hunk: Option<FailedHunk>,
        applied: Applied,
    },
    /// The worker's own matter.
    Farm(String),
}

/// The hunk that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedHunk {
    /// Within its file, from 1.
    pub number: usize,
    /// How many the file has.
    pub of: usize,
    /// Its `@@` line.
    pub header: String,
}

/// Whether undoing the patch would work, which means that its change is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    No,
    /// As far as the file that failed is concerned.
    ThisFile,
    Whole,
}

impl FailedHunk {
    pub(super) fn of(file: &FileDiff, number: usize) -> Option<Self> {
        let hunk = file.hunks.get(number.checked_sub(1)?)?;
        Some(Self {
            number,
            of: file.hunks.len(),
            header: hunk.header.clone(),
        })
    }
}

impl PatchFailure {
    fn new(what: What) -> Self {
        Self { about: None, what }
    }

    pub(super) fn refused(why: String) -> Self {
        Self::new(What::Refused(why))
    }

    pub(super) fn file(file: &FileDiff, why: &str) -> Self {
        Self::new(What::File {
            file: file.path.clone(),
            why: why.to_owned(),
            applied: Applied::No,
        })
    }

    pub(super) fn hunk(file: &FileDiff, hunk: Option<FailedHunk>) -> Self {
        Self::new(What::Hunk {
            file: file.path.clone(),
            hunk,
            applied: Applied::No,
        })
    }

    pub(super) fn farm(why: String) -> Self {
        Self::new(What::Farm(why))
    }

    pub(super) fn io(doing: &str, path: &Path, cause: std::io::Error) -> Self {
        Self::farm(format!("can't {doing} {}: {cause}", path.display()))
    }

    pub(super) fn with_applied(mut self, is: Applied) -> Self {
        if let What::File { applied, .. } | What::Hunk { applied, .. } = &mut self.what {
            *applied = is;
        }
        self
    }

    pub(super) fn of(mut self, platform: &Platform, patch: &str) -> Self {
        self.about = Some((platform.clone(), patch.to_owned()));
        self
    }

    pub(super) fn is_about(&self, path: &str) -> bool {
        self.failed_file() == Some(path)
    }

    /// The file that the patch can't be applied to.
    pub fn failed_file(&self) -> Option<&str> {
        match &self.what {
            What::File { file, .. } | What::Hunk { file, .. } => Some(file),
            _ => None,
        }
    }

    /// The first hunk that could not be applied, if it is one hunk's matter.
    pub fn failed_hunk(&self) -> Option<&FailedHunk> {
        match &self.what {
            What::Hunk { hunk, .. } => hunk.as_ref(),
            _ => None,
        }
    }

    /// Whether the patch's change seems to be in the kernel already.
    pub fn applied(&self) -> Applied {
        match &self.what {
            What::File { applied, .. } | What::Hunk { applied, .. } => *applied,
            _ => Applied::No,
        }
    }

    /// Whose matter it is.
    pub fn cause(&self) -> Cause {
        match self.what {
            What::Refused(_) => Cause::Yours,
            What::File { .. } | What::Hunk { .. } => Cause::Codestream,
            What::Farm(_) => Cause::Farm,
        }
    }
}

impl fmt::Display for PatchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            Some((platform, patch)) if patch.is_empty() => write!(f, "{platform}: a view of the tree ")?,
            Some((platform, patch)) => write!(f, "{platform}: patch {patch} ")?,
            None => {}
        }
        match &self.what {
            What::Refused(why) => write!(f, "is refused: {why}"),
            What::Farm(why) => write!(f, "can't be worked on here: {why}"),
            What::File { file, why, applied } => {
                write!(f, "does not apply to {file}: {why}")?;
                next_step(f, *applied)
            }
            What::Hunk { file, hunk, applied } => {
                write!(f, "does not apply to {file}")?;
                if let Some(FailedHunk { number, of, header }) = hunk {
                    write!(f, ": hunk {number} of {of} (`{header}`) fits nowhere")?;
                }
                next_step(f, *applied)
            }
        }
    }
}

fn next_step(f: &mut fmt::Formatter<'_>, applied: Applied) -> fmt::Result {
    f.write_str(match applied {
        Applied::Whole => "; all of its change is there already: leave this codestream out, or this patch for it",
        Applied::ThisFile => {
            "; its change of that file is there already: give a patch for this codestream that leaves it out"
        }
        Applied::No => {
            "; give the patch as it was backported to this codestream, or before it those that it builds on \
             (paths in patches are relative to the folder above the source's root, such as a/ and b/)"
        }
    })
}

impl std::error::Error for PatchFailure {}

impl From<ProcessError> for PatchFailure {
    fn from(error: ProcessError) -> Self {
        Self::farm(error.to_string())
    }
}

impl From<PatchFailure> for Failure {
    fn from(failure: PatchFailure) -> Self {
        Failure::new(failure.cause(), failure.to_string())
    }
}

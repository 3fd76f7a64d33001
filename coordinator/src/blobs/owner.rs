//! Whose a place for artifacts is. A farm takes what it does not know for what nobody needs, so two must never share one: the
//! first leaves its mark there, and whoever has another one stays away.
//!
//! The mark of a data folder lies beside the database and goes along in backups. The folder inside the data folder needs none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::{BlobError, failed};
use crate::disk::present;

/// What the mark is called in the place that is marked.
pub(super) const OWNER: &str = "owner";

/// Longest mark that is shown.
const LONGEST: usize = 100;

/// Where a data folder's own mark is.
pub fn mark(data_dir: &Path) -> PathBuf {
    data_dir.join("artifacts-owner")
}

/// What is to be done with a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Ours,
    /// It is nobody's: this is to be written there.
    Write(String),
}

/// Decides by the mark that was found in a place; a data folder without a mark gets one.
///
/// # Errors
/// It is another farm's, or the disk's. `at` says where the place's mark is, for who removes it.
pub(super) fn claim(place: &str, at: &str, found: Option<&str>, data_dir: &Path) -> Result<Claim, BlobError> {
    let path = mark(data_dir);
    let own = present(fs::read_to_string(&path)).map_err(failed("can't read", &path))?;
    let own = own.map(|text| text.trim().to_owned());
    match (found.map(str::trim), own) {
        (Some(found), Some(own)) if found == own => Ok(Claim::Ours),
        (Some(found), own) => {
            let here = match own {
                Some(own) => format!("{} holds {own}", path.display()),
                None => format!("there is no {}", path.display()),
            };
            let found: String = found.chars().take(LONGEST).collect();
            Err(BlobError::Unusable {
                place: place.to_owned(),
                why: format!("it is another farm's: {at} holds {found:?}, and {here}"),
                next_step: format!(
                    "name another place in artifacts; or, if no other coordinator uses this any more, remove {at}"
                ),
            })
        }
        (None, Some(own)) => Ok(Claim::Write(own)),
        (None, None) => {
            let own = Uuid::now_v7().to_string();
            write(&path, &own)?;
            Ok(Claim::Write(own))
        }
    }
}

/// Claims a folder outside the data folder.
///
/// # Errors
/// It is another farm's, or the disk's.
pub(super) fn claim_folder(dir: &Path, data_dir: &Path) -> Result<(), BlobError> {
    let path = dir.join(OWNER);
    let found = present(fs::read_to_string(&path)).map_err(failed("can't read", &path))?;
    let (place, at) = (dir.display().to_string(), path.display().to_string());
    match claim(&place, &at, found.as_deref(), data_dir)? {
        Claim::Ours => Ok(()),
        Claim::Write(own) => write(&path, &own),
    }
}

fn write(path: &Path, own: &str) -> Result<(), BlobError> {
    let written = klp_identity::files::write_public(path, &format!("{own}\n"));
    written.map_err(|problem| failed("can't write", path)(io::Error::other(problem.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_farm_has_a_folder_and_no_other() {
        let top = tempfile::tempdir().unwrap();
        let [place, one, two] = ["place", "one", "two"].map(|name| {
            let dir = top.path().join(name);
            fs::create_dir(&dir).unwrap();
            dir
        });
        claim_folder(&place, &one).unwrap();
        claim_folder(&place, &one).unwrap();
        let error = claim_folder(&place, &two).unwrap_err().to_string();
        assert!(
            error.contains("it is another farm's") && error.contains("there is no"),
            "{error}"
        );
        assert!(!mark(&two).exists());
        // One that has another place already neither.
        claim_folder(&top.path().join("two"), &two).unwrap();
        let error = claim_folder(&place, &two).unwrap_err().to_string();
        assert!(error.contains("artifacts-owner holds"), "{error}");
        fs::remove_file(place.join(OWNER)).unwrap();
        claim_folder(&place, &two).unwrap();
    }
}

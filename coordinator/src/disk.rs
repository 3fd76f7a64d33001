//! Small durable steps on files.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// `None` for what does not exist.
///
/// # Errors
/// Any other than that.
pub fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes durable which names a folder has.
///
/// # Errors
/// The disk's.
pub fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Gives a file that never changes a second name, or copies it durably where that can't be, as on another disk.
///
/// # Errors
/// The disk's.
pub fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Err(error),
        Ok(()) => Ok(()),
        Err(_) => {
            fs::copy(from, to)?;
            File::open(to)?.sync_all()
        }
    }
}

//! Files written whole or not at all, free space, and folders removed with all they hold.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::TreeError;

/// Writes a file by way of a temporary one beside it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TreeError> {
    let write = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        // Temporary files are private; this one is for everybody who may enter the folder.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|cause| full_or_io("write", path, cause))
}

/// An error of writing, told as a full disk if it is one.
pub(super) fn full_or_io(doing: &'static str, path: &Path, cause: std::io::Error) -> TreeError {
    match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => TreeError::DiskFull {
            path: path.to_owned(),
            what: format!("couldn't {doing} {}", path.display()),
            free: free_mib(path).unwrap_or(0),
        },
        _ => TreeError::Io {
            doing,
            path: path.to_owned(),
            cause,
        },
    }
}

/// MiB that may still be written where `path` is, or will be.
pub(super) fn free_mib(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()) >> 20)
}

/// # Errors
/// [`TreeError::DiskFull`] if less than `needed` MiB are free.
pub(super) fn need_space(path: &Path, needed: u64, what: &str) -> Result<(), TreeError> {
    match free_mib(path) {
        Some(free) if free < needed => Err(TreeError::DiskFull {
            path: path.to_owned(),
            what: format!("{what} needs {needed} MiB"),
            free,
        }),
        _ => Ok(()),
    }
}

/// Creates a folder and those above it.
pub(super) fn make_dir(path: &Path) -> Result<(), TreeError> {
    std::fs::create_dir_all(path).map_err(|e| full_or_io("make folder", path, e))
}

/// Removes a folder if it is there, also one whose folders were made read-only.
pub(super) fn remove_dir(path: &Path) -> Result<(), TreeError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            for dir in folders_below(path).map_err(TreeError::io("remove", path))? {
                // What can't be changed makes the removal below fail, which is told.
                let _ = std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755));
            }
            std::fs::remove_dir_all(path).map_err(TreeError::io("remove", path))
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TreeError::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// A folder and all folders below it, outer before inner; links are not followed.
pub(super) fn folders_below(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all = vec![path.to_owned()];
    let mut next = 0;
    while next < all.len() {
        for entry in std::fs::read_dir(&all[next])? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                all.push(entry.path());
            }
        }
        next += 1;
    }
    Ok(all)
}

/// All regular files below a folder; links are not followed.
pub(super) fn files_below(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in folders_below(path)? {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// Has the file system that holds `path` write everything out.
pub(super) fn sync_all(path: &Path) -> Result<(), TreeError> {
    let sync = || -> std::io::Result<()> {
        let dir = std::fs::File::open(path)?;
        nix::unistd::syncfs(&dir)?;
        Ok(())
    };
    sync().map_err(|e| full_or_io("write out", path, e))
}

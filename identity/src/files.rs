//! Reading and writing keys and certificates as files.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::Problem;

/// Longest accepted file, in bytes: a few certificates.
const MAX_FILE: u64 = 256 << 10;

/// # Errors
/// It can't be read, or is too long to be what it should be.
pub fn read(path: &Path) -> Result<String, Problem> {
    let failed = |error| Problem::new(format!("can't read {}: {error}", path.display()));
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(Problem::new(format!(
            "{} has {size} bytes; at most {MAX_FILE}",
            path.display()
        )));
    }
    fs::read_to_string(path).map_err(failed)
}

/// Makes a folder that only its owner may look into.
///
/// # Errors
/// The disk's.
pub fn private_folder(path: &Path) -> Result<(), Problem> {
    let made = fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)));
    made.map_err(|error| Problem::new(format!("can't make the folder {}: {error}", path.display())))
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// The disk's.
pub fn write_private(path: &Path, text: &str) -> Result<(), Problem> {
    write(path, text, 0o600)
}

/// Writes a file that everybody may read.
///
/// # Errors
/// The disk's.
pub fn write_public(path: &Path, text: &str) -> Result<(), Problem> {
    write(path, text, 0o644)
}

/// Whoever reads it meanwhile sees what was there before, or all that is new. It is never there with a wrong mode.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Problem> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || {
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    };
    written().map_err(|error: std::io::Error| Problem::new(format!("can't write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (own, all) = (folder.path().join("key"), folder.path().join("ca"));
        write_private(&own, "first").unwrap();
        write_private(&own, "second").unwrap();
        write_public(&all, "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&own), mode(&all)), (0o600, 0o644));
        assert_eq!(read(&own).unwrap(), "second");
        assert!(
            read(&folder.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("none")
        );
    }
}

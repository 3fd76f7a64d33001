//! Moves an object folder: `make` writes absolute paths of source and object folder into what it makes there, and takes
//! everything for outdated that names another place.

use std::fs::{File, FileTimes};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{TreeError, disk};

/// Files above this size are programs and tables, not lists of paths.
const MAX_TEXT: u64 = 4 << 20;

/// Replaces the path `from` by `to` in all text files and links below `obj`, keeping the files' times, by which `make`
/// judges. May be done again after it was interrupted.
pub(super) fn relocate(obj: &Path, from: &Path, to: &Path) -> Result<(), TreeError> {
    if from == to {
        return Ok(());
    }
    let (old, new) = (from.as_os_str().as_bytes(), to.as_os_str().as_bytes());
    for dir in disk::folders_below(obj).map_err(TreeError::io("read", obj))? {
        for entry in std::fs::read_dir(&dir).map_err(TreeError::io("read", &dir))?.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() {
                relocate_link(&path, old, new).map_err(|e| disk::full_or_io("move", &path, e))?;
            } else if kind.is_file() {
                relocate_file(&path, old, new).map_err(|e| disk::full_or_io("move", &path, e))?;
            }
        }
    }
    Ok(())
}

fn relocate_file(path: &Path, old: &[u8], new: &[u8]) -> std::io::Result<()> {
    let metadata = path.metadata()?;
    if metadata.len() > MAX_TEXT {
        return Ok(());
    }
    let bytes = std::fs::read(path)?;
    // A program's strings can't change their length; those it has are of use to debuggers only.
    if bytes.contains(&0) {
        return Ok(());
    }
    let Some(replaced) = replace_path(&bytes, old, new) else {
        return Ok(());
    };
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&replaced)?;
    file.as_file().set_permissions(metadata.permissions())?;
    file.as_file()
        .set_times(FileTimes::new().set_modified(metadata.modified()?))?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

fn relocate_link(path: &Path, old: &[u8], new: &[u8]) -> std::io::Result<()> {
    let target = std::fs::read_link(path)?;
    if let Some(replaced) = replace_path(target.as_os_str().as_bytes(), old, new) {
        std::fs::remove_file(path)?;
        std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&replaced), path)?;
    }
    Ok(())
}

/// `text` with each whole occurrence of the path `old` replaced; `None` if there is none. `/a/b` doesn't occur in `/a/bc`.
fn replace_path(text: &[u8], old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let first = *old.first()?;
    let in_name = |b: u8| b.is_ascii_alphanumeric() || b"_-.+~".contains(&b);
    let mut out: Option<Vec<u8>> = None;
    let (mut copied, mut at) = (0, 0);
    while let Some(offset) = text[at..].iter().position(|b| *b == first) {
        at += offset;
        let after = at + old.len();
        if text[at..].starts_with(old) && !text.get(after).is_some_and(|b| in_name(*b)) {
            let out = out.get_or_insert_with(Vec::new);
            out.extend_from_slice(&text[copied..at]);
            out.extend_from_slice(new);
            copied = after;
            at = after;
        } else {
            at += 1;
        }
    }
    out.map(|mut out| {
        out.extend_from_slice(&text[copied..]);
        out
    })
}

/// Makes sure a file can be opened at all: used by verification.
pub(super) fn mentions(path: &Path, wanted: &Path) -> std::io::Result<bool> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(File::open(path)?, MAX_TEXT), &mut bytes)?;
    let wanted = wanted.as_os_str().as_bytes();
    Ok(!wanted.is_empty() && bytes.windows(wanted.len()).any(|window| window == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_paths_are_replaced_times_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("a.cmd");
        std::fs::write(&text, "x := gcc -I/old/p/src /old/p /old/pq /old/p/obj\n").unwrap();
        let binary = dir.path().join("tool");
        std::fs::write(&binary, b"\x7fELF\0/old/p/src").unwrap();
        std::os::unix::fs::symlink("/old/p/src", dir.path().join("source")).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123_000_000);
        let times = FileTimes::new().set_modified(time);
        File::options()
            .write(true)
            .open(&text)
            .unwrap()
            .set_times(times)
            .unwrap();
        // The second time there is nothing left to do.
        for _ in 0..2 {
            relocate(dir.path(), Path::new("/old/p"), Path::new("/new/place")).unwrap();
            let now = std::fs::read_to_string(&text).unwrap();
            assert_eq!(now, "x := gcc -I/new/place/src /new/place /old/pq /new/place/obj\n");
        }
        assert_eq!(text.metadata().unwrap().modified().unwrap(), time);
        assert_eq!(std::fs::read(&binary).unwrap(), b"\x7fELF\0/old/p/src");
        assert_eq!(
            std::fs::read_link(dir.path().join("source")).unwrap(),
            Path::new("/new/place/src")
        );
        assert!(mentions(&text, Path::new("/new/place")).unwrap());
        assert!(!mentions(&text, Path::new("/old/p/src")).unwrap());
    }
}

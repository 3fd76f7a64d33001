//! A folder that tools write to. Whoever wrote there is not to be trusted, so what the worker takes from it has to be a plain
//! file that really lies in it: not a link to another place, nor a pipe that nobody writes to.
//!
//! No tool runs while the worker looks: what is found to be so stays so.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

use nix::libc;

/// The folder. It is removed by whoever made the folder around it.
#[derive(Clone, Debug)]
pub struct Room {
    path: PathBuf,
}

impl Room {
    /// Makes a new folder. What the worker puts there before a tool runs is as it was put when the tool sees it.
    ///
    /// # Errors
    /// There is something of that name, or the disk refuses.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        Self::at(path)
    }

    /// An existing folder that nobody else uses.
    ///
    /// # Errors
    /// It can't be looked up.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        // Whoever may come by the folders above may come in: where tools run as somebody else, they are shut out above.
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(Self {
            path: path.canonicalize()?,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets tools write there, if they are somebody else.
    pub(super) fn hand_over(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        match owner {
            Some(owner) => give(&self.path, owner),
            None => Ok(()),
        }
    }

    /// The place of a file in the room, by a path that is relative to it or leads to it.
    ///
    /// # Errors
    /// It is elsewhere, or behind a link.
    pub fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let inner = path.strip_prefix(&self.path).unwrap_or(path);
        let mut place = self.path.clone();
        for part in inner.components() {
            let Component::Normal(name) = part else {
                return Err(refused(path, "it is not in the tool's scratch folder"));
            };
            place.push(name);
            if place.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
                return Err(refused(path, "the tool left a symbolic link there"));
            }
        }
        Ok(place)
    }

    /// Opens a file that a tool wrote.
    ///
    /// # Errors
    /// It is none, or elsewhere.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let place = self.place(path)?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(place)?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(refused(path, "the tool left something else than a file there")),
        }
    }

    /// The first `most` bytes of a file that a tool wrote.
    ///
    /// # Errors
    /// As for [`Room::open`].
    pub fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Links themselves are given away, never what they lead to.
fn give(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    lchown(path, Some(owner.0), Some(owner.1))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_within_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(dir.path().join("room")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::create_dir(room.path().join("in")).unwrap();
        fs::write(room.path().join("in/file"), "12345").unwrap();
        symlink("../secret", room.path().join("link")).unwrap();
        symlink("..", room.path().join("up")).unwrap();
        nix::unistd::mkfifo(&room.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(room.read(Path::new("in/file"), 3).unwrap(), b"123");
        assert_eq!(room.read(&room.path().join("in/file"), 9).unwrap(), b"12345");
        for (path, why) in [
            ("link", "symbolic link"),
            ("up/secret", "symbolic link"),
            ("../secret", "not in the tool's"),
            ("/etc/passwd", "not in the tool's"),
            ("in", "something else"),
            ("pipe", "something else"),
        ] {
            let error = room.open(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
        assert!(room.place(Path::new("link")).is_err() && room.place(Path::new("new/file")).is_ok());
    }
}

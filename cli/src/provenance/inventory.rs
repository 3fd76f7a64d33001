//! What is below a folder: files, and what is no file of ours. No link is followed, and nothing is read beyond its limit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::fcntl::OFlag;

/// The most files and folders that are looked at, and how deep.
const MAX_ENTRIES: usize = 200_000;
const MAX_DEPTH: usize = 40;

/// The largest file that is read, in bytes: the largest artifact.
pub const MAX_FILE: u64 = 64 << 20;

/// Everything below a folder.
#[derive(Debug, Default)]
pub struct Inventory {
    pub root: PathBuf,
    /// Files, relative to the root, with their sizes.
    pub files: BTreeMap<PathBuf, u64>,
    /// Links, devices and the like.
    pub odd: BTreeMap<PathBuf, &'static str>,
    pub folders: BTreeSet<PathBuf>,
}

impl Inventory {
    /// # Errors
    /// The folder can't be read, or has too much in it.
    pub fn take(root: &Path) -> anyhow::Result<Self> {
        let mut inventory = Self {
            root: root.to_owned(),
            ..Self::default()
        };
        inventory.look(Path::new(""), 0)?;
        Ok(inventory)
    }

    fn look(&mut self, inner: &Path, depth: usize) -> anyhow::Result<()> {
        let dir = self.root.join(inner);
        let failed = || format!("can't read the folder {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if self.files.len() + self.folders.len() + self.odd.len() >= MAX_ENTRIES {
                bail!(
                    "{} has more than {MAX_ENTRIES} files; name a smaller folder",
                    self.root.display()
                );
            }
            let path = inner.join(entry.file_name());
            let metadata = entry.metadata().with_context(failed)?;
            let kind = metadata.file_type();
            if kind.is_file() {
                self.files.insert(path, metadata.len());
            } else if kind.is_dir() {
                if depth == MAX_DEPTH {
                    bail!(
                        "{} is more than {MAX_DEPTH} folders deep",
                        self.root.join(path).display()
                    );
                }
                self.look(&path, depth + 1)?;
                self.folders.insert(path);
            } else if kind.is_symlink() {
                self.odd.insert(path, "a symbolic link");
            } else {
                self.odd.insert(path, "neither a file nor a folder");
            }
        }
        Ok(())
    }

    /// A file's bytes; `None`: there is no such file.
    ///
    /// # Errors
    /// It can't be read, or is larger than any of ours.
    pub fn read(&self, path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
        match self.files.get(path) {
            None => Ok(None),
            Some(size) if *size > MAX_FILE => bail!("it has {size} bytes; nothing of ours has more than {MAX_FILE}"),
            Some(_) => {
                let file = open(&self.root.join(path))?;
                let mut bytes = Vec::new();
                file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
                if bytes.len() as u64 > MAX_FILE {
                    bail!("it has more than {MAX_FILE} bytes");
                }
                Ok(Some(bytes))
            }
        }
    }
}

/// What became a link or a pipe since it was looked at is not opened.
fn open(path: &Path) -> anyhow::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => bail!("it is no file"),
    }
}

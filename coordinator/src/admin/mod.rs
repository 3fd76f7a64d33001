//! What an operator does to a data folder: have it checked ([`check`](check())), copied ([`backup`](backup())), and
//! cleared of what nobody needs ([`gc`]). All but the offline clearing may be done beside a running coordinator.
//!
//! They block, so they are called on a thread of a runtime where that holds up nobody.

mod backup;
mod check;
pub mod gc;
pub mod init;
pub mod owner;
pub mod rotate_ca;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

pub use backup::{Backup, backup};
pub use check::{Depth, Findings, check};

/// A coordinator's data folder and what is where in it.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// A folder that holds a database.
    ///
    /// # Errors
    /// It does not.
    pub fn existing(dir: &Path) -> anyhow::Result<Self> {
        let folder = Self::new(dir);
        let database = folder.database();
        ensure!(
            database
                .try_exists()
                .with_context(|| format!("can't look for {}", database.display()))?,
            "{} holds no database farm.db; name a coordinator's data folder with --data-dir",
            dir.display()
        );
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("farm.db")
    }

    /// Where artifacts are, unless they are configured to be elsewhere; always in a backup that holds them.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The lock of the coordinator that uses the folder; `None` if another process holds it.
    ///
    /// # Errors
    /// The disk's.
    pub fn try_own(&self) -> io::Result<Option<File>> {
        let lock = File::create(self.0.join("lock"))?;
        held(lock.try_lock()).map(|held| held.then_some(lock))
    }

    /// Keeps everything from being cleared away while the answer lives.
    fn keep_all(&self) -> anyhow::Result<File> {
        let path = self.0.join("gc-lock");
        let locked = File::create(&path).and_then(|file| file.lock_shared().map(|()| file));
        locked.with_context(|| format!("can't lock {}", path.display()))
    }

    /// The right to clear things away; `None` while somebody reads the whole folder.
    fn may_clear(&self) -> io::Result<Option<File>> {
        let lock = File::create(self.0.join("gc-lock"))?;
        held(lock.try_lock()).map(|held| held.then_some(lock))
    }
}

/// Waits for what is done over the network, where that holds up nobody: commands and upkeep are on threads of their own.
fn wait_for<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Handle::try_current()?;
    Ok(runtime.block_on(work))
}

fn held(locked: Result<(), TryLockError>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// An amount of bytes for people.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..4)
        .rev()
        .find(|&unit| bytes >> (10 * (unit + 1)) > 0)
        .map_or(0, |unit| unit + 1);
    match unit {
        0 => format!("{bytes} bytes"),
        unit => format!("{:.1} {}", bytes as f64 / f64::powi(1024.0, unit), units[unit as usize]),
    }
}

//! One at a time: a lock on a tree while it is made or removed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klp_livepatch::task::Platform;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use tokio_util::sync::CancellationToken;

use super::{TreeError, disk};

/// Held until dropped, by this process *and every child it starts*: what an interrupted run left running in the folder
/// keeps the next one waiting until it has ended.
pub(super) struct TreeLock {
    _file: Flock<File>,
}

impl TreeLock {
    /// Takes the lock, waiting for whoever holds it; `waiting` is told once that and for whom.
    pub(super) async fn take(
        trees_dir: &Path,
        platform: &Platform,
        cancel: &CancellationToken,
        waiting: &mut (dyn FnMut(String) + Send),
    ) -> Result<Self, TreeError> {
        let name = format!("{}-{}", platform.arch, platform.codestream);
        Self::take_at(&Self::path(trees_dir, &name)?, &platform.to_string(), cancel, waiting).await
    }

    /// Takes the lock on something that several trees share.
    pub(super) async fn take_named(
        trees_dir: &Path,
        name: &str,
        cancel: &CancellationToken,
        waiting: &mut (dyn FnMut(String) + Send),
    ) -> Result<Self, TreeError> {
        Self::take_at(&Self::path(trees_dir, name)?, name, cancel, waiting).await
    }

    async fn take_at(
        path: &Path,
        what: &str,
        cancel: &CancellationToken,
        waiting: &mut (dyn FnMut(String) + Send),
    ) -> Result<Self, TreeError> {
        let mut told = false;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(|e| disk::full_or_io("open", path, e))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut file) => {
                    // Who holds it is a courtesy to those who wait; the lock holds without it.
                    let _ = file.set_len(0).and_then(|()| write!(*file, "{}", std::process::id()));
                    fcntl(&*file, FcntlArg::F_SETFD(FdFlag::empty()))
                        .map_err(|e| TreeError::io("lock", path)(e.into()))?;
                    return Ok(Self { _file: file });
                }
                Err((_, Errno::EWOULDBLOCK)) => {
                    if !told {
                        let holder = std::fs::read_to_string(path).unwrap_or_default();
                        let holder = match holder.trim() {
                            "" => "another process".to_owned(),
                            id => format!("process {id}"),
                        };
                        waiting(format!(
                            "{holder} is at work on {what}, or what it started is; waiting until it is done"
                        ));
                        told = true;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(200)) => {}
                        () = cancel.cancelled() => return Err(TreeError::Interrupted),
                    }
                }
                Err((_, e)) => return Err(TreeError::io("lock", path)(e.into())),
            }
        }
    }

    fn path(trees_dir: &Path, name: &str) -> Result<PathBuf, TreeError> {
        let dir = trees_dir.join(".locks");
        disk::make_dir(&dir)?;
        Ok(dir.join(name))
    }
}

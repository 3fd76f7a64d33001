//! Contents in a folder: each in a file `ab/abcd…`, written under a temporary name, synced and renamed, so that under its
//! digest there is the whole content or nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use klp_livepatch::outcome::Digest;

use super::error::{BlobError, failed};
use super::{Stored, name_of};
use crate::aside::Aside;
use crate::disk::present;
use crate::failpoint::{self, Point};

#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    pub(super) aside: Aside,
}

impl Folder {
    /// Where the content with this digest is, if it is.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(name_of(digest))
    }

    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let size = |path: &Path| Ok(present(fs::metadata(path))?.map(|metadata| metadata.len()));
        self.on("can't look at", self.path(digest), size).await
    }

    pub(super) async fn open(&self, digest: &Digest) -> Result<Option<File>, BlobError> {
        let open = |path: &Path| present(File::open(path));
        self.on("can't open", self.path(digest), open).await
    }

    /// Puts a file's content in its place, durably.
    pub(super) async fn put(
        &self,
        digest: &Digest,
        file: std::sync::Arc<File>,
        tmp: tempfile::TempPath,
    ) -> Result<(), BlobError> {
        let place = move |target: &Path| {
            file.sync_all()?;
            place_durably(tmp, target)
        };
        self.on("can't store", self.path(digest), place).await
    }

    /// Answers whether it was there.
    pub(super) fn remove(&self, digest: &Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        let removed = present(fs::remove_file(&path)).map_err(failed("can't remove", &path))?;
        Ok(removed.is_some())
    }

    /// Calls `take` with each content.
    pub(super) fn each<E: From<BlobError>>(&self, mut take: impl FnMut(Stored) -> Result<(), E>) -> Result<(), E> {
        if !self.dir.exists() {
            return Ok(());
        }
        for shard in self.list(&self.dir)? {
            let kind = shard.file_type().map_err(failed("can't look at", &shard.path()))?;
            if shard.file_name() == "tmp" || !kind.is_dir() {
                continue;
            }
            for entry in self.list(&shard.path())? {
                let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let looked = entry.metadata().and_then(|file| Ok((file.len(), file.modified()?)));
                let looked = present(looked).map_err(failed("can't look at", &entry.path()))?;
                if let Some((size, came)) = looked {
                    take(Stored { digest, size, came })?;
                }
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<fs::DirEntry>, BlobError> {
        let listed = fs::read_dir(dir).and_then(Iterator::collect);
        listed.map_err(failed("can't list", dir))
    }

    /// Does `work` on a file aside.
    async fn on<T: Send + 'static>(
        &self,
        what: &'static str,
        path: PathBuf,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let on = path.clone();
        let done = self.aside.run(move || work(&on)).await;
        done.unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(failed(what, &path))
    }
}

/// Renames a synced file to its place and syncs the folders that now name it.
fn place_durably(tmp: tempfile::TempPath, target: &Path) -> io::Result<()> {
    let Some(shard) = target.parent() else {
        return Err(io::Error::other("a blob's place has no folder"));
    };
    if !shard.exists() {
        fs::create_dir_all(shard)?;
        if let Some(dir) = shard.parent() {
            fs::File::open(dir)?.sync_all()?;
        }
    }
    failpoint::pass(Point::BeforeRename);
    tmp.persist(target).map_err(|e| e.error)?;
    fs::File::open(shard)?.sync_all()?;
    failpoint::pass(Point::AfterRename);
    Ok(())
}

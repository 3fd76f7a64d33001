//! Artifacts' bytes, each in a file named by the BLAKE3 digest of its content: `<dir>/ab/abcd…`. A file is written under
//! a temporary name, checked, synced and renamed, so that under its digest there is the whole content or nothing.
//!
//! Content goes when nothing refers to it ([`Blobs::remove_unless`]). A commit that is about to refer to some pins it
//! first, and looks whether it is there only then: so either the commit finds it gone, and its worker sends it again, or
//! it stays.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use klp_livepatch::outcome::{Artifact, Digest};
use prometheus_client::metrics::counter::Counter;

use crate::aside::Aside;
use crate::disk::present;
use crate::failpoint::{self, Point};

/// The folder of all blobs.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
    aside: Aside,
    /// What commits in flight name, and how many of them.
    pins: Arc<Mutex<HashMap<Digest, usize>>>,
    /// Bytes that came in, and those that were stored.
    received: Counter,
    stored: Counter,
}

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("the bytes have the digest {found}, not {expected}; nothing was stored")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("the upload has {found} bytes where {expected} were announced; nothing was stored")]
    WrongSize { expected: u64, found: u64 },
    #[error("{what} {path}: {error}")]
    Io {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BlobError + 'a {
    move |error| BlobError::Io {
        what,
        path: path.to_owned(),
        error,
    }
}

impl Blobs {
    /// Opens the folder, made if absent, and removes what broken uploads left.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(dir: PathBuf, aside: Aside) -> Result<Self, BlobError> {
        let tmp = dir.join("tmp");
        present(fs::remove_dir_all(&tmp)).map_err(failed("can't clear", &tmp))?;
        fs::create_dir_all(&tmp).map_err(failed("can't make", &tmp))?;
        Ok(Self { aside, ..Self::at(dir) })
    }

    /// The folder as it is, to be looked at or cleared.
    pub fn at(dir: PathBuf) -> Self {
        let (aside, pins) = Default::default();
        let (received, stored) = Default::default();
        Self {
            dir,
            aside,
            pins,
            received,
            stored,
        }
    }

    /// Counts bytes here from now on.
    #[must_use]
    pub fn counting(self, received: Counter, stored: Counter) -> Self {
        Self {
            received,
            stored,
            ..self
        }
    }

    /// Where work on what is read from here is done.
    pub fn aside(&self) -> Aside {
        self.aside
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the artifacts' content from being removed while the pin lives, if it is there.
    pub fn pin(&self, artifacts: &[Artifact]) -> Pin {
        let digests: Vec<Digest> = artifacts.iter().map(|a| a.digest).collect();
        let mut pins = self.pins();
        for digest in &digests {
            *pins.entry(*digest).or_default() += 1;
        }
        let blobs = self.clone();
        drop(pins);
        Pin { blobs, digests }
    }

    /// Removes content that is pinned by nobody and that `needed` says nobody needs; no pin is given out meanwhile.
    /// Answers whether it did.
    ///
    /// # Errors
    /// The disk's, or what `needed` answers.
    pub fn remove_unless<E: From<io::Error>>(
        &self,
        digest: &Digest,
        needed: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let pins = self.pins();
        if pins.contains_key(digest) || needed()? {
            return Ok(false);
        }
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            removed => Ok(removed.is_ok()),
        }
    }

    /// Calls `take` with each content's digest, size and time of arrival.
    ///
    /// # Errors
    /// The disk's, or what `take` answers.
    pub fn each<E: From<io::Error>>(
        &self,
        mut take: impl FnMut(Digest, u64, SystemTime) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.dir.exists() {
            return Ok(());
        }
        for shard in fs::read_dir(&self.dir)? {
            let shard = shard?;
            if shard.file_name() == "tmp" || !shard.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                match entry.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                    Ok(metadata) => take(digest, metadata.len(), metadata.modified()?)?,
                }
            }
        }
        Ok(())
    }

    /// Where the content with this digest is, if it is.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(name)
    }

    /// The size of the content with this digest; `None` if it is not stored.
    ///
    /// # Errors
    /// The disk's.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let size = |path: &Path| Ok(present(fs::metadata(path))?.map(|metadata| metadata.len()));
        self.on("can't look at", self.path(digest), size).await
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

    /// Those of the artifacts that are not stored, each digest once.
    ///
    /// # Errors
    /// The disk's, or an artifact states another size than its content has.
    pub async fn missing(&self, artifacts: &[Artifact]) -> Result<Vec<Digest>, BlobError> {
        let mut missing = Vec::new();
        for artifact in artifacts {
            match self.size(&artifact.digest).await? {
                Some(size) if size == artifact.size => {}
                Some(found) => {
                    let expected = artifact.size;
                    return Err(BlobError::WrongSize { expected, found });
                }
                None if missing.contains(&artifact.digest) => {}
                None => missing.push(artifact.digest),
            }
        }
        Ok(missing)
    }

    /// The content with this digest, to be read; `None` if it is not stored.
    ///
    /// # Errors
    /// The disk's.
    pub async fn read(&self, digest: &Digest) -> Result<Option<tokio::fs::File>, BlobError> {
        let open = |path: &Path| present(File::open(path));
        let file = self.on("can't open", self.path(digest), open).await?;
        Ok(file.map(tokio::fs::File::from_std))
    }

    /// Begins to store content of this digest and size.
    ///
    /// # Errors
    /// The disk's.
    pub async fn begin(&self, digest: Digest, size: u64) -> Result<Upload, BlobError> {
        let tmp = self.dir.join("tmp");
        let (file, path) = tempfile::Builder::new()
            .tempfile_in(&tmp)
            .map_err(failed("can't make a file in", &tmp))?
            .into_parts();
        Ok(Upload {
            digest,
            size,
            written: 0,
            hasher: blake3::Hasher::new(),
            file: Arc::new(file),
            tmp: path,
            blobs: self.clone(),
        })
    }
}

/// Content that is not to be removed for now.
pub struct Pin {
    blobs: Blobs,
    digests: Vec<Digest>,
}

impl Pin {
    /// Holds the pin until `work` is done, even if whoever waits for it goes away.
    ///
    /// # Errors
    /// The work broke off.
    pub async fn until_done<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let held = async move {
            let done = work.await;
            drop(self);
            done
        };
        tokio::spawn(held).await
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.blobs.pins();
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

/// Content on its way in; dropped, it leaves nothing.
pub struct Upload {
    digest: Digest,
    size: u64,
    written: u64,
    hasher: blake3::Hasher,
    file: Arc<File>,
    tmp: tempfile::TempPath,
    blobs: Blobs,
}

impl Upload {
    /// # Errors
    /// The disk's, or there are more bytes than announced.
    pub async fn write(&mut self, data: Vec<u8>) -> Result<(), BlobError> {
        self.written += data.len() as u64;
        if self.written > self.size {
            return Err(self.wrong_size());
        }
        self.blobs.received.inc_by(data.len() as u64);
        self.hasher.update(&data);
        let file = Arc::clone(&self.file);
        let write = move |_: &Path| (&*file).write_all(&data);
        self.blobs.on("can't write", self.tmp.to_path_buf(), write).await
    }

    /// Puts the content in its place, durably.
    ///
    /// # Errors
    /// The bytes are not what was announced, or the disk's.
    pub async fn finish(self) -> Result<(), BlobError> {
        if self.written != self.size {
            return Err(self.wrong_size());
        }
        let found = Digest::from_hasher(&self.hasher);
        if found != self.digest {
            let expected = self.digest;
            return Err(BlobError::WrongDigest { expected, found });
        }
        let Self {
            file, tmp, blobs, size, ..
        } = self;
        let place = move |target: &Path| {
            file.sync_all()?;
            place_durably(tmp, target)
        };
        blobs.on("can't store", blobs.path(&found), place).await?;
        blobs.stored.inc_by(size);
        Ok(())
    }

    fn wrong_size(&self) -> BlobError {
        BlobError::WrongSize {
            expected: self.size,
            found: self.written,
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn put(blobs: &Blobs, digest: Digest, size: u64, parts: &[&[u8]]) -> Result<(), BlobError> {
        let mut upload = blobs.begin(digest, size).await?;
        for part in parts {
            upload.write(part.to_vec()).await?;
        }
        upload.finish().await
    }

    fn files_below(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| if p.is_dir() { files_below(&p) } else { 1 }).sum()
    }

    #[tokio::test]
    async fn what_is_stored_is_what_was_announced() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs"), Aside::Threads).unwrap();
        let digest = Digest::of(b"hello world");
        put(&blobs, digest, 11, &[b"hello ", b"world"]).await.unwrap();
        // Twice is once.
        put(&blobs, digest, 11, &[b"hello world"]).await.unwrap();
        assert_eq!(blobs.size(&digest).await.unwrap(), Some(11));
        let mut text = String::new();
        let mut file = blobs.read(&digest).await.unwrap().unwrap();
        file.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello world");
        assert_eq!(files_below(folder.path()), 1);
    }

    #[tokio::test]
    async fn what_is_not_as_announced_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs"), Aside::Threads).unwrap();
        let digest = Digest::of(b"hello");
        let wrong = put(&blobs, digest, 5, &[b"HELLO"]).await;
        assert!(matches!(wrong, Err(BlobError::WrongDigest { .. })));
        for bytes in [&b"hell"[..], b"hello!"] {
            let wrong = put(&blobs, digest, 5, &[bytes]).await;
            assert!(matches!(wrong, Err(BlobError::WrongSize { .. })));
        }
        assert_eq!(blobs.size(&digest).await.unwrap(), None);
        assert!(blobs.read(&digest).await.unwrap().is_none());
        assert_eq!(files_below(folder.path()), 0);
    }

    #[tokio::test]
    async fn missing_artifacts_are_named_once_and_sizes_must_be_true() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs"), Aside::Threads).unwrap();
        let here = Digest::of(b"x");
        put(&blobs, here, 1, &[b"x"]).await.unwrap();
        let artifact = |digest, size| Artifact {
            name: "a".into(),
            digest,
            size,
        };
        let gone = Digest::of(b"y");
        let asked = [artifact(here, 1), artifact(gone, 1), artifact(gone, 1)];
        assert_eq!(blobs.missing(&asked).await.unwrap(), [gone]);
        let lying = blobs.missing(&[artifact(here, 2)]).await;
        assert!(matches!(lying, Err(BlobError::WrongSize { .. })));
    }

    #[tokio::test]
    async fn what_is_pinned_or_needed_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs"), Aside::Threads).unwrap();
        let digest = Digest::of(b"x");
        put(&blobs, digest, 1, &[b"x"]).await.unwrap();
        let artifact = Artifact {
            name: "a".into(),
            digest,
            size: 1,
        };
        let remove = |needed| blobs.remove_unless(&digest, || Ok::<_, io::Error>(needed)).unwrap();
        let (one, two) = (blobs.pin(std::slice::from_ref(&artifact)), blobs.pin(&[artifact]));
        assert!(!remove(false));
        // The waiter goes away; the pin stays until the work is done.
        let (done, work) = tokio::sync::oneshot::channel::<()>();
        tokio::time::timeout(std::time::Duration::from_millis(1), one.until_done(work))
            .await
            .unwrap_err();
        drop(two);
        assert!(!remove(false));
        done.send(()).unwrap();
        while !blobs.pins().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!remove(true) && remove(false) && !remove(false));
        assert_eq!(blobs.size(&digest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn leftovers_of_a_crash_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("tmp")).unwrap();
        fs::write(folder.path().join("tmp/half"), "x").unwrap();
        Blobs::open(folder.path().to_owned(), Aside::Threads).unwrap();
        assert_eq!(files_below(folder.path()), 0);
    }
}

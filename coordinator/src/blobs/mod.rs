//! Artifacts' bytes, each named by the BLAKE3 digest of its content: in a folder of this machine ([`folder`]), or in a bucket
//! ([`s3`]), under the same names, `ab/abcd…`. Which it is, the setting `artifacts` says ([`place`]).
//!
//! What comes in is checked before it is put there ([`upload`]), so that under a digest there is the whole content or nothing.
//! Content goes when nothing refers to it ([`Blobs::remove_unless`]), and never while a commit is about to ([`holds`]).

mod content;
mod error;
mod folder;
mod holds;
mod owner;
pub mod place;
mod s3;
#[cfg(test)]
mod tests;
mod upload;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures_util::{StreamExt as _, TryStreamExt as _};
use klp_livepatch::outcome::{Artifact, Digest};
use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;

pub use content::Content;
pub use error::BlobError;
pub use holds::Pin;
pub use owner::mark;
pub use upload::Upload;

use crate::aside::Aside;
use crate::config::Config;
use crate::disk::present;
use error::failed;
use folder::Folder;
use holds::Holds;
use place::Place;
use s3::S3;

/// How many look-ups are under way for one question, where each takes a round trip.
const AT_ONCE: usize = 16;

/// How many contents are removed at once.
pub const BATCH: usize = 64;

/// All blobs. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Store,
    /// Where uploads are until they are checked.
    spool: PathBuf,
    aside: Aside,
    holds: Holds,
    /// Bytes that came in, and those that were stored.
    received: Counter,
    stored: Counter,
}

#[derive(Clone, Debug)]
enum Store {
    Folder(Folder),
    S3(S3),
}

/// Content that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub size: u64,
    /// When it came, by the clock of whoever stores it.
    pub came: SystemTime,
}

/// What content is called where it is stored.
fn name_of(digest: &Digest) -> String {
    let name = digest.to_string();
    format!("{}/{name}", &name[..2])
}

impl Blobs {
    /// Opens the place that is configured for the coordinator that uses it: what broken uploads left is removed, a folder is
    /// made if absent, and a bucket is tried out.
    ///
    /// # Errors
    /// It can't be used; what is to be done is told.
    pub async fn open(config: &Config, aside: Aside) -> Result<Self, BlobError> {
        let blobs = Self::at(config, aside)?;
        let tmp = &blobs.spool;
        present(fs::remove_dir_all(tmp)).map_err(failed("can't clear", tmp))?;
        fs::create_dir_all(tmp).map_err(failed("can't make", tmp))?;
        match (&blobs.store, &config.artifacts) {
            (Store::S3(s3), _) => Box::pin(s3::trial::try_out(s3, &config.data_dir)).await?,
            (Store::Folder(_), Place::Folder(dir)) => owner::claim_folder(dir, &config.data_dir)?,
            (Store::Folder(_), _) => {}
        }
        Ok(blobs)
    }

    /// The place as it is, to be looked at or cleared.
    ///
    /// # Errors
    /// A bucket's credentials are not there, or it can't be asked by them.
    pub fn at(config: &Config, aside: Aside) -> Result<Self, BlobError> {
        let own = config.data_dir.join("blobs");
        match &config.artifacts {
            Place::DataDir => Ok(Self::in_folder(own, aside)),
            Place::Folder(dir) => Ok(Self::in_folder(dir.clone(), aside)),
            Place::S3(bucket) => {
                let s3 = S3::connect(config, bucket, aside)?;
                Ok(Self::new(Store::S3(s3), own.join("tmp"), aside))
            }
        }
    }

    /// Those in a folder.
    pub fn in_folder(dir: PathBuf, aside: Aside) -> Self {
        let spool = dir.join("tmp");
        Self::new(Store::Folder(Folder { dir, aside }), spool, aside)
    }

    fn new(store: Store, spool: PathBuf, aside: Aside) -> Self {
        let (received, stored) = Default::default();
        Self {
            store,
            spool,
            aside,
            holds: Holds::default(),
            received,
            stored,
        }
    }

    /// Counts bytes here from now on.
    #[must_use]
    pub fn counting(self, (received, stored): (Counter, Counter)) -> Self {
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

    /// Where they are, as a person would be told.
    pub fn whereabouts(&self) -> String {
        match &self.store {
            Store::Folder(folder) => folder.dir.display().to_string(),
            Store::S3(s3) => s3.bucket.to_string(),
        }
    }

    /// Where a content is or would be, as a person would be told.
    pub fn whereabouts_of(&self, digest: &Digest) -> String {
        format!("{}/{}", self.whereabouts(), name_of(digest))
    }

    /// The content's file, where contents are files.
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        match &self.store {
            Store::Folder(folder) => Some(folder.path(digest)),
            Store::S3(_) => None,
        }
    }

    /// The folder of contents, where they are files.
    pub fn folder(&self) -> Option<&Path> {
        match &self.store {
            Store::Folder(folder) => Some(&folder.dir),
            Store::S3(_) => None,
        }
    }

    /// Keeps the artifacts' content from being removed while the pin lives, if it is there.
    pub async fn pin(&self, artifacts: &[Artifact]) -> Pin {
        self.holds.pin(artifacts.iter().map(|a| a.digest).collect()).await
    }

    /// Removes those contents that are pinned by nobody and that `needed` says nobody needs; answers which it did. Whoever
    /// pins one meanwhile waits. It blocks, and is to be called where that holds up nobody.
    ///
    /// # Errors
    /// The disk's or the storage's, or what `needed` answers. What is not told may have been removed.
    pub fn remove_unless<E: From<BlobError>>(
        &self,
        digests: impl IntoIterator<Item = Digest>,
        mut needed: impl FnMut(&Digest) -> Result<bool, E>,
    ) -> Result<Vec<Digest>, E> {
        let mut removals = Vec::new();
        for digest in digests {
            let Some(removal) = self.holds.begin_removal(digest) else {
                continue;
            };
            if needed(&digest)? {
                continue;
            }
            if let Store::S3(s3) = &self.store {
                s3.known.forget(&digest);
            }
            removals.push(removal);
        }
        match &self.store {
            Store::S3(s3) => Ok(s3.remove(removals)?),
            Store::Folder(folder) => {
                let mut removed = Vec::new();
                for removal in removals {
                    if folder.remove(&removal.digest)? {
                        removed.push(removal.digest);
                    }
                }
                Ok(removed)
            }
        }
    }

    /// Calls `take` with each content, until `stop`. It blocks, and is to be called where that holds up nobody.
    ///
    /// # Errors
    /// The disk's or the storage's, or what `take` answers.
    pub fn each<E: From<BlobError>>(
        &self,
        stop: &CancellationToken,
        mut take: impl FnMut(Stored) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.store {
            // There each step is short; who stops does not take any more.
            Store::Folder(folder) => folder.each(|stored| match stop.is_cancelled() {
                true => Ok(()),
                false => take(stored),
            }),
            Store::S3(s3) => s3.each(stop, take),
        }
    }

    /// The digest of a content as it is now; `None` if it is not there. It blocks, as [`Blobs::each`] does.
    ///
    /// # Errors
    /// The storage's. Contents that are files are read as files.
    pub fn measure(&self, digest: &Digest) -> Result<Option<Digest>, BlobError> {
        let measuring = async {
            let Some(mut content) = self.read(digest).await? else {
                return Ok(None);
            };
            let mut hasher = blake3::Hasher::new();
            loop {
                let part = content.next(1 << 20).await?;
                if part.is_empty() {
                    return Ok(Some(Digest::from_hasher(&hasher)));
                }
                hasher.update(&part);
            }
        };
        match &self.store {
            Store::S3(s3) => s3.runtime.block_on(measuring),
            Store::Folder(folder) => {
                let path = folder.path(digest);
                let read = || {
                    let Some(file) = present(fs::File::open(&path))? else {
                        return Ok(None);
                    };
                    let mut hasher = blake3::Hasher::new();
                    hasher.update_reader(file)?;
                    Ok(Some(Digest::from_hasher(&hasher)))
                };
                read().map_err(failed("can't read", &path))
            }
        }
    }

    /// The size of the content with this digest; `None` if it is not stored.
    ///
    /// # Errors
    /// The disk's or the storage's.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match &self.store {
            Store::Folder(folder) => folder.size(digest).await,
            Store::S3(s3) => {
                if let Some(size) = s3.known.size(digest) {
                    return Ok(Some(size));
                }
                // What is learnt under a pin is true until it is forgotten by a removal.
                let _pin = self.holds.pin(vec![*digest]).await;
                // Requests are large; whoever asks a folder is not to carry them.
                Box::pin(s3.size(digest)).await
            }
        }
    }

    /// As [`Blobs::size`], of each, in their order.
    ///
    /// # Errors
    /// The disk's or the storage's.
    pub async fn sizes(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>, BlobError> {
        let look = |digest| async move { self.size(&digest).await };
        let looks = futures_util::stream::iter(digests.to_vec()).map(look);
        let at_once = match &self.store {
            Store::Folder(_) => 1,
            Store::S3(_) => AT_ONCE,
        };
        looks.buffered(at_once).try_collect().await
    }

    /// Those of the artifacts that are not stored, each digest once.
    ///
    /// # Errors
    /// The disk's or the storage's, or an artifact states another size than its content has.
    pub async fn missing(&self, artifacts: &[Artifact]) -> Result<Vec<Digest>, BlobError> {
        let digests: Vec<Digest> = artifacts.iter().map(|a| a.digest).collect();
        let mut missing = Vec::new();
        for (artifact, size) in artifacts.iter().zip(self.sizes(&digests).await?) {
            match size {
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
    /// The disk's or the storage's.
    pub async fn read(&self, digest: &Digest) -> Result<Option<Content>, BlobError> {
        match &self.store {
            Store::Folder(folder) => {
                let file = folder.open(digest).await?;
                Ok(file.map(|file| Content::of_file(folder.path(digest), file)))
            }
            Store::S3(s3) => Box::pin(s3.get(digest)).await,
        }
    }

    /// Begins to store content of this digest and size.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin(&self, digest: Digest, size: u64) -> Result<Upload, BlobError> {
        Upload::begin(self, digest, size)
    }
}

//! Contents in a bucket of S3 or what speaks like it, by the object_store crate, which signs, retries and pages.
//!
//! An object is there as a whole or not at all, whether it was put at once or in parts. What is known to be there is
//! remembered ([`known`]), so that a commit right after its uploads asks nothing.

mod connect;
pub(super) mod credentials;
pub(super) mod known;
pub(super) mod trial;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use klp_livepatch::outcome::Digest;
use object_store::aws::AmazonS3;
use object_store::path::Path as Key;
use object_store::{Error, MultipartUpload, ObjectStore as _, ObjectStoreExt as _};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::content::Content;
use super::error::{BlobError, failed, why};
use super::holds::Removal;
use super::place::Bucket;
use super::{AT_ONCE, Stored, name_of};
use crate::aside::Aside;
use crate::config::Config;
use crate::failpoint::{self, Point};
use known::Known;

/// What is larger is put in parts of this size; each part in flight is in memory.
const PART: u64 = 8 << 20;

/// How many are put at once; more wait, with their bytes on the disk.
const PUTS: usize = 8;

/// How long content is kept from being stored again after a removal of which nobody knows whether it was done, or is yet to be.
const SETTLE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct S3 {
    pub(super) bucket: Bucket,
    store: Arc<AmazonS3>,
    /// Tries once only: a removal that was given up and repeated could still arrive when the content was stored again.
    remover: Arc<AmazonS3>,
    pub(super) known: Arc<Known>,
    puts: Arc<Semaphore>,
    aside: Aside,
    /// Where upkeep, which blocks, has its requests done.
    pub(super) runtime: Handle,
}

impl S3 {
    pub(super) fn connect(config: &Config, bucket: &Bucket, aside: Aside) -> Result<Self, BlobError> {
        let runtime = Handle::try_current();
        let runtime =
            runtime.map_err(|error| failed("can't ask for", Path::new(bucket.name()))(io::Error::other(error)))?;
        let [store, remover] = connect::clients(config, bucket)?;
        Ok(Self {
            bucket: bucket.clone(),
            store: Arc::new(store),
            remover: Arc::new(remover),
            known: Arc::default(),
            puts: Arc::new(Semaphore::new(PUTS)),
            aside,
            runtime,
        })
    }

    fn key(&self, name: &str) -> Key {
        Key::from(self.bucket.key(name))
    }

    fn path(&self, digest: &Digest) -> Key {
        self.key(&name_of(digest))
    }

    fn failed(&self, what: &'static str, error: &Error) -> BlobError {
        BlobError::Remote {
            what,
            place: self.bucket.to_string(),
            why: why(error),
        }
    }

    /// Asks; the content must be pinned.
    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.store.head(&self.path(digest)).await {
            Ok(object) => {
                self.known.note(*digest, object.size);
                Ok(Some(object.size))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("can't look at", &error)),
        }
    }

    pub(super) async fn get(&self, digest: &Digest) -> Result<Option<Content>, BlobError> {
        match self.store.get(&self.path(digest)).await {
            Ok(object) => Ok(Some(Content::of_stream(self.bucket.to_string(), object.into_stream()))),
            Err(Error::NotFound { .. }) => {
                self.known.forget(digest);
                Ok(None)
            }
            Err(error) => Err(self.failed("can't read", &error)),
        }
    }

    /// Stores a file's content, which was checked; it must be pinned.
    pub(super) async fn put(&self, digest: &Digest, size: u64, file: Arc<File>) -> Result<(), BlobError> {
        // It is never closed.
        let _turn = self.puts.acquire().await;
        failpoint::pass(Point::BeforeRename);
        if size <= PART {
            let bytes = self.part(&file, 0, size).await?;
            let put = self.store.put(&self.path(digest), bytes.into()).await;
            put.map_err(|error| self.failed("can't store", &error))?;
        } else {
            let begun = self.store.put_multipart(&self.path(digest)).await;
            let mut upload = begun.map_err(|error| self.failed("can't store", &error))?;
            if let Err(error) = self.put_parts(upload.as_mut(), size, &file).await {
                // What stays of it is under no key, and costs room; the runbook says how a bucket clears that away.
                if let Err(error) = upload.abort().await {
                    tracing::debug!(error = why(&error), "can't clear away parts of an upload");
                }
                return Err(error);
            }
        }
        failpoint::pass(Point::AfterRename);
        self.known.note(*digest, size);
        Ok(())
    }

    async fn put_parts(&self, upload: &mut dyn MultipartUpload, size: u64, file: &Arc<File>) -> Result<(), BlobError> {
        let mut offset = 0;
        while offset < size {
            let part = self.part(file, offset, PART.min(size - offset)).await?;
            let put = upload.put_part(part.into()).await;
            put.map_err(|error| self.failed("can't store", &error))?;
            offset += PART;
        }
        let done = upload.complete().await;
        done.map_err(|error| self.failed("can't store", &error))?;
        Ok(())
    }

    async fn part(&self, file: &Arc<File>, offset: u64, size: u64) -> Result<Vec<u8>, BlobError> {
        let file = Arc::clone(file);
        let read = move || {
            // A part is a few MiB.
            let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        let read = self.aside.run(read).await;
        let unread = failed("can't read what was uploaded for", Path::new("s3"));
        read.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(unread)
    }

    /// Removes contents; answers which it did.
    pub(super) fn remove(&self, removals: Vec<Removal>) -> Result<Vec<Digest>, BlobError> {
        let removing = futures_util::stream::iter(removals.into_iter().map(|removal| async {
            let removed = self.remover.delete(&self.path(&removal.digest)).await;
            (removal, removed)
        }));
        let ended: Vec<_> = self.runtime.block_on(removing.buffer_unordered(AT_ONCE).collect());
        let (mut removed, mut unclear, mut first) = (Vec::new(), Vec::new(), None);
        for (removal, end) in ended {
            match end {
                Ok(()) => removed.push(removal.digest),
                Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    unclear.push(removal);
                    first.get_or_insert(error);
                }
            }
        }
        let Some(error) = first else {
            return Ok(removed);
        };
        self.runtime.spawn(async move {
            tokio::time::sleep(SETTLE).await;
            drop(unclear);
        });
        Err(self.failed("can't remove some of", &error))
    }

    /// Calls `take` with each content, until `stop`.
    pub(super) fn each<E: From<BlobError>>(
        &self,
        stop: &CancellationToken,
        mut take: impl FnMut(Stored) -> Result<(), E>,
    ) -> Result<(), E> {
        let below = self.below();
        let mut listing = self.store.list(below.as_ref());
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    next = listing.next() => next,
                }
            };
            let object = match self.runtime.block_on(next) {
                None => return Ok(()),
                Some(object) => object.map_err(|error| self.failed("can't list", &error))?,
            };
            let name = object.location.filename().unwrap_or_default();
            // Whatever else is there is none of ours.
            let Some(digest) = name.parse().ok().filter(|digest| self.path(digest) == object.location) else {
                continue;
            };
            take(Stored {
                digest,
                size: object.size,
                came: SystemTime::from(object.last_modified),
            })?;
        }
    }

    /// Where all keys are, for a listing.
    fn below(&self) -> Option<Key> {
        let prefix = self.bucket.prefix();
        (!prefix.is_empty()).then(|| Key::from(prefix))
    }
}

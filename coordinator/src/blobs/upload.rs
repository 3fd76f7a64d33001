//! Content on its way in: it is kept in a temporary file of this machine until its size and digest are known to be right, and
//! only then put where it is looked for.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use klp_livepatch::outcome::Digest;

use super::error::{BlobError, failed};
use super::{Blobs, Store};

/// Dropped, it leaves nothing.
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
    pub(super) fn begin(blobs: &Blobs, digest: Digest, size: u64) -> Result<Self, BlobError> {
        let made = tempfile::Builder::new().tempfile_in(&blobs.spool);
        let (file, tmp) = made.map_err(failed("can't make a file in", &blobs.spool))?.into_parts();
        Ok(Self {
            digest,
            size,
            written: 0,
            hasher: blake3::Hasher::new(),
            file: Arc::new(file),
            tmp,
            blobs: blobs.clone(),
        })
    }

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
        let written = self.blobs.aside.run(move || (&*file).write_all(&data)).await;
        written
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(failed("can't write", &self.tmp))
    }

    /// Puts the content in its place, durably.
    ///
    /// # Errors
    /// The bytes are not what was announced, or the disk's or the storage's.
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
        match &blobs.store {
            Store::Folder(folder) => folder.put(&found, file, tmp).await?,
            Store::S3(s3) => {
                // Were it being removed, its removal could come after the upload.
                let pin = blobs.holds.pin(vec![found]).await;
                let s3 = s3.clone();
                // It goes on to its end if whoever sent it goes away: they come again, and find it done.
                let putting = async move { s3.put(&found, size, file).await };
                let put = pin.until_done(putting).await;
                let broken = |error| failed("can't store", Path::new(&found.to_string()))(std::io::Error::other(error));
                put.map_err(broken)??;
            }
        }
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

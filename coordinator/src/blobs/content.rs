//! Content that is being read, wherever it is. It is never in memory as a whole, unless it is asked for so.

use std::path::PathBuf;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use hyper::body::Bytes;
use tokio::io::AsyncReadExt as _;

use super::error::{BlobError, failed, why};

/// Content on its way out.
pub struct Content(Source);

enum Source {
    File {
        path: PathBuf,
        file: tokio::fs::File,
    },
    Stream {
        /// What it is part of, for messages.
        place: String,
        parts: BoxStream<'static, object_store::Result<Bytes>>,
        /// What has come and was not yet asked for.
        rest: Bytes,
    },
}

impl Content {
    pub(super) fn of_file(path: PathBuf, file: std::fs::File) -> Self {
        let file = tokio::fs::File::from_std(file);
        Self(Source::File { path, file })
    }

    pub(super) fn of_stream(place: String, parts: BoxStream<'static, object_store::Result<Bytes>>) -> Self {
        let rest = Bytes::new();
        Self(Source::Stream { place, parts, rest })
    }

    /// The next bytes, at most so many; none at the end.
    ///
    /// # Errors
    /// The disk's or the storage's.
    pub async fn next(&mut self, most: usize) -> Result<Vec<u8>, BlobError> {
        let mut data = Vec::with_capacity(most);
        match &mut self.0 {
            Source::File { path, file } => {
                let read = file.take(most as u64).read_to_end(&mut data).await;
                read.map_err(failed("can't read", path))?;
            }
            Source::Stream { place, parts, rest } => {
                while data.len() < most {
                    if rest.is_empty() {
                        match parts.next().await {
                            None => break,
                            Some(Ok(part)) => *rest = part,
                            Some(Err(error)) => {
                                return Err(BlobError::Remote {
                                    what: "can't read",
                                    place: place.clone(),
                                    why: why(&error),
                                });
                            }
                        }
                    }
                    data.extend_from_slice(&rest.split_to(rest.len().min(most - data.len())));
                }
            }
        }
        Ok(data)
    }

    /// All of it.
    ///
    /// # Errors
    /// The disk's or the storage's.
    pub async fn all(mut self) -> Result<Vec<u8>, BlobError> {
        const PART: usize = 64 << 10;
        let mut all = Vec::new();
        loop {
            let part = self.next(PART).await?;
            if part.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&part);
        }
    }
}

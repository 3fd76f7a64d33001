//! Attempts' logs, a file each: `<dir>/<task>/<attempt>.log`. Appending is idempotent by offset, and a log is bounded:
//! what exceeds the bound is dropped, and a note at its end says so.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use klp_livepatch::task::AttemptId;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::bell::{Bells, Listener};

/// Appends of different attempts seldom share a lock.
const LOCKS: usize = 64;

/// The folder of all logs; clones are handles to the same one.
#[derive(Clone)]
pub struct Logs {
    dir: PathBuf,
    /// Most bytes kept of one log, the note not counted.
    bound: u64,
    locks: Arc<[Mutex<()>]>,
    bells: Bells<AttemptId>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("offset {offset} is past the log's end at {end}; send from there")]
    Gap { offset: u64, end: u64 },
    #[error("can't use the log {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl Logs {
    pub fn new(dir: PathBuf, bound: u64) -> Self {
        Self {
            dir,
            bound,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            bells: Bells::default(),
        }
    }

    fn path(&self, id: AttemptId) -> PathBuf {
        self.dir.join(id.task.to_string()).join(format!("{}.log", id.number))
    }

    fn lock(&self, id: AttemptId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        // The remainder fits.
        &self.locks[(hasher.finish() % LOCKS as u64) as usize]
    }

    /// Appends what of `data`, which begins at `offset`, is not there yet. Answers where the sender should go on. That
    /// may be beyond the file's end once the log is full: a sender's offsets count what it sent, not what was kept.
    ///
    /// # Errors
    /// `offset` is past the log's end, or the disk's.
    pub async fn append(&self, id: AttemptId, offset: u64, data: Vec<u8>) -> Result<u64, LogError> {
        let logs = self.clone();
        let path = self.path(id);
        // Not to be interrupted half-way when the sender goes away.
        let appended = tokio::task::spawn_blocking(move || logs.append_now(id, offset, &data)).await;
        appended
            .unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|error| LogError::Io { path, error })?
    }

    fn append_now(&self, id: AttemptId, offset: u64, data: &[u8]) -> io::Result<Result<u64, LogError>> {
        let _one_at_a_time = self.lock(id).lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(id);
        let sent = offset.saturating_add(data.len() as u64);
        let end = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            metadata => metadata?.len(),
        };
        if end > self.bound {
            return Ok(Ok(sent));
        }
        let Some(skip) = end.checked_sub(offset) else {
            return Ok(Err(LogError::Gap { offset, end }));
        };
        let new = usize::try_from(skip).ok().and_then(|skip| data.get(skip..));
        let Some(new) = new.filter(|new| !new.is_empty()) else {
            return Ok(Ok(end));
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let room = usize::try_from(self.bound - end).unwrap_or(usize::MAX);
        let mut text = new[..new.len().min(room)].to_vec();
        if new.len() > room {
            text.extend_from_slice(format!("\n[log cut here: only {} bytes are kept]\n", self.bound).as_bytes());
        }
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path)?;
        file.write_all(&text)?;
        self.bells.ring(&id, end + text.len() as u64);
        Ok(Ok(sent))
    }

    /// Up to `limit` bytes from `offset` on; empty at or past the end.
    ///
    /// # Errors
    /// The disk's.
    pub async fn read(&self, id: AttemptId, offset: u64, limit: u64) -> Result<Vec<u8>, LogError> {
        let path = self.path(id);
        let mut data = Vec::new();
        let read = async {
            let mut file = match File::open(&path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            file.seek(SeekFrom::Start(offset)).await?;
            file.take(limit).read_to_end(&mut data).await.map(drop)
        };
        match read.await {
            Ok(()) => Ok(data),
            Err(error) => Err(LogError::Io { path, error }),
        }
    }

    /// Hears of bytes appended from now on.
    pub fn listen(&self, id: AttemptId) -> Listener<AttemptId> {
        self.bells.listen(id)
    }
}

#[cfg(test)]
mod tests {
    use klp_livepatch::task::TaskId;
    use uuid::Uuid;

    use super::*;

    const ID: AttemptId = AttemptId {
        task: TaskId(Uuid::from_u128(7)),
        number: 1,
    };

    async fn text(logs: &Logs) -> String {
        String::from_utf8(logs.read(ID, 0, 1 << 20).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn appending_is_idempotent_by_offset() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned(), 1000);
        assert_eq!(logs.append(ID, 0, b"hello ".to_vec()).await.unwrap(), 6);
        assert_eq!(logs.append(ID, 0, b"hello ".to_vec()).await.unwrap(), 6);
        assert_eq!(logs.append(ID, 4, b"o world".to_vec()).await.unwrap(), 11);
        assert_eq!(logs.append(ID, 2, b"ll".to_vec()).await.unwrap(), 11);
        assert_eq!(text(&logs).await, "hello world");
        let gap = logs.append(ID, 12, b"x".to_vec()).await;
        assert!(matches!(gap, Err(LogError::Gap { offset: 12, end: 11 })));
        assert_eq!(logs.read(ID, 6, 3).await.unwrap(), b"wor");
        assert_eq!(logs.read(ID, 99, 3).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_log_is_bounded_and_its_sender_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned(), 10);
        assert_eq!(logs.append(ID, 0, b"0123456789".to_vec()).await.unwrap(), 10);
        assert_eq!(text(&logs).await, "0123456789");
        let next = logs.append(ID, 10, b"abc".to_vec()).await.unwrap();
        assert_eq!(next, 13);
        let cut = text(&logs).await;
        assert!(cut.starts_with("0123456789\n[log cut here"), "{cut}");
        // Whatever comes now is dropped, but never refused.
        let next = logs.append(ID, next, b"defg".to_vec()).await.unwrap();
        logs.append(ID, next, vec![b'x'; 100]).await.unwrap();
        logs.append(ID, 10, b"abc".to_vec()).await.unwrap();
        assert_eq!(text(&logs).await, cut);
    }

    #[tokio::test]
    async fn concurrent_senders_of_the_same_bytes_write_them_once() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned(), 1 << 20);
        let line = vec![b'a'; 10_000];
        let sending: Vec<_> = (0..8)
            .map(|_| {
                let (logs, line) = (logs.clone(), line.clone());
                tokio::spawn(async move { logs.append(ID, 0, line).await.unwrap() })
            })
            .collect();
        for sent in sending {
            assert_eq!(sent.await.unwrap(), 10_000);
        }
        assert_eq!(text(&logs).await.len(), 10_000);
    }
}

//! Attempts' logs: while one grows, a plain file `<dir>/<task>/<attempt>.log`; some time after the attempt has ended,
//! `<attempt>.log.gz` in its place ([`archive`], put there by [`compact`]). Where both are, the plain file counts: it
//! holds all that the other does.
//!
//! Appending is idempotent by offset. A log is bounded: a worker keeps head and tail of what is longer, and should one
//! send more all the same, what exceeds the bound is dropped, with a note at the end.
//!
//! What was appended survives a crash of the coordinator at once, and of the machine once it is compressed. On a full
//! disk an append is refused and the worker, which keeps the whole log, sends it again until there is room.
//!
//! Who reads holds nothing up: each piece is read from the file for its reader alone.

mod archive;
mod compact;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klp_livepatch::task::{AttemptId, TaskId};
use prometheus_client::metrics::counter::Counter;

use self::archive::Archive;
pub use self::compact::keep_compact;
use crate::aside::Aside;
use crate::bell::{Bells, Listener};
use crate::disk::{present, sync_folder};
use crate::space::Space;

/// Appends of different attempts seldom share a lock.
const LOCKS: usize = 64;

/// The folder of all logs; clones are handles to the same one.
#[derive(Clone)]
pub struct Logs {
    dir: PathBuf,
    /// Most bytes kept of one log, the note not counted.
    bound: u64,
    space: Space,
    aside: Aside,
    locks: Arc<[Mutex<()>]>,
    bells: Bells<AttemptId>,
    /// Those that are plain files.
    plain: Arc<Mutex<BTreeSet<AttemptId>>>,
    /// Bytes that were kept.
    kept: Counter,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("offset {offset} is past the log's end at {end}; send from there")]
    Gap { offset: u64, end: u64 },
    #[error("can't use the log {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl Logs {
    pub fn new(dir: PathBuf, bound: u64, space: Space, aside: Aside) -> Self {
        Self {
            dir,
            bound,
            space,
            aside,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            bells: Bells::default(),
            plain: Arc::default(),
            kept: Counter::default(),
        }
    }

    /// Counts bytes here from now on.
    #[must_use]
    pub fn counting(self, kept: Counter) -> Self {
        Self { kept, ..self }
    }

    fn path(&self, id: AttemptId) -> PathBuf {
        self.dir.join(id.task.to_string()).join(format!("{}.log", id.number))
    }

    fn lock(&self, id: AttemptId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        // The remainder fits.
        let lock = &self.locks[(hasher.finish() % LOCKS as u64) as usize];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plain(&self) -> MutexGuard<'_, BTreeSet<AttemptId>> {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what of `data`, which begins at `offset`, is not there yet. Answers where the sender should go on. That
    /// may be beyond the file's end once the log is full: a sender's offsets count what it sent, not what was kept.
    ///
    /// # Errors
    /// `offset` is past the log's end, or the disk's.
    pub async fn append(&self, id: AttemptId, offset: u64, data: Vec<u8>) -> Result<u64, LogError> {
        let logs = self.clone();
        // Not to be interrupted half-way when the sender goes away.
        self.blocking(id, move || logs.append_now(id, offset, &data)).await?
    }

    fn append_now(&self, id: AttemptId, offset: u64, data: &[u8]) -> io::Result<Result<u64, LogError>> {
        let _one_at_a_time = self.lock(id);
        let path = self.path(id);
        let sent = offset.saturating_add(data.len() as u64);
        let mut archived = None;
        let end = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                archived = present(Archive::open(&compressed(&path)))?;
                archived.as_ref().map_or(0, Archive::size)
            }
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
        if !self.space.has_room_for_logs() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match archived {
            // A straggler, from after the attempt's end.
            Some(mut archive) => replace(&path, |file| archive.each(|piece| file.write_all(piece)))?,
            None if end == 0 => fs::create_dir_all(path.parent().unwrap_or(&self.dir))?,
            None => {}
        }
        let room = usize::try_from(self.bound - end).unwrap_or(usize::MAX);
        let mut text = new[..new.len().min(room)].to_vec();
        if new.len() > room {
            text.extend_from_slice(format!("\n[log cut here: only {} bytes are kept]\n", self.bound).as_bytes());
        }
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path)?;
        self.plain().insert(id);
        file.write_all(&text)?;
        self.kept.inc_by(text.len() as u64);
        self.bells.ring(&id, end + text.len() as u64);
        Ok(Ok(sent))
    }

    /// From `offset` on, up to `limit` bytes and fewer as is convenient; empty only at or past the end.
    ///
    /// # Errors
    /// The disk's.
    pub async fn read(&self, id: AttemptId, offset: u64, limit: u64) -> Result<Vec<u8>, LogError> {
        let path = self.path(id);
        let read = move || {
            let Some(mut file) = present(File::open(&path))? else {
                // Compressed, or there is none. The compressed file is there before the plain one goes.
                let archive = present(Archive::open(&compressed(&path)))?;
                return archive.map_or(Ok(Vec::new()), |mut archive| archive.read(offset, limit));
            };
            // Beyond the end is no error, however far.
            if offset > file.metadata()?.len() {
                return Ok(Vec::new());
            }
            let mut data = Vec::new();
            file.seek(SeekFrom::Start(offset))?;
            file.take(limit).read_to_end(&mut data)?;
            Ok(data)
        };
        self.blocking(id, read).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        id: AttemptId,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let done = self.aside.run(work).await;
        let path = self.path(id);
        done.unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|error| LogError::Io { path, error })
    }

    /// Hears of bytes appended from now on.
    pub fn listen(&self, id: AttemptId) -> Listener<AttemptId> {
        self.bells.listen(id)
    }
}

/// The compressed form of the log at `plain`.
fn compressed(plain: &Path) -> PathBuf {
    plain.with_extension("log.gz")
}

/// Puts a file at `path` that `fill` writes: all of it, durably, or nothing.
fn replace<T>(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let tmp = path.with_added_extension("tmp");
    let write = || {
        let mut file = File::create(&tmp)?;
        let filled = fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&tmp, path)?;
        path.parent().map_or(Ok(()), sync_folder)?;
        Ok(filled)
    };
    write().inspect_err(|_| drop(fs::remove_file(&tmp)))
}

/// A log as found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: AttemptId,
    /// Where its plain form is, while it has one.
    pub plain: PathBuf,
}

impl Found {
    /// Reads all of it; answers its size.
    ///
    /// # Errors
    /// The disk's, or the file is damaged.
    pub fn verify(&self) -> io::Result<u64> {
        if let Some(mut plain) = present(File::open(&self.plain))? {
            return io::copy(&mut plain, &mut io::sink());
        }
        let mut archive = Archive::open(&compressed(&self.plain))?;
        archive.each(|_| Ok(()))?;
        Ok(archive.size())
    }

    /// Copies it into `folder`, durably. What is compressed never changes, so it may share its bytes.
    ///
    /// # Errors
    /// The disk's.
    pub fn copy_to(&self, folder: &Path) -> io::Result<()> {
        let to = folder.join(format!("{}.log", self.id.number));
        match present(File::open(&self.plain))? {
            Some(mut plain) => {
                let mut file = File::create(&to)?;
                io::copy(&mut plain, &mut file)?;
                file.sync_all()
            }
            None => crate::disk::link_or_copy(&compressed(&self.plain), &compressed(&to)),
        }
    }
}

/// The tasks that have a folder in the folder of logs.
///
/// # Errors
/// The disk's.
pub fn tasks(dir: &Path) -> io::Result<Vec<TaskId>> {
    let Some(entries) = present(fs::read_dir(dir))? else {
        return Ok(Vec::new());
    };
    let named = |entry: io::Result<fs::DirEntry>| {
        let name = entry.map(|entry| entry.file_name());
        name.map(|name| name.to_str().and_then(|name| name.parse().ok()))
            .transpose()
    };
    entries.filter_map(named).collect()
}

/// A task's logs, in order.
///
/// # Errors
/// The disk's.
pub fn of_task(dir: &Path, task: TaskId) -> io::Result<Vec<Found>> {
    let folder = folder(dir, task);
    let Some(entries) = present(fs::read_dir(&folder))? else {
        return Ok(Vec::new());
    };
    let mut numbers = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let number: Option<u32> = name.to_str().and_then(|name| {
            let stem = name.strip_suffix(".log").or_else(|| name.strip_suffix(".log.gz"));
            stem?.parse().ok()
        });
        numbers.extend(number);
    }
    let found = |number| Found {
        id: AttemptId { task, number },
        plain: folder.join(format!("{number}.log")),
    };
    Ok(numbers.into_iter().map(found).collect())
}

/// The folder of a task's logs.
pub fn folder(dir: &Path, task: TaskId) -> PathBuf {
    dir.join(task.to_string())
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
        let logs = Logs::new(folder.path().to_owned(), 1000, Space::default(), Aside::Threads);
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
        let logs = Logs::new(folder.path().to_owned(), 10, Space::default(), Aside::Threads);
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
        let logs = Logs::new(folder.path().to_owned(), 1 << 20, Space::default(), Aside::Threads);
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

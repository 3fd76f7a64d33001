//! Compresses the logs of attempts that have ended, beside everything else: appends and readers of a log that is being
//! compressed see the plain file until the compressed one is durable in its place.

use std::fs::{self, File};
use std::io::{self, Read};
use std::time::Duration;

use klp_livepatch::task::AttemptId;
use tokio_util::sync::CancellationToken;

use super::{Logs, archive, compressed, of_task, replace, tasks};
use crate::disk::present;
use crate::lifecycle::AttemptState;
use crate::store::{self, Store, StoreError};

/// Compresses what can be, again and again, until the coordinator stops.
pub async fn keep_compact(logs: Logs, store: Store, every: Duration, stop: CancellationToken) {
    let left = logs.clone();
    let found = logs.aside.run(move || left.find_plain()).await;
    if let Err(error) = found.unwrap_or_else(|e| Err(io::Error::other(e))) {
        tracing::warn!(%error, "can't list the logs left from before; they stay uncompressed");
    }
    while !stop.is_cancelled() {
        if let Err(error) = sweep(&logs, &store, &stop).await {
            tracing::warn!(error, "can't compress logs now; will try again");
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn sweep(logs: &Logs, store: &Store, stop: &CancellationToken) -> Result<(), String> {
    let plain: Vec<AttemptId> = logs.plain().iter().copied().collect();
    let ended = store.read(move |db| {
        let mut ended = Vec::new();
        for id in plain {
            let attempt = store::attempt(db, id.task, id.number)?;
            if attempt.is_none_or(|a| a.state != AttemptState::Leased) {
                ended.push(id);
            }
        }
        Ok::<_, StoreError>(ended)
    });
    for id in ended.await.map_err(|e| e.to_string())? {
        if stop.is_cancelled() {
            break;
        }
        let of = logs.clone();
        let compacted = logs.aside.run(move || of.compact(id)).await;
        compacted
            .unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|error| format!("the log of attempt {id}: {error}"))?;
    }
    Ok(())
}

impl Logs {
    /// Takes note of the plain files that an earlier process left.
    fn find_plain(&self) -> io::Result<()> {
        for task in tasks(&self.dir)? {
            let found = of_task(&self.dir, task)?;
            let plain = found.into_iter().filter(|log| log.plain.exists()).map(|log| log.id);
            self.plain().extend(plain);
        }
        Ok(())
    }

    /// Compresses one log, unless it grows meanwhile; then another sweep will.
    pub(super) fn compact(&self, id: AttemptId) -> io::Result<()> {
        let path = self.path(id);
        let Some(text) = present(File::open(&path))? else {
            self.plain().remove(&id);
            return Ok(());
        };
        let size = text.metadata()?.len();
        replace(&compressed(&path), |file| archive::write(text.take(size), file))?;
        // From here on both are there, and until the plain one goes it counts.
        let _no_appends = self.lock(id);
        if fs::metadata(&path)?.len() == size {
            fs::remove_file(&path)?;
            self.plain().remove(&id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use klp_livepatch::task::TaskId;
    use uuid::Uuid;

    use super::*;
    use crate::aside::Aside;
    use crate::space::Space;

    const ID: AttemptId = AttemptId {
        task: TaskId(Uuid::from_u128(7)),
        number: 1,
    };

    async fn logs_with(dir: &std::path::Path, text: &[u8]) -> Logs {
        let logs = Logs::new(dir.to_owned(), 1 << 20, Space::default(), Aside::Threads);
        logs.append(ID, 0, text.to_vec()).await.unwrap();
        logs
    }

    async fn text(logs: &Logs) -> Vec<u8> {
        let mut text = Vec::new();
        loop {
            let piece = logs.read(ID, text.len() as u64, 1000).await.unwrap();
            if piece.is_empty() {
                return text;
            }
            text.extend(piece);
        }
    }

    #[tokio::test]
    async fn a_compressed_log_reads_the_same_and_takes_stragglers() {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let logs = logs_with(folder.path(), &all[..150_000]).await;
        logs.compact(ID).unwrap();
        assert!(!logs.path(ID).exists());
        assert!(compressed(&logs.path(ID)).metadata().unwrap().len() < 50_000);
        assert!(text(&logs).await == all[..150_000]);
        // What is there is answered from the compressed form.
        assert_eq!(
            logs.append(ID, 100_000, all[100_000..150_000].to_vec()).await.unwrap(),
            150_000
        );
        assert!(!logs.path(ID).exists());
        assert_eq!(
            logs.append(ID, 100_000, all[100_000..].to_vec()).await.unwrap(),
            200_000
        );
        assert!(text(&logs).await == all);
        logs.compact(ID).unwrap();
        assert!(!logs.path(ID).exists() && text(&logs).await == all);
    }

    #[tokio::test]
    async fn a_crash_between_any_two_steps_leaves_the_log_readable() {
        let all = b"a line of the log\n".repeat(5_000);
        let folder = tempfile::tempdir().unwrap();
        let logs = logs_with(folder.path(), &all).await;
        let (plain, packed) = (logs.path(ID), compressed(&logs.path(ID)));
        let tmp = packed.with_added_extension("tmp");
        // While the temporary file is written.
        fs::write(&tmp, b"half").unwrap();
        assert!(text(&logs).await == all);
        // After its rename, before the plain file goes; the plain one counts, though it has grown.
        logs.compact(ID).unwrap();
        fs::write(&plain, [&all[..], b"more\n"].concat()).unwrap();
        assert!(text(&logs).await.ends_with(b"more\n"));
        // A new process finds the plain file and goes on.
        let logs = Logs::new(folder.path().to_owned(), 1 << 20, Space::default(), Aside::Threads);
        logs.find_plain().unwrap();
        assert_eq!(logs.plain().iter().copied().collect::<Vec<_>>(), [ID]);
        logs.compact(ID).unwrap();
        assert!(!plain.exists() && packed.exists() && !tmp.exists());
        assert!(text(&logs).await.ends_with(b"more\n"));
        assert!(logs.plain().is_empty());
    }

    #[tokio::test]
    async fn lines_that_come_while_it_is_compressed_are_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let logs = logs_with(folder.path(), b"begun\n").await;
        let done = CancellationToken::new();
        // Ends the compressing if this test fails, too.
        let stop = done.clone().drop_guard();
        let compressing = tokio::task::spawn_blocking({
            let (logs, done) = (logs.clone(), done.clone());
            move || {
                while !done.is_cancelled() {
                    logs.compact(ID).unwrap();
                }
            }
        });
        let mut all = b"begun\n".to_vec();
        for n in 0..500 {
            let line = format!("line {n}\n").into_bytes();
            let end = logs.append(ID, all.len() as u64, line.clone()).await.unwrap();
            all.extend(line);
            assert_eq!(end, all.len() as u64);
        }
        drop(stop);
        compressing.await.unwrap();
        assert!(text(&logs).await == all);
    }
}

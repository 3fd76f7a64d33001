//! An attempt's log on its way to the coordinator.
//!
//! Lines are kept in memory, up to the size the coordinator keeps, and sent by offset: what a broken connection
//! swallowed is sent again, and arrives once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klp_livepatch::task::AttemptId;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use klp_proto::v1::{AppendLogRequest, AppendLogResponse};
use klp_proto::{MAX_CHUNK, MAX_LOG};
use tokio::sync::Notify;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long written lines are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(1);

/// A cheap handle that writes to one attempt's log.
#[derive(Clone, Default)]
pub struct AttemptLog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    written: Notify,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Bytes that did not fit.
    dropped: u64,
    closed: bool,
}

/// Room kept for the worker's own lines, and within that for the note that says how much was dropped.
const OWN_ROOM: usize = 64 << 10;
const NOTE_ROOM: usize = 200;

impl Buffer {
    fn fits(&self, line: &str, room: usize) -> bool {
        !self.closed && self.bytes.len() + line.len() + 1 + room <= MAX_LOG as usize
    }
}

impl AttemptLog {
    /// Adds a line of a tool's. The first that does not fit, and all after it, are counted and dropped.
    pub fn line(&self, line: &str) {
        let mut buffer = self.buffer();
        if buffer.dropped > 0 || !buffer.fits(line, OWN_ROOM) {
            buffer.dropped += line.len() as u64 + 1;
            return;
        }
        self.add(buffer, line);
    }

    /// Adds a line of the worker's own, at most 4,000 characters of it; there is always room for the last ones.
    pub fn note(&self, text: &str) {
        let end = text.char_indices().nth(4000).map_or(text.len(), |(end, _)| end);
        let line = format!("== {}", &text[..end]);
        let buffer = self.buffer();
        if buffer.fits(&line, NOTE_ROOM) {
            self.add(buffer, &line);
        }
    }

    fn add(&self, mut buffer: MutexGuard<'_, Buffer>, line: &str) {
        buffer.bytes.extend_from_slice(line.as_bytes());
        buffer.bytes.push(b'\n');
        drop(buffer);
        self.shared.written.notify_one();
    }

    /// Ends the log. [`AttemptLog::send`] returns once all of it has arrived.
    pub fn close(&self) {
        let mut buffer = self.buffer();
        if !buffer.closed && buffer.dropped > 0 {
            let note = format!("[log limit reached: {} further bytes were dropped]\n", buffer.dropped);
            buffer.bytes.extend_from_slice(note.as_bytes());
        }
        buffer.closed = true;
        drop(buffer);
        self.shared.written.notify_one();
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        // The buffer is consistent after every statement, so a panic elsewhere does not spoil it.
        self.shared.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the log as it grows, until it is closed and all of it has arrived, or the coordinator wants no more of it.
    pub async fn send(&self, attempt: AttemptId, mut client: WorkerServiceClient<Channel>) {
        let mut offset = 0;
        loop {
            let (chunk, closed) = {
                let buffer = self.buffer();
                let end = buffer.bytes.len().min(offset + MAX_CHUNK);
                (buffer.bytes[offset.min(end)..end].to_vec(), buffer.closed)
            };
            if chunk.is_empty() {
                if closed {
                    return;
                }
                self.shared.written.notified().await;
                tokio::time::sleep(GATHER).await;
                continue;
            }
            let request = AppendLogRequest {
                attempt: Some(attempt.into()),
                offset: offset as u64,
                data: chunk,
            };
            match client.append_log(request).await.map(tonic::Response::into_inner) {
                Ok(AppendLogResponse { next_offset }) if next_offset as usize > offset => offset = next_offset as usize,
                Ok(_) => return,
                Err(status) if is_final(&status) => {
                    tracing::warn!(%attempt, %status, "the coordinator does not take this log any further");
                    return;
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

/// Whether sending the same again can't help.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound | Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_with_a_note() {
        let log = AttemptLog::default();
        let line = "x".repeat(1023);
        for _ in 0..5000 {
            log.line(&line);
        }
        log.line("short");
        log.note("failed");
        log.close();
        let buffer = log.buffer();
        assert!(buffer.bytes.len() as u64 <= MAX_LOG);
        let tail = String::from_utf8_lossy(&buffer.bytes[buffer.bytes.len() - 100..]).into_owned();
        assert!(tail.contains("x\n== failed\n[log limit reached: "), "{tail}");
        assert!(tail.ends_with("further bytes were dropped]\n"), "{tail}");
    }
}

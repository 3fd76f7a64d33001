//! An attempt's log on its way to the coordinator.
//!
//! Lines are kept in memory and sent by offset: what a broken connection swallowed is sent again, and arrives once. Of a log
//! that is too long its head is sent as it grows, and its tail when it has ended, so that nothing is sent in vain and both
//! how it began and how it ended can be read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klp_livepatch::task::AttemptId;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use klp_proto::v1::{AppendLogRequest, AppendLogResponse};
use klp_proto::{MAX_CHUNK, MAX_LOG};
use klp_telemetry::{TraceParent, grpc};
use tokio::sync::Notify;
use tonic::{Code, Status};

use crate::line::Line;

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
    closed: Notify,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// The newest lines after the head is full.
    tail: VecDeque<String>,
    tail_bytes: usize,
    /// Bytes between head and tail that are not kept.
    dropped: u64,
    closed: bool,
}

/// What is kept of a log's beginning, and of its end, in bytes.
const HEAD: usize = MAX_LOG as usize / 2;
/// Less by the note that says how much is left out.
const TAIL: usize = MAX_LOG as usize / 2 - 200;

impl Buffer {
    fn add(&mut self, line: &str) {
        if self.closed {
            return;
        }
        if self.tail.is_empty() && self.bytes.len() + line.len() < HEAD {
            self.bytes.extend_from_slice(line.as_bytes());
            self.bytes.push(b'\n');
            return;
        }
        // An endless line is cut at its beginning, so that others are kept beside it.
        let mut start = (line.len() + 1).saturating_sub(TAIL / 2);
        while !line.is_char_boundary(start) {
            start += 1;
        }
        self.dropped += start as u64;
        self.tail_bytes += line.len() - start + 1;
        self.tail.push_back(line[start..].to_owned());
        while self.tail_bytes > TAIL
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_bytes -= oldest.len() + 1;
            self.dropped += oldest.len() as u64 + 1;
        }
    }

    /// Puts the tail behind the head: from now on it is sent too.
    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if self.dropped > 0 {
            let note = format!("[… {} bytes are left out here: the log is too long …]\n", self.dropped);
            self.bytes.extend_from_slice(note.as_bytes());
        }
        for line in self.tail.drain(..) {
            self.bytes.extend_from_slice(line.as_bytes());
            self.bytes.push(b'\n');
        }
    }
}

impl AttemptLog {
    /// Adds a line of a tool's.
    pub fn line(&self, line: &str) {
        self.buffer().add(line);
        self.shared.written.notify_one();
    }

    /// Adds a line of the worker's own, at most 4,000 characters of it.
    pub fn note(&self, text: &str) {
        let end = text.char_indices().nth(4000).map_or(text.len(), |(end, _)| end);
        self.line(&format!("== {}", &text[..end]));
    }

    /// Ends the log. [`AttemptLog::send`] returns once all of it has arrived.
    pub fn close(&self) {
        self.buffer().close();
        self.shared.closed.notify_one();
        self.shared.written.notify_one();
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        // The buffer is consistent after every statement, so a panic elsewhere does not spoil it.
        self.shared.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the log as it grows, until it is closed and all of it has arrived, or the coordinator wants no more of it.
    pub async fn send(&self, attempt: AttemptId, mut client: WorkerServiceClient<Line>, parent: Option<TraceParent>) {
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
                // What is written last is not held back.
                let _ = tokio::time::timeout(GATHER, self.shared.closed.notified()).await;
                continue;
            }
            let request = AppendLogRequest {
                attempt: Some(attempt.into()),
                offset: offset as u64,
                data: chunk,
            };
            match client
                .append_log(grpc::request(request, parent))
                .await
                .map(tonic::Response::into_inner)
            {
                Ok(AppendLogResponse { next_offset }) if next_offset as usize > offset => offset = next_offset as usize,
                Ok(_) => return,
                // It has less than it had: its machine lost power before that was on its disk. What it has is skipped.
                Err(status) if status.code() == Code::OutOfRange && offset > 0 => offset = 0,
                Err(status) if is_final(&status) => {
                    tracing::warn!(%status, "the coordinator does not take this log any further");
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

    fn closed(lines: impl Iterator<Item = String>) -> String {
        let log = AttemptLog::default();
        lines.for_each(|line| log.line(&line));
        log.note("failed");
        log.close();
        log.line("too late");
        String::from_utf8(log.buffer().bytes.clone()).unwrap()
    }

    #[test]
    fn a_log_that_fits_is_kept_whole() {
        let text = closed((0..1000).map(|n| n.to_string()));
        assert!(text.starts_with("0\n1\n") && text.ends_with("999\n== failed\n"));
    }

    #[test]
    fn of_a_flood_head_and_tail_are_kept_and_what_is_left_out_is_counted() {
        let line = |n| format!("{n:010} {}", "x".repeat(1012));
        let text = closed((0..100_000).map(line));
        assert!(text.len() as u64 <= MAX_LOG, "{}", text.len());
        assert!(text.starts_with("0000000000 x") && text.ends_with("\n== failed\n"));
        assert!(text.contains("\n0000099999 x"));
        let (before, note) = text.split_once("[… ").unwrap();
        let (dropped, after) = note
            .split_once(" bytes are left out here: the log is too long …]\n")
            .unwrap();
        let kept = before.len() + after.len();
        let dropped: usize = dropped.parse().unwrap();
        assert_eq!(kept + dropped, 100_000 * 1024 + "== failed\n".len());
        assert!(kept > MAX_LOG as usize - 4096, "{kept}");
    }

    #[test]
    fn one_endless_line_is_cut_too() {
        let text = closed(std::iter::once("é".repeat(MAX_LOG as usize)));
        assert!(text.len() as u64 <= MAX_LOG);
        assert!(text.ends_with("é\n== failed\n"));
    }
}

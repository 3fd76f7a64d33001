//! What an extraction's own process did when, as spans of the livepatch's trace. The process reads hostile input, so it has
//! no connection to a collector nor what that takes: it leaves a file, and the worker tells of what is in it.

use std::env;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use klp_telemetry::{Past, SpanKind, TraceParent, current};
use serde::{Deserialize, Serialize};

use crate::isolation::Room;

/// Beside the answer.
const FILE: &str = "trace.json";

/// The most that is read of the file, in bytes, and the most steps that are told.
const MOST: u64 = 64 << 10;
const MOST_STEPS: usize = 32;

/// What the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    ReadSymbols,
    ExtractAndCompile,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::ReadSymbols => "read symbols",
            Self::ExtractAndCompile => "extract and compile",
        }
    }
}

/// What was done, with its times in microseconds of the epoch.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    step: Step,
    start: u64,
    end: u64,
}

/// The process's side: keeps what was done when.
#[derive(Debug, Serialize, Deserialize)]
pub struct Steps {
    /// The process's span, as its environment names it.
    traceparent: String,
    done: Vec<Done>,
}

impl Steps {
    pub fn begin() -> Self {
        Self {
            traceparent: env::var(TraceParent::VARIABLE).unwrap_or_default(),
            done: Vec::new(),
        }
    }

    /// Does a step.
    pub fn run<T>(&mut self, step: Step, work: impl FnOnce() -> T) -> T {
        let start = now();
        let result = work();
        let end = now();
        self.done.push(Done { step, start, end });
        result
    }

    /// Leaves what was done beside the answer. That nobody learns of it is no reason to fail.
    pub fn leave(&self, folder: &Path) {
        if self.traceparent.parse::<TraceParent>().is_ok()
            && let Ok(text) = serde_json::to_vec(self)
        {
            let _ = std::fs::write(folder.join(FILE), text);
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The worker's side: tells what a process has left, if it is of this trace. `from` is when the process was started; no step
/// is told to lie outside its life.
pub fn tell(room: &Room, from: SystemTime) {
    let Some(here) = current() else { return };
    let Some(Steps { traceparent, done }) = read(room) else {
        return;
    };
    let Ok(parent) = traceparent.parse::<TraceParent>() else {
        return;
    };
    if parent.livepatch() != here.livepatch() {
        return;
    }
    let until = SystemTime::now();
    for Done { step, start, end } in done.into_iter().take(MOST_STEPS) {
        let at = |micros| UNIX_EPOCH.checked_add(Duration::from_micros(micros));
        let (Some(start), Some(end)) = (at(start), at(end)) else {
            continue;
        };
        let start = start.clamp(from, until.max(from));
        Past {
            name: step.name(),
            kind: SpanKind::Internal,
            parent,
            itself: None,
            start,
            end: end.clamp(start, until.max(start)),
            attributes: Vec::new(),
        }
        .tell();
    }
}

/// What is left there; it is not there for the next one.
fn read(room: &Room) -> Option<Steps> {
    let path = room.path().join(FILE);
    let text = room.read(&path, MOST).ok()?;
    let _ = std::fs::remove_file(path);
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_left_only_where_a_trace_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut steps = Steps {
            traceparent: "00-nonsense".to_owned(),
            done: Vec::new(),
        };
        assert_eq!(steps.run(Step::ReadSymbols, || 7), 7);
        let room = Room::at(dir.path().to_owned()).unwrap();
        steps.leave(room.path());
        assert!(read(&room).is_none());
        steps.traceparent = "00-11111111111111111111111111111111-2222222222222222-01".to_owned();
        steps.leave(room.path());
        let found = read(&room).unwrap();
        assert_eq!(found.done[0].step, Step::ReadSymbols);
        assert!(found.done[0].start <= found.done[0].end);
        assert!(read(&room).is_none(), "what was read is gone");
    }
}

//! Workers, for machines and in words.

use serde::Serialize;
use utoipa::ToSchema;

use super::words::{ago, duration};
use super::{kind_word, text, time};
use crate::v1;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Worker {
    pub name: String,
    /// As `klp-farm workers` says it.
    pub state: String,
    pub connected: bool,
    pub last_seen_ms: i64,
    pub registered_ms: i64,
    pub slots: u32,
    pub slots_busy: u32,
    pub prefetched: u32,
    /// Bytes; absent: it did not say, and is not limited.
    pub memory: Option<u64>,
    pub memory_busy: u64,
    pub draining: bool,
    pub drained_ms: Option<i64>,
    pub drain_reason: Option<String>,
    pub quarantined_until_ms: Option<i64>,
    pub quarantine_reason: Option<String>,
    pub replaced: u32,
    pub version: String,
    /// How that compares with the coordinator's: `same`, `older`, `newer`, `too_old`, `too_new` or `unknown`.
    pub skew: &'static str,
    /// The version of the session's protocol that it and the coordinator speak; absent: it has no session.
    pub protocol: Option<u32>,
    pub trees: Vec<Platform>,
    pub tools: Vec<Tool>,
    pub unready: Vec<Unready>,
    /// What its tools are kept from; empty: it did not say.
    pub isolation: Vec<Fence>,
    /// What it works at now, the oldest first.
    pub running: Vec<Running>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Platform {
    pub codestream: String,
    pub arch: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Tool {
    pub backend: String,
    pub version: String,
}

/// A tree or a tool that is there and can't be used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Unready {
    /// As in `15.6u1/x86_64`, or a backend's name.
    pub what: String,
    pub reason: String,
}

/// One kind of confinement of a worker's tools.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Fence {
    pub name: String,
    /// Why it is not there; absent: it is.
    pub missing: Option<String>,
}

/// An attempt that a worker holds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Running {
    pub livepatch: String,
    pub kind: &'static str,
    pub codestream: String,
    pub arch: String,
    pub since_ms: i64,
    pub progress: Option<String>,
}

impl Worker {
    /// The worker as it is at this time.
    pub fn at(w: v1::Worker, now_ms: i64) -> Self {
        let tree = |p: v1::Platform| Platform {
            codestream: p.codestream,
            arch: p.arch,
        };
        let tool = |t: v1::Tool| Tool {
            backend: t.backend,
            version: t.version,
        };
        Worker {
            state: worker_state(&w, now_ms),
            skew: skew_word(w.skew()),
            protocol: Some(w.protocol).filter(|protocol| *protocol > 0),
            name: w.name,
            connected: w.connected,
            last_seen_ms: w.last_seen_ms,
            registered_ms: w.registered_ms,
            slots: w.slots,
            slots_busy: w.slots_busy,
            prefetched: w.prefetched,
            memory: Some(w.memory).filter(|memory| *memory > 0),
            memory_busy: w.memory_busy,
            draining: w.draining,
            drained_ms: time(w.drained_ms),
            drain_reason: text(w.drain_reason),
            quarantined_until_ms: time(w.quarantined_until_ms),
            quarantine_reason: text(w.quarantine_reason),
            replaced: w.replaced,
            version: w.version,
            trees: w.trees.into_iter().map(tree).collect(),
            tools: w.tools.into_iter().map(tool).collect(),
            unready: w.unready.into_iter().map(Unready::from).collect(),
            isolation: w.isolation.into_iter().map(Fence::from).collect(),
            running: w.running.into_iter().map(Running::from).collect(),
        }
    }
}

impl From<v1::Fence> for Fence {
    fn from(fence: v1::Fence) -> Self {
        Fence {
            name: fence.name,
            missing: text(fence.missing),
        }
    }
}

impl From<v1::Running> for Running {
    fn from(running: v1::Running) -> Self {
        let kind = kind_word(running.kind());
        let platform = running.platform.unwrap_or_default();
        Running {
            livepatch: running.livepatch,
            kind,
            codestream: platform.codestream,
            arch: platform.arch,
            since_ms: running.since_ms,
            progress: text(running.progress),
        }
    }
}

impl Running {
    /// In words, as in `extract 15.6u1/x86_64 of bsc1 for 4.2 s: compiling`.
    pub fn words(&self, now_ms: i64) -> String {
        let Running {
            livepatch,
            kind,
            codestream,
            arch,
            ..
        } = self;
        let time = duration((now_ms - self.since_ms).max(0));
        let doing = self.progress.iter().map(|progress| format!(": {progress}"));
        format!("{kind} {codestream}/{arch} of {livepatch} for {time}") + &doing.collect::<String>()
    }
}

impl From<v1::Unready> for Unready {
    fn from(unready: v1::Unready) -> Self {
        use v1::unready::What;
        let what = match unready.what {
            Some(What::Tree(tree)) => format!("{}/{}", tree.codestream, tree.arch),
            Some(What::Backend(backend)) => backend,
            None => String::new(),
        };
        Unready {
            what,
            reason: unready.reason,
        }
    }
}

/// What a worker's tools are kept from, in words; empty: it did not say.
pub fn isolation(fences: &[Fence]) -> String {
    let there = fences.iter().filter(|fence| fence.missing.is_none());
    let there: Vec<&str> = there.map(|fence| fence.name.as_str()).collect();
    match (fences.is_empty(), there.is_empty()) {
        (true, _) => String::new(),
        (false, true) => "none".to_owned(),
        (false, false) => there.join(" "),
    }
}

/// How a version compares with the coordinator's, in one word.
pub fn skew_word(skew: v1::Skew) -> &'static str {
    match skew {
        v1::Skew::Unspecified => "unknown",
        v1::Skew::Same => "same",
        v1::Skew::Older => "older",
        v1::Skew::Newer => "newer",
        v1::Skew::TooOld => "too_old",
        v1::Skew::TooNew => "too_new",
    }
}

/// What there is to say about a worker's version beside the coordinator's, from that word; `None`: nothing.
pub fn skew_mark(skew: &str) -> Option<&'static str> {
    match skew {
        "older" => Some("older than the coordinator"),
        "newer" => Some("newer than the coordinator"),
        "too_old" => Some("too old for the coordinator: upgrade this worker"),
        "too_new" => Some("too new for the coordinator: upgrade the coordinator"),
        _ => None,
    }
}

/// How a worker is, in words; more than one thing may be true.
pub fn worker_state(worker: &v1::Worker, now_ms: i64) -> String {
    let mut words = Vec::new();
    words.push(match (worker.connected, worker.last_seen_ms) {
        (true, _) if worker.draining => "stopping".to_owned(),
        (true, _) => "connected".to_owned(),
        (false, 0) => "not seen since the coordinator started".to_owned(),
        (false, seen) => format!("lost {}", ago(seen, now_ms)),
    });
    if worker.drained_ms > 0 {
        let since = ago(worker.drained_ms, now_ms);
        words.push(format!("drained {since} ({})", worker.drain_reason));
    }
    if worker.quarantined_until_ms > now_ms {
        let left = duration(worker.quarantined_until_ms - now_ms);
        words.push(format!("in quarantine for {left}: {}", worker.quarantine_reason));
    }
    if worker.replaced > 1 {
        words.push(format!(
            "replaced {} times within the hour: do two workers use this name?",
            worker.replaced
        ));
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_that_are_there_are_named() {
        let fence = |name: &str, missing: &str| {
            Fence::from(v1::Fence {
                name: name.to_owned(),
                missing: missing.to_owned(),
            })
        };
        assert_eq!(isolation(&[]), "");
        assert_eq!(isolation(&[fence("files", "no mounts")]), "none");
        let some = [fence("user", ""), fence("files", "no mounts"), fence("network", "")];
        assert_eq!(isolation(&some), "user network");
    }

    #[test]
    fn a_version_other_than_the_coordinators_is_marked() {
        for skew in [v1::Skew::Older, v1::Skew::Newer, v1::Skew::TooOld, v1::Skew::TooNew] {
            assert!(skew_mark(skew_word(skew)).is_some(), "{skew:?}");
        }
        let told = Worker::at(v1::Worker::default(), 0);
        assert_eq!(
            (told.skew, skew_mark(told.skew), told.protocol),
            ("unknown", None, None)
        );
        assert_eq!(skew_mark(skew_word(v1::Skew::Same)), None);
    }

    #[test]
    fn a_worker_says_all_that_keeps_it_from_work() {
        let mut worker = v1::Worker {
            connected: true,
            ..Default::default()
        };
        let state = |worker: &v1::Worker| worker_state(worker, 100_000);
        assert_eq!(state(&worker), "connected");
        (worker.drained_ms, worker.drain_reason) = (40_000, "new disk".into());
        (worker.quarantined_until_ms, worker.quarantine_reason) = (112_000, "it failed".into());
        assert_eq!(
            state(&worker),
            "connected; drained 1 min ago (new disk); in quarantine for 12.0 s: it failed"
        );
        let gone = v1::Worker {
            last_seen_ms: 95_000,
            replaced: 3,
            ..Default::default()
        };
        assert_eq!(
            state(&gone),
            "lost 5 s ago; replaced 3 times within the hour: do two workers use this name?"
        );
    }
}

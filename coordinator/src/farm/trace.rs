//! The spans of tasks that waited for a worker: told when one has it, for nobody watches while they wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use klp_livepatch::task::AttemptId;
use klp_telemetry::{KeyValue, Past, SpanKind, TraceParent, export};

use super::mind::Mind;
use crate::ledger::Grant;
use crate::lifecycle::{Millis, State};

/// A task that is about to be leased.
pub(super) struct Waited {
    grant: Grant,
    since: Millis,
}

/// Since when the tasks have waited that these grants are about. Nothing, if nobody is told of it.
pub(super) fn waited(mind: &Mind, grants: &[Grant]) -> Vec<Waited> {
    if !export::is_on() {
        return Vec::new();
    }
    let waited = grants.iter().filter_map(|grant| {
        let task = mind.tasks.get(&grant.task)?;
        matches!(task.status.state, State::Waiting { .. }).then(|| Waited {
            grant: grant.clone(),
            since: task.ready_since(),
        })
    });
    waited.collect()
}

/// Tells of those that were leased.
pub(super) fn leased(mind: &Mind, waited: Vec<Waited>, now: Millis) {
    for Waited { grant, since } in waited {
        let Some(task) = mind.tasks.get(&grant.task) else {
            continue;
        };
        match &task.status.state {
            State::Leased(lease) if lease.holder == grant.to => {}
            _ => continue,
        }
        let attempt = AttemptId {
            task: task.id,
            number: task.status.attempt,
        };
        let (key, livepatch) = (&task.key, task.livepatch);
        Past {
            name: "task",
            kind: SpanKind::Producer,
            parent: TraceParent::of_livepatch(livepatch),
            itself: Some(TraceParent::of_attempt(livepatch, attempt)),
            start: time(since.min(now)),
            end: time(now),
            attributes: vec![
                KeyValue::new("klp.livepatch", livepatch.to_string()),
                KeyValue::new("klp.task", attempt.task.to_string()),
                KeyValue::new("klp.attempt", i64::from(attempt.number)),
                KeyValue::new("klp.kind", key.kind.to_string()),
                KeyValue::new("klp.codestream", key.platform.codestream.to_string()),
                KeyValue::new("klp.arch", key.platform.arch.to_string()),
                KeyValue::new("klp.worker", grant.to.worker.to_string()),
            ],
        }
        .tell();
    }
}

fn time(ms: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())
}

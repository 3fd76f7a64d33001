//! The spans of attempts. Their fields are what log lines about an attempt carry.

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::Ending;
use klp_livepatch::task::AttemptId;
use klp_proto::convert;
use klp_proto::v1::{Assignment, Platform};
use klp_telemetry::{TraceParent, below, failed};
use tracing::Span;
use tracing::field::Empty;

use crate::outbox::Parcel;

/// The span of an attempt from the moment it is taken until its outcome is acknowledged.
pub fn attempt(worker: &WorkerName, id: AttemptId, assignment: &Assignment, parent: Option<TraceParent>) -> Span {
    let Platform { codestream, arch } = assignment.platform.clone().unwrap_or_default();
    let span = tracing::info_span!(
        "attempt",
        otel.kind = "consumer",
        klp.livepatch = parent.map(|parent| display(parent.livepatch())),
        klp.name = assignment.livepatch,
        klp.task = %id.task,
        klp.attempt = id.number,
        klp.kind = convert::task_kind(assignment.kind).ok().map(display),
        klp.codestream = codestream,
        klp.arch = arch,
        klp.worker = worker.as_str(),
        klp.outcome = Empty,
    );
    below(span, parent)
}

/// The span of an outcome that survived a restart, until it is acknowledged.
pub fn delivery(worker: &WorkerName, parcel: &Parcel) -> Span {
    let parent = parcel.parent();
    let span = tracing::info_span!(
        "delivery",
        klp.livepatch = parent.map(|parent| display(parent.livepatch())),
        klp.task = %parcel.attempt.task,
        klp.attempt = parcel.attempt.number,
        klp.worker = worker.as_str(),
    );
    below(span, parent)
}

/// Tells the current span how its attempt ended.
pub fn ended(ending: &Ending) {
    let span = Span::current();
    let outcome = match ending {
        Ending::Succeeded => "succeeded",
        Ending::HandedBack { .. } => "handed back",
        Ending::Failed(failure) => {
            failed(&span, failure.message.as_str());
            "failed"
        }
    };
    span.record("klp.outcome", outcome);
}

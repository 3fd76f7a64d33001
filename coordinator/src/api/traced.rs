//! The spans of requests that change a livepatch, as they are exported.

use klp_livepatch::task::LivepatchId;
use klp_telemetry::{TraceParent, attribute};
use tonic::{Code, Status};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

/// The span of a request about a livepatch, below the one that its sender names if that is of the same livepatch.
pub fn about(method: &'static str, livepatch: LivepatchId, parent: Option<TraceParent>) -> Span {
    let parent = parent.filter(|parent| parent.livepatch() == livepatch);
    span(method, parent.unwrap_or(TraceParent::of_livepatch(livepatch)))
}

/// The span of a request below the one that its sender names.
pub fn span(method: &'static str, parent: TraceParent) -> Span {
    let span = tracing::info_span!(
        "rpc",
        otel.name = method,
        otel.kind = "server",
        klp.livepatch = %parent.livepatch(),
        klp.name = Empty,
        klp.task = Empty,
        klp.attempt = Empty,
        klp.worker = Empty,
    );
    let span = klp_telemetry::below(span, Some(parent));
    attribute(&span, "rpc.system.name", "grpc");
    attribute(&span, "rpc.method", method);
    span
}

/// Does `work` in a span, which tells how it ended.
pub async fn within<T>(span: Span, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let done = work.instrument(span.clone()).await;
    let code = done.as_ref().err().map_or(Code::Ok, Status::code);
    attribute(&span, "rpc.response.status_code", status_code(code));
    if let Err(status) = &done {
        klp_telemetry::failed(&span, status.message());
    }
    done
}

/// A code's name in the specification of gRPC.
fn status_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

//! Carries traces over gRPC, in its metadata.

use tonic::codegen::http::{self, HeaderMap};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Request, Status};
use tracing::Span;
use tracing::field::Empty;

use crate::trace_parent::TraceParent;
use crate::{CONTEXT, span};

/// A request that is below the current span, or below `parent` where that is not exported.
pub fn request<T>(message: T, parent: Option<TraceParent>) -> Request<T> {
    let mut request = Request::new(message);
    carry(request.metadata_mut(), span::current().or(parent));
    request
}

/// Puts a parent into a request's metadata.
pub fn carry(metadata: &mut MetadataMap, parent: Option<TraceParent>) {
    let value = parent.and_then(|parent| parent.to_string().parse::<MetadataValue<Ascii>>().ok());
    if let Some(value) = value {
        metadata.insert(TraceParent::HEADER, value);
    }
}

/// The span that a request is below; one that can't be read is as good as none.
pub fn parent(metadata: &MetadataMap) -> Option<TraceParent> {
    header(metadata.as_ref())
}

/// Has every request of a client carry a parent.
#[derive(Clone, Debug)]
pub struct Carrier(pub Option<TraceParent>);

impl tonic::service::Interceptor for Carrier {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        carry(request.metadata_mut(), self.0);
        Ok(request)
    }
}

/// The span that log lines of a request that is being served take their ids from. It is not exported, since most requests
/// are somebody's look at what there is. What it is about is filled in as that becomes known.
pub fn serving(request: &http::Request<()>) -> Span {
    let span = tracing::info_span!(
        target: CONTEXT,
        "request",
        rpc.method = request.uri().path().trim_start_matches('/'),
        klp.livepatch = Empty,
        klp.name = Empty,
        klp.task = Empty,
        klp.attempt = Empty,
    );
    if let Some(parent) = header(request.headers()) {
        span.record("klp.livepatch", tracing::field::display(parent.livepatch()));
    }
    span
}

fn header(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TraceParent::HEADER)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use klp_livepatch::task::LivepatchId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_parent_arrives_as_it_was_sent() {
        let sent = TraceParent::of_livepatch(LivepatchId(Uuid::from_u128(5)));
        let request = request((), Some(sent));
        assert_eq!(parent(request.metadata()), Some(sent));
        assert_eq!(parent(Request::new(()).metadata()), None);
    }

    #[test]
    fn a_bad_parent_is_ignored() {
        let mut metadata = MetadataMap::new();
        for bad in ["", "00-00-00-00", "00-zz-zz-01", "99-1-2-3-4-5-6"] {
            metadata.insert(TraceParent::HEADER, bad.parse().unwrap());
            assert_eq!(parent(&metadata), None, "{bad}");
        }
        metadata.insert(TraceParent::HEADER, MetadataValue::try_from(&b"\xff\xfe"[..]).unwrap());
        assert_eq!(parent(&metadata), None);
    }
}

//! An OTLP collector that keeps what it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use klp_tests::serve;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty: none.
    pub parent: String,
    pub kind: i32,
    pub start: u64,
    pub end: u64,
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<(Vec<Span>, Vec<String>)>>);

pub struct Collector {
    kept: Kept,
    pub url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    pub fn start() -> Self {
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone());
        let (url, runtime) = serve(Server::builder().add_service(service));
        Self {
            kept,
            url,
            _runtime: runtime,
        }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.kept.0.lock().unwrap().0.clone()
    }

    /// What senders said to be let in.
    pub fn authorizations(&self) -> Vec<String> {
        self.kept.0.lock().unwrap().1.clone()
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let said = request
            .metadata()
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        let mut kept = self.0.lock().unwrap();
        kept.1.extend(said);
        for of in request.into_inner().resource_spans {
            let resource = attributes(&of.resource.unwrap_or_default().attributes);
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.0.extend(spans.map(|span| Span {
                service: resource.get("service.name").cloned().unwrap_or_default(),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                failed: span.status.is_some_and(|status| status.code == 2),
                attributes: attributes(&span.attributes),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |pair: &KeyValue| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        (pair.key.clone(), value.map(text).unwrap_or_default())
    };
    list.iter().map(pair).collect()
}

//! Spans that go on from another program's, and those of what nobody watched while it lasted.

use std::time::SystemTime;

use klp_livepatch::task::{AttemptId, LivepatchId};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::Span as SdkSpan;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::export;
use crate::ids::with_ids;
use crate::trace_parent::TraceParent;

/// The target of spans that give log lines their ids, and are not exported.
pub const CONTEXT: &str = "klp_telemetry::context";

/// Puts a span that has not been entered below one of another program's; without one it stays below the current one.
pub fn below(span: Span, parent: Option<TraceParent>) -> Span {
    if let Some(parent) = parent {
        // Where nothing is exported there is nothing to put it below.
        let _ = span.set_parent(parent.context());
    }
    span
}

/// The current span, if it is exported: what is asked of others is told to be below it.
pub fn current() -> Option<TraceParent> {
    match export::is_on() {
        true => TraceParent::of_context(Span::current().context().span().span_context()),
        false => None,
    }
}

/// Tells more of a span, to who looks at traces only.
pub fn attribute(span: &Span, name: &'static str, value: impl Into<Value>) {
    if export::is_on() {
        span.set_attribute(name, value);
    }
}

/// Marks a span as failed.
pub fn failed(span: &Span, why: impl Into<String>) {
    if export::is_on() {
        span.set_status(Status::error(why.into()));
    }
}

/// Tells the lines of the current span which livepatch they are about.
pub fn note_livepatch(id: LivepatchId) {
    Span::current().record("klp.livepatch", tracing::field::display(id));
}

/// Tells the lines of the current span which attempt they are about.
pub fn note_attempt(id: AttemptId) {
    let span = Span::current();
    span.record("klp.task", tracing::field::display(id.task));
    span.record("klp.attempt", id.number);
}

/// The first span of a livepatch's trace; it ends when it is dropped.
#[derive(Debug)]
pub struct Root(Option<SdkSpan>);

impl Root {
    pub fn start(name: &'static str, livepatch: LivepatchId, attributes: Vec<KeyValue>) -> Self {
        let itself = TraceParent::of_livepatch(livepatch);
        Self(export::tracer().map(|tracer| {
            let builder = SpanBuilder::from_name(name)
                .with_kind(SpanKind::Client)
                .with_attributes(attributes);
            with_ids(Some(itself), || tracer.build_with_context(builder, &Context::new()))
        }))
    }

    pub fn fail(&mut self, why: impl Into<String>) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why.into()));
        }
    }
}

/// A span that is told when it is over.
#[derive(Clone, Debug)]
pub struct Past {
    pub name: &'static str,
    pub kind: SpanKind,
    pub parent: TraceParent,
    /// Its own id, where others know it already.
    pub itself: Option<TraceParent>,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<KeyValue>,
}

impl Past {
    /// Hands it to the exporter, if there is one.
    pub fn tell(self) {
        let Some(tracer) = export::tracer() else { return };
        let builder = SpanBuilder::from_name(self.name)
            .with_kind(self.kind)
            .with_start_time(self.start)
            .with_attributes(self.attributes);
        let parent = self.parent.context();
        let mut span = with_ids(self.itself, || tracer.build_with_context(builder, &parent));
        span.end_with_timestamp(self.end);
    }
}

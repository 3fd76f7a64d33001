//! Ids of spans: random, but for those that follow from what the span is about.

use std::cell::Cell;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::TraceParent;

thread_local! {
    /// What the span that is being started on this thread is called.
    static GIVEN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        GIVEN.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        GIVEN.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// Starts a span by `start` that gets these ids.
pub(crate) fn with_ids<T>(itself: Option<TraceParent>, start: impl FnOnce() -> T) -> T {
    GIVEN.set(itself.map(|itself| itself.ids()));
    let started = start();
    GIVEN.set(None);
    started
}

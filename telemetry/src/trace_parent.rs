//! Which span a piece of work belongs to, in the form in which programs tell each other: W3C's `traceparent`.

use std::fmt;
use std::str::FromStr;

use klp_livepatch::task::{AttemptId, LivepatchId};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use uuid::Uuid;

/// A span that others are started below. Its trace is a livepatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

/// No `traceparent` of a version that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl TraceParent {
    /// The name of the header, and in capitals of the environment variable.
    pub const HEADER: &str = "traceparent";
    pub const VARIABLE: &str = "TRACEPARENT";

    /// The first span of a livepatch's trace. Its id follows from the livepatch's, so that nothing is stored and whatever
    /// comes after a restart belongs to the same trace.
    pub fn of_livepatch(livepatch: LivepatchId) -> Self {
        Self::derived(livepatch, livepatch.0.as_bytes(), 0)
    }

    /// The span of an attempt's wait for its worker, which the attempt is below.
    pub fn of_attempt(livepatch: LivepatchId, attempt: AttemptId) -> Self {
        Self::derived(livepatch, attempt.task.0.as_bytes(), attempt.number)
    }

    fn derived(livepatch: LivepatchId, of: &[u8; 16], number: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(of).update(&number.to_be_bytes());
        let mut id = [0; 8];
        hasher.finalize_xof().fill(&mut id);
        // Zero is no span's id.
        let id = u64::from_be_bytes(id).max(1);
        Self {
            trace: TraceId::from_bytes(*livepatch.0.as_bytes()),
            span: SpanId::from_bytes(id.to_be_bytes()),
            flags: TraceFlags::SAMPLED,
        }
    }

    /// The livepatch whose trace it is.
    pub fn livepatch(&self) -> LivepatchId {
        LivepatchId(Uuid::from_bytes(self.trace.to_bytes()))
    }

    pub(crate) fn of_context(span: &SpanContext) -> Option<Self> {
        span.is_valid().then(|| Self {
            trace: span.trace_id(),
            span: span.span_id(),
            flags: span.trace_flags(),
        })
    }

    pub(crate) fn ids(&self) -> (TraceId, SpanId) {
        (self.trace, self.span)
    }

    /// As the parent of what is started next.
    pub(crate) fn context(&self) -> Context {
        let span = SpanContext::new(self.trace, self.span, self.flags, true, TraceState::NONE);
        Context::new().with_remote_span_context(span)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags.to_u8())
    }
}

impl FromStr for TraceParent {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // The library takes ids that are too short.
        let places = [2, 35, 52].map(|at| text.as_bytes().get(at));
        if places != [Some(&b'-'); 3] || text.len() < 55 {
            return Err(Malformed);
        }
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Only(text));
        Self::of_context(context.span().span_context()).ok_or(Malformed)
    }
}

/// A carrier of one value, as the propagator reads it.
struct Only<'a>(&'a str);

impl Extractor for Only<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TraceParent::HEADER).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TraceParent::HEADER]
    }
}

#[cfg(test)]
mod tests {
    use klp_livepatch::task::TaskId;

    use super::*;

    fn livepatch(n: u128) -> LivepatchId {
        LivepatchId(Uuid::from_u128(n))
    }

    #[test]
    fn a_livepatch_s_trace_has_its_id_and_one_first_span() {
        let id = livepatch(0x0193_5f2a_0000_7000_8000_0000_0000_0001);
        let text = TraceParent::of_livepatch(id).to_string();
        assert!(text.starts_with("00-01935f2a000070008000000000000001-"), "{text}");
        assert!(text.ends_with("-01"), "{text}");
        let parsed: TraceParent = text.parse().unwrap();
        assert_eq!(parsed, TraceParent::of_livepatch(id));
        assert_eq!(parsed.livepatch(), id);
    }

    #[test]
    fn attempts_have_spans_of_their_own() {
        let tasks = [1, 2, 3].map(|n| TaskId(Uuid::from_u128(n)));
        let attempts = tasks
            .iter()
            .flat_map(|task| (1..4).map(|number| AttemptId { task: *task, number }));
        let spans: std::collections::BTreeSet<String> = attempts
            .map(|id| TraceParent::of_attempt(livepatch(9), id).to_string())
            .collect();
        assert_eq!(spans.len(), 9);
    }

    #[test]
    fn what_is_no_traceparent_is_not_taken_for_one() {
        let good = TraceParent::of_livepatch(livepatch(7)).to_string();
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            "00".to_owned(),
            good[1..].to_owned(),
            format!("{good}-more"),
            good.to_uppercase().replace("00-", "0X-"),
            "01-1-1-1-more-of-what-a-later-version-may-have-to-say-here".to_owned(),
            format!("ff{}", &good[2..]),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{}-{}-01", "1".repeat(32), &zeros[..16]),
            format!("00-{}-é-01", "1".repeat(32)),
            "-".repeat(100_000),
        ] {
            let start: String = bad.chars().take(80).collect();
            assert_eq!(bad.parse::<TraceParent>(), Err(Malformed), "{start}");
        }
    }

    #[test]
    fn who_does_not_want_a_trace_kept_is_heard() {
        let text = format!("00-{}-00f067aa0ba902b7-00", "1".repeat(32));
        assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), text);
    }
}

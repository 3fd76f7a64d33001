//! Traces and logs of all programs: one trace for each livepatch, whose id is the livepatch's, and log lines that carry
//! the same ids.
//!
//! A program calls [`init`] once, and [`Telemetry::shutdown`] before it ends. Whoever asks something of another program
//! sends a [`TraceParent`] along ([`grpc`], or the environment of a child process); whoever is asked starts its span
//! [`below`] it. Spans are exported only where an OTLP collector is configured ([`export`]); without one they are what log
//! lines take their ids from. What is logged passes [`redact::scrub`] last. The service manager, where there is one, is told by
//! [`service`].

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")
)]

pub mod export;
pub mod grpc;
mod ids;
mod init;
mod logs;
pub mod redact;
pub mod service;
mod span;
mod trace_parent;

pub use init::{Setup, Telemetry, init};
pub use logs::held::{Hold, hold};
pub use logs::{LogArgs, LogFormat};
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;
pub use span::{CONTEXT, Past, Root, attribute, below, current, failed, note_attempt, note_livepatch};
pub use trace_parent::TraceParent;

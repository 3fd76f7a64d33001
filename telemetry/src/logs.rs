//! Log lines, for people or as JSON. Both carry the fields of the spans they are written in.

pub(crate) mod held;
mod json;

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::{DefaultVisitor, JsonFields, Writer};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::{Filter, Layer};
use tracing_subscriber::registry::Registry;

use crate::redact;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; with colours on a terminal
    #[default]
    Human,
    /// An object on each line
    Json,
}

/// The option that says it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LogArgs {
    /// How log lines look, on standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "KLP_FARM_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
}

/// The layer that writes log lines to standard error. `level` is what RUST_LOG would say, where it says nothing.
pub(crate) fn layer(format: LogFormat, level: &str) -> Box<dyn Layer<Registry> + Send + Sync> {
    written(format, Stderr, has_colours())
        .with_filter(filter(level))
        .boxed()
}

fn written<W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Human => tracing_subscriber::fmt::layer()
            .fmt_fields(ForPeople)
            .with_ansi(colours)
            .with_writer(writer)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(json::Line)
            .with_writer(writer)
            .boxed(),
    }
}

/// Lines as RUST_LOG asks for them; of our own spans all, since lines take their ids from them.
fn filter(level: &str) -> impl Filter<Registry> + Send + Sync + use<> {
    let lines = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let spans = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("klp_"));
    lines.or(spans.with_max_level_hint(LevelFilter::INFO))
}

fn has_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Standard error, a line at a time, without what may be secret.
#[derive(Clone, Copy)]
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Scrubbed<held::Out>;

    fn make_writer(&'a self) -> Self::Writer {
        Scrubbed(held::Out)
    }
}

/// Takes whole lines.
struct Scrubbed<W>(W);

impl<W: Write> Write for Scrubbed<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(redact::scrub(text).as_bytes())?,
            Err(_) => self
                .0
                .write_all(redact::scrub(&String::from_utf8_lossy(line)).as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Fields as the library writes them, but for those that are for the exporter.
struct ForPeople;

impl<'writer> FormatFields<'writer> for ForPeople {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = WithoutOtel(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct WithoutOtel<'a>(DefaultVisitor<'a>);

impl Visit for WithoutOtel<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !field.name().starts_with("otel.") {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !field.name().starts_with("otel.") {
            self.0.record_debug(field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use tracing::field::Empty;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Scrubbed<Lines>;

        fn make_writer(&'a self) -> Self::Writer {
            Scrubbed(self.clone())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = Registry::default().with(written(format, lines.clone(), false));
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn in_an_attempt(log: impl FnOnce()) {
        let attempt = tracing::info_span!(
            "attempt",
            klp.livepatch = "lp",
            klp.task = Empty,
            klp.attempt = 2,
            otel.kind = "consumer"
        );
        attempt.record("klp.task", "t");
        let _attempt = attempt.entered();
        let _inner = tracing::info_span!("extract", klp.task = "t", code.file.path = "a.c").entered();
        log();
    }

    #[test]
    fn json_lines_have_their_ids_at_the_top_and_each_name_once() {
        let text = logged(LogFormat::Json, || {
            in_an_attempt(|| tracing::warn!(klp.attempt = 2, count = u64::MAX, "hello \"{}\"", "\n"));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, value) in [
            ("level", "WARN".into()),
            ("count", u64::MAX.into()),
            ("message", "hello \"\n\"".into()),
            ("klp.livepatch", "lp".into()),
            ("klp.task", "t".into()),
            ("klp.attempt", serde_json::Value::from(2)),
            ("code.file.path", "a.c".into()),
        ] {
            assert_eq!(line[name], value, "{name}: {text}");
        }
        assert!(line["timestamp"].is_string() && line["target"].is_string(), "{text}");
        assert_eq!(line.get("otel.kind"), None, "{text}");
        // A reader that knows no better takes the last of two.
        let names: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        for name in names {
            assert_eq!(text.matches(&format!("\"{name}\":")).count(), 1, "{name}: {text}");
        }
    }

    #[test]
    fn lines_for_people_have_their_ids_and_nothing_for_machines() {
        let text = logged(LogFormat::Human, || in_an_attempt(|| tracing::info!("hello")));
        assert!(
            text.contains("klp.livepatch=\"lp\" klp.attempt=2 klp.task=\"t\""),
            "{text}"
        );
        assert!(
            text.ends_with("hello\n") && !text.contains("otel") && !text.contains('\x1b'),
            "{text}"
        );
    }

    #[test]
    fn no_line_holds_a_password() {
        for format in [LogFormat::Human, LogFormat::Json] {
            let text = logged(format, || {
                let url = "http://jane:hunter2@farm:7420/";
                let _span = tracing::info_span!("to", url).entered();
                tracing::error!(url, error = format!("no route to {url}"), "{url} is down");
            });
            assert!(
                text.contains("http://***@farm:7420/") && !text.contains("hunter2"),
                "{text}"
            );
        }
    }
}

//! A log line as one JSON object: when, how grave, from where and what, then the event's fields and those of the spans
//! around it, all at the top. Of a name that occurs twice, what is innermost counts.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The fields that every line has, whatever an event or span calls its own.
const OWN: [&str; 3] = ["timestamp", "level", "target"];

pub(super) struct Line;

impl<S> FormatEvent<S, JsonFields> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // What comes from the crate `log` has its target among its fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), time.into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("target".to_owned(), metadata.target().into());
        // Before the fields, so that it is where a reader looks for it.
        line.insert("message".to_owned(), "".into());
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        merge(&mut line, spans(context));
        merge(&mut line, fields.0);
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

/// What the spans say in which the event is, the outermost first.
fn spans<S>(context: &FmtContext<'_, S, JsonFields>) -> Map<String, Value>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut all = Map::new();
    for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
        let extensions = span.extensions();
        let formatted = extensions.get::<FormattedFields<JsonFields>>();
        // A span without fields has no text.
        if let Some(Ok(fields)) = formatted.map(|text| serde_json::from_str::<Map<_, _>>(text)) {
            all.extend(fields);
        }
    }
    all
}

fn merge(line: &mut Map<String, Value>, fields: Map<String, Value>) {
    let others = |(name, _): &(String, Value)| {
        !OWN.contains(&name.as_str()) && !name.starts_with("otel.") && !name.starts_with("log.")
    };
    line.extend(fields.into_iter().filter(others));
}

struct Fields(Map<String, Value>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

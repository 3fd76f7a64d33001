//! Sets up logs and export for a program, and winds them up.

use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{CONTEXT, LogFormat, export, logs};

/// What a program wants.
pub struct Setup<'a> {
    /// What the program is called where OTEL_SERVICE_NAME does not say.
    pub service: &'static str,
    pub logs: LogFormat,
    /// What is logged where RUST_LOG does not say.
    pub level: &'a str,
    /// Where spans are sent; `None`: where the environment says, if it does.
    pub otlp_endpoint: Option<&'a str>,
}

/// To be shut down when the program ends.
#[must_use]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts logs, and export if a collector is configured; to be called within the runtime that lives as long as the
/// program. What keeps spans from being exported is logged and stops nothing.
pub fn init(setup: &Setup<'_>) -> Telemetry {
    let exporting = export::start(setup.service, setup.otlp_endpoint);
    let spans = export::tracer().map(|tracer| {
        let ours = filter_fn(|metadata| {
            metadata.is_span() && metadata.target().starts_with("klp_") && metadata.target() != CONTEXT
        });
        tracing_opentelemetry::layer()
            .with_tracer(tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
    });
    // Whoever runs parts of the program in a process of its own may have set up logs before.
    let _ = tracing_subscriber::registry()
        .with(logs::layer(setup.logs, setup.level))
        .with(spans)
        .try_init();
    match exporting {
        Ok(provider) => Telemetry(provider),
        Err(why) => {
            tracing::warn!(why, "spans are not exported; all else goes on");
            Telemetry(None)
        }
    }
}

impl Telemetry {
    /// Sends what is left, within `patience`.
    pub async fn shutdown(self, patience: Duration) {
        if let Some(provider) = self.0 {
            let finishing = move || export::finish(&provider, patience);
            // It blocks. Should it panic, spans are lost.
            let _ = tokio::task::spawn_blocking(finishing).await;
        }
    }
}

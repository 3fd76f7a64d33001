//! Exports spans by OTLP over gRPC, where a collector is configured. A collector that can't be reached costs spans and
//! nothing else: they are sent in batches by a thread of the exporter's own, and dropped when its queue is full.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use tonic::transport::Uri;

use crate::ids::Ids;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The collector takes no spans, and that was said.
static FAILING: AtomicBool = AtomicBool::new(false);

/// Whether spans are exported.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

pub(crate) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// A collector's address, as a setting names it.
///
/// # Errors
/// What is wrong with it, without the secret it may hold.
pub fn parse_endpoint(text: &str) -> Result<(), String> {
    const LIKE: &str = "give it like http://collector:4317";
    let uri: Uri = text.parse().map_err(|e| format!("is no URL: {e}; {LIKE}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) if authority.as_str().contains('@') => Err(
            "holds a user or password, which it must not; give credentials by OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
        ),
        (Some("http"), Some(_)) => Ok(()),
        (Some("https"), _) => Err(format!("asks for TLS, which is not supported yet; {LIKE}")),
        _ => Err(format!("is no URL of a collector; {LIKE}")),
    }
}

/// Starts the exporter if `endpoint` or the environment names a collector, as the SDK reads it.
///
/// # Errors
/// Why it names one and nothing can be sent there.
pub(crate) fn start(service: &'static str, endpoint: Option<&str>) -> Result<Option<SdkTracerProvider>, String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = endpoint.is_some()
        || ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
            .into_iter()
            .any(|name| set(name).is_some());
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if !named || disabled {
        return Ok(None);
    }
    let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(other) = protocol.filter(|protocol| protocol != "grpc") {
        return Err(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL is {other}; only grpc is supported"
        ));
    }
    let exporter = OtlpExporter::builder().with_tonic();
    let exporter = match endpoint {
        Some(endpoint) => exporter.with_endpoint(endpoint),
        None => exporter,
    };
    let exporter = exporter.build().map_err(|error| error.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_id_generator(Ids::default())
        .with_resource(resource(service))
        .with_batch_exporter(Outspoken(exporter))
        .build();
    // A second start would be a second `init`, which changes nothing.
    let _ = TRACER.set(provider.tracer(env!("CARGO_PKG_NAME")));
    Ok(Some(provider))
}

fn resource(service: &'static str) -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|list| list.contains("service.name="));
    let resource = Resource::builder().with_attribute(version);
    match named {
        true => resource.build(),
        false => resource.with_service_name(service).build(),
    }
}

/// Sends what is left, within `patience`.
pub(crate) fn finish(provider: &SdkTracerProvider, patience: Duration) {
    if let Err(error) = provider.shutdown_with_timeout(patience) {
        complain(&error);
    }
}

fn complain(error: &dyn std::fmt::Display) {
    if !FAILING.swap(true, Ordering::Relaxed) {
        tracing::warn!(%error, "the collector takes no spans, which are lost until it does; all else goes on");
    }
}

/// An exporter that says once that it fails, and once that it works again.
#[derive(Debug)]
struct Outspoken<E>(E);

impl<E: SpanExporter> SpanExporter for Outspoken<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.0.export(batch).await;
        match &result {
            Err(error) => complain(error),
            Ok(()) if FAILING.swap(false, Ordering::Relaxed) => tracing::info!("the collector takes spans again"),
            Ok(()) => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_address() {
        parse_endpoint("http://127.0.0.1:4317").unwrap();
        for (bad, why) in [
            ("", "is no URL"),
            ("collector:4317", "is no URL of a collector"),
            ("https://collector:4317", "TLS"),
            ("http://a:hunter2@collector", "OTEL_EXPORTER_OTLP_HEADERS"),
        ] {
            let error = parse_endpoint(bad).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}

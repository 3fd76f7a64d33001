//! The description of the JSON API, in OpenAPI 3.1: made from the handlers and the types that they answer.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi;

use super::{act, api, stream};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "klp-farm",
        description = "What dashboards ask of a klp-farm coordinator. Times are milliseconds since the Unix epoch. Answers that can be polled \
                       have an ETag; ask with If-None-Match. On a busy farm they are up to 5 seconds old, unless \
                       asked for with Cache-Control: no-cache. Errors are application/problem+json (RFC 9457)."
    ),
    paths(
        api::livepatches,
        api::livepatch,
        api::groups,
        api::attempts,
        api::findings,
        api::task,
        api::attempts_of_task,
        api::workers,
        api::queue,
        api::codestreams,
        stream::events,
        stream::changes,
        stream::log,
        stream::artifact,
        act::on_livepatch,
        act::on_worker
    )
)]
struct Api;

/// `/api/v1/openapi.json`.
pub async fn description() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(text);
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// It is made of constants: what can't be written is found by its test.
pub fn text() -> String {
    Api::openapi().to_json().unwrap_or_default()
}

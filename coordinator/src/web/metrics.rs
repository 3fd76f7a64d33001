//! `/metrics`, and the count of what is answered over HTTP.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tonic::Status;

use super::Web;
use super::answer::Refused;
use crate::metrics::{Format, Metrics};

/// All metrics, in the format that the scraper asks for.
pub async fn metrics(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Refused> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let text = web.shared.scrape.text(format).await;
    let text = text.map_err(|_| Refused(Status::internal("the metrics can't be written as text")))?;
    let said = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    Ok((said, text).into_response())
}

pub async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    metrics.http(response.status().as_u16());
    response
}

//! Answers, and errors as `application/problem+json` (RFC 9457) with the words of the gRPC status.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use klp_proto::convert::violations_of;
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;

/// Why a request was not answered.
#[derive(Debug)]
pub struct Refused(pub Status);

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

/// What went wrong, as a machine reads it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A short name of its kind, as in `not_found`.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// A sentence for people: what, where, and what to do.
    pub detail: String,
    /// Every field of the request that is not valid.
    pub violations: Vec<Violation>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Violation {
    pub field: String,
    pub message: String,
}

impl Refused {
    pub fn problem(&self) -> Problem {
        let status = &self.0;
        let (title, code) = kind(status.code());
        let violations = violations_of(status).into_iter().map(|v| Violation {
            field: v.field,
            message: v.message,
        });
        Problem {
            title,
            status: code.as_u16(),
            detail: status.message().to_owned(),
            violations: violations.collect(),
        }
    }
}

/// A gRPC code as HTTP has it, after google.rpc.Code's own table.
fn kind(code: Code) -> (&'static str, StatusCode) {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ("invalid", StatusCode::BAD_REQUEST),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => ("conflict", StatusCode::CONFLICT),
        Code::PermissionDenied => ("forbidden", StatusCode::FORBIDDEN),
        Code::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
        Code::ResourceExhausted => ("exhausted", StatusCode::TOO_MANY_REQUESTS),
        Code::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Code::DeadlineExceeded => ("too_slow", StatusCode::GATEWAY_TIMEOUT),
        Code::Unimplemented => ("not_there", StatusCode::NOT_IMPLEMENTED),
        _ => ("failed", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = self.problem();
        // Its fields are texts and numbers, so it can always be written.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(problem.status, 429 | 503) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// For what no route serves.
pub async fn not_found(uri: Uri) -> Refused {
    let path: String = uri.path().chars().take(200).collect();
    Refused(Status::not_found(format!(
        "there is nothing at {path}; the API is described at /api/v1/openapi.json"
    )))
}

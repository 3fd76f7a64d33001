//! What may be done from a page: cancel, retry, pause and resume livepatches; drain and undrain workers. Only by POST, and only
//! for whom [`super::guard`] lets through.

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form};
use klp_proto::v1;
use klp_proto::v1::fleet_service_server::FleetService;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::view;
use serde::Deserialize;
use tonic::Status;
use utoipa::ToSchema;

use super::Web;
use super::answer::{Problem, Refused};
use super::api::by_name;
use crate::api::Fleet;
use crate::auth::Caller;

/// With what a change is ordered: as a form, or as JSON.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Why, for whoever looks at it later; at most 200 characters.
    pub reason: String,
}

/// An order as it came.
pub struct Ordered(Order);

impl<S: Send + Sync> FromRequest<S> for Ordered {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let invalid = |text: String| Refused(Status::invalid_argument(text));
        if request.headers().get(header::CONTENT_TYPE).is_none() {
            return Ok(Self(Order::default()));
        }
        let order = if json {
            let order = axum::Json::<Order>::from_request(request, state).await;
            order.map(|axum::Json(order)| order).map_err(|e| invalid(e.body_text()))
        } else {
            let order = Form::<Order>::from_request(request, state).await;
            order.map(|Form(order)| order).map_err(|e| invalid(e.body_text()))
        };
        order.map(Self)
    }
}

/// Cancels, retries, pauses or resumes a livepatch; answers it as it is then.
#[utoipa::path(post, path = "/api/v1/livepatches/{name}/{action}",
    params(("name" = String, Path, description = "Its name"), ("action" = String, Path, description = "cancel, retry, pause or resume")),
    request_body = Order,
    responses((status = 200, body = view::Livepatch), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn on_livepatch(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    headers: HeaderMap,
    Ordered(order): Ordered,
) -> Result<Response, Refused> {
    let livepatch = Some(by_name(&name));
    let (service, reason) = (web.service(), order.reason);
    let changed = match action.as_str() {
        "cancel" => {
            let request = v1::CancelRequest { livepatch, reason };
            service.cancel(caller.asks(request)).await?.into_inner().livepatch
        }
        "pause" => {
            let request = v1::PauseRequest { livepatch, reason };
            service.pause(caller.asks(request)).await?.into_inner().livepatch
        }
        "resume" => {
            let request = v1::ResumeRequest { livepatch };
            service.resume(caller.asks(request)).await?.into_inner().livepatch
        }
        "retry" => {
            let request = v1::RetryRequest {
                livepatch,
                ..Default::default()
            };
            service.retry(caller.asks(request)).await?.into_inner().livepatch
        }
        other => return Err(unknown(other, "cancel, retry, pause, resume")),
    };
    let changed = view::Livepatch::from(changed.unwrap_or_default());
    Ok(done(&headers, changed, &format!("/livepatches/{name}")))
}

/// Drains or undrains a worker; answers it as it is then.
#[utoipa::path(post, path = "/api/v1/workers/{name}/{action}",
    params(("name" = String, Path, description = "Its name"), ("action" = String, Path, description = "drain or undrain")),
    request_body = Order,
    responses((status = 200, body = view::Worker), (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn on_worker(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path((worker, action)): Path<(String, String)>,
    headers: HeaderMap,
    Ordered(order): Ordered,
) -> Result<Response, Refused> {
    let fleet = Fleet(web.shared.clone());
    let reason = order.reason;
    let changed = match action.as_str() {
        "drain" => {
            let request = v1::DrainRequest { worker, reason };
            fleet.drain(caller.asks(request)).await?.into_inner().worker
        }
        "undrain" => {
            let request = v1::UndrainRequest { worker };
            fleet.undrain(caller.asks(request)).await?.into_inner().worker
        }
        other => return Err(unknown(other, "drain, undrain")),
    };
    let changed = view::Worker::at(changed.unwrap_or_default(), web.shared.clock.now());
    Ok(done(&headers, changed, "/workers"))
}

fn unknown(action: &str, known: &str) -> Refused {
    let action: String = action.chars().take(40).collect();
    Refused(Status::not_found(format!("there is no {action:?}; there are {known}")))
}

/// What was changed, for a program; the page that shows it, for a form.
fn done(headers: &HeaderMap, changed: impl serde::Serialize, page: &str) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    match accept.is_some_and(|accept| accept.contains("text/html")) {
        true => Redirect::to(page).into_response(),
        false => axum::Json(changed).into_response(),
    }
}

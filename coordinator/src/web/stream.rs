//! What goes on as long as somebody listens, or is too long to keep: events, changes, logs and artifacts.
//!
//! Events are sent as HTML's server-sent events. Their id is the cursor, so that a browser that reconnects goes on where it was.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use klp_proto::v1;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::view;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Status};
use utoipa::{IntoParams, ToSchema};

use super::Web;
use super::answer::{Problem, Refused};
use super::api::{Asked, by_name};

/// A line now and then keeps what is in between from thinking that nobody listens.
const ALIVE: Duration = Duration::from_secs(15);
/// Changes are told together that come within this time.
const TOGETHER: Duration = Duration::from_millis(400);
/// Events in one answer that is no stream.
const MAX_EVENTS: usize = 500;
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub struct EventsQuery {
    /// Events up to this number are left out.
    pub after: u64,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub struct ChangesQuery {
    /// `cursor` of a former answer. Empty: from now on.
    pub since: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub struct LogQuery {
    /// The attempt's number; 0: the newest.
    pub attempt: u32,
    /// Bytes to skip.
    pub offset: u64,
    /// As server-sent events, until the attempt ends.
    pub follow: bool,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub struct ArtifactQuery {
    /// What the file is to be called.
    pub name: String,
}

#[derive(Serialize, ToSchema)]
pub struct Changes {
    /// Where to go on.
    pub cursor: String,
    /// What changed since the cursor is not known: list what you need, then go on with the new cursor.
    pub reset: bool,
    /// Those that something has happened to since the cursor, as they are now; what changed last comes last.
    pub livepatches: Vec<view::Livepatch>,
    /// There are more: ask again at once with the new cursor.
    pub more: bool,
}

impl From<v1::ChangesResponse> for Changes {
    fn from(changes: v1::ChangesResponse) -> Self {
        Self {
            cursor: changes.cursor,
            reset: changes.reset,
            livepatches: changes.livepatches.into_iter().map(view::Livepatch::from).collect(),
            more: changes.more,
        }
    }
}

/// A piece of a log.
#[derive(Serialize, ToSchema)]
struct LogPiece {
    offset: u64,
    text: String,
}

/// The events of a livepatch after a number, at most 500; as a stream (`Accept: text/event-stream`) new ones too as they come,
/// until the livepatch has ended.
#[utoipa::path(get, path = "/api/v1/livepatches/{name}/events",
    params(("name" = String, Path, description = "Its name"), EventsQuery),
    responses((status = 200, body = [view::Event]), (status = 404, body = Problem)))]
pub async fn events(
    State(web): State<Web>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Asked(query): Asked<EventsQuery>,
) -> Result<Response, Refused> {
    let resumed = last_event_id(&headers).and_then(|id| id.parse().ok());
    let request = v1::WatchRequest {
        livepatch: Some(by_name(&name)),
        after_event: resumed.unwrap_or(query.after),
    };
    if wants_stream(&headers) {
        let permit = web.stream()?;
        let watched = web.service().watch(Request::new(request)).await?.into_inner();
        let events = watched.map(|event| match event {
            Ok(event) => {
                let number = event.number.to_string();
                let kind = if event.ended.is_some() { "ended" } else { "happened" };
                json_event(kind, &view::Event::from(event)).id(number)
            }
            Err(status) => failure(status),
        });
        return Ok(sse(events, permit));
    }
    let read = web.events(request, MAX_EVENTS).await?;
    Ok(axum::Json(read).into_response())
}

/// Which livepatches have changed since a cursor; as a stream (`Accept: text/event-stream`) whenever some have.
#[utoipa::path(get, path = "/api/v1/changes", params(ChangesQuery),
    responses((status = 200, body = Changes), (status = 400, body = Problem)))]
pub async fn changes(
    State(web): State<Web>,
    headers: HeaderMap,
    Asked(query): Asked<ChangesQuery>,
) -> Result<Response, Refused> {
    let cursor = last_event_id(&headers).map_or(query.since, str::to_owned);
    if !wants_stream(&headers) {
        let changes = web.changes(cursor).await?;
        return Ok(axum::Json(Changes::from(changes)).into_response());
    }
    let permit = web.stream()?;
    let (client, messages) = mpsc::channel(4);
    tokio::spawn(async move { tell_changes(&web, cursor, &client).await });
    Ok(sse(ReceiverStream::new(messages), permit))
}

async fn tell_changes(web: &Web, mut cursor: String, client: &mpsc::Sender<Event>) {
    let mut counted = web.shared.versions.listen();
    loop {
        counted.mark_unchanged();
        let changes = match web.changes(cursor.clone()).await {
            Ok(changes) => changes,
            Err(Refused(status)) => {
                let _ = client.send(failure(status)).await;
                return;
            }
        };
        cursor.clone_from(&changes.cursor);
        let (more, worth) = (changes.more, changes.reset || !changes.livepatches.is_empty());
        if worth {
            let event = json_event("changes", &Changes::from(changes)).id(cursor.clone());
            if client.send(event).await.is_err() {
                return;
            }
        }
        if more {
            continue;
        }
        tokio::select! {
            changed = counted.changed() => if changed.is_err() { return },
            () = client.closed() => return,
            () = web.shared.stop.cancelled() => return,
        }
        tokio::time::sleep(TOGETHER).await;
    }
}

/// The log of an attempt from an offset on, as plain text; with `follow`, pieces of it as server-sent events until the attempt
/// ends.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/log", params(("id" = String, Path, description = "The task's id"), LogQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn log(
    State(web): State<Web>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Asked(query): Asked<LogQuery>,
) -> Result<Response, Refused> {
    let resumed = last_event_id(&headers).and_then(|id| id.parse().ok());
    let request = v1::LogsRequest {
        task_id: id,
        attempt: query.attempt,
        offset: resumed.unwrap_or(query.offset),
        follow: query.follow,
    };
    let permit = web.stream()?;
    let chunks = web.service().logs(Request::new(request)).await?.into_inner();
    if !query.follow {
        let bytes = chunks.map(move |chunk| {
            let _held = &permit;
            chunk.map(|chunk| chunk.data)
        });
        let mut response = Body::from_stream(bytes).into_response();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    let pieces = chunks.map(|chunk| match chunk {
        Ok(chunk) => {
            let end = chunk.offset + chunk.data.len() as u64;
            let piece = LogPiece {
                offset: chunk.offset,
                text: String::from_utf8_lossy(&chunk.data).into_owned(),
            };
            json_event("piece", &piece).id(end.to_string())
        }
        Err(status) => failure(status),
    });
    let last = tokio_stream::once(Event::default().event("ended").data("{}"));
    Ok(sse(pieces.chain(last), permit))
}

/// The bytes of an artifact. They never change.
#[utoipa::path(get, path = "/api/v1/artifacts/{digest}",
    params(("digest" = String, Path, description = "BLAKE3, 64 lower-case hexadecimal digits"), ArtifactQuery),
    responses((status = 200, body = [u8], content_type = "application/octet-stream"), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn artifact(
    State(web): State<Web>,
    Path(digest): Path<String>,
    Asked(query): Asked<ArtifactQuery>,
) -> Result<Response, Refused> {
    let permit = web.stream()?;
    let request = v1::GetArtifactRequest { digest: digest.clone() };
    let chunks = web.service().get_artifact(Request::new(request)).await?.into_inner();
    let bytes = chunks.map(move |chunk| {
        let _held = &permit;
        chunk.map(|chunk| chunk.data)
    });
    let mut response = Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-+".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = match query.name.as_str() {
        "" => digest.chars().take(16).collect(),
        name => name.chars().take(200).map(plain).collect(),
    };
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

impl Web {
    /// The right to one more stream.
    fn stream(&self) -> Result<OwnedSemaphorePermit, Refused> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let message = "too many streams are open; poll instead, or come back";
            Refused(Status::unavailable(message))
        })
    }

    async fn changes(&self, cursor: String) -> Result<v1::ChangesResponse, Refused> {
        let request = Request::new(v1::ChangesRequest { cursor });
        Ok(self.service().changes(request).await?.into_inner())
    }

    /// The next events that are there already.
    pub async fn events(&self, request: v1::WatchRequest, limit: usize) -> Result<Vec<view::Event>, Refused> {
        let name = request.livepatch.clone();
        let events = crate::api::events_now(&self.shared, name, request.after_event, limit).await?;
        Ok(events.into_iter().map(view::Event::from).collect())
    }
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().filter(|id| !id.is_empty())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

fn json_event(kind: &str, value: &impl Serialize) -> Event {
    // The values that are sent have text keys, so they can always be written; JSON has no line ends.
    let data = serde_json::to_string(value).unwrap_or_default();
    Event::default().event(kind).data(data)
}

/// A stream's last word.
fn failure(status: Status) -> Event {
    json_event("failed", &Refused(status).problem())
}

fn sse(events: impl Stream<Item = Event> + Send + 'static, permit: OwnedSemaphorePermit) -> Response {
    let events = events.map(move |event| {
        let _held = &permit;
        Ok::<_, Infallible>(event)
    });
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(ALIVE))
        .into_response();
    // Proxies must not wait for more before they pass it on.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

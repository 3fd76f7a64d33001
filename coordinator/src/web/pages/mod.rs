//! The pages for people, rendered here, with one small script that keeps them up to date.
//!
//! [`list`] shows all livepatches, [`livepatch`] one of them with its matrix, [`cell`] one codestream on one architecture,
//! [`compare`] two sources side by side, [`fleet`] workers and queue. Templates are in `coordinator/templates`, style and script
//! in `coordinator/assets`; everything is in the program, and nothing comes from elsewhere.

pub mod assets;
mod cell;
mod compare;
mod fleet;
mod list;
mod livepatch;
mod source;
mod sources;
mod symbols;
mod timeline;

use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use klp_identity::Role;
use tonic::Status;

use super::Web;
use super::answer::Refused;
use super::login;
use super::views::{About, For, Made};
use crate::auth::Caller;

pub const HTML: &str = "text/html; charset=utf-8";

pub fn router() -> Router<Web> {
    Router::new()
        .route("/", get(list::page))
        .route("/livepatches/{name}", get(livepatch::page))
        .route("/livepatches/{name}/compare", get(compare::page))
        .route("/livepatches/{name}/{codestream}/{arch}", get(cell::page))
        .route("/workers", get(fleet::workers))
        .route("/queue", get(fleet::queue))
        .layer(middleware::from_fn(explain))
        .route("/assets/{file}", get(assets::asset))
}

/// What every page knows of whoever asks for it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    /// What whoever asks may do; `None`: only what anybody may.
    role: Option<Role>,
    /// It has logged in, and may log out.
    pub logged_in: bool,
    headers: HeaderMap,
}

impl Asked {
    fn new(uri: &axum::http::Uri, caller: Option<&Caller>, headers: HeaderMap) -> Self {
        Self {
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            role: caller.and_then(|caller| caller.role),
            logged_in: login::has_logged_in(caller, &headers),
            headers,
        }
    }

    /// Whether it may cancel, retry, pause and resume livepatches.
    pub fn may_submit(&self) -> bool {
        self.role.is_some_and(|role| role.covers(Role::Submitter))
    }

    /// Whether it may drain workers.
    pub fn may_operate(&self) -> bool {
        self.role.is_some_and(|role| role.covers(Role::Operator))
    }

    /// Which of the navigation's places this is in.
    pub fn place(&self) -> &str {
        match self.path.split('?').next().unwrap_or_default() {
            "/workers" => "workers",
            "/queue" => "queue",
            _ => "livepatches",
        }
    }
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Asked {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Refused> {
        let caller = parts.extensions.get::<Caller>();
        Ok(Self::new(&parts.uri, caller, parts.headers.clone()))
    }
}

impl Web {
    /// A page that many may look at: made once, and kept until what it shows has changed.
    async fn page<T: Template>(
        &self,
        asked: &Asked,
        make: impl AsyncFnOnce() -> Result<(About, bool, T), Refused>,
    ) -> Result<Response, Refused> {
        let key = format!("page {:?} {} {}", asked.role, asked.logged_in, asked.path);
        let make = async || {
            let (about, live, page) = make().await?;
            let body = page.render();
            let failed = |error: askama::Error| Status::internal(format!("the page can't be rendered: {error}"));
            Ok(Made {
                about,
                live,
                content_type: HTML,
                body: body.map_err(failed)?.into_bytes(),
            })
        };
        self.views.answer(For::Person, key, &asked.headers, make).await
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem {
    asked: Asked,
    status: StatusCode,
    detail: String,
}

/// Turns what a program would read of a refusal into a page.
async fn explain(asked: Asked, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"]
        .as_str()
        .unwrap_or("the coordinator's log says more")
        .to_owned();
    let page = Problem { asked, status, detail };
    let text = page.render().unwrap_or_else(|error| error.to_string());
    let mut response = (status, text).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    response
}

/// A livepatch's name, or another part of a path, as it stands in a link.
pub fn part(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Bytes as people read them.
pub fn bytes(bytes: &u64) -> String {
    crate::admin::size(*bytes)
}

/// The state a page was asked for, out of the handlers' way.
type Ask = State<Web>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_paths_stay_parts() {
        assert_eq!(part("15.6u1"), "15.6u1");
        assert_eq!(part("a/b c?d#é"), "a%2Fb%20c%3Fd%23%C3%A9");
    }
}

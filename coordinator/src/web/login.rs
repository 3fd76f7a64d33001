//! How a browser says who looks: a form takes a token once, and a cookie stands for it from then on. The token itself is kept
//! nowhere.

use askama::Template;
use axum::Form;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use klp_identity::Token;
use serde::Deserialize;
use tonic::{Code, Status};

use super::Web;
use super::answer::Refused;
use super::pages::{Asked, HTML, part};
use crate::auth::caller::Key;
use crate::auth::{Caller, Peer, SESSION_LIFE};

/// The browser keeps a cookie of this name from all but this very host, and from plain connections.
const SECURE: &str = "__Host-klp-farm";
const PLAIN: &str = "klp-farm";

fn name(tls: bool) -> &'static str {
    if tls { SECURE } else { PLAIN }
}

/// The session's id that a request comes with.
pub fn cookie(headers: &HeaderMap, tls: bool) -> Option<String> {
    let cookies = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(key, _)| *key == name(tls))
        .map(|(_, value)| value.to_owned())
}

fn set(value: &str, seconds: i64, tls: bool) -> Option<HeaderValue> {
    let secure = if tls { "; Secure" } else { "" };
    let name = name(tls);
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The login page, which leads back to where somebody wanted to go.
pub fn link(to: &Uri) -> String {
    let to = to.path_and_query().map_or("/", |to| to.as_str());
    format!("/login?next={}", part(to))
}

/// A place of our own; anything else might be another site.
fn own(next: &str) -> &str {
    let bad = |c: char| c.is_control() || c == '\\';
    match next.starts_with('/') && !next.starts_with("//") && !next.contains(bad) {
        true => next,
        false => "/",
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    next: String,
}

#[derive(Deserialize)]
pub struct Given {
    token: String,
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct Page {
    asked: Asked,
    next: String,
    problem: String,
}

fn page(asked: Asked, next: &str, status: StatusCode, problem: &str) -> Response {
    let page = Page {
        asked,
        next: own(next).to_owned(),
        problem: problem.to_owned(),
    };
    let text = page.render().unwrap_or_else(|error| error.to_string());
    let said = [(header::CONTENT_TYPE, HTML), (header::CACHE_CONTROL, "no-store")];
    (status, said, text).into_response()
}

/// `GET /login`.
pub async fn form(asked: Asked, Query(wanted): Query<Wanted>) -> Response {
    page(asked, &wanted.next, StatusCode::OK, "")
}

/// `POST /login`.
pub async fn login(State(web): State<Web>, asked: Asked, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let form = <Form<Given> as axum::extract::FromRequest<()>>::from_request(request, &()).await;
    let Ok(Form(given)) = form else {
        return Refused(Status::invalid_argument("a login is a form with a token")).into_response();
    };
    let (gate, address) = (&web.shared.gate, peer.ip());
    let known = gate.may_try(address).and_then(|()| {
        let token = given.token.parse::<Token>().map_err(Status::unauthenticated);
        let caller = token.and_then(|token| gate.by_token(&token, address));
        caller.inspect_err(|_| gate.failed(address))
    });
    let caller = match known {
        Ok(caller) => caller,
        Err(status) => {
            let code = match status.code() {
                Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::UNAUTHORIZED,
            };
            return page(asked, &given.next, code, status.message());
        }
    };
    let Key::Token(token) = caller.key else {
        return Refused(Status::unauthenticated("only a token logs in")).into_response();
    };
    let cookie = gate.sessions.begin(token, web.shared.clock.now());
    let cookie = cookie.ok().and_then(|id| set(&id, SESSION_LIFE / 1000, peer.tls));
    let Some(cookie) = cookie else {
        return Refused(Status::internal("no session can be begun")).into_response();
    };
    tracing::info!(caller = caller.name, "logged in");
    ([(header::SET_COOKIE, cookie)], Redirect::to(own(&given.next))).into_response()
}

/// `POST /logout`.
pub async fn logout(State(web): State<Web>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    if let Some(cookie) = cookie(request.headers(), peer.tls) {
        web.shared.gate.sessions.end(&cookie);
    }
    match set("", 0, peer.tls) {
        Some(gone) => ([(header::SET_COOKIE, gone)], Redirect::to("/login")).into_response(),
        None => Redirect::to("/login").into_response(),
    }
}

/// Whether somebody has logged in, and could log out.
pub fn has_logged_in(caller: Option<&Caller>, headers: &HeaderMap) -> bool {
    let token = caller.is_some_and(|caller| matches!(caller.key, Key::Token(_)));
    token && (cookie(headers, true).is_some() || cookie(headers, false).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_away() {
        for (next, to) in [
            ("/queue?x=1", "/queue?x=1"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
            ("", "/"),
            ("/a\r\nb", "/"),
        ] {
            assert_eq!(own(next), to, "{next:?}");
        }
        assert_eq!(link(&"/a/b?c=d".parse().unwrap()), "/login?next=%2Fa%2Fb%3Fc%3Dd");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; klp-farm=plain"));
        headers.append(header::COOKIE, HeaderValue::from_static("__Host-klp-farm=secure"));
        assert_eq!(cookie(&headers, false).as_deref(), Some("plain"));
        assert_eq!(cookie(&headers, true).as_deref(), Some("secure"));
        let set = set("x", 5, true).unwrap();
        let text = set.to_str().unwrap();
        assert!(
            text.contains("HttpOnly") && text.contains("Secure") && text.contains("SameSite=Strict"),
            "{text}"
        );
    }
}

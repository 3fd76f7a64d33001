//! Passes each HTTP request through the farm's gate, and keeps browsers from being led here by another site: neither to act
//! (`Origin`), nor, where there is no TLS, to read (DNS rebinding, `Host`).

use std::net::IpAddr;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use klp_identity::Role;
use tonic::{Code, Status};

use super::Web;
use super::answer::Refused;
use super::login;
use super::origins::SiteOrigin;
use crate::auth::methods::{self, Needs};
use crate::auth::{Last, Peer, Presented, until_revoked};

const SECURITY: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

pub async fn check(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    // Each connection brings one.
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let host = host(&request);
    let config = web.shared.config.now();
    let asked = host.as_deref().unwrap_or_default();
    // Over TLS a name is ours if our certificate has it, as the browser has seen to.
    if !peer.tls && !is_ours(asked, &config.http_names) {
        let message = format!(
            "this is not {asked}; ask by the machine's address or name, or add the name to http_names in the coordinator's \
             configuration"
        );
        return secured(Refused(Status::permission_denied(message)).into_response());
    }
    let looking = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let path = request.uri().path();
    let needs = match (methods::grpc(path), route) {
        (Some(needs), _) => Some(needs),
        (None, Some(route)) => methods::http(request.method().as_str(), route),
        // That there is nothing is told to whoever may look.
        (None, None) => Some(Needs::Role(Role::Viewer)),
    };
    let reading = needs == Some(Needs::Role(Role::Viewer));
    let welcome = reading && welcome(request.headers(), &config.http_origins);
    if !looking && !welcome && led_here(request.headers(), asked) {
        let message = "another site sent this; open the farm's own page and do it there";
        return secured(Refused(Status::permission_denied(message)).into_response());
    }
    let cookie = login::cookie(request.headers(), peer.tls);
    let presented = Presented {
        authorization: request
            .headers()
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes()),
        session: cookie.as_deref(),
        forwarded: forwarded(request.headers()),
    };
    let what = format!("{} {}", request.method(), route.unwrap_or(path));
    let caller = match web.shared.gate.admit(&peer, presented, needs, &what) {
        Ok(caller) => caller,
        Err(status) if status.code() == Code::Unauthenticated && looking && wants_page(request.headers()) => {
            return secured(Redirect::to(&login::link(request.uri())).into_response());
        }
        Err(status) => return secured(refused(status)),
    };
    request.extensions_mut().insert(caller.clone());
    let now = web.shared.clock.now();
    let response = secured(next.run(request).await);
    let (parts, body) = response.into_parts();
    let body = until_revoked(body, &caller, now, Last::Http).unwrap_or_else(|body| body);
    Response::from_parts(parts, body)
}

fn refused(status: Status) -> Response {
    let unknown = status.code() == Code::Unauthenticated;
    let mut response = Refused(status).into_response();
    if unknown {
        let how = HeaderValue::from_static("Bearer realm=\"klp-farm\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    }
    response
}

/// Whether a browser shows the answer to somebody.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn secured(mut response: Response) -> Response {
    for (name, value) in SECURITY {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The host that was asked for, without its port.
fn host(request: &Request) -> Option<String> {
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(header::HOST)?.to_str().ok()?,
    };
    Some(without_port(host).to_ascii_lowercase())
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(ip, _)| ip),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// An address can't be rebound, and the machine's own name is nobody else's.
fn is_ours(host: &str, names: &[String]) -> bool {
    let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    host.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || own.is_some_and(|own| own.eq_ignore_ascii_case(host))
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// A proxy on this machine speaks for somebody else.
fn forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip", "via"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

/// Whether a page of a site sent this that may read here.
fn welcome(headers: &HeaderMap, origins: &[SiteOrigin]) -> bool {
    let origin = headers.get(header::ORIGIN);
    origin.is_some_and(|origin| origins.iter().any(|o| o.as_str().as_bytes() == origin.as_bytes()))
}

/// Whether a browser says that a page of another site sent this.
fn led_here(headers: &HeaderMap, host: &str) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        // No browser leaves both out where it matters.
        return false;
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_none_or(|(_, from)| without_port(from) != host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_anybody_could_point_here_are_not_ours() {
        let names = ["farm.example.org".to_owned()];
        for ours in ["127.0.0.1", "::1", "10.1.2.3", "localhost", "FARM.example.org"] {
            assert!(is_ours(&ours.to_ascii_lowercase(), &names), "{ours}");
        }
        for other in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(!is_ours(other, &names), "{other}");
        }
        assert_eq!(without_port("[::1]:80"), "::1");
        assert_eq!(without_port("farm:7421"), "farm");
    }

    #[test]
    fn other_sites_are_told_apart() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            pairs.collect::<HeaderMap>()
        };
        assert!(!led_here(&headers(&[]), "localhost"));
        assert!(!led_here(&headers(&[("origin", "http://localhost:7421")]), "localhost"));
        assert!(led_here(&headers(&[("origin", "http://evil.example")]), "localhost"));
        assert!(led_here(&headers(&[("origin", "null")]), "localhost"));
        assert!(led_here(
            &headers(&[("sec-fetch-site", "cross-site"), ("origin", "http://localhost")]),
            "localhost"
        ));
        assert!(!led_here(&headers(&[("sec-fetch-site", "same-origin")]), "localhost"));
    }
}

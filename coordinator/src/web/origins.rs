//! Other sites whose pages may read here: the Fetch standard's CORS protocol. They never act.

use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use serde::{Deserialize, Serialize};
use tower_http::cors::CorsLayer;

/// How long a browser may remember what it was allowed.
const MAX_AGE: Duration = Duration::from_secs(600);

/// A site, as browsers name it in `Origin`: scheme, host and, if it is not the scheme's own, port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteOrigin(String);

impl SiteOrigin {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// This names no site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin; it must be scheme, host and perhaps port, as in `https://dashboards.example.org`")]
pub struct NoOrigin(String);

impl FromStr for SiteOrigin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let bad = || NoOrigin(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let scheme = uri.scheme_str().ok_or_else(bad)?;
        let authority = uri.authority().map(|a| a.as_str()).ok_or_else(bad)?;
        // Browsers leave out the slash and the scheme's own port.
        let own_port = if scheme == "https" { ":443" } else { ":80" };
        let plain = format!("{scheme}://{authority}").to_ascii_lowercase();
        let known = matches!(scheme, "http" | "https") && !authority.contains('@') && !authority.ends_with(own_port);
        match known && text.trim_end_matches('/').eq_ignore_ascii_case(&plain) {
            true => Ok(Self(plain)),
            false => Err(bad()),
        }
    }
}

impl TryFrom<String> for SiteOrigin {
    type Error = NoOrigin;

    fn try_from(text: String) -> Result<Self, NoOrigin> {
        text.parse()
    }
}

impl From<SiteOrigin> for String {
    fn from(origin: SiteOrigin) -> Self {
        origin.0
    }
}

/// Tells browsers that pages of these sites may read what is served here, by the JSON API and by gRPC-web.
pub fn cors(origins: &[SiteOrigin]) -> CorsLayer {
    // A URI's characters are fit for a header.
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|o| o.as_str().parse().ok()).collect();
    let named = |names: &[&'static str]| {
        names
            .iter()
            .map(|name| HeaderName::from_static(name))
            .collect::<Vec<_>>()
    };
    let mut asked = named(&[
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
        "last-event-id",
        "traceparent",
    ]);
    asked.extend([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_NONE_MATCH]);
    let mut told = named(&["grpc-status", "grpc-message", "grpc-status-details-bin"]);
    told.push(header::ETAG);
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers(asked)
        .expose_headers(told)
        .max_age(MAX_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        for (text, origin) in [
            ("https://wall.example.org", "https://wall.example.org"),
            ("https://Wall.example.org/", "https://wall.example.org"),
            ("http://10.0.0.1:3000", "http://10.0.0.1:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(text.parse::<SiteOrigin>().unwrap().as_str(), origin, "{text}");
        }
        for text in [
            "",
            "*",
            "null",
            "wall.example.org",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://u@a",
            "ftp://a",
            "https://a:443",
            "http://a:80",
            "https://a b",
        ] {
            assert!(text.parse::<SiteOrigin>().is_err(), "{text}");
        }
    }
}

//! Style and script, from within the program. Their addresses hold a digest of their text, so that they can be kept for ever.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;

const STYLE: &str = include_str!("../../../assets/farm.css");
const SCRIPT: &str = include_str!("../../../assets/farm.js");
const ICON: &str = include_str!("../../../assets/icon.svg");

fn named(stem: &str, text: &str, extension: &str) -> String {
    format!("{stem}-{}.{extension}", &blake3::hash(text.as_bytes()).to_hex()[..12])
}

pub static STYLE_NAME: LazyLock<String> = LazyLock::new(|| named("farm", STYLE, "css"));
pub static SCRIPT_NAME: LazyLock<String> = LazyLock::new(|| named("farm", SCRIPT, "js"));
pub static ICON_NAME: LazyLock<String> = LazyLock::new(|| named("icon", ICON, "svg"));

pub async fn asset(Path(file): Path<String>) -> Response {
    let found = [
        (&*STYLE_NAME, STYLE, "text/css; charset=utf-8"),
        (&*SCRIPT_NAME, SCRIPT, "text/javascript; charset=utf-8"),
        (&*ICON_NAME, ICON, "image/svg+xml"),
    ];
    match found.into_iter().find(|(name, ..)| **name == file) {
        Some((_, text, kind)) => {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, text).into_response()
        }
        None => (
            StatusCode::NOT_FOUND,
            "this page is from an older program; load it again\n",
        )
            .into_response(),
    }
}

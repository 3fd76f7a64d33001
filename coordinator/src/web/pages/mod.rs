//! The pages for people.

use axum::Router;

use super::Web;

pub fn router() -> Router<Web> {
    Router::new()
}

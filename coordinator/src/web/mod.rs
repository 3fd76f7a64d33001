//! What browsers and dashboards see over HTTP: pages for people, a JSON API under `/api/v1`, server-sent events, and gRPC-web.
//!
//! A request passes [`guard`], where browsers come by [`login`], then a handler in [`api`], [`stream`], [`act`] or [`pages`]. Handlers ask the
//! same services that gRPC clients ask, so that both hear the same. What many poll is made once and kept in [`views`] until
//! something that it shows has changed. Nothing here writes but [`act`]. All of it
//! is done on a [`thread`] of its own.

mod act;
mod answer;
mod api;
mod guard;
mod listen;
mod login;
mod metrics;
mod openapi;
mod origins;
mod pages;
mod stream;
mod thread;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tower_http::compression::CompressionLayer;

#[cfg(test)]
pub use openapi::text as description;
pub use origins::SiteOrigin;
pub use thread::{Served, start};

use crate::api::Shared;
use views::Views;

/// Open streams of server-sent events and logs, over all connections.
const MAX_STREAMS: usize = 512;

/// What handlers share.
#[derive(Clone)]
pub struct Web {
    shared: Arc<Shared>,
    views: Arc<Views>,
    streams: Arc<Semaphore>,
}

/// Everything that is served over HTTP. `rpc`: the services for gRPC-web.
pub fn router(shared: Arc<Shared>, rpc: Router) -> Router {
    let web = Web {
        views: Arc::new(Views::new(shared.versions.clone(), shared.clock)),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        shared,
    };
    let api = Router::new()
        .route("/livepatches", get(api::livepatches))
        .route("/livepatches/{name}", get(api::livepatch))
        .route("/livepatches/{name}/groups", get(api::groups))
        .route("/livepatches/{name}/attempts", get(api::attempts))
        .route("/livepatches/{name}/findings", get(api::findings))
        .route("/livepatches/{name}/events", get(stream::events))
        .route("/livepatches/{name}/{action}", post(act::on_livepatch))
        .route("/tasks/{id}", get(api::task))
        .route("/tasks/{id}/attempts", get(api::attempts_of_task))
        .route("/tasks/{id}/log", get(stream::log))
        .route("/artifacts/{digest}", get(stream::artifact))
        .route("/workers", get(api::workers))
        .route("/workers/{name}/{action}", post(act::on_worker))
        .route("/queue", get(api::queue))
        .route("/codestreams", get(api::codestreams))
        .route("/changes", get(stream::changes))
        .route("/openapi.json", get(openapi::description));
    let own = Router::new()
        .nest("/api/v1", api)
        .merge(pages::router())
        .route("/login", get(login::form).post(login::login))
        .route("/logout", post(login::logout))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics::metrics))
        .fallback(answer::not_found)
        .layer(CompressionLayer::new());
    let cors = origins::cors(&web.shared.config.now().http_origins);
    let counting = middleware::from_fn_with_state(web.shared.metrics.clone(), metrics::count);
    own.with_state(web.clone())
        .merge(rpc)
        .layer(middleware::from_fn_with_state(web, guard::check))
        // Around the guard, so that those pages can read its refusals, too.
        .layer(cors)
        .layer(counting)
}

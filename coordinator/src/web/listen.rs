//! Accepts HTTP connections, with bounds on how many there are and how long their requests' heads may take.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::auth::{Door, Peer, accept};

/// Connections at a time; further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 1024;
/// How long a request's head may take: nobody holds a connection with half a line.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `stop`, then lets open requests end within `patience`.
pub async fn serve(listener: TcpListener, door: Door, router: Router, stop: CancellationToken, patience: Duration) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            // A closed semaphore, which this never is, would end the service.
            let permit = Arc::clone(&connections).acquire_owned().await.ok()?;
            Some((accept(&listener).await, permit))
        };
        let next = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        let Some(((socket, address), permit)) = next else { break };
        let (door, router, watcher) = (door.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            let line = match door.open(socket, address).await {
                Ok(line) => line,
                Err(error) => return tracing::debug!(%address, %error, "a connection was turned away"),
            };
            let service = service_of(router, line.peer().clone());
            let mut builder = Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(100)
                .keep_alive_interval(Some(Duration::from_secs(30)));
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(line), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%address, %error, "a connection broke");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::warn!("some HTTP requests did not end in time and are cut off");
    }
}

fn service_of(
    router: Router,
    peer: Peer,
) -> impl hyper::service::Service<
    hyper::Request<Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send + 'static,
> + Clone {
    service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    })
}

//! Puts the gate before gRPC's services.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{Request, Response, header};
use tonic::body::Body;
use tower::{Layer, Service};

use super::body::{Last, until_revoked};
use super::caller::Peer;
use super::gate::{Gate, Presented};
use super::methods;
use crate::clock::Clock;

/// Has every request pass the gate.
#[derive(Clone)]
pub struct Guard {
    gate: Arc<Gate>,
    clock: Clock,
}

impl Guard {
    pub fn new(gate: Arc<Gate>, clock: Clock) -> Self {
        Self { gate, clock }
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        let guard = self.clone();
        Guarded { guard, inner }
    }
}

#[derive(Clone)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // One that comes without is of a simulation, which knows no identities.
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let path = request.uri().path();
        let presented = Presented {
            authorization: request
                .headers()
                .get(header::AUTHORIZATION)
                .map(|value| value.as_bytes()),
            ..Presented::default()
        };
        let caller = match self.guard.gate.admit(&peer, presented, methods::grpc(path), path) {
            Ok(caller) => caller,
            Err(status) => return Box::pin(ready(Ok(status.into_http()))),
        };
        request.extensions_mut().insert(caller.clone());
        let (answer, now) = (self.inner.call(request), self.guard.clock.now());
        Box::pin(async move {
            let (parts, body) = answer.await?.into_parts();
            let body = match until_revoked(body, &caller, now, Last::Grpc) {
                Ok(limited) => Body::new(limited),
                Err(body) => body,
            };
            Ok(Response::from_parts(parts, body))
        })
    }
}

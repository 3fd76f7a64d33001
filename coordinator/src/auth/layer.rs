//! Puts the gate before gRPC's services.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderValue, Request, Response, header};
use klp_proto::protocol::{SOFTWARE, VERSION_HEADER};
use tonic::Code;
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
            Err(status) => {
                let known = status.code() == Code::Unimplemented;
                let answer = status.into_http();
                if !known {
                    return Box::pin(ready(Ok(answer)));
                }
                let agent = request.headers().get(header::USER_AGENT);
                let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or_default();
                tracing::warn!(method = path, agent, "a caller asks for what this version has not got");
                return Box::pin(ready(Ok(signed(answer))));
            }
        };
        request.extensions_mut().insert(caller.clone());
        let (answer, now) = (self.inner.call(request), self.guard.clock.now());
        Box::pin(async move {
            let (parts, body) = answer.await?.into_parts();
            let body = match until_revoked(body, &caller, now, Last::Grpc) {
                Ok(limited) => Body::new(limited),
                Err(body) => body,
            };
            Ok(signed(Response::from_parts(parts, body)))
        })
    }
}

/// Tells this program's version to whom it knows: a client that is newer finds in it why something is not there.
fn signed(mut answer: Response<Body>) -> Response<Body> {
    let version = HeaderValue::from_static(SOFTWARE);
    answer.headers_mut().insert(VERSION_HEADER, version);
    answer
}

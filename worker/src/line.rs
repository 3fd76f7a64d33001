//! The way to the coordinator, which can be replaced: a connection keeps the certificate that it was made with, so a renewed
//! one takes a new connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Error};

/// Each request goes over the channel that is there when it begins; cheap to clone.
#[derive(Clone)]
pub struct Line(Arc<watch::Sender<Channel>>);

impl Line {
    pub fn new(channel: Channel) -> Self {
        Self(Arc::new(watch::Sender::new(channel)))
    }

    /// What begins from now on goes over this channel. What is open stays where it is.
    pub fn replace(&self, channel: Channel) {
        self.0.send_replace(channel);
    }

    /// Tells when the channel is replaced.
    pub fn watch(&self) -> watch::Receiver<Channel> {
        self.0.subscribe()
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    /// Whether the channel is ready is asked when it is known which one it is.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut channel = self.0.borrow().clone();
        Box::pin(async move {
            poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        })
    }
}

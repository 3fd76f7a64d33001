//! An answer that ends when its caller is put out: what is open is closed as well as what is new refused.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use super::Caller;
use crate::lifecycle::Millis;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How an answer is ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// By gRPC's trailers.
    Grpc,
    /// By breaking off, so that nobody takes a part for the whole.
    Http,
}

struct Until<B> {
    inner: B,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
    expired: Option<Pin<Box<Sleep>>>,
    last: Last,
    ended: bool,
}

/// The answer to a caller, for as long as it is somebody.
pub fn until_revoked<B>(body: B, caller: &Caller, now: Millis, last: Last) -> Result<axum::body::Body, B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let Some(revoked) = caller.revoked.clone() else {
        return Err(body);
    };
    if body.is_end_stream() {
        return Err(body);
    }
    let left = |until: Millis| Duration::from_millis(u64::try_from(until - now).unwrap_or(0));
    let body = Until {
        inner: body,
        revoked: Box::pin(revoked.cancelled_owned()),
        expired: caller.expires.map(|until| Box::pin(tokio::time::sleep(left(until)))),
        last,
        ended: false,
    };
    Ok(axum::body::Body::new(body))
}

impl<B> Until<B> {
    fn is_over(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        if self.revoked.as_mut().poll(cx).is_ready() {
            return Some("what this was asked with has been revoked");
        }
        let expired = self.expired.as_mut()?;
        expired
            .as_mut()
            .poll(cx)
            .is_ready()
            .then_some("what this was asked with has expired")
    }
}

impl<B> Body for Until<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(why) = self.is_over(cx) {
            self.ended = true;
            let trailers = Status::unauthenticated(why).into_http::<()>().into_parts().0.headers;
            return Poll::Ready(Some(match self.last {
                Last::Grpc => Ok(Frame::trailers(trailers)),
                Last::Http => Err(why.into()),
            }));
        }
        Pin::new(&mut self.inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

//! A server that does nothing: what pollers cost this machine whomever they ask.

use std::convert::Infallible;

use anyhow::Result;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ETAG, IF_NONE_MATCH};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// It answers that nothing has changed, on a thread of its own, until it is dropped.
pub struct Still {
    pub address: String,
    _alive: DropGuard,
}

impl Still {
    /// # Errors
    /// There is no port, or no thread.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = format!("http://{}/", listener.local_addr()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let alive = stop.clone().drop_guard();
        let serving = async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((socket, _)) = listener.accept().await {
                let _ = socket.set_nodelay(true);
                let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        };
        std::thread::Builder::new()
            .name("still".to_owned())
            .spawn(move || runtime.block_on(stop.run_until_cancelled(serving)))?;
        Ok(Self { address, _alive: alive })
    }
}

fn answer(request: &Request<Incoming>) -> Response<Empty<Bytes>> {
    let mut answer = Response::new(Empty::new());
    answer
        .headers_mut()
        .insert(ETAG, hyper::header::HeaderValue::from_static("\"still\""));
    if request.headers().contains_key(IF_NONE_MATCH) {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    answer
}

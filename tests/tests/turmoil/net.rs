//! gRPC over the simulated network: the coordinator's connections as they come in, and a way to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use turmoil::net::{TcpListener, TcpStream};

/// The coordinator's host.
pub const FARM: &str = "farm";
const PORT: u16 = 7420;

pub fn uri() -> Uri {
    Uri::from_static("http://farm:7420")
}

/// A channel to the coordinator, opened when it is used.
pub fn channel(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(tower::service_fn(|_: Uri| async {
        Ok::<_, io::Error>(TokioIo::new(TcpStream::connect((FARM, PORT)).await?))
    }))
}

/// What connects to this host from now on.
pub async fn incoming() -> io::Result<impl Stream<Item = io::Result<Connection>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (accepted, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let connection = listener.accept().await.map(|(stream, _)| Connection(stream));
            if accepted.send(connection).await.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(connections))
}

/// A connection that tonic takes.
pub struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

//! Connections as they come in: over TLS, or plain where that was asked for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::server::Connected;

use super::caller::Peer;
use super::tls::Tls;

/// How long a peer may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time that are not through yet; further ones wait in the listener's backlog.
const MAX_OPENING: usize = 512;
/// How long the listener rests when it has no file descriptors left.
const REST: Duration = Duration::from_millis(100);
/// How a connection over TLS begins.
const HANDSHAKE: u8 = 0x16;

/// How connections are taken; cheap to clone.
#[derive(Clone)]
pub enum Door {
    Plain,
    Tls(Tls),
}

/// A connection, and what is known of its other end.
pub struct Line {
    wire: Wire,
    peer: Peer,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Door {
    /// The fingerprint of the CAs that workers should trust now; empty: there are none.
    pub fn trust(&self) -> String {
        match self {
            Door::Plain => String::new(),
            Door::Tls(tls) => tls.trust().to_string(),
        }
    }

    /// Takes a connection.
    ///
    /// # Errors
    /// It does not speak TLS as it should; it was told so, where it can be.
    pub async fn open(&self, socket: TcpStream, address: SocketAddr) -> io::Result<Line> {
        // Not a reason to refuse anybody.
        let _ = socket.set_nodelay(true);
        let address = Some(address);
        let Door::Tls(tls) = self else {
            let (wire, peer) = (
                Wire::Plain(socket),
                Peer {
                    address,
                    ..Peer::default()
                },
            );
            return Ok(Line { wire, peer });
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it said nothing");
        let mut first = [0];
        let peeked = tokio::time::timeout(PATIENCE, socket.peek(&mut first))
            .await
            .map_err(late)??;
        if peeked > 0 && first[0] != HANDSHAKE {
            turn_away(socket).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS"));
        }
        let shaking = TlsAcceptor::from(tls.config()).accept(socket);
        let stream = tokio::time::timeout(PATIENCE, shaking).await.map_err(late)??;
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| tls.judge(chain));
        let peer = Peer {
            address,
            tls: true,
            certificate,
        };
        let wire = Wire::Tls(Box::new(stream));
        Ok(Line { wire, peer })
    }
}

impl Line {
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// Tells a client without TLS what this is, in gRPC or HTTP as it speaks.
async fn turn_away(socket: TcpStream) {
    const TEXT: &str = "this coordinator speaks TLS only: ask it by https://, and trust the farm's ca.pem";
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        let kind = request.headers().get("content-type");
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        Ok::<_, std::convert::Infallible>(match grpc {
            true => Status::unauthenticated(TEXT).into_http::<Body>(),
            false => {
                let mut answer = hyper::Response::new(Body::from(format!("{TEXT}\n")));
                *answer.status_mut() = hyper::StatusCode::BAD_REQUEST;
                answer
            }
        })
    });
    let builder = Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection(TokioIo::new(socket), service);
    // However that ends, it is over.
    let _ = tokio::time::timeout(PATIENCE, serving).await;
}

/// The next connection. One that can't be taken is passed over, after a rest: the cause may last.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// What connects from now on, until `stop`. Who is slow to say who it is holds up nobody else.
pub fn incoming(listener: TcpListener, door: Door, stop: CancellationToken) -> impl Stream<Item = io::Result<Line>> {
    let (through, lines) = mpsc::channel(64);
    let opening = Arc::new(Semaphore::new(MAX_OPENING));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = Arc::clone(&opening).acquire_owned().await else {
                return;
            };
            let (socket, address) = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = stop.cancelled() => return,
            };
            let (door, through) = (door.clone(), through.clone());
            tokio::spawn(async move {
                let _permit = permit;
                match door.open(socket, address).await {
                    // Whoever would serve it is gone: it is closed.
                    Ok(line) => drop(through.send(Ok(line)).await),
                    Err(error) => tracing::debug!(%address, %error, "a connection was turned away"),
                }
            });
        }
    });
    ReceiverStream::new(lines)
}

impl Connected for Line {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(socket) => socket.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}

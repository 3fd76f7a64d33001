//! Wall displays: each asks again and again over a connection of its own, with the tag of what it was last told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ETAG, HOST, HeaderValue, IF_NONE_MATCH};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What all pollers together were answered.
#[derive(Debug, Default)]
pub struct Polled {
    pub times: Vec<Duration>,
    /// How many of the answers had a body.
    pub changed: usize,
}

/// Pollers that ask until they are stopped, on a thread of their own, so that what else this process does delays none of them.
pub struct Pollers {
    thread: std::thread::JoinHandle<Result<Polled>>,
    stop: CancellationToken,
}

impl Pollers {
    /// # Errors
    /// There are no threads left.
    pub fn start(server: &str, paths: Vec<String>, count: usize, period: Duration) -> Result<Self> {
        let server = server.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("pollers".to_owned())
            .spawn(move || runtime.block_on(poll_all(server, paths, count, period, stopped)))?;
        Ok(Self { thread, stop })
    }

    /// # Errors
    /// One was not answered.
    pub async fn stop(self) -> Result<Polled> {
        self.stop.cancel();
        match tokio::task::spawn_blocking(|| self.thread.join()).await? {
            Ok(polled) => polled,
            Err(_) => bail!("the pollers' thread panicked"),
        }
    }
}

async fn poll_all(
    server: String,
    paths: Vec<String>,
    count: usize,
    period: Duration,
    stop: CancellationToken,
) -> Result<Polled> {
    let mut pollers = JoinSet::new();
    for (n, path) in paths.into_iter().cycle().take(count).enumerate() {
        let share = u32::try_from(n)? * period / u32::try_from(count)?;
        pollers.spawn(poll(server.clone(), path, share, period, stop.clone()));
    }
    let mut all = Polled::default();
    while let Some(one) = pollers.join_next().await {
        let one = one??;
        all.times.extend(one.times);
        all.changed += one.changed;
    }
    Ok(all)
}

async fn poll(
    server: String,
    path: String,
    first: Duration,
    period: Duration,
    stop: CancellationToken,
) -> Result<Polled> {
    let mut connection = connect(&server).await?;
    let host = HeaderValue::from_str(&server)?;
    let mut tag: Option<HeaderValue> = None;
    let mut polled = Polled::default();
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(polled),
            _ = due.tick() => {}
        }
        let mut request = Request::get(&path).header(HOST, host.clone());
        if let Some(tag) = &tag {
            request = request.header(IF_NONE_MATCH, tag.clone());
        }
        let start = Instant::now();
        connection.ready().await?;
        let answer = connection.send_request(request.body(Empty::new())?).await?;
        let status = answer.status();
        let fresh = answer.headers().get(ETAG).cloned();
        answer.into_body().collect().await?;
        polled.times.push(start.elapsed());
        match status {
            StatusCode::OK => polled.changed += 1,
            status => ensure!(status == StatusCode::NOT_MODIFIED, "{path} was answered {status}"),
        }
        tag = Some(fresh.with_context(|| format!("{path} has no ETag"))?);
    }
}

async fn connect(server: &str) -> Result<SendRequest<Empty<Bytes>>> {
    let socket = TcpStream::connect(server).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // Its error is the next request's.
    tokio::spawn(connection);
    Ok(sender)
}

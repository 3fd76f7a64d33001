//! HTTP has a thread and a runtime of its own: what is looked at stands in nobody's way who works, and however many look, they
//! take one core at most.

use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::listen;
use crate::auth::Door;

/// How much the thread gives way to the coordinator's others, as nice(1) counts. One that comes late finds more to do at once.
const NICENESS: i32 = 5;
/// Threads for what blocks, queries above all.
const MAX_BLOCKING: usize = 16;

/// Resolves when HTTP is no longer served.
pub type Served = oneshot::Receiver<()>;

/// Serves until `stop`, or until the runtime of whoever calls this ends.
///
/// # Errors
/// There is no thread to be had.
pub fn start(
    listener: TcpListener,
    door: Door,
    router: Router,
    stop: CancellationToken,
    patience: Duration,
) -> io::Result<Served> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING)
        .build()?;
    // Whatever uses a socket does so by the runtime that it was registered with.
    let listener = listener.into_std()?;
    let closing = stop.child_token();
    let guard = closing.clone().drop_guard();
    let (ended, served) = oneshot::channel();
    let serving = async move {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "can't serve HTTP"),
        };
        listen::serve(listener, door, router, closing, patience).await;
    };
    std::thread::Builder::new().name("web".to_owned()).spawn(move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "HTTP has the priority of all else");
        }
        runtime.block_on(serving);
        runtime.shutdown_timeout(patience);
        // Nobody may wait for it.
        let _ = ended.send(());
    })?;
    tokio::spawn(async move {
        stop.cancelled().await;
        drop(guard);
    });
    Ok(served)
}

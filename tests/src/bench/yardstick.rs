//! What the machine itself can do: sync a disk, carry a request, start a process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::coordinator::usage;
use super::table::Table;

const SECTION: &str = "Yardsticks";
pub const FSYNC: &str = "fsync";
pub const SPAWN: &str = "bare spawn of `true`";

/// # Errors
/// The machine's.
pub async fn all(table: &mut Table, disk: &Path, time: Duration) -> Result<()> {
    // A log is written in place once it has grown; until then each sync also records the file's new size.
    table.add(SECTION, FSYNC, fsync(disk, time, 64)?, "/s").beside = "4 KiB in place, then fdatasync".to_owned();
    let growing = fsync(disk, time, u64::MAX)?;
    table.add(SECTION, "fsync, growing", growing, "/s").beside = "4 KiB appended, then fdatasync".to_owned();
    for clients in [1, 8, 64] {
        let what = format!("tonic echo, {clients} clients");
        table.add(SECTION, what, echo(clients, time).await?, "/s");
    }
    Ok(())
}

/// Writes and syncs page after page, and begins anew after `pages`.
fn fsync(disk: &Path, time: Duration, pages: u64) -> Result<f64> {
    let file = tempfile::tempfile_in(disk)?;
    if pages < u64::MAX {
        file.write_all_at(&vec![0; usize::try_from(pages * 4096)?], 0)?;
        file.sync_all()?;
    }
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        file.write_all_at(&[7; 4096], count % pages * 4096)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Unary calls that touch nothing, each client on a connection of its own.
async fn echo(clients: usize, time: Duration) -> Result<f64> {
    let (_, service) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    let mut tasks = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..clients {
        let channel = Endpoint::from_shared(url.clone())?.tcp_nodelay(true).connect().await?;
        tasks.spawn(async move {
            let (mut client, mut count) = (HealthClient::new(channel), 0u64);
            while start.elapsed() < time {
                client.check(HealthCheckRequest::default()).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    server.abort();
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Starts `true`, two at a time, by nothing but the standard library; answers milliseconds for each.
///
/// # Errors
/// It can't be started.
pub fn spawn(count: usize) -> Result<f64> {
    let run = || -> Result<()> {
        for _ in 0..count / 2 {
            let status = Command::new("true").stdin(Stdio::null()).status()?;
            ensure!(status.success(), "true failed");
        }
        Ok(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3 / count as f64)
}

/// What HyperQueue makes of the same processes.
pub struct HyperQueue {
    pub seconds: f64,
    /// Microseconds of its server for each task.
    pub cpu: f64,
    /// Bytes.
    pub peak: u64,
}

/// Runs `count` times `true` on two slots of HyperQueue, with a journal.
///
/// # Errors
/// It does not run.
pub fn hyperqueue(hq: &Path, disk: &Path, count: usize) -> Result<HyperQueue> {
    let dir = tempfile::Builder::new().prefix("klp-farm-bench-hq-").tempdir_in(disk)?;
    let command = || {
        let mut command = Command::new(hq);
        command.arg("--server-dir").arg(dir.path().join("server"));
        command.current_dir(dir.path()).stdin(Stdio::null());
        command
    };
    let quiet = |name: &str| -> Result<Stdio> { Ok(File::create(dir.path().join(name))?.into()) };
    let server = command()
        .args(["server", "start", "--host", "127.0.0.1", "--journal", "journal"])
        .stdout(quiet("server.out")?)
        .stderr(quiet("server.err")?)
        .spawn()
        .with_context(|| format!("can't start {}", hq.display()))?;
    let server = Ended(server);
    let ready = |arguments: &[&str]| -> Result<bool> {
        let mut command = command();
        let command = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status()?.success())
    };
    wait(|| ready(&["server", "info"]))?;
    let worker = command()
        .args(["worker", "start", "--cpus", "2"])
        .stdout(quiet("worker.out")?)
        .stderr(quiet("worker.err")?)
        .spawn()?;
    let _worker = Ended(worker);
    let submit = |count: usize| -> Result<f64> {
        let array = format!("1-{count}");
        let start = Instant::now();
        let status = command()
            .args(["submit", "--wait", "--array", &array])
            .args(["--stdout", "none", "--stderr", "none", "true"])
            .stdout(Stdio::null())
            .stderr(quiet("submit.err")?)
            .status()?;
        ensure!(status.success(), "hq submit failed");
        Ok(start.elapsed().as_secs_f64())
    };
    // The worker is there when its first task has ended.
    submit(2)?;
    let before = usage(server.0.id())?;
    let seconds = submit(count)?;
    let after = usage(server.0.id())?;
    Ok(HyperQueue {
        seconds,
        cpu: (after.cpu - before.cpu).as_secs_f64() * 1e6 / count as f64,
        peak: after.peak,
    })
}

/// A child that is ended with its owner.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "HyperQueue's server did not come up"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

//! The measurements of the farm.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use klp_proto::v1;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::coordinator::{Coordinator, PATIENCE, submit};
use super::table::Table;
use super::worker::{Count, Simulated, Work};
use super::{Sizes, mib, yardstick};

/// Slots of each simulated worker.
const SLOTS: u32 = 2;
/// A codestream that nothing queued waits for.
const ALONE: &str = "alone";

/// Simulated workers that work until this is stopped.
pub struct Fleet {
    tasks: JoinSet<Result<()>>,
    stop: CancellationToken,
    pub count: Arc<Count>,
}

impl Fleet {
    /// # Errors
    /// A worker is refused.
    pub async fn start(coordinator: &Coordinator, workers: usize, work: Work) -> Result<Self> {
        let mut fleet = Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            count: Arc::default(),
        };
        for n in 0..workers {
            let session = Simulated::new(&format!("w{n}"), SLOTS);
            let session = session.open(coordinator.connect().await?).await?;
            let (count, stop) = (Arc::clone(&fleet.count), fleet.stop.clone());
            fleet.tasks.spawn(session.work(work, count, stop));
        }
        Ok(fleet)
    }

    /// Waits until so many attempts are committed, but no longer than this. A worker that fails fails the bench.
    ///
    /// # Errors
    /// A worker's.
    pub async fn until(&mut self, committed: usize, time: Duration) -> Result<()> {
        tokio::select! {
            () = self.count.reached(committed) => Ok(()),
            () = tokio::time::sleep(time) => Ok(()),
            ended = self.tasks.join_next() => ended.context("there is no worker")??,
        }
    }

    /// # Errors
    /// A worker's.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(done) = self.tasks.join_next().await {
            done??;
        }
        Ok(())
    }
}

/// Attempts that were measured.
struct Rate {
    per_second: f64,
    /// Microseconds of the coordinator for each.
    cpu: f64,
}

/// Lets workers commit what is queued, after a start that is not counted.
async fn rate(coordinator: &Coordinator, workers: usize, attempts: usize, time: Duration) -> Result<Rate> {
    let mut fleet = Fleet::start(coordinator, workers, Work::Nothing).await?;
    fleet.until(attempts / 10, PATIENCE).await?;
    let (start, first, before) = (Instant::now(), fleet.count.committed(), coordinator.usage()?);
    fleet.until(attempts, time).await?;
    let count = (fleet.count.committed() - first) as f64;
    let (seconds, after) = (start.elapsed().as_secs_f64(), coordinator.usage()?);
    fleet.stop().await?;
    Ok(Rate {
        per_second: count / seconds,
        cpu: (after.cpu - before.cpu).as_secs_f64() * 1e6 / count,
    })
}

/// Durable attempts per second.
///
/// # Errors
/// The coordinator's.
pub async fn throughput(table: &mut Table, disk: &Path, sizes: &Sizes) -> Result<()> {
    const SECTION: &str = "Durable attempts";
    for &workers in &sizes.workers {
        let coordinator = Coordinator::start(disk)?;
        coordinator.prepare().await?;
        // Each check is followed by an extraction.
        let tasks = usize::try_from(sizes.seconds)? * 4_000;
        coordinator.fill(tasks).await?;
        let rate = rate(&coordinator, workers, 2 * tasks, Duration::from_secs(sizes.seconds)).await?;
        let fsyncs = table.ratio(rate.per_second, yardstick::FSYNC);
        table
            .add(SECTION, format!("{workers} workers"), rate.per_second, "/s")
            .beside = format!("{fsyncs}; {:.0} µs CPU each; aim: 5000/s at best", rate.cpu);
    }
    Ok(())
}

/// Cost per attempt as the queue grows.
///
/// # Errors
/// The coordinator's.
pub async fn growth(table: &mut Table, disk: &Path, sizes: &Sizes) -> Result<()> {
    let mut smallest = None;
    for &queue in &sizes.queues {
        let coordinator = Coordinator::start(disk)?;
        coordinator.prepare().await?;
        let start = Instant::now();
        coordinator.fill(queue).await?;
        let filled = start.elapsed().as_secs_f64();
        let rate = rate(&coordinator, 10, queue.clamp(100, 5_000), PATIENCE).await?;
        let smallest = *smallest.get_or_insert(rate.cpu);
        let what = format!("CPU of an attempt, {queue} queued");
        table.add("Growth", what, rate.cpu, "µs").beside = format!(
            "{:.2} x the smallest queue; {:.0}/s; queued at {:.0}/s; aim: flat",
            rate.cpu / smallest,
            rate.per_second,
            queue as f64 / filled
        );
    }
    Ok(())
}

/// How long an attempt takes where it matters how soon the next one comes: shorter ones are prefetched.
const WORK: Duration = Duration::from_millis(60);

/// What is hoped of each latency.
const AIM: &str = "< 20 ms";

/// Latency, with this many queued.
async fn latency(table: &mut Table, coordinator: &Coordinator, samples: usize, queued: usize) -> Result<()> {
    const SECTION: &str = "Latency";
    let channel = coordinator.connect().await?;
    let client = LivepatchServiceClient::new(channel.clone());
    let trees = std::iter::once(ALONE.to_owned());
    let idle = Simulated::with_trees("idle", 10_000, trees).open(channel.clone());
    let mut idle = idle.await?;
    idle.hear().await?;
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let start = Instant::now();
        // The answer may come after the assignment.
        let submitted = tokio::spawn(submit(client.clone(), ALONE));
        idle.take().await?;
        times.push(start.elapsed());
        submitted.await??;
    }
    percentiles(
        table,
        SECTION,
        &format!("submit to assigned, {queued} queued"),
        times,
        AIM,
    );
    let mut busy = Simulated::new("busy", 1).open(coordinator.connect().await?).await?;
    let mut times = Vec::with_capacity(samples);
    let mut assignment = busy.take().await?;
    for _ in 0..samples {
        busy.say().await?;
        tokio::time::sleep(WORK).await;
        let start = Instant::now();
        for one in &assignment {
            busy.commit(one).await?;
        }
        assignment = busy.take().await?;
        times.push(start.elapsed());
    }
    percentiles(
        table,
        SECTION,
        &format!("completed to next assigned, {queued} queued"),
        times,
        AIM,
    );
    Ok(())
}

/// The median of these times, and how long the slowest hundredth takes, with what is hoped for.
pub fn percentiles(table: &mut Table, section: &'static str, what: &str, mut times: Vec<Duration>, aim: &str) {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let ms = |percent| at(percent).map_or(f64::NAN, |time: &Duration| time.as_secs_f64() * 1e3);
    let syncs = |value: f64, table: &Table| match table.value(yardstick::FSYNC) {
        Some(rate) => format!("{:.1} fsyncs; ", value * rate / 1e3),
        None => String::new(),
    };
    let (median, tail) = (ms(50), ms(99));
    let beside = syncs(median, table).trim_end_matches("; ").to_owned();
    table.add(section, format!("{what}, p50"), median, "ms").beside = beside;
    let beside = syncs(tail, table);
    table.add(section, format!("{what}, p99"), tail, "ms").beside = format!("{beside}aim: {aim}");
}

/// Latency, idle and on the large farm; memory and restart of the large farm.
///
/// # Errors
/// The coordinator's.
pub async fn large(table: &mut Table, disk: &Path, sizes: &Sizes) -> Result<()> {
    {
        let coordinator = Coordinator::start(disk)?;
        coordinator.prepare().await?;
        // Just as many as are completed.
        coordinator.fill(sizes.samples + 1).await?;
        latency(table, &coordinator, sizes.samples, 0).await?;
    }
    let mut coordinator = Coordinator::start(disk)?;
    let empty = coordinator.usage()?;
    coordinator.prepare().await?;
    coordinator.fill(sizes.tasks).await?;
    latency(table, &coordinator, sizes.samples, sizes.tasks).await?;

    let (mut fleet, stop) = (JoinSet::new(), CancellationToken::new());
    for n in 0..sizes.fleet {
        let worker = Simulated::new(&format!("w{n}"), SLOTS);
        let mut session = worker.open(coordinator.connect().await?).await?;
        session.take().await?;
        fleet.spawn(session.hold(stop.clone()));
    }
    let used = coordinator.usage()?;
    let what = format!("{} tasks, {} workers", sizes.tasks, sizes.fleet);
    table.add("Memory", what, mib(used.resident), "MiB").beside = format!(
        "peak {:.0} MiB; {:.1} MiB when empty; aim: < 200 MiB",
        mib(used.peak),
        mib(empty.resident)
    );
    stop.cancel();
    while let Some(done) = fleet.join_next().await {
        done??;
    }

    let start = Instant::now();
    coordinator.restart()?;
    let channel = coordinator.connect().await?;
    // That there is no such livepatch is an answer.
    let nothing = v1::LivepatchRef {
        r#ref: Some(v1::livepatch_ref::Ref::Name("no-such-livepatch".into())),
    };
    let request = v1::GetRequest {
        livepatch: Some(nothing),
        ..Default::default()
    };
    let _ = LivepatchServiceClient::new(channel.clone()).get(request).await;
    let answers = start.elapsed().as_secs_f64();
    Simulated::new("fresh", SLOTS).open(channel).await?.take().await?;
    let assigned = start.elapsed().as_secs_f64();
    let what = |until: &str| format!("kill -9 with {} open tasks, until {until}", sizes.tasks);
    table.add("Restart", what("it answers"), answers, "s").beside = "aim: < 2 s".to_owned();
    table.add("Restart", what("it assigns"), assigned, "s").beside = "aim: < 2 s".to_owned();
    Ok(())
}

/// Real processes on two slots, beside HyperQueue.
///
/// # Errors
/// The coordinator's, or HyperQueue's.
pub async fn processes(table: &mut Table, disk: &Path, sizes: &Sizes, hq: Option<&Path>) -> Result<()> {
    const SECTION: &str = "Real processes, 2 slots";
    let count = sizes.processes;
    let bare = tokio::task::spawn_blocking(move || yardstick::spawn(count)).await??;
    table.add(SECTION, yardstick::SPAWN, bare, "ms").beside = "2 in parallel".to_owned();
    let coordinator = Coordinator::start(disk)?;
    coordinator.prepare().await?;
    // Half of the attempts are the extractions that follow the checks.
    let start = Instant::now();
    let before = coordinator.usage()?;
    coordinator.fill(count / 2).await?;
    let mut fleet = Fleet::start(&coordinator, 1, Work::Process).await?;
    fleet.until(count, PATIENCE).await?;
    let (seconds, after) = (start.elapsed().as_secs_f64(), coordinator.usage()?);
    let done = fleet.count.committed();
    fleet.stop().await?;
    let row = |name: &str, done: usize, seconds: f64, cpu: f64, peak: u64, table: &mut Table| {
        let each = seconds * 1e3 / done as f64;
        table
            .add(SECTION, format!("{name}, {done} x `true`"), done as f64 / seconds, "/s")
            .beside = format!(
            "{:.2} ms added to each; {cpu:.0} µs CPU of its server each; peak {:.0} MiB",
            each - bare,
            mib(peak)
        );
        each - bare
    };
    let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e6 / done as f64;
    let added = row("klp-farm, durable", done, seconds, cpu, after.peak, table);
    if let Some(hq) = hq.map(Path::to_owned) {
        let disk = disk.to_owned();
        let theirs = tokio::task::spawn_blocking(move || yardstick::hyperqueue(&hq, &disk, count)).await??;
        let other = row(
            "HyperQueue, journal",
            count,
            theirs.seconds,
            theirs.cpu,
            theirs.peak,
            table,
        );
        table
            .add(SECTION, "added by klp-farm / by HyperQueue", added / other, "x")
            .beside = "aim: < 1".to_owned();
    }
    Ok(())
}

//! What the dashboard costs: pollers beside a farm at full speed, unchanged views, the pages' weight, and how smooth they are.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use tokio_util::sync::CancellationToken;

use super::coordinator::{Coordinator, submit};
use super::pollers::{Polled, Pollers};
use super::scenario::{Fleet, percentiles};
use super::still::Still;
use super::table::Table;
use super::worker::{Simulated, Work};
use super::{LARGE_ARCHS, LARGE_CODESTREAMS, Sizes, mib};
use crate::{Browser, Http};

const SECTION: &str = "Dashboard";
/// Workers that dispatch at full speed.
const WORKERS: usize = 10;
/// Livepatches that are looked at.
const LOOKED_AT: usize = 10;
/// How often each poller asks.
const PERIOD: Duration = Duration::from_secs(1);
/// Measurements without and with pollers, by turns, so that what else this machine does concerns both.
const ROUNDS: usize = 5;

/// # Errors
/// The coordinator's, or the browser's.
pub async fn all(table: &mut Table, disk: &Path, sizes: &Sizes) -> Result<()> {
    beside_dispatch(table, disk, sizes).await?;
    large_livepatch(table, disk).await
}

/// The views that pollers ask for: half of them the list, the others a livepatch.
fn views(names: &[String]) -> Vec<String> {
    let one = |name: &String| ["/api/v1/livepatches".to_owned(), format!("/api/v1/livepatches/{name}")];
    names.iter().take(LOOKED_AT).flat_map(one).collect()
}

/// How much slower a farm at full speed becomes by being looked at.
async fn beside_dispatch(table: &mut Table, disk: &Path, sizes: &Sizes) -> Result<()> {
    let coordinator = Coordinator::start(disk)?;
    coordinator.prepare().await?;
    let time = Duration::from_secs(sizes.seconds.div_ceil(2));
    // Each check is followed by an extraction.
    let tasks = (3 * ROUNDS + 1) * usize::try_from(time.as_secs())? * 4_000;
    let views = views(&coordinator.fill(tasks).await?);
    let mut fleet = Fleet::start(&coordinator, WORKERS, Work::Nothing).await?;
    fleet.until(usize::MAX, time).await?;
    let still = Still::start()?;
    let (mut alone, mut elsewhere, mut looked_at) = (Vec::new(), Vec::new(), Vec::new());
    let mut polled = Polled::default();
    for _ in 0..ROUNDS {
        alone.push(rate(&mut fleet, time).await?);
        let pollers = Pollers::start(&still.address, views.clone(), sizes.pollers, PERIOD)?;
        elsewhere.push(rate(&mut fleet, time).await?);
        pollers.stop().await?;
        let pollers = Pollers::start(&coordinator.http, views.clone(), sizes.pollers, PERIOD)?;
        looked_at.push(rate(&mut fleet, time).await?);
        let more = pollers.stop().await?;
        polled.times.extend(more.times);
        polled.changed += more.changed;
    }
    fleet.stop().await?;
    let what = |who: &str| format!("attempts, {who}");
    let (alone, elsewhere, looked_at) = (median(alone), median(elsewhere), median(looked_at));
    table.add(SECTION, what("nobody polls"), alone, "/s");
    let less = |than: f64, rate: f64| 100.0 * (1.0 - rate / than);
    let poll = |whom: &str| what(&format!("{} poll {whom} each second", sizes.pollers));
    table
        .add(SECTION, poll("a server that does nothing"), elsewhere, "/s")
        .beside = format!("{:.1} % less: the pollers' own work", less(alone, elsewhere));
    table.add(SECTION, poll("the coordinator"), looked_at, "/s").beside = format!(
        "{:.1} % less than that, aim: < 5 %; {:.1} % in all",
        less(elsewhere, looked_at),
        less(alone, looked_at)
    );
    let (count, changed) = (polled.times.len(), 100 * polled.changed / polled.times.len().max(1));
    let what = format!("poll of a busy farm, {changed} % of {count} with a body");
    percentiles(table, SECTION, &what, polled.times, "< 50 ms");

    // Nothing changes any more: what is the most that can be asked, and does it leave anything behind?
    let before = coordinator.usage()?;
    let pollers = Pollers::start(&coordinator.http, views, sizes.pollers, Duration::from_millis(1))?;
    tokio::time::sleep(time).await;
    let polled = pollers.stop().await?;
    let after = coordinator.usage()?;
    let count = polled.times.len();
    let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e6 / count as f64;
    table
        .add(
            SECTION,
            format!("CPU of a poll of an unchanged view, {count} of them"),
            cpu,
            "µs",
        )
        .beside = format!("{:.0} polls a second", count as f64 / time.as_secs_f64());
    let grown = mib(after.resident) - mib(before.resident);
    table
        .add(
            SECTION,
            format!("memory after {count} polls"),
            mib(after.resident),
            "MiB",
        )
        .beside = format!("{grown:+.1} MiB by them; aim: flat");
    Ok(())
}

/// Attempts that are committed in a second.
async fn rate(fleet: &mut Fleet, time: Duration) -> Result<f64> {
    let first = fleet.count.committed();
    let start = std::time::Instant::now();
    fleet.until(usize::MAX, time).await?;
    Ok((fleet.count.committed() - first) as f64 / start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The page of sixty codestreams on four architectures: its weight, and whether it is smooth while cells change.
async fn large_livepatch(table: &mut Table, disk: &Path) -> Result<()> {
    let coordinator = Coordinator::start(disk)?;
    coordinator.prepare().await?;
    let worker = Simulated::large("large", 4);
    let mut session = worker.open(coordinator.connect().await?).await?;
    // From now on the farm knows its trees.
    session.hear().await?;
    let name = submit(LivepatchServiceClient::new(coordinator.connect().await?), "15.5u.*").await?;
    let page = format!("/livepatches/{name}");
    let browser = match Path::new("/usr/bin/chromedriver").exists() {
        true => Some(Browser::start().await),
        false => None,
    };
    if let Some(browser) = &browser {
        browser
            .open(&format!("{}{page}", coordinator.http.trim_end_matches('/')))
            .await;
        browser.script(WATCH_FRAMES).await;
    }
    let (stop, count) = (CancellationToken::new(), std::sync::Arc::default());
    let working = session.work(
        Work::For(Duration::from_millis(150)),
        std::sync::Arc::clone(&count),
        stop.clone(),
    );
    let all = 2 * LARGE_CODESTREAMS * LARGE_ARCHS.len();
    tokio::select! {
        () = count.reached(all) => stop.cancel(),
        ended = working => ended?,
    }
    if let Some(browser) = browser {
        let seen = browser.script("return [window.frames_, window.long_]").await;
        let times = |n: usize| -> Vec<f64> {
            seen[n]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_f64())
                .collect()
        };
        let (mut frames, long) = (times(0), times(1));
        frames.sort_by(f64::total_cmp);
        let late = frames.iter().filter(|ms| **ms > 50.0).count();
        let at = frames.get(frames.len() * 99 / 100).copied().unwrap_or(f64::NAN);
        let what = format!("frame of the large page while it changes, p99 of {}", frames.len());
        table.add(SECTION, what, at, "ms").beside = format!("{late} over 50 ms; 16.7 ms at best");
        let longest = long.iter().copied().fold(0.0, f64::max);
        table.add(SECTION, "longest work of its script", longest, "ms").beside = format!("{} over 50 ms", long.len());
    }
    let (plain, packed) = tokio::task::spawn_blocking(move || weight(&coordinator.http, &page)).await??;
    table
        .add(SECTION, "its weight, with style and script", plain, "KiB")
        .beside = format!("{packed:.1} KiB compressed; aim: < 200 KiB");
    Ok(())
}

/// Notes how long each frame takes, and all work that keeps the page from being drawn.
const WATCH_FRAMES: &str = "
    window.frames_ = []; window.long_ = [];
    let last = performance.now();
    const frame = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    new PerformanceObserver((list) => { for (const e of list.getEntries()) window.long_.push(e.duration); })
        .observe({ type: 'longtask' });";

/// KiB of a page and of what it loads, as they are and compressed.
fn weight(server: &str, page: &str) -> Result<(f64, f64)> {
    let http = Http::new(server.trim_end_matches('/'));
    let text = http.get(page, &[]).text();
    let assets = text.split('"').filter(|piece| piece.starts_with("/assets/"));
    let all: Vec<&str> = assets.chain([page]).collect();
    let size = |encoding: &str| -> usize {
        let body = |path: &&str| http.get(path, &[("accept-encoding", encoding)]).body.len();
        all.iter().map(body).sum()
    };
    let kib = |bytes: usize| bytes as f64 / 1024.0;
    let (plain, packed) = (size("identity"), size("gzip"));
    (all.len() > 2)
        .then_some(())
        .context("the page has no style and script")?;
    Ok((kib(plain), kib(packed)))
}

//! The text that is scraped: right formats, right numbers, and series that do not grow with what is submitted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klp_livepatch::outcome::Cause;
use klp_livepatch::task::{Incarnation, LivepatchId, TaskKind};
use prometheus_client::encoding::prometheus_text;
use uuid::Uuid;

use super::tally::tests::{leased, livepatch, task, waiting};
use super::view::View;
use super::*;
use crate::aside::Aside;
use crate::clock::Clock;
use crate::farm::{Farm, For, Input, Waiting, WorkerView};
use crate::lifecycle::{AttemptState, State};
use crate::space::{Room, Space};
use crate::standing::{Drain, Quarantine, Standing};
use crate::store::{EndedAttempt, Registration};

fn plain(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_text::encode(&mut text, registry).unwrap();
    text
}

/// The value of a series, as it is written.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .parse()
        .unwrap()
}

fn series(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

/// All that a livepatch of two tasks goes through.
fn life(n: u128) -> Vec<Change> {
    let attempt = |kind, state, cause, again| {
        Change::Attempt(EndedAttempt {
            livepatch: LivepatchId(Uuid::from_u128(n)),
            kind,
            state,
            cause,
            again,
            lasted: 1_500,
        })
    };
    let (check, extract) = (2 * n, 2 * n + 1);
    let of = |id, kind, number, state| Change::Task(task(id, n, kind, number, state));
    use TaskKind::{Check, Extract};
    vec![
        Change::Opened(livepatch(n, false)),
        of(check, Check, 0, waiting(0)),
        of(check, Check, 1, leased()),
        attempt(Check, AttemptState::Succeeded, None, false),
        of(check, Check, 1, State::Succeeded),
        of(extract, Extract, 0, waiting(0)),
        of(extract, Extract, 1, leased()),
        attempt(Extract, AttemptState::Lost, Some(Cause::Farm), true),
        of(extract, Extract, 1, waiting(0)),
        of(extract, Extract, 2, leased()),
        attempt(Extract, AttemptState::Failed, Some(Cause::Codestream), false),
        of(extract, Extract, 2, State::Failed),
        Change::Ended {
            livepatch: LivepatchId(Uuid::from_u128(n)),
        },
    ]
}

#[test]
fn what_happened_is_told() {
    let metrics = Metrics::new();
    metrics.take_in(&life(1), 1_000);
    metrics.take_in(&life(2)[..7], 1_000);
    metrics.http(404);
    metrics.http(200);
    metrics.http(999);
    metrics.transaction(&Group {
        jobs: 3,
        committed: false,
        took: Duration::from_millis(5),
        commit: Duration::from_millis(2),
    });
    let open = metrics.session();
    drop(metrics.session());
    metrics.artifacts().1.inc_by(7);
    let text = plain(metrics.registry());
    for (series, expected) in [
        ("tasks_open{kind=\"extract\",state=\"running\"}", 1.0),
        ("tasks_open{kind=\"extract\",state=\"waiting\"}", 0.0),
        ("tasks_ended_total{kind=\"check\",state=\"succeeded\"}", 2.0),
        ("tasks_ended_total{kind=\"extract\",state=\"failed\"}", 1.0),
        ("tasks_ended_total{kind=\"verify\",state=\"failed\"}", 0.0),
        ("livepatches_open{state=\"running\"}", 1.0),
        ("livepatches_ended_total", 1.0),
        ("dispatch_seconds_count{kind=\"extract\"}", 3.0),
        ("retries_total{cause=\"lost\"}", 1.0),
        ("retries_total{cause=\"died\"}", 0.0),
        ("leases_expired_total", 1.0),
        (
            "attempt_seconds_sum{kind=\"extract\",backend=\"native\",end=\"failed\",cause=\"codestream\"}",
            1.5,
        ),
        (
            "attempt_seconds_count{kind=\"check\",backend=\"none\",end=\"succeeded\",cause=\"none\"}",
            2.0,
        ),
        ("store_group_jobs_sum", 3.0),
        ("store_commit_seconds_sum", 0.002),
        ("store_transaction_seconds_sum", 0.005),
        ("store_transactions_refused_total", 1.0),
        ("artifacts_stored_bytes_total", 7.0),
        ("sessions", 1.0),
        ("sessions_opened_total", 2.0),
        ("http_requests_total{class=\"2xx\"}", 1.0),
        ("http_requests_total{class=\"4xx\"}", 1.0),
        ("http_requests_total{class=\"5xx\"}", 1.0),
    ] {
        assert_eq!(value(&text, &format!("klp_farm_{series}")), expected, "{series}");
    }
    assert!(value(&text, "process_start_time_seconds") > 1.7e9);
    drop(open);
}

#[test]
fn however_much_is_submitted_there_are_no_more_series() {
    let metrics = Metrics::new();
    metrics.take_in(&life(1), 1_000);
    let text = plain(metrics.registry());
    let few = series(&text);
    for n in 2..2_000 {
        metrics.take_in(&life(n), 1_000);
    }
    let text = plain(metrics.registry());
    assert_eq!(series(&text), few);
    assert!(!text.contains("lp1") && !text.contains("15.1u"), "names are no labels");
}

fn worker(name: &str) -> WorkerView {
    WorkerView {
        name: name.parse().unwrap(),
        registration: Registration {
            incarnation: Incarnation(Uuid::from_u128(1)),
            version: String::new(),
            slots: 4,
            trees: BTreeSet::new(),
            tools: Vec::new(),
            memory: 8 << 30,
            broken_trees: BTreeMap::new(),
            broken_tools: BTreeMap::new(),
            isolation: Vec::new(),
        },
        registered: 0,
        connected: true,
        protocol: Some(1),
        draining: false,
        busy: 3,
        prefetched: 0,
        memory_busy: 1 << 30,
        last_seen: 0,
        standing: Standing::default(),
        quarantine: None,
        replaced: 0,
        unleased: Vec::new(),
    }
}

fn view(workers: Vec<WorkerView>, waiting: Vec<Waiting>) -> View {
    View {
        at: 10_000,
        workers,
        waiting,
        room: Some(Room { free: 5, size: 9 }),
        min_free: 1,
    }
}

#[test]
fn the_farm_is_told_as_it_is_now() {
    let drained = WorkerView {
        standing: Standing {
            drain: Some(Drain {
                since: 1,
                reason: "disk".into(),
            }),
            ..Standing::default()
        },
        ..worker("drained")
    };
    let quarantined = WorkerView {
        quarantine: Some(Quarantine {
            until: 1,
            reason: String::new(),
        }),
        ..worker("quarantined")
    };
    let offline = WorkerView {
        connected: false,
        ..drained.clone()
    };
    let offline = WorkerView {
        name: "offline".parse().unwrap(),
        ..offline
    };
    let waits = |what, reason: &str, tasks, since| Waiting {
        what,
        reason: reason.into(),
        blocked: what == For::Worker,
        tasks,
        since,
        livepatches: Vec::new(),
    };
    let waiting = vec![
        waits(For::Worker, "no tree", 2, 4_000),
        waits(For::Worker, "no tool", 3, 1_000),
        waits(For::Slot, "a slot", 1, 9_500),
    ];
    let view = view(vec![worker("a"), drained, quarantined, offline], waiting);
    let text = plain(&view.registry(10_500));
    for (series, expected) in [
        ("queue_tasks{waits_for=\"worker\"}", 5.0),
        ("queue_oldest_age_seconds{waits_for=\"worker\"}", 9.0),
        ("queue_oldest_age_seconds{waits_for=\"slot\"}", 0.5),
        ("queue_tasks{waits_for=\"resume\"}", 0.0),
        ("workers{state=\"ready\"}", 1.0),
        ("workers{state=\"drained\"}", 1.0),
        ("workers{state=\"quarantined\"}", 1.0),
        ("workers{state=\"offline\"}", 1.0),
        ("workers{state=\"stopping\"}", 0.0),
        ("worker_slots{worker=\"a\"}", 4.0),
        ("worker_busy_slots{worker=\"a\"}", 3.0),
        ("worker_memory_busy_bytes{worker=\"a\"}", (1u64 << 30) as f64),
        ("worker_connected{worker=\"offline\"}", 0.0),
        ("worker_drained{worker=\"drained\"}", 1.0),
        ("worker_quarantined{worker=\"quarantined\"}", 1.0),
        ("worker_quarantined{worker=\"a\"}", 0.0),
        ("data_free_bytes", 5.0),
        ("data_size_bytes", 9.0),
        ("data_min_free_bytes", 1.0),
        ("view_age_seconds", 0.5),
    ] {
        assert_eq!(value(&text, &format!("klp_farm_{series}")), expected, "{series}");
    }
}

#[test]
fn of_very_many_workers_the_connected_ones_are_told() {
    let away = (0..1_000).map(|n| WorkerView {
        connected: false,
        ..worker(&format!("away{n}"))
    });
    let text = plain(&view(away.chain([worker("z")]).collect(), Vec::new()).registry(10_000));
    assert_eq!(value(&text, "klp_farm_workers{state=\"offline\"}"), 1_000.0);
    assert_eq!(value(&text, "klp_farm_worker_slots{worker=\"z\"}"), 4.0);
    assert_eq!(text.matches("klp_farm_worker_slots{").count(), 500);
}

#[test]
fn a_scraper_gets_the_format_it_asks_for() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    for plain in [
        "",
        "*/*",
        "text/html",
        "text/plain;version=0.0.4",
        "application/openmetrics-text;q=0",
    ] {
        assert_eq!(Format::accepted(plain), Format::Plain, "{plain}");
    }
}

/// A farm whose loop is the test's.
fn scrape() -> (Scrape, tokio::sync::mpsc::UnboundedReceiver<Input>) {
    let (inbox, inputs) = tokio::sync::mpsc::unbounded_channel();
    let (farm, space) = (Farm::new(inbox), Space::default());
    let scrape = Scrape::new(Metrics::new(), farm, space, Clock::system(), Aside::Threads);
    (scrape, inputs)
}

fn answer(input: Input) {
    match input {
        Input::Workers(answer) => drop(answer.send(vec![worker("a")])),
        Input::Waiting(answer) => drop(answer.send(Vec::new())),
        _ => panic!("nobody asked for that"),
    }
}

#[tokio::test]
async fn the_farm_is_asked_once_a_second_however_many_scrape() {
    let (scrape, mut inputs) = scrape();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(input) = inputs.recv().await {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            answer(input);
        }
    });
    let scraping: Vec<_> = (0..50)
        .map(|_| {
            let scrape = scrape.clone();
            tokio::spawn(async move { scrape.text(Format::OpenMetrics).await.unwrap() })
        })
        .collect();
    for text in scraping {
        let text = text.await.unwrap();
        assert!(text.contains("klp_farm_worker_slots{worker=\"a\"} 4") && text.ends_with("# EOF\n"));
        assert_eq!(text.matches("# EOF").count(), 1);
    }
    assert_eq!(
        asked.load(std::sync::atomic::Ordering::Relaxed),
        2,
        "once for each question"
    );
}

#[tokio::test]
async fn a_farm_that_is_stuck_does_not_keep_a_scrape() {
    let (scrape, mut inputs) = scrape();
    let text = scrape.text(Format::Plain).await.unwrap();
    assert!(text.contains("klp_farm_tasks_open") && !text.contains("klp_farm_workers"));
    // The question of the scrape that was given up stands, and its answer is there for the next.
    answer(inputs.recv().await.unwrap());
    answer(inputs.recv().await.unwrap());
    let text = scrape.text(Format::Plain).await.unwrap();
    assert!(text.contains("klp_farm_workers{state=\"ready\"} 1"));
    // Stuck again, what was seen last is told with its age.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let text = scrape.text(Format::Plain).await.unwrap();
    assert!(text.contains("klp_farm_workers{state=\"ready\"} 1"));
    assert!(value(&text, "klp_farm_view_age_seconds") >= 1.1);
}

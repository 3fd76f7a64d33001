//! What operators watch, by the real Prometheus: it reads what a real farm tells, every expression of the dashboard and the
//! alerts has an answer, alerts arise, and what is submitted makes no new series.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fancy_regex::Regex;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_tests::bench::coordinator::submit;
use klp_tests::bench::worker::Simulated;
use klp_tests::prometheus::{Prometheus, get, promtool};
use klp_tests::{Farm, SUBMIT, WorkerOptions, one_codestream, trees, wait_until};
use serde_json::Value;
use tonic::transport::Endpoint;

const PATIENCE: Duration = Duration::from_secs(30);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy().join(name)).unwrap()
}

fn farm(settings: &str) -> (Farm, String) {
    let farm = Farm::with_settings(&format!("http_listen = \"127.0.0.1:0\"\n{settings}"));
    let address = farm.http.clone().unwrap().trim_start_matches("http://").to_owned();
    (farm, address)
}

fn scrape(address: &str) -> String {
    let (status, text) = get(address, "/metrics", "text/plain;version=0.0.4");
    assert_eq!(status, 200, "{text}");
    text
}

/// The series in a text.
fn series(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

/// The families that a text has, as expressions name them, without what makes up a histogram.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
}

/// Our families that a text names, without what makes up a histogram.
fn named(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\bklp_farm_[a-z_]+").unwrap();
    let names = name.find_iter(text).map(|found| found.unwrap().as_str().to_owned());
    let family = |name: String| {
        let part = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|part| name.strip_suffix(part));
        part.map_or(name.clone(), str::to_owned)
    };
    names.map(family).collect()
}

/// The expressions of the dashboard's panels, with its variables filled in.
fn expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let filled = move |target: Value| {
            let text = target["expr"].as_str().unwrap();
            let text = text.replace("$job", ".*").replace("$instance", ".*");
            (title.clone(), text.replace("$__rate_interval", "1m"))
        };
        targets.into_iter().map(filled).collect::<Vec<_>>()
    };
    panels.flat_map(of).collect()
}

/// Prometheus, as deployed but faster.
fn watch(address: &str) -> Option<Prometheus> {
    let rules = deploy().join("alerts.yml");
    let config = read("prometheus.yml")
        .replace("127.0.0.1:7421", address)
        .replace("15s", "1s")
        .replace("alerts.yml", rules.to_str().unwrap());
    let prometheus = Prometheus::start(&config)?;
    wait_until(PATIENCE, "the farm is scraped", || {
        (prometheus.query("up{job=\"klp-farm\"}") == [1.0]).then_some(())
    });
    Some(prometheus)
}

/// All alert rules, as Prometheus sees them.
fn rules(prometheus: &Prometheus) -> Vec<Value> {
    let data = prometheus.api("/api/v1/rules?type=alert");
    data["groups"][0]["rules"].as_array().unwrap().clone()
}

fn wait_for_alert(prometheus: &Prometheus, name: &str) {
    wait_until(PATIENCE, &format!("{name} arises"), || {
        let rules = rules(prometheus);
        let rule = rules.iter().find(|rule| rule["name"] == name).unwrap();
        let alert = rule["alerts"].as_array()?.first()?.clone();
        let summary = alert["annotations"]["summary"].as_str().unwrap();
        assert!(!summary.contains("error"), "{summary}");
        Some(())
    });
}

#[test]
fn promtool_finds_nothing_wrong() {
    for args in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let Some(done) = promtool(&args, &deploy(), "") else {
            return;
        };
        assert!(done.status.success(), "{args:?}: {done:?}");
    }
    let (alerts, tests, runbook) = (read("alerts.yml"), read("alerts_test.yml"), read("RUNBOOK.md"));
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        assert!(tests.contains(name), "{name} is never seen to fire");
        let title = format!("### {name}\n");
        assert!(runbook.contains(&title), "the runbook does not say what {name} means");
    }
}

#[test]
fn prometheus_reads_a_farm_and_every_expression_has_an_answer() {
    let Some(trees) = trees() else { return };
    let (mut farm, address) = farm("");
    let Some(prometheus) = watch(&address) else { return };
    farm.add_worker(WorkerOptions {
        trees: &trees,
        codestreams: &one_codestream(&trees),
        slots: 2,
        ..WorkerOptions::default()
    });
    let done = farm.cli(SUBMIT.into_iter().chain(["--wait"]));
    assert_eq!(done.code, Some(0), "{done:?}");

    let text = scrape(&address);
    let checked = promtool(&["check", "metrics"], &deploy(), &text).unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    let (_, open) = get(&address, "/metrics", "application/openmetrics-text;version=1.0.0");
    assert!(open.ends_with("# EOF\n") && open.contains("# UNIT klp_farm_dispatch_seconds seconds"));

    let tasks = farm.tasks("lp").len() as f64;
    for (expression, expected) in [
        ("sum(klp_farm_tasks_ended_total{state=\"succeeded\"})", tasks),
        ("sum(klp_farm_attempt_seconds_count)", tasks),
        ("sum(klp_farm_dispatch_seconds_count)", tasks),
        ("sum(klp_farm_tasks_open)", 0.0),
        ("klp_farm_livepatches_ended_total", 1.0),
        ("klp_farm_worker_slots{worker=\"a\"}", 2.0),
        ("klp_farm_workers{state=\"ready\"}", 1.0),
        ("klp_farm_sessions", 1.0),
        ("count(klp_farm_build_info{version!=\"\"})", 1.0),
        (
            "sum(klp_farm_attempt_seconds_sum{kind=\"extract\",backend=\"native\"}) > bool 0.01",
            1.0,
        ),
        ("klp_farm_artifacts_stored_bytes_total > bool 100", 1.0),
        (
            "klp_farm_artifacts_received_bytes_total >= bool klp_farm_artifacts_stored_bytes_total",
            1.0,
        ),
        ("klp_farm_logs_kept_bytes_total > bool 0", 1.0),
        ("klp_farm_store_commit_seconds_count > bool 3", 1.0),
        ("klp_farm_http_requests_total{class=\"2xx\"} > bool 3", 1.0),
        ("abs(time() - process_start_time_seconds) < bool 300", 1.0),
    ] {
        wait_until(PATIENCE, &format!("{expression} is {expected}"), || {
            (prometheus.query(expression) == [expected]).then_some(())
        });
    }
    // Each has two scrapes at least on either side of what happened.
    let expressions = expressions();
    assert!(expressions.len() > 40, "{expressions:?}");
    for (panel, expression) in expressions {
        wait_until(PATIENCE, &format!("{panel}: {expression}"), || {
            (!prometheus.query(&expression).is_empty()).then_some(())
        });
    }
    // An alert's expression gives nothing while all is well; so what it compares must be there.
    let rules = wait_until(PATIENCE, "all alerts are evaluated", || {
        let rules = rules(&prometheus);
        (!rules.iter().any(|rule| rule["health"] == "unknown")).then_some(rules)
    });
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        // This machine's disk may be as it will.
        let name = rule["name"].as_str().unwrap();
        if !name.contains("Disk") && name != "KlpFarmCommitsSlow" {
            assert_eq!(rule["alerts"], serde_json::json!([]), "{rule}");
        }
    }
    let mut used = named(&read("alerts.yml"));
    used.extend(named(&read("alerts_test.yml")));
    let told = families(&text);
    assert_eq!(
        used.difference(&told).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "told by nobody"
    );
    let ours = named(&told.iter().map(|family| format!("{family} ")).collect::<String>());
    for (file, named) in [
        ("the dashboard", named(&read("grafana-dashboard.json"))),
        ("README.md", named(&read("../README.md"))),
    ] {
        assert_eq!(named, ours, "what {file} shows, and what there is");
    }

    farm.workers[0].kill();
    wait_for_alert(&prometheus, "KlpFarmNoWorkerConnected");
    farm.kill_coordinator();
    wait_for_alert(&prometheus, "KlpFarmCoordinatorDown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_open_tasks_make_no_new_series_and_no_slow_scrape() {
    let (farm, address) = farm("tryout_ms = 0\n");
    let channel = Endpoint::from_shared(farm.url.clone()).unwrap();
    let channel = channel.connect().await.unwrap();
    // It announces its trees and goes: nobody can run anything.
    let trees = (0..2_000).map(|n| format!("cs-{n}"));
    let holder = Simulated::with_trees("holder", 1, trees);
    holder.open(channel.clone()).await.unwrap().hear().await.unwrap();
    wait_until(PATIENCE, "it is gone", || {
        scrape(&address)
            .contains("klp_farm_workers{state=\"offline\"} 1\n")
            .then_some(())
    });
    let client = LivepatchServiceClient::new(channel);
    submit(client.clone(), "cs-.*").await.unwrap();
    let few = scrape(&address);
    for _ in 1..50 {
        submit(client.clone(), "cs-.*").await.unwrap();
    }
    let blocked = "klp_farm_queue_tasks{waits_for=\"worker\"} 100000\n";
    let many = wait_until(PATIENCE, "all are told", || {
        let text = scrape(&address);
        text.contains(blocked).then_some(text)
    });
    assert!(many.contains("klp_farm_tasks_open{kind=\"check\",state=\"waiting\"} 100000\n"));
    assert_eq!(series(&many), series(&few));
    let mut took: Vec<Duration> = (0..40)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(100));
            let begun = Instant::now();
            scrape(&address);
            begun.elapsed()
        })
        .collect();
    took.sort();
    eprintln!("40 scrapes took {took:?}");
    // Half of them at least are told from the last view; the longest may have waited for the farm's loop, to a bound. This
    // is a debug build on a machine that does other things.
    assert!(
        took[20] < Duration::from_millis(50) && took[39] < Duration::from_millis(1_000),
        "{took:?}"
    );
}

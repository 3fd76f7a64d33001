//! One trace for each livepatch, from the command line to the extraction's own process, and log lines that carry its ids:
//! over real programs, with an OTLP collector that keeps what it gets.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod collector;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use klp_livepatch::Arch;
use klp_tests::suse::{DataDir, Kernel};
use klp_tests::{CommandResult, Farm, WorkerOptions, wait_until};
use serde_json::Value;

use collector::{Collector, Span};

const CATALOG: &str = "Update ID,Maintenance Project,Kernel version,Supported until,LTSS until\n\
    SLE15-SP5_Update_1,SUSE:Maintenance:1,5.14.21-150500.55.7.1,2030-12-31,\n";

const CORE: &str = "#include <linux/export.h>\n#include <linux/printk.h>\n\nstatic __attribute__((noinline)) int core_step(int x)\n{\n\t\
    return vprintk(\"core\", x);\n}\n\nint core_run(int x)\n{\n\treturn core_step(x) + core_step(x + 1);\n}\n";

const FIX: &str = "--- a/kernel/core.c\n+++ b/kernel/core.c\n@@ -8,5 +8,5 @@\n \n int core_run(int x)\n {\n-\treturn core_step(x) + \
    core_step(x + 1);\n+\treturn core_step(x) + core_step(x + 7);\n }\n";

/// What must not be in any log.
const SECRET: &str = "hunter2";

/// A farm with one worker, which holds one small kernel.
struct Ground {
    farm: Farm,
    data: DataDir,
}

impl Ground {
    fn new(env: &[(&str, &str)]) -> Self {
        let data = DataDir::new();
        let kernel = Kernel::new("5.14.21-150500.55.7", "default")
            .archs(&[Arch::X86_64])
            .flags(&["-pg", "-mfentry", "-mrecord-mcount", "-mnop-mcount", "-fno-pie"])
            .built_in("kernel/core.c", "CONFIG_CORE", CORE)
            .text("Kbuild", "obj-y += init/ kernel/\n")
            .text("kernel/Makefile", "obj-$(CONFIG_CORE) += core.o\n");
        data.add(&kernel);
        let catalog = data.path().join("supported.csv");
        fs::write(&catalog, CATALOG).unwrap();
        fs::write(data.path().join("core.patch"), FIX).unwrap();
        let mut farm = Farm::with_env(env, &format!("catalog = {:?}\n", catalog.display().to_string()));
        farm.add_worker(WorkerOptions {
            trees: &data.path().join("no-trees"),
            suse: Some((data.path(), &catalog)),
            ..WorkerOptions::default()
        });
        Self { farm, data }
    }

    /// Submits a livepatch and waits for its end.
    fn submit(&self, name: &str, function: &str) -> CommandResult {
        let mut args = self.submission(name, function);
        args.push("--wait".to_owned());
        self.farm.cli(args)
    }

    fn submission(&self, name: &str, function: &str) -> Vec<String> {
        let patch = self.data.path().join("core.patch").to_string_lossy().into_owned();
        let args = [
            "submit",
            "--name",
            name,
            "--type",
            "native",
            "--conf",
            "CONFIG_CORE",
            "--archs",
            "x86_64",
            "--patch",
            &patch,
            "--file-funcs",
            "kernel/core.c",
            function,
        ];
        args.map(str::to_owned).to_vec()
    }

    /// Ends all programs, so that what they have to say is said.
    fn stop(&mut self) {
        for mut worker in self.farm.workers.drain(..) {
            assert!(worker.terminate().success(), "{}", worker.log());
        }
        self.farm.stop_coordinator();
    }

    fn log(&self, of: &str) -> String {
        fs::read_to_string(self.farm.dir.path().join(format!("{of}.log"))).unwrap()
    }
}

/// The only span of that name among some.
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found[0]
}

fn among<'a>(spans: &'a [Span], parent: &Span, name: &str) -> &'a Span {
    let found: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name == name && span.parent == parent.id)
        .collect();
    assert_eq!(found.len(), 1, "{name} below {parent:#?}: {spans:#?}");
    found[0]
}

#[test]
fn a_livepatch_is_one_trace_from_the_command_line_to_the_child_process() {
    let collector = Collector::start();
    let mut ground = Ground::new(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]);
    let submitted = ground.submit("lp", "core_run");
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let status = ground.farm.status("lp");
    let id = status["livepatch"]["id"].as_str().unwrap().to_owned();
    let refused = ground.submit("slip", "core_rum");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    ground.stop();

    let (spans, others): (Vec<Span>, Vec<Span>) = collector
        .spans()
        .into_iter()
        .partition(|span| span.trace == id.replace('-', ""));
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span has an id of its own: {spans:#?}");
    for span in &spans {
        assert!(
            span.parent.is_empty() || by_id.contains_key(span.parent.as_str()),
            "{span:#?}"
        );
        assert!(span.start <= span.end && !span.failed, "{span:#?}");
    }

    // The command line's span is the first, and the only one that is below nothing.
    let root = one(&spans, "submit");
    let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(roots, [root]);
    assert_eq!(
        (root.service.as_str(), root.attributes["klp.name"].as_str()),
        ("klp-farm", "lp")
    );
    let served = among(&spans, root, "klpfarm.v1.LivepatchService/Submit");
    assert_eq!(served.service, "klp-coordinator");
    assert_eq!(served.attributes["rpc.response.status_code"], "OK");
    assert_eq!(served.attributes["klp.livepatch"], id);
    assert!(root.start <= served.start && served.end <= root.end);
    let tryout = among(&spans, served, "tryout");
    let tried = among(&spans, tryout, "attempt");
    assert_eq!(tried.attributes["klp.kind"], "check");

    // Every attempt is below its task's wait, which is below the first span.
    let tasks = status["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    for task in tasks {
        let task_id = task["id"].as_str().unwrap();
        let of_it = |span: &&Span| span.name == "task" && span.attributes["klp.task"] == task_id;
        let waited = spans.iter().find(of_it).unwrap();
        assert_eq!(
            (waited.parent.as_str(), waited.service.as_str()),
            (root.id.as_str(), "klp-coordinator")
        );
        let attempt = among(&spans, waited, "attempt");
        assert_eq!(attempt.service, "klp-worker");
        for (name, value) in [
            ("klp.livepatch", id.as_str()),
            ("klp.task", task_id),
            ("klp.attempt", "1"),
            ("klp.kind", task["kind"].as_str().unwrap()),
            ("klp.codestream", "15.5u1"),
            ("klp.arch", "x86_64"),
            ("klp.worker", "a"),
            ("klp.outcome", "succeeded"),
        ] {
            assert_eq!(attempt.attributes[name], value, "{name}");
        }
        assert_eq!(waited.attributes["klp.worker"], "a");
        let commit = among(&spans, attempt, "commit");
        let committed = among(&spans, commit, "klpfarm.v1.WorkerService/Commit");
        assert_eq!(committed.attributes["klp.task"], task_id);
        among(&spans, committed, "commit transaction");
        match task["kind"].as_str().unwrap() {
            "check" => drop(among(&spans, attempt, "check")),
            _ => an_extraction(&spans, attempt),
        }
    }

    // A refused submission is a trace of its own, which says so.
    let traces: BTreeSet<&str> = others.iter().map(|span| span.trace.as_str()).collect();
    assert_eq!(traces.len(), 1, "{others:#?}");
    let refused = one(&others, "klpfarm.v1.LivepatchService/Submit");
    assert!(refused.failed && one(&others, "submit").failed, "{others:#?}");
    assert_eq!(refused.attributes["rpc.response.status_code"], "INVALID_ARGUMENT");
}

/// What is below an extraction's attempt, down to what its own process says.
fn an_extraction(spans: &[Span], attempt: &Span) {
    among(spans, attempt, "fetch fixes");
    let view = among(spans, attempt, "view");
    assert!(
        spans.iter().any(|s| s.parent == view.id && s.name == "child process"),
        "{spans:#?}"
    );
    let extract = among(spans, attempt, "extract");
    assert_eq!(extract.attributes["klp.file"], "kernel/core.c");
    let child = among(spans, extract, "child process");
    assert_eq!(child.attributes["process.executable.name"], "klp-worker");
    assert_eq!(child.attributes["process.exit.code"], "0");
    assert!(child.attributes["process.pid"].parse::<u32>().unwrap() > 0);
    // It knew its span from its environment.
    for step in ["read symbols", "extract and compile"] {
        let step = among(spans, child, step);
        assert!(
            child.start <= step.start && step.end <= child.end,
            "{child:#?} {step:#?}"
        );
    }
    assert!(
        spans.iter().any(|s| s.parent == attempt.id && s.name == "upload"),
        "{spans:#?}"
    );
}

#[test]
fn every_line_is_json_with_its_ids_and_holds_no_secret() {
    let collector = Collector::start();
    let proxy = format!("http://jane:{SECRET}@127.0.0.1:1");
    let headers = format!("authorization=Bearer%20{SECRET}");
    let mut ground = Ground::new(&[
        ("KLP_FARM_LOG_FORMAT", "json"),
        // All there is, the libraries' lines included.
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
        ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("http_proxy", &proxy),
        ("https_proxy", &proxy),
    ]);
    let submitted = ground.submit("lp", "core_run");
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let status = ground.farm.status("lp");
    let id = status["livepatch"]["id"].as_str().unwrap().to_owned();
    let tasks: BTreeSet<String> = status["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["id"].as_str().unwrap().to_owned())
        .collect();
    ground.stop();
    assert!(
        collector.authorizations().iter().any(|said| said.contains(SECRET)),
        "the collector is told, or this test proves nothing"
    );

    for of in ["coordinator", "a"] {
        let log = ground.log(of);
        assert!(!log.contains(SECRET), "{of}: {}", line_with(&log, SECRET));
        let lines: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{of}: {e}: {line}")))
            .collect();
        for line in &lines {
            for name in ["timestamp", "level", "target", "message"] {
                assert!(line[name].is_string(), "{of}: no {name}: {line}");
            }
        }
        let ours = |line: &&Value| line["target"].as_str().unwrap().starts_with("klp_");
        // Whatever names a task says which livepatch and which attempt it is of.
        for line in lines.iter().filter(ours) {
            if line["klp.task"].is_string() || line["klp.attempt"].is_number() {
                assert!(
                    line["klp.livepatch"].is_string() && line["klp.attempt"].is_number(),
                    "{of}: {line}"
                );
            }
        }
        let about: BTreeSet<String> = lines
            .iter()
            .filter(ours)
            .filter(|line| line["klp.livepatch"] == id.as_str())
            .filter_map(|line| line["klp.task"].as_str().map(str::to_owned))
            .collect();
        assert!(tasks.is_subset(&about), "{of}: {about:?} lacks some of {tasks:?}");
        let said = |message: &str| {
            lines
                .iter()
                .filter(ours)
                .any(|l| l["message"] == message && l["klp.livepatch"] == id.as_str())
        };
        assert!(
            said(if of == "a" { "outcome committed" } else { "submitted" }),
            "{of}: {log}"
        );
    }
}

fn line_with<'a>(log: &'a str, what: &str) -> &'a str {
    log.lines().find(|line| line.contains(what)).unwrap_or_default()
}

#[test]
fn a_collector_that_is_down_or_silent_changes_nothing_and_is_told_once() {
    // A port where nobody listens.
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{down}");
    let mut ground = Ground::new(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
    ]);
    for name in ["one", "two"] {
        let submitted = ground.submit(name, "core_run");
        assert_eq!(submitted.code, Some(0), "{submitted:?}");
        assert_eq!(
            submitted.stderr.matches("the collector takes no spans").count(),
            1,
            "{submitted:?}"
        );
    }
    let told = "the collector takes no spans";
    for of in ["coordinator", "a"] {
        wait_until(Duration::from_secs(20), "it is told", || {
            ground.log(of).contains(told).then_some(())
        });
    }
    // One that takes connections and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let submitted = klp_tests::command_on(None, "klp-farm")
        .args(ground.submission("three", "core_run"))
        .env("KLP_FARM_COORDINATOR", &ground.farm.url)
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", silent.local_addr().unwrap()),
        )
        .output()
        .unwrap();
    assert_eq!(submitted.status.code(), Some(0), "{submitted:?}");
    assert!(
        String::from_utf8_lossy(&submitted.stderr).contains(told),
        "{submitted:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}: {submitted:?}",
        begun.elapsed()
    );
    let begun = Instant::now();
    ground.stop();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for of in ["coordinator", "a"] {
        assert_eq!(ground.log(of).matches(told).count(), 1, "{of}: {}", ground.log(of));
    }
}

//! Tools that do what no tool should, under a real worker on a real kernel: each is stopped at its limit with all its
//! family, its verdict names the limit, its log is kept, and the farm goes on.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::time::Duration;

use klp_tests::{Farm, SUBMIT, Tools, WorkerOptions, one_codestream, runs, trees, wait_until};
use serde_json::Value;

/// How long what was stopped may still be there.
const GONE: Duration = Duration::from_secs(5);

/// A `make` that is deaf to polite signals and never ends, with a child in its group, a daemon, and a daemon that has
/// shed its environment too. Each of the four writes down its id.
const HYDRA: &str = r#"#!/usr/bin/perl
use POSIX 'setsid';
my ($here) = $0 =~ m{(.*)/};
$SIG{$_} = 'IGNORE' for qw(TERM INT HUP QUIT);
sub stay {
    open my $pids, '>>', "$here/pids";
    syswrite $pids, "$$\n";
    sleep 1 for 1 .. 600;
    exit;
}
stay() if $ARGV[0] eq 'stay';
fork or stay();
fork or do { setsid; fork or stay(); exit };
fork or do { setsid; fork or do { %ENV = (); exec $^X, $0, 'stay' }; exit };
open my $log, '>', '/proc/' . getppid() . '/fd/2';
syswrite $log, "the hydra has begun\n";
stay();
"#;

/// A farm whose one worker, which holds one kernel, finds `make` in a folder of the test's own.
fn farm_with(tools: &Tools, settings: &str) -> Option<Farm> {
    let trees = trees()?;
    let mut farm = Farm::with_settings(settings);
    add_worker(&mut farm, tools, &trees);
    Some(farm)
}

fn add_worker(farm: &mut Farm, tools: &Tools, trees: &Path) {
    farm.add_worker(WorkerOptions {
        trees,
        codestreams: &one_codestream(trees),
        tools: Some(tools.path()),
        ..WorkerOptions::default()
    });
}

fn ok(farm: &Farm, args: &[&str]) -> String {
    let done = farm.cli(args);
    assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
    done.stdout
}

/// Submits, waits for the failure, and answers the extraction with its log.
fn fails(farm: &Farm) -> (Value, String) {
    let submitted = farm.cli(SUBMIT.into_iter().chain(["--wait"]));
    assert_eq!(submitted.code, Some(3), "{submitted:?}");
    let mut tasks = farm.tasks("lp").into_iter();
    let extract = tasks.rfind(|task| task["kind"] == "extract").unwrap();
    (extract, ok(farm, &["logs", "lp", "--kind", "extract"]))
}

/// That with the tool gone the same farm does what it was asked to, and that nothing is amiss with it.
fn recovers(farm: &Farm, tools: &Tools) {
    tools.remove("make");
    let again = farm.cli(["retry", "lp", "--wait"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    farm.is_sound("lp");
}

fn are_gone(pids: &[u32]) {
    wait_until(GONE, "the tool's family is gone", || {
        (!pids.iter().any(|pid| runs(*pid))).then_some(())
    });
}

#[test]
fn a_tool_that_hangs_and_forks_is_stopped_at_its_time_with_all_its_family() {
    let tools = Tools::new();
    tools.put_for_extraction("make", HYDRA);
    let Some(mut farm) = farm_with(&tools, "time_limit_ms = 5000\n") else {
        return;
    };
    let (extract, log) = fails(&farm);
    are_gone(&tools.pids(4));
    assert_eq!(extract["attempt"], 1, "{extract}");
    assert_eq!(extract["failure"]["cause"], "codestream", "{extract}");
    let message = extract["failure"]["message"].as_str().unwrap();
    assert!(message.contains("killed after 3 s (limit)"), "{message}");
    assert!(
        log.contains("the hydra has begun") && log.contains("== failed"),
        "{log}"
    );
    farm.restart_with("");
    recovers(&farm, &tools);
}

#[test]
fn what_is_cancelled_is_gone_with_all_its_family_whatever_it_ignores() {
    let tools = Tools::new();
    tools.put_for_extraction("make", HYDRA);
    let Some(farm) = farm_with(&tools, "") else { return };
    ok(&farm, &SUBMIT);
    let pids = tools.pids(4);
    assert!(pids.iter().all(|pid| runs(*pid)));
    ok(&farm, &["cancel", "lp", "--reason", "wrong fix"]);
    are_gone(&pids);
    recovers(&farm, &tools);
}

#[test]
fn a_slip_is_caught_while_every_slot_is_taken() {
    let tools = Tools::new();
    tools.put_for_extraction("make", HYDRA);
    let Some(farm) = farm_with(&tools, "tryout_ms = 60000\n") else {
        return;
    };
    ok(&farm, &SUBMIT);
    let pids = tools.pids(4);
    let slip = SUBMIT.map(|word| match word {
        "lp" => "slip",
        "CONFIG_SND_PCM" => "CONFIG_SND_PCMX",
        word => word,
    });
    let refused = farm.cli(slip);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("CONFIG_SND_PCMX"), "{refused:?}");
    assert!(pids.iter().all(|pid| runs(*pid)));
    ok(&farm, &["cancel", "lp", "--reason", "seen enough"]);
    are_gone(&pids);
}

#[test]
fn what_a_killed_worker_left_running_is_gone_with_its_next_start() {
    let tools = Tools::new();
    // One that has shed its environment too is known by nothing once its parents are gone.
    tools.put_for_extraction("make", &HYDRA.replace("%ENV = (); ", ""));
    let Some(mut farm) = farm_with(&tools, "") else { return };
    ok(&farm, &SUBMIT);
    let pids = tools.pids(4);
    farm.workers[0].kill();
    assert!(pids.iter().any(|pid| runs(*pid)));
    tools.remove("make");
    add_worker(&mut farm, &tools, &trees().unwrap());
    are_gone(&pids);
    farm.ends_in_success("lp");
    farm.is_sound("lp");
}

#[test]
fn of_a_gibibyte_of_log_the_head_and_the_tail_are_kept_and_no_memory_is_lost() {
    let tools = Tools::new();
    tools.put(
        "make",
        r#"#!/usr/bin/perl
my $rest = 'x' x 1000;
open my $log, '>', '/proc/' . getppid() . '/fd/2';
for my $n (1 .. 1 << 20) { print $log "line $n $rest\n" }
"#,
    );
    let Some(farm) = farm_with(&tools, "") else { return };
    let (extract, log) = fails(&farm);
    let message = extract["failure"]["message"].as_str().unwrap();
    assert!(message.contains("killed after 256 MiB of output (limit)"), "{message}");
    assert!(log.len() <= 4 << 20, "{}", log.len());
    assert!(
        log.contains("\nline 1 x") && log.contains("bytes are left out here"),
        "the head"
    );
    let last = log.lines().rev().find_map(|line| line.strip_prefix("line ")).unwrap();
    let last: u64 = last.split(' ').next().unwrap().parse().unwrap();
    assert!(last > 250_000, "the tail is that of the first {last} KiB");
    let most = farm.workers[0].most_memory();
    assert!(most < 64 << 20, "the worker took {} MiB", most >> 20);
    recovers(&farm, &tools);
}

#[test]
fn a_tool_that_floods_whoever_reads_its_answer_fails_its_codestream() {
    let tools = Tools::new();
    tools.put("make", "#!/bin/sh\nyes 'gcc-12 -c' | head -c 1G\n");
    let Some(farm) = farm_with(&tools, "memory_limit = 1073741824\n") else {
        return;
    };
    let (extract, _) = fails(&farm);
    let message = extract["failure"]["message"].as_str().unwrap();
    assert_eq!(
        (&extract["attempt"], &extract["failure"]["cause"]),
        (&1.into(), &"codestream".into()),
        "{extract}"
    );
    assert!(message.contains("MiB of output (limit)"), "{message}");
    recovers(&farm, &tools);
}

#[test]
fn a_tool_that_takes_all_memory_it_can_get_is_stopped_at_its_limit() {
    let tools = Tools::new();
    tools.put(
        "make",
        "#!/usr/bin/perl\nmy @all;\npush @all, 'x' x 1e7 for 1 .. 800;\n",
    );
    let Some(farm) = farm_with(&tools, "memory_limit = 1073741824\n") else {
        return;
    };
    let (extract, _) = fails(&farm);
    let message = extract["failure"]["message"].as_str().unwrap();
    assert_eq!(
        (&extract["attempt"], &extract["failure"]["cause"]),
        (&1.into(), &"codestream".into()),
        "{extract}"
    );
    assert!(message.contains("memory was limited to 1024 MiB"), "{message}");
    recovers(&farm, &tools);
}

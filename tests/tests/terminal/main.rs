//! What people see on a terminal: `watch` and `top` of a real farm, on real pseudo-terminals.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod pty;

use klp_tests::{Farm, SUBMIT, WorkerOptions, trees, wait_until};
use pty::Pty;
use std::time::Duration;

fn farm() -> Option<Farm> {
    let trees = trees()?;
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        name: "a",
        trees: &trees,
        codestreams: "debian12-6.1",
        slots: 1,
        ..WorkerOptions::default()
    });
    Some(farm)
}

/// A farm with a livepatch that goes on for as long as nobody resumes it.
fn paused() -> Option<Farm> {
    let farm = farm()?;
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    let paused = farm.cli(["pause", "lp", "--reason", "lunch"]);
    assert_eq!(paused.code, Some(0), "{paused:?}");
    wait_until(Duration::from_secs(60), "nothing runs", || {
        farm.tasks("lp").iter().all(|t| t["state"] != "running").then_some(())
    });
    Some(farm)
}

#[test]
fn a_livepatch_is_watched_to_its_end() {
    let Some(farm) = farm() else { return };
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    let mut watch = Pty::farm(&farm, "watch lp", 24, 120);
    let first = watch.until("what runs is seen", |text| {
        text.contains("▶") && text.contains("x86_64")
    });
    assert!(first.contains("CODESTREAM") && first.contains("q leave"), "{first}");
    assert!(watch.is_drawn_on());
    let wide = watch.until_shown("✓ compiles");
    assert!(wide.contains("tasks"), "{wide}");
    watch.resize(10, 38);
    let narrow = watch.until("it is laid out anew", |text| {
        text.lines()
            .next()
            .is_some_and(|line| line.starts_with("lp") && !line.contains("tasks"))
    });
    assert!(
        narrow.lines().count() <= 10 && narrow.contains("CODESTREAM"),
        "{narrow}"
    );
    assert_eq!(watch.ends(), 0, "{}", watch.text());
    watch.is_restored();
    // Wrapped, by now.
    let bytes = watch.bytes();
    let (_, after) = bytes.rsplit_once("\x1b[?1049l").unwrap();
    assert!(
        after.contains("succeeded in") && after.contains("Groups (one source serves each)"),
        "{after}"
    );
}

#[test]
fn whoever_leaves_gets_the_terminal_back() {
    let Some(farm) = paused() else { return };
    for (rows, cols) in [(24, 100), (5, 20), (100, 300), (1, 1)] {
        let mut watch = Pty::farm(&farm, "watch lp", rows, cols);
        wait_until(Duration::from_secs(30), "it draws", || {
            (watch.is_drawn_on() && !watch.text().is_empty()).then_some(())
        });
        watch.press("jlfn?");
        watch.press("qq");
        assert_eq!(watch.ends(), 130, "{rows}x{cols}: {}", watch.bytes());
        watch.is_restored();
        assert!(watch.bytes().contains("lp goes on"), "{}", watch.bytes());
    }
    let mut interrupted = Pty::farm(&farm, "watch lp", 24, 100);
    let shown = interrupted.until_shown("paused");
    assert!(shown.contains("(lunch)"), "{shown}");
    interrupted.press("\x03");
    assert_eq!(interrupted.ends(), 130);
    interrupted.is_restored();
    for signal in ["TERM", "HUP", "INT"] {
        let mut ended = Pty::farm(&farm, "watch lp", 24, 100);
        ended.until_shown("q leave");
        ended.signal(signal);
        assert_eq!(ended.ends(), 130, "{signal}");
        ended.is_restored();
    }
}

#[test]
fn a_stopped_job_leaves_the_terminal_to_the_shell() {
    let Some(farm) = paused() else { return };
    let mut shell = Pty::interactive(&farm, 24, 100);
    shell.press("$KLP_FARM watch lp\r");
    shell.until_shown("q leave");
    shell.press("\x1a");
    shell.until("it is stopped", |text| text.contains("Stopped"));
    shell.is_restored();
    shell.press("fg\r");
    shell.until_shown("q leave");
    assert!(shell.is_drawn_on());
    shell.press("q");
    shell.until_shown("lp goes on");
    shell.is_restored();
    // In the background nothing is drawn over what somebody types.
    shell.press("$KLP_FARM watch lp &\r");
    shell.until("events come as lines", |text| text.contains("paused: lunch"));
    shell.is_restored();
    shell.press("kill %1; exit 0\r");
    shell.ends();
}

#[test]
fn pipes_and_colours_are_as_one_wants_them() {
    let Some(farm) = paused() else { return };
    let coloured = |bytes: &str| bytes.contains("\x1b[38;5;") || bytes.contains("\x1b[3") && bytes.contains("6m");
    for (line, colours) in [
        ("$KLP_FARM watch lp | cat", true),
        ("$KLP_FARM watch lp < /dev/null", true),
        ("NO_COLOR=1 $KLP_FARM watch lp", false),
    ] {
        let mut watch = Pty::shell(&farm, line, 24, 100);
        watch.until_shown("q leave");
        assert!(watch.is_drawn_on(), "{line}");
        watch.press("q");
        watch.ends();
        watch.is_restored();
        assert_eq!(coloured(&watch.bytes()), colours, "{line}: {:?}", watch.bytes());
    }
    // Without any keys: no terminal is in control, as under a supervisor.
    let mut keyless = Pty::shell(&farm, "setsid -w $KLP_FARM watch lp < /dev/null", 24, 100);
    keyless.until_shown("q leave");
    let resumed = farm.cli(["resume", "lp"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    keyless.until("it ends with the summary", |text| text.contains("Groups (one source"));
    assert_eq!(keyless.ends(), 0);
    keyless.is_restored();
    // No screen can be drawn on a dumb terminal, and none of an ended livepatch is needed.
    let mut dumb = Pty::shell(&farm, "TERM=dumb $KLP_FARM watch lp", 24, 100);
    assert_eq!(dumb.ends(), 0);
    assert!(!dumb.bytes().contains("\x1b[?1049h"), "{}", dumb.bytes());
}

#[test]
fn a_coordinator_that_goes_away_is_waited_for() {
    let Some(mut farm) = paused() else { return };
    let mut watch = Pty::farm(&farm, "watch lp", 24, 100);
    let mut top = Pty::farm(&farm, "top --interval 0.2", 24, 140);
    watch.until_shown("paused");
    top.until_shown("paused");
    farm.kill_coordinator();
    watch.until_shown("connection lost");
    top.until_shown("no answer since");
    farm.restart_coordinator();
    watch.until("it is connected again", |text| !text.contains("connection lost"));
    top.until("it is connected again", |text| !text.contains("no answer since"));
    top.press("q");
    assert_eq!(top.ends(), 0);
    assert_eq!(farm.cli(["cancel", "lp"]).code, Some(0));
    assert_eq!(watch.ends(), 3, "{}", watch.bytes());
    watch.is_restored();
    assert!(watch.text().contains("cancelled"), "{}", watch.text());
}

#[test]
fn the_farm_is_seen_on_one_screen() {
    let Some(farm) = farm() else { return };
    let mut top = Pty::farm(&farm, "top --interval 0.2", 30, 160);
    let shown = top.until_shown("nothing waits");
    assert!(
        shown.contains("workers 1 ready") && shown.contains("Workers, by name"),
        "{shown}"
    );
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    top.until("what it runs is seen", |text| text.contains(" of lp for "));
    top.until_shown("a free slot on a");
    let json = farm.cli(["top", "--output", "json"]).json();
    assert_eq!(json["livepatches"][0]["name"], "lp");
    assert_eq!(json["workers"][0]["running"][0]["livepatch"], "lp");
    assert_eq!(json["totals"]["workers_ready"], 1);
    let once = farm.cli(["top"]);
    assert_eq!(once.code, Some(0), "{once:?}");
    assert!(
        once.stdout.contains(" of lp for ") && !once.stdout.contains('\x1b'),
        "{once:?}"
    );
    let workers = farm.cli(["workers"]).stdout;
    assert!(workers.contains(" of lp for "), "{workers}");
    top.press("\ts");
    top.until_shown("Livepatches in progress, by progress");
    top.resize(10, 60);
    top.until("only the chosen part fits", |text| {
        text.contains("Livepatches in progress") && !text.contains("Workers,")
    });
    top.press("?");
    top.until_shown(" Keys ");
    top.press("q");
    top.until("the help is gone", |text| !text.contains(" Keys "));
    farm.ends_in_success("lp");
    top.until("what has ended is gone", |text| text.contains("klp-farm list"));
    top.press("q");
    assert_eq!(top.ends(), 0);
    top.is_restored();
    let mut once = Pty::farm(&farm, "top --once", 24, 100);
    assert_eq!(once.ends(), 0);
    assert!(
        once.text().contains("Workers, by name") && !once.bytes().contains("\x1b[?1049h"),
        "{}",
        once.bytes()
    );
}

#[test]
fn who_asks_nobody_is_told_at_once() {
    let farm = Farm::at("http://127.0.0.1:1".into());
    for args in ["watch lp", "top"] {
        let mut asks = Pty::farm(&farm, args, 24, 100);
        assert_eq!(asks.ends(), 1, "{args}");
        asks.is_restored();
        assert!(asks.text().contains("can't reach the coordinator"), "{}", asks.text());
    }
}

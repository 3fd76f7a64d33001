//! Child processes at their limits, with real processes.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use klp_worker::process::{Captured, Command, End, Limits, ProcessError, capture, run};
use tokio_util::sync::CancellationToken;

fn sh(script: &str) -> Command {
    Command::new("sh", "/").arg("-c").arg(script)
}

fn limits(wall_ms: u64) -> Limits {
    Limits {
        wall: Duration::from_millis(wall_ms),
        ..Limits::default()
    }
}

async fn captured(command: &Command, limits: &Limits) -> Captured {
    capture(command, limits, &CancellationToken::new()).await.unwrap()
}

/// Whether a process runs (a zombie does not).
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

async fn wait_for(file: &Path) -> String {
    for _ in 0..500 {
        if let Ok(text) = std::fs::read_to_string(file)
            && text.ends_with('\n')
        {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} was not written", file.display());
}

#[tokio::test]
async fn output_and_exit_code_arrive() {
    let done = captured(&sh("echo out; echo err >&2; printf last; exit 3"), &limits(10_000)).await;
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\nlast\n", "err\n"));
    assert_eq!(done.finish.end, End::Exited(3));
    assert_eq!(done.finish.describe(), "ended with exit code 3");
    let done = captured(&sh("kill -SEGV $$"), &limits(10_000)).await;
    assert_eq!(done.finish.describe(), "ended with signal 11 (SIGSEGV)");
}

#[tokio::test]
async fn arguments_are_not_for_a_shell() {
    let command = Command::new("echo", "/").args(["$HOME", "; false", "`id`", "a'b"]);
    let done = captured(&command, &limits(10_000)).await;
    assert_eq!(done.stdout, "$HOME ; false `id` a'b\n");
    assert_eq!(command.shown(), r"echo '$HOME' '; false' '`id`' 'a'\''b'");
}

#[tokio::test]
async fn the_environment_is_small_and_stdin_is_empty() {
    // Set by cargo for every test; a child must not see what happens to surround us.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let done = captured(&sh("env; cat").env("MINE", "1"), &limits(10_000)).await;
    assert!(done.finish.end.success());
    assert!(!done.stdout.contains("CARGO"), "{}", done.stdout);
    for has in ["PATH=", "LC_ALL=C.UTF-8\n", "MINE=1\n"] {
        assert!(done.stdout.contains(has), "{has} in {}", done.stdout);
    }
}

#[tokio::test]
async fn a_missing_program_and_a_missing_folder_are_told_apart() {
    let none = CancellationToken::new();
    let error = capture(&Command::new("no-such-program", "/"), &limits(1000), &none)
        .await
        .unwrap_err();
    assert!(matches!(error, ProcessError::NoProgram { .. }), "{error}");
    let error = capture(&Command::new("sh", "/no/such/folder"), &limits(1000), &none)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn a_hanging_child_is_killed_with_its_descendants() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // One grandchild in the group, one in a session of its own, both deaf to polite signals.
    let script = format!(
        "trap '' TERM INT HUP; sleep 1000 & a=$!; setsid sleep 1000 & sleep 0.2; \
         echo $$ $a $! > {}; wait; sleep 1000",
        pids.display()
    );
    let start = Instant::now();
    let done = captured(&sh(&script), &limits(1200)).await;
    assert_eq!(done.finish.end, End::TimedOut(Duration::from_millis(1200)));
    assert_eq!(done.finish.describe(), "killed after 1.2 s (limit)");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.split_whitespace().count(), 3, "{pids}");
    for pid in pids.split_whitespace() {
        assert!(!runs(pid), "{pid} of {pids} still runs");
    }
}

#[tokio::test]
async fn what_a_finished_child_leaves_behind_is_killed_too() {
    let dir = tempfile::tempdir().unwrap();
    // At once, after a while, and after many others: it is looked for in different ways.
    let many = "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done;";
    for (n, before) in ["", "sleep 0.2;", many].into_iter().enumerate() {
        let daemon = dir.path().join(format!("daemon-{n}")).display().to_string();
        let script = format!(
            "setsid sh -c 'echo $$ > {daemon}; exec sleep 1000' & {before} sleep 1000 & echo $!; \
             while ! [ -s {daemon} ]; do :; done"
        );
        let done = captured(&sh(&script), &limits(10_000)).await;
        assert_eq!(done.finish.end, End::Exited(0));
        assert!(done.finish.wall < Duration::from_secs(5), "{:?}", done.finish.wall);
        let daemon = std::fs::read_to_string(daemon).unwrap();
        assert!(
            !runs(&done.stdout) && !runs(&daemon),
            "{before}: {} {daemon}",
            done.stdout
        );
    }
}

#[tokio::test]
async fn a_flood_is_cut_and_stopped() {
    let limits = Limits {
        output_kept: 10_000,
        output: 5 << 20,
        ..limits(30_000)
    };
    let done = captured(&sh("yes flood"), &limits).await;
    assert_eq!(done.finish.end, End::Flooded(5 << 20));
    assert_eq!(done.finish.describe(), "killed after 5 MiB of output (limit)");
    assert!(
        done.stdout.len() <= 10_000 && done.stdout.len() > 9_000,
        "{}",
        done.stdout.len()
    );
    assert!(done.finish.output_cut > 5_000_000);
}

#[tokio::test]
async fn a_flood_without_newlines_stays_within_its_limits() {
    let limits = Limits {
        output_kept: 10_000,
        output: 5 << 20,
        line: 100,
        ..limits(30_000)
    };
    let done = captured(&sh("cat /dev/zero"), &limits).await;
    assert_eq!(done.finish.end, End::Flooded(5 << 20));
    assert!(done.stdout.lines().all(|line| line.len() <= 100));
}

#[tokio::test]
async fn memory_is_limited() {
    let limits = Limits {
        memory: Some(64 << 20),
        ..limits(30_000)
    };
    // Reads a line of 200 MB into memory.
    let done = captured(&sh("head -c 200000000 /dev/zero | tr '\\0' x | sort"), &limits).await;
    assert!(!done.finish.end.success(), "{:?}", done.finish);
    assert!(
        done.finish.describe().contains("limited to 64 MiB"),
        "{}",
        done.finish.describe()
    );
}

#[tokio::test]
async fn cancelling_kills_at_once() {
    let cancel = CancellationToken::new();
    let later = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        later.cancel();
    });
    let start = Instant::now();
    let done = capture(&sh("sleep 1000; true"), &limits(60_000), &cancel)
        .await
        .unwrap();
    assert_eq!(done.finish.end, End::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = sh(&format!(
        "setsid sleep 1000 & sleep 1000 & echo $! > {}; wait",
        file.display()
    ));
    let task = tokio::spawn(async move {
        run(&command, &limits(60_000), &CancellationToken::new(), &mut |_, _| {})
            .await
            .unwrap();
    });
    let pid = wait_for(&file).await;
    assert!(runs(&pid));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(!runs(&pid));
}

#[tokio::test]
async fn a_family_that_sheds_its_marks_is_killed_with_its_leader() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    // A daemon: an orphan in a session of its own, without the environment it was given.
    let script = format!(
        "(env -i setsid sh -c 'echo $$ > {}; exec sleep 1000' &) ; sleep 1000",
        pid.display()
    );
    let done = captured(&sh(&script), &limits(1000)).await;
    assert_eq!(done.finish.end, End::TimedOut(Duration::from_millis(1000)));
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(!runs(&pid), "{pid} still runs");
}

#[tokio::test]
async fn a_process_that_lives_on_in_ever_new_children_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let last = dir.path().join("last");
    // Where this fails, it ends with the folder.
    let script = format!(
        "use POSIX 'setsid'; while (1) {{ setsid; open F, '>', '{}' or exit; print F \"$$\\n\"; close F; fork and exit }}",
        last.display()
    );
    let command = Command::new("perl", "/").args(["-e", &format!("fork or do {{ {script} }}; sleep 1000")]);
    let done = captured(&command, &limits(1000)).await;
    assert_eq!(done.finish.end, End::TimedOut(Duration::from_millis(1000)));
    std::thread::sleep(Duration::from_millis(100));
    let then = std::fs::read_to_string(&last).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(std::fs::read_to_string(&last).unwrap(), then, "it lives on");
}

#[tokio::test]
async fn files_are_input_and_output() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::write(&input, b"a\0b\xff").unwrap();
    let command = Command::new("cat", "/").input(&input).output(&output);
    let done = captured(&command, &limits(10_000)).await;
    assert_eq!((done.finish.end, done.stdout.as_str()), (End::Exited(0), ""));
    assert_eq!(std::fs::read(&output).unwrap(), b"a\0b\xff");
    // A file that is there is never written over.
    let again = capture(&command, &limits(10_000), &CancellationToken::new()).await;
    assert!(matches!(again, Err(ProcessError::Start { .. })), "{again:?}");
}

#[tokio::test]
async fn a_file_of_output_has_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let little = Limits {
        output: 1 << 20,
        ..limits(30_000)
    };
    let done = captured(&Command::new("yes", "/").output(&output), &little).await;
    assert!(!done.finish.end.success(), "{:?}", done.finish);
    assert_eq!(std::fs::metadata(&output).unwrap().len(), 1 << 20);
}

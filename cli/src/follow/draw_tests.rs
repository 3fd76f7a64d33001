//! Frames at many sizes, as a terminal would show them.

use klp_proto::v1::{self, TaskKind, TaskState};

use super::*;
use crate::follow::facts::tests::{answer, task};
use crate::tui::testing;

fn frame(facts: &Facts, view: &mut View, width: u16, height: u16) -> String {
    let theme = Theme { colours: false };
    testing::frame(width, height, |area, buf| draw(facts, view, 65_000, theme, area, buf))
}

fn some() -> Facts {
    let mut bad = task("15.6u2", "x86_64", TaskKind::Extract, TaskState::Failed);
    bad.failure = Some(v1::Failure {
        cause: v1::Cause::Codestream.into(),
        message: "pcm.c:12: no member named `mutex`\nsee the log".into(),
    });
    let mut facts = Facts::new(answer(
        7,
        vec![
            task("15.6u1", "x86_64", TaskKind::Extract, TaskState::Succeeded),
            task("15.6u1", "s390x", TaskKind::Check, TaskState::Leased),
            bad,
        ],
    ));
    facts.hear(v1::Event {
        number: 7,
        time_ms: 60_000,
        message: "15.6u2/x86_64: extract failed".into(),
        ..Default::default()
    });
    facts
}

/// 60 codestreams on 4 architectures.
fn many() -> Facts {
    let archs = ["aarch64", "ppc64le", "s390x", "x86_64"];
    let of = |n: usize, arch: &str| {
        let state = [
            TaskState::Succeeded,
            TaskState::Leased,
            TaskState::Waiting,
            TaskState::Failed,
        ][(n * 7 + arch.len()) % 4];
        task(&format!("15.{}u{}", n / 20 + 4, n % 20), arch, TaskKind::Extract, state)
    };
    let tasks = (0..60).flat_map(|n| archs.map(|arch| of(n, arch)));
    Facts::new(answer(1, tasks.collect()))
}

#[test]
fn a_frame_tells_all_where_there_is_room() {
    let mut view = View::default();
    view.key(crossterm::event::KeyCode::Char('n').into(), &some().grid());
    insta::assert_snapshot!(frame(&some(), &mut view, 100, 12), @r"
    bsc1  CVE-2022-1048  running                         █████████████████░░░░░░░░ 2/3 tasks  1 min 04 s
    ✗ 1 failed  ▶ 1 running  ✓ 1 succeeded
    CODESTREAM  s390x         x86_64
    15.6u1      ▶ check on a  ✓ compiles (1.5 s)
    15.6u2      -             ✗ extract failed (this codestream's)
    15.6u2/x86_64  extract failed (this codestream's)  pcm.c:12: no member named `mutex`  see the log
       5 s ago  15.6u2/x86_64: extract failed




    q leave  ? help  ↑↓←→ select  Enter open  f attention first  n next failure
    ");
}

#[test]
fn a_small_frame_tells_what_matters() {
    insta::assert_snapshot!(frame(&some(), &mut View::default(), 20, 5), @r"
    bsc1  running    2/3
    CODESTREAM  s39 x86
    15.6u1      ▶   ✓
    15.6u2      -   ✗
    15.6u1/s390x  check…
    ");
    insta::assert_snapshot!(frame(&many(), &mut View::default(), 40, 8), @r"
    bsc1  running  120/240 tasks  1 min 04 s
    ✗ 60 failed  ▶ 60 running  · 60 waiting…
    CODESTREAM  aarch6 ppc64l s390x  x86_64
    15.4u0      ✗      ✗      ▶      ·
    15.4u1      ·      ·      ✓      ▶
    15.4u2      ▶      ▶      ✗      ✓
    15.4u0/aarch64  extract failed (the far…
    q leave  ? help  ↑↓←→ select  Enter ope…
    ");
}

#[test]
fn a_cell_is_opened_and_tells_its_failure_line_by_line() {
    let (facts, mut view) = (some(), View::default());
    for code in ['n', '\n'] {
        let code = if code == '\n' {
            crossterm::event::KeyCode::Enter
        } else {
            crossterm::event::KeyCode::Char(code)
        };
        view.key(code.into(), &facts.grid());
    }
    let shown = frame(&facts, &mut view, 80, 24);
    assert!(
        shown.contains("\n15.6u2/x86_64\nextract failed (this codestream's)\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\npcm.c:12: no member named `mutex`\nsee the log\n"),
        "{shown}"
    );
}

#[test]
fn every_size_is_drawn_and_shows_the_selected_row() {
    for facts in [many(), some(), Facts::new(answer(1, Vec::new()))] {
        for width in [0, 1, 20, 37, 80, 300] {
            for height in [0, 1, 2, 5, 6, 8, 14, 100] {
                let mut view = View::default();
                for code in [
                    crossterm::event::KeyCode::End,
                    crossterm::event::KeyCode::Right,
                    crossterm::event::KeyCode::Right,
                    crossterm::event::KeyCode::Enter,
                    crossterm::event::KeyCode::Char('?'),
                    crossterm::event::KeyCode::Esc,
                ] {
                    view.key(code.into(), &facts.grid());
                    let shown = frame(&facts, &mut view, width, height);
                    let last = view.rows(&facts.grid()).last().map(ToString::to_string);
                    if let (Some(last), 20.., 5.., false) = (last, width, height, view.help) {
                        assert!(shown.contains(&last), "{last} at {width}x{height}:\n{shown}");
                    }
                }
            }
        }
    }
}

#[test]
fn all_rows_are_shown_where_they_fit() {
    let shown = frame(&many(), &mut View::default(), 300, 100);
    let rows = shown.lines().filter(|line| line.starts_with("15.")).count();
    assert_eq!(rows, 61, "and the selected cell's line:\n{shown}");
}

#[test]
fn no_text_of_a_coordinator_steers_the_terminal() {
    let hostile = "\x1b]0;owned\x07\x1b[2J\u{9b}1m\u{202e}";
    let mut bad = task("15.6u2", hostile, TaskKind::Extract, TaskState::Failed);
    bad.failure = Some(v1::Failure {
        cause: v1::Cause::Farm.into(),
        message: format!("a{hostile}\nb{hostile}"),
    });
    let mut leased = task("15.6u2", "x86_64", TaskKind::Extract, TaskState::Leased);
    (leased.worker, leased.progress) = (hostile.into(), hostile.into());
    let mut given = answer(1, vec![bad, leased]);
    let livepatch = given.livepatch.as_mut().unwrap();
    (livepatch.paused_ms, livepatch.pause_reason) = (1, hostile.into());
    livepatch.spec.as_mut().unwrap().cve = hostile.into();
    let mut facts = Facts::new(given);
    facts.hear(v1::Event {
        message: hostile.into(),
        ..Default::default()
    });
    for open in [false, true] {
        let mut view = View::default();
        if open {
            view.key(crossterm::event::KeyCode::Enter.into(), &facts.grid());
        }
        let shown = frame(&facts, &mut view, 200, 30);
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(steers), "{shown:?}");
        assert!(shown.contains("�]0;owned"), "{shown}");
    }
}

#[test]
fn a_lost_connection_and_a_pause_are_told() {
    let mut facts = some();
    facts.lost_ms = Some(60_000);
    let shown = frame(&facts, &mut View::default(), 80, 10);
    assert!(
        shown.starts_with("bsc1  connection lost 5 s ago; trying again"),
        "{shown}"
    );
}

#[test]
fn lines_go_to_what_matters_most_first() {
    for height in 0..200 {
        for rows in [0, 1, 5, 60, 1000] {
            for open in [None, Some(1), Some(900)] {
                let Heights {
                    counts,
                    matrix,
                    detail,
                    events,
                    keys,
                } = heights(height, rows, open);
                assert_eq!(
                    counts + matrix + detail + events + keys,
                    height.saturating_sub(1),
                    "{height} {rows}"
                );
                assert!(height < 5 || matrix >= 2, "{height} {rows}");
            }
        }
    }
}

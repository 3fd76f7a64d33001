//! Frames at many sizes, as a terminal would show them.

use crossterm::event::KeyCode;
use klp_proto::v1;

use super::super::farm::tests::farm;
use super::*;
use crate::tui::testing;

fn frame(farm: &Farm, view: &mut View, width: u16, height: u16) -> String {
    let theme = Theme { colours: false };
    testing::frame(width, height, |area, buf| {
        draw(farm, None, view, 65_000, theme, area, buf)
    })
}

#[test]
fn a_frame_tells_all_where_there_is_room() {
    insta::assert_snapshot!(frame(&farm(), &mut View::default(), 120, 20), @r"
    klp-farm top  http://farm:7420
    workers 1 ready 1 held 1 lost   slots █████░░░░░ 4/8   tasks 4 running, 10 waiting, 3 blocked   livepatches 2
    ▸ Workers, by name
      WORKER   SLOTS           HEARD    STATE                                    TOOLS   RUNS
      build2   ████████░░ 3/4  5 s ago  connected                                native  extract 15.6u1/x86_64 of bsc1 for …
      build3   █████░░░░░ 2/4  5 s ago  lost 5 s ago
      build10  ███░░░░░░░ 1/4  5 s ago  connected; drained 1 min ago (new disk)

      Livepatches in progress, by age
      NAME  CVE        DONE              FAILED  AGE         BY  STATE
      bsc1  2022-1048  ██░░░░░░░░ 1/8    0       1 min 04 s      2 running, 5 waiting
      bsc2  2022-1048  ███████░░░ 11/18  3       35.0 s          2 running, 5 waiting

      Queue, by tasks
      TASKS  LONGEST   LIVEPATCHES      WAIT FOR
      7      15 s ago  bsc1             a free slot on build2
      3      45 s ago  bsc1 and 1 more  no worker holds 15.5u40/s390x

    build2  connected; extract 15.6u1/x86_64 of bsc1 for 4.0 s: compiling
    q leave  ? help  Tab next part  ↑↓ select  Enter open  s sort  r reverse
    ");
}

#[test]
fn a_small_frame_shows_one_part() {
    let mut view = View::default();
    view.key(KeyCode::Char('3').into(), 2);
    let shown = frame(&farm(), &mut view, 40, 8);
    assert!(shown.contains("Queue") && !shown.contains("Workers,"), "{shown}");
}

/// 500 workers that run a lot, 100 livepatches and 50 reasons to wait.
fn large() -> Farm {
    let Farm {
        workers,
        livepatches,
        waiting,
        coordinator,
    } = farm();
    let again = |n: usize, name: &str| format!("{name}-{n}");
    Farm {
        coordinator,
        workers: (0..500)
            .map(|n| v1::Worker {
                name: again(n, "w"),
                ..workers[n % 3].clone()
            })
            .collect(),
        livepatches: (0..100)
            .map(|n| v1::Livepatch {
                id: again(n, "l"),
                ..livepatches[n % 2].clone()
            })
            .collect(),
        waiting: (0..50)
            .map(|n| v1::Waiting {
                reason: again(n, "r"),
                ..waiting[n % 2].clone()
            })
            .collect(),
    }
}

#[test]
fn every_size_is_drawn() {
    for farm in [large(), farm(), Farm::default()] {
        for width in [0, 1, 5, 20, 80, 300] {
            for height in [0, 1, 2, 3, 4, 5, 7, 10, 14, 15, 24, 100] {
                let mut view = View::default();
                for code in [
                    KeyCode::End,
                    KeyCode::Tab,
                    KeyCode::PageDown,
                    KeyCode::Enter,
                    KeyCode::Tab,
                    KeyCode::Char('?'),
                ] {
                    view.key(code.into(), rows(&farm, view.part));
                    let shown = frame(&farm, &mut view, width, height);
                    if width >= 20 && height >= 1 && !view.help {
                        assert!(shown.starts_with("klp-farm top"), "{width}x{height}:\n{shown}");
                    }
                }
            }
        }
    }
    let mut view = View::default();
    view.key(KeyCode::End.into(), 500);
    let shown = frame(&large(), &mut view, 100, 30);
    assert!(shown.contains("w-499") && shown.contains("of 500"), "{shown}");
}

#[test]
fn parts_share_what_there_is() {
    for rest in 0..120 {
        for wanted in [[3, 3, 3], [500, 3, 3], [3, 100, 50], [500, 500, 500]] {
            for focus in 0..3 {
                let shares = shares(rest, wanted, focus);
                let sum: u16 = shares.iter().sum();
                assert!(
                    sum <= rest && (sum == rest || wanted.iter().sum::<u16>() < rest),
                    "{rest} {wanted:?}: {shares:?}"
                );
                assert!(rest < 3 || shares[focus] >= 3, "{rest} {wanted:?}: {shares:?}");
            }
        }
    }
}

#[test]
fn no_text_of_a_coordinator_steers_the_terminal() {
    let hostile = "\x1b]0;owned\x07\x1b[2J\u{9b}1m\u{202e}";
    let mut farm = farm();
    farm.workers[0].name = hostile.into();
    farm.workers[0].drain_reason = hostile.into();
    farm.workers[1].running[0].progress = hostile.into();
    farm.livepatches[0].submitted_by = hostile.into();
    farm.waiting[0].reason = hostile.into();
    let mut view = View::default();
    view.key(KeyCode::Enter.into(), 3);
    let shown = frame(&farm, &mut view, 250, 40);
    let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.contains(steers) && shown.contains("�]0;owned"), "{shown:?}");
}

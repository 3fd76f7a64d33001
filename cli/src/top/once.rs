//! One picture of the farm: for machines, and for people without a screen.

use klp_proto::view;
use serde::Serialize;

use super::farm::{Farm, Totals};
use super::tables::told;
use super::view::{PARTS, View};
use crate::output;
use crate::tui::Theme;

/// What `--output json` prints.
#[derive(Serialize)]
pub struct Picture {
    coordinator: String,
    time_ms: i64,
    totals: Totals,
    workers: Vec<view::Worker>,
    /// Those in progress, the oldest first.
    livepatches: Vec<view::Livepatch>,
    queue: Vec<view::Waiting>,
}

pub fn picture(farm: Farm, now: i64) -> Picture {
    Picture {
        time_ms: now,
        totals: farm.totals(now),
        coordinator: farm.coordinator,
        workers: farm.workers.into_iter().map(|w| view::Worker::at(w, now)).collect(),
        livepatches: farm.livepatches.into_iter().map(view::Livepatch::from).collect(),
        queue: farm.waiting.into_iter().map(view::Waiting::from).collect(),
    }
}

pub fn describe(farm: &Farm, now: i64) -> String {
    let totals = farm.totals(now);
    let mut text = format!(
        "{}: {} workers ready, {} held, {} lost; {} of {} slots busy; {} tasks running, {} waiting, {} blocked\n",
        farm.coordinator,
        totals.workers_ready,
        totals.workers_held,
        totals.workers_lost,
        totals.slots_busy,
        totals.slots,
        totals.leased,
        totals.waiting,
        totals.blocked
    );
    let view = View::default();
    for part in PARTS {
        let told = told(part, farm, &view, now, Theme { colours: false }).table;
        text.push_str(&format!("\n{}\n", told.title));
        if told.rows.is_empty() {
            text.push_str(&format!("{}\n", told.empty));
            continue;
        }
        let mut table = output::table(told.heads);
        for row in told.rows {
            table.add_row(row.into_iter().map(|(text, _)| text));
        }
        text.push_str(&table.trim_fmt());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::farm::tests::farm;
    use super::*;

    #[test]
    fn a_picture_reads_well() {
        insta::assert_snapshot!(describe(&farm(), 65_000), @r"
        http://farm:7420: 1 workers ready, 1 held, 1 lost; 4 of 8 slots busy; 4 tasks running, 10 waiting, 3 blocked

        Workers, by name
        WORKER   SLOTS           HEARD    STATE                                    TOOLS   RUNS
        build2   ████████░░ 3/4  5 s ago  connected                                native  extract 15.6u1/x86_64 of bsc1 for 4.0 s: compiling
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
        ");
        let empty = describe(&Farm::default(), 0);
        assert!(
            empty.contains("no worker yet") && empty.contains("nothing waits"),
            "{empty}"
        );
    }

    #[test]
    fn machines_get_the_same() {
        let json = serde_json::to_value(picture(farm(), 65_000)).unwrap();
        assert_eq!(json["totals"]["slots_busy"], 4);
        assert_eq!(json["workers"][1]["running"][0]["codestream"], "15.6u1");
        assert_eq!(json["livepatches"][0]["name"], "bsc1");
        assert_eq!(json["queue"][1]["blocked"], true);
    }
}

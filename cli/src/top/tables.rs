//! The farm's parts as tables, sorted as wanted, and all that is known of one row.

use std::cmp::Reverse;

use klp_livepatch::codestream::natural_cmp;
use klp_proto::v1;
use klp_proto::view::{self, worker_state};
use ratatui::style::Style;

use super::farm::{Farm, Health, health, progress};
use super::view::{Part, View};
use crate::output::{ago, duration};
use crate::tui::Theme;
use crate::tui::paint::{Cell, Table, bar};

const BAR: usize = 10;

/// A row, and all that is known of it, in lines.
type Row = (Vec<Cell>, Vec<String>);

/// A part's table, and what is known of each of its rows.
pub struct Told<'a> {
    pub table: Table<'a>,
    pub details: Vec<Vec<String>>,
}

pub fn told(part: Part, farm: &Farm, view: &View, now: i64, theme: Theme) -> Told<'static> {
    let (order, reversed) = view.order(part);
    let (name, heads, empty, mut rows): (_, &[&str], _, Vec<Row>) = match part {
        Part::Workers => (
            "Workers",
            &["WORKER", "SLOTS", "HEARD", "STATE", "TOOLS", "RUNS"],
            "no worker yet; start one with `klp-worker --coordinator URL`",
            workers(farm, order, now)
                .map(|worker| worker_row(worker, now, theme))
                .collect(),
        ),
        Part::Livepatches => (
            "Livepatches in progress",
            &["NAME", "CVE", "DONE", "FAILED", "AGE", "BY", "STATE"],
            "none; `klp-farm list` shows those that have ended",
            livepatches(farm, order)
                .map(|livepatch| livepatch_row(livepatch, now, theme))
                .collect(),
        ),
        Part::Queue => (
            "Queue",
            &["TASKS", "LONGEST", "LIVEPATCHES", "WAIT FOR"],
            "nothing waits",
            waiting(farm, order)
                .map(|waiting| waiting_row(waiting, now, theme))
                .collect(),
        ),
    };
    if reversed {
        rows.reverse();
    }
    let (rows, details) = rows.into_iter().unzip();
    Told {
        table: Table {
            title: format!("{name}, by {order}{}", if reversed { ", reversed" } else { "" }),
            heads,
            rows,
            empty,
            focus: part == view.part,
        },
        details,
    }
}

fn workers<'a>(farm: &'a Farm, order: &str, now: i64) -> impl Iterator<Item = &'a v1::Worker> {
    let mut workers: Vec<_> = farm.workers.iter().collect();
    workers.sort_by(|a, b| natural_cmp(&a.name, &b.name));
    match order {
        "state" => workers.sort_by_key(|w| health(w, now)),
        "busy" => workers.sort_by_key(|w| (!w.connected, Reverse(w.slots_busy))),
        "heard" => workers.sort_by_key(|w| w.last_seen_ms),
        _ => {}
    }
    workers.into_iter()
}

fn livepatches<'a>(farm: &'a Farm, order: &str) -> impl Iterator<Item = &'a v1::Livepatch> {
    let mut livepatches: Vec<_> = farm.livepatches.iter().collect();
    let failed = |l: &v1::Livepatch| l.counts.unwrap_or_default().failed;
    match order {
        "progress" => livepatches.sort_by_key(|l| {
            let (done, all) = progress(l);
            Reverse(u64::from(done) * 10_000 / u64::from(all.max(1)))
        }),
        "failures" => livepatches.sort_by_key(|l| Reverse(failed(l))),
        "name" => livepatches.sort_by(|a, b| natural_cmp(name(a), name(b))),
        _ => livepatches.sort_by_key(|l| l.created_ms),
    }
    livepatches.into_iter()
}

fn waiting<'a>(farm: &'a Farm, order: &str) -> impl Iterator<Item = &'a v1::Waiting> {
    let mut waiting: Vec<_> = farm.waiting.iter().collect();
    match order {
        "age" => waiting.sort_by_key(|w| w.oldest_ms),
        "reason" => waiting.sort_by(|a, b| natural_cmp(&a.reason, &b.reason)),
        _ => waiting.sort_by_key(|w| Reverse(w.tasks)),
    }
    waiting.into_iter()
}

fn name(livepatch: &v1::Livepatch) -> &str {
    livepatch.spec.as_ref().map_or("", |spec| &spec.name)
}

fn worker_row(worker: &v1::Worker, now: i64, theme: Theme) -> Row {
    let plain = Style::new();
    let style = match health(worker, now) {
        Health::Lost => theme.bad(),
        Health::Held => theme.warning(),
        Health::Ready => theme.good(),
    };
    let (busy, slots) = (u64::from(worker.slots_busy), u64::from(worker.slots));
    let mut slots_text = format!("{} {busy}/{slots}", bar(busy, slots, BAR));
    if worker.prefetched > 0 {
        slots_text += &format!("+{}", worker.prefetched);
    }
    let runs: Vec<String> = worker
        .running
        .iter()
        .map(|running| view::Running::from(running.clone()).words(now))
        .collect();
    let runs_text = match runs.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
    };
    let tools: Vec<&str> = worker.tools.iter().map(|tool| tool.backend.as_str()).collect();
    let heard = match worker.last_seen_ms {
        0 => "-".to_owned(),
        seen => ago(seen, now),
    };
    let state = worker_state(worker, now);
    let mut detail = vec![format!("{}  {state}", worker.name)];
    detail.extend(worker.unready.iter().cloned().map(|unready| {
        let view::Unready { what, reason } = unready.into();
        format!("{what} can't be used: {reason}")
    }));
    detail.extend(runs);
    let cells = vec![
        (worker.name.clone(), theme.strong()),
        (slots_text, if busy > 0 { theme.busy() } else { plain }),
        (heard, plain),
        (state, style),
        (tools.join(" "), plain),
        (runs_text, plain),
    ];
    (cells, detail)
}

fn livepatch_row(livepatch: &v1::Livepatch, now: i64, theme: Theme) -> Row {
    let plain = Style::new();
    let (done, all) = progress(livepatch);
    let counts = livepatch.counts.unwrap_or_default();
    let cve = livepatch.spec.as_ref().map_or("", |spec| &spec.cve);
    let age = duration((now - livepatch.created_ms).max(0) / 1000 * 1000);
    let (state, style) = match (livepatch.paused_ms, livepatch.pause_reason.as_str()) {
        (0, _) => (format!("{} running, {} waiting", counts.leased, counts.waiting), plain),
        (since, "") => (format!("paused {}", ago(since, now)), theme.warning()),
        (since, why) => (format!("paused {} ({why})", ago(since, now)), theme.warning()),
    };
    let detail = vec![
        format!("{}  {state}", name(livepatch)),
        format!("`klp-farm watch {}` follows it", name(livepatch)),
    ];
    let cells = vec![
        (name(livepatch).to_owned(), theme.strong()),
        (cve.to_owned(), plain),
        (
            format!("{} {done}/{all}", bar(done.into(), all.into(), BAR)),
            theme.busy(),
        ),
        (
            counts.failed.to_string(),
            if counts.failed > 0 { theme.bad() } else { theme.dim() },
        ),
        (age, plain),
        (livepatch.submitted_by.clone(), plain),
        (state, style),
    ];
    (cells, detail)
}

fn waiting_row(waiting: &v1::Waiting, now: i64, theme: Theme) -> Row {
    let style = if waiting.blocked { theme.warning() } else { Style::new() };
    let who = match waiting.livepatches.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    };
    let mut detail = vec![waiting.reason.clone()];
    if waiting.blocked {
        detail.push("no slot that becomes free will do: somebody has to do something".to_owned());
    }
    detail.push(format!("of {}", waiting.livepatches.join(", ")));
    let cells = vec![
        (waiting.tasks.to_string(), theme.strong()),
        (ago(waiting.oldest_ms, now), Style::new()),
        (who, Style::new()),
        (waiting.reason.clone(), style),
    ];
    (cells, detail)
}

#[cfg(test)]
mod tests {
    use super::super::farm::tests::farm;
    use super::*;

    /// The first cells of a part's rows, after these keys.
    fn firsts(keys: &str) -> Vec<String> {
        let mut view = View::default();
        for key in keys.chars() {
            view.key(crossterm::event::KeyCode::Char(key).into(), 9);
        }
        let told = told(view.part, &farm(), &view, 65_000, Theme { colours: false });
        assert_eq!(told.details.len(), told.table.rows.len());
        told.table.rows.iter().map(|row| row[0].0.clone()).collect()
    }

    #[test]
    fn parts_are_sorted_as_wanted() {
        assert_eq!(firsts("1"), ["build2", "build3", "build10"]);
        assert_eq!(firsts("1r"), ["build10", "build3", "build2"]);
        assert_eq!(firsts("1s"), ["build3", "build10", "build2"]);
        assert_eq!(firsts("1ss"), ["build2", "build10", "build3"]);
        assert_eq!(firsts("2"), ["bsc1", "bsc2"]);
        assert_eq!(firsts("2s"), ["bsc2", "bsc1"]);
        assert_eq!(firsts("2ss"), ["bsc2", "bsc1"]);
        assert_eq!(firsts("3"), ["7", "3"]);
        assert_eq!(firsts("3s"), ["3", "7"]);
        assert_eq!(firsts("3ss"), ["7", "3"]);
    }
}

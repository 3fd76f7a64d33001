//! A frame of the livepatch that is followed: what fits is what matters most at that size.

use std::borrow::Cow;

use klp_livepatch::Codestream;
use klp_proto::v1;
use klp_proto::view::cell::{Grid, Standing};
use klp_proto::view::{livepatch_state, task_kind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use super::facts::{Facts, Progress};
use super::view::{KEYS, View};
use crate::output::{ago, duration};
use crate::plain;
use crate::tui::{Theme, mark, paint};

/// Lines for each part, from the top; 0: it does not fit.
#[derive(Debug, PartialEq, Eq)]
struct Heights {
    counts: u16,
    matrix: u16,
    detail: u16,
    events: u16,
    keys: u16,
}

/// The header has a line of its own, the matrix one for its heading.
fn heights(height: u16, rows: usize, open: Option<u16>) -> Heights {
    let rest = height.saturating_sub(1);
    let counts = u16::from(height >= 6);
    let keys = u16::from(height >= 8);
    let detail = match open {
        Some(lines) => lines.clamp(1, (rest / 2).max(1)),
        None => 1,
    };
    let detail = if height >= 5 { detail } else { 0 };
    let rest = rest - counts - keys - detail;
    let whole = u16::try_from(rows.max(1)).unwrap_or(u16::MAX).saturating_add(1);
    let (matrix, events) = if whole <= rest {
        (whole, rest - whole)
    } else {
        let events = if height >= 14 { (height / 6).min(6) } else { 0 };
        (rest - events, events)
    };
    Heights {
        counts,
        matrix,
        detail,
        events,
        keys,
    }
}

pub fn draw(facts: &Facts, view: &mut View, now: i64, theme: Theme, area: Rect, buf: &mut Buffer) {
    let grid = facts.grid();
    let rows = view.rows(&grid);
    let told = detail(&grid, rows.get(view.scroll.at), view.column);
    let open = view.open.then(|| u16::try_from(told.len()).unwrap_or(u16::MAX));
    let heights = heights(area.height, rows.len(), open);
    let mut top = area.y;
    let mut part = |height: u16| {
        let part = Rect::new(area.x, top, area.width, height.min(area.bottom() - top));
        top = part.bottom();
        part
    };
    let progress = facts.progress(&grid);
    header(facts, &progress, now, theme, part(1.min(area.height)), buf);
    counts(facts, &progress, view, theme, part(heights.counts), buf);
    matrix(&grid, &rows, view, theme, part(heights.matrix), buf);
    let place = part(heights.detail);
    match view.open {
        true => {
            for (line, (text, style)) in (0..place.height).zip(&told) {
                paint::line([(text.as_str().into(), style.of(theme))], paint::row(place, line), buf);
            }
        }
        false => {
            let line = told
                .iter()
                .map(|(text, style)| (Cow::from(format!("{text}  ")), style.of(theme)));
            paint::line(line, place, buf);
        }
    }
    events(facts, now, theme, part(heights.events), buf);
    let keys = "q leave  ? help  ↑↓←→ select  Enter open  f attention first  n next failure";
    paint::line([(keys.into(), theme.dim())], part(heights.keys), buf);
    if view.help {
        paint::help(KEYS, theme, area, buf);
    }
}

fn header(facts: &Facts, progress: &Progress, now: i64, theme: Theme, area: Rect, buf: &mut Buffer) {
    let livepatch = &facts.livepatch;
    let spec = livepatch.spec.clone().unwrap_or_default();
    let until = if livepatch.ended_ms == 0 {
        now
    } else {
        livepatch.ended_ms
    };
    let elapsed = duration((until - livepatch.created_ms).max(0) / 1000 * 1000);
    let done = format!("{}/{}", progress.tasks_done, progress.tasks);
    let right = match area.width {
        ..40 => done,
        _ if area.width < 80 || facts.lost_ms.is_some() => format!("{done} tasks  {elapsed}"),
        _ => {
            let bar = paint::bar(
                progress.tasks_done as u64,
                progress.tasks as u64,
                usize::from(area.width / 4).min(40),
            );
            format!("{bar} {done} tasks  {elapsed}")
        }
    };
    let width = u16::try_from(right.width()).unwrap_or(u16::MAX).min(area.width);
    // With a gap between them.
    let left = Rect::new(area.x, area.y, (area.width - width).saturating_sub(1), area.height);
    let place = Rect::new(area.right() - width, area.y, width, area.height);
    let mut spans = vec![(Cow::from(format!("{}  ", spec.name)), theme.strong())];
    match facts.lost_ms {
        Some(since) => spans.push((
            format!("connection lost {}; trying again", ago(since, now)).into(),
            theme.bad(),
        )),
        None => {
            if !spec.cve.is_empty() && area.width >= 60 {
                spans.push((format!("CVE-{}  ", spec.cve).into(), Style::new()));
            }
            spans.push((livepatch_state(livepatch).into(), theme.busy()));
            if livepatch.paused_ms > 0 {
                let why = match livepatch.pause_reason.as_str() {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                };
                spans.push((
                    format!("  paused {}{why}", ago(livepatch.paused_ms, now)).into(),
                    theme.warning(),
                ));
            }
        }
    }
    paint::line(spans, left, buf);
    paint::line([(right.into(), Style::new())], place, buf);
}

fn counts(facts: &Facts, progress: &Progress, view: &View, theme: Theme, area: Rect, buf: &mut Buffer) {
    let all = [
        (Standing::Failed, progress.failed, "failed"),
        (Standing::Cancelled, progress.cancelled, "cancelled"),
        (Standing::Running, progress.running, "running"),
        (Standing::Waiting, progress.waiting, "waiting"),
        (Standing::Succeeded, progress.succeeded, "succeeded"),
    ];
    let mut spans: Vec<_> = all
        .into_iter()
        .filter(|(_, count, _)| *count > 0)
        .map(|(standing, count, word)| {
            let text = format!("{} {count} {word}  ", mark(standing));
            (Cow::from(text), theme.standing(standing))
        })
        .collect();
    if view.attention {
        spans.push(("attention first".into(), theme.dim()));
    }
    if facts.livepatch.ended_ms != 0 {
        spans.push((facts.livepatch.verdict.as_str().into(), Style::new()));
    }
    paint::line(spans, area, buf);
}

/// Where columns are: of the codestreams' names, and of those architectures that are seen.
struct Columns {
    names: usize,
    /// The first architecture that is seen, and the width of each from there on.
    first: usize,
    widths: Vec<usize>,
    /// Only marks are shown.
    marks: bool,
}

/// A text is worth its place from so many columns on.
const TEXT: usize = 14;

fn columns(grid: &Grid<'_>, selected: usize, width: usize) -> Columns {
    let longest = grid.rows.keys().map(|name| name.as_str().width()).max().unwrap_or(0);
    let names = longest.max("CODESTREAM".len()).min((width / 2).max(10)) + 2;
    let rest = width.saturating_sub(names);
    let natural: Vec<usize> = grid
        .archs
        .iter()
        .map(|arch| {
            let cells = grid.rows.values().filter_map(|row| row.get(arch));
            let cells = cells.map(|(state, _)| state.text.width() + 2);
            cells.chain([arch.width()]).max().unwrap_or(0) + 2
        })
        .collect();
    let (count, equal) = (natural.len(), rest / natural.len().max(1));
    let marks = equal < TEXT && natural.iter().sum::<usize>() > rest;
    let mut widths: Vec<usize> = if marks {
        let widest = grid.archs.iter().map(|arch| arch.width() + 1).max().unwrap_or(0);
        vec![widest.min(equal).max(2); count]
    } else if natural.iter().sum::<usize>() <= rest {
        natural
    } else {
        // What some don't need, others get.
        let mut widths: Vec<usize> = natural.iter().map(|n| (*n).min(equal)).collect();
        let mut spare = rest - widths.iter().sum::<usize>();
        for (width, natural) in widths.iter_mut().zip(&natural) {
            let more = (natural - *width).min(spare);
            *width += more;
            spare -= more;
        }
        widths
    };
    let fit = if marks {
        (rest / widths.first().copied().unwrap_or(2)).max(1)
    } else {
        count
    };
    let first = (selected + 1).saturating_sub(fit);
    widths.drain(..first.min(count));
    widths.truncate(fit);
    Columns {
        names,
        first,
        widths,
        marks,
    }
}

fn matrix(grid: &Grid<'_>, rows: &[Codestream], view: &mut View, theme: Theme, area: Rect, buf: &mut Buffer) {
    let columns = columns(grid, view.column, usize::from(area.width));
    let seen = view
        .scroll
        .window(rows.len(), usize::from(area.height.saturating_sub(1)));
    let archs: Vec<&String> = grid
        .archs
        .iter()
        .skip(columns.first)
        .take(columns.widths.len())
        .collect();
    let mut heading = vec![(pad("CODESTREAM", columns.names), theme.heading())];
    heading.extend(archs.iter().zip(&columns.widths).map(|(arch, width)| {
        // Above marks a beginning is enough, without saying that there is more.
        let name = if columns.marks {
            arch.chars().take(width - 1).collect()
        } else {
            (*arch).clone()
        };
        (pad(&name, *width), theme.heading())
    }));
    if seen.len() < rows.len() {
        let text = format!("{} to {} of {}", seen.start + 1, seen.end, rows.len());
        heading.push((text.into(), theme.dim()));
    }
    paint::line(heading, paint::row(area, 0), buf);
    if rows.is_empty() {
        paint::line([("no task yet".into(), theme.dim())], paint::row(area, 1), buf);
    }
    for (place, number) in (1..).zip(seen) {
        let codestream = &rows[number];
        let selected = number == view.scroll.at;
        let style = if selected { theme.strong() } else { Style::new() };
        let mut line = vec![(pad(codestream.as_str(), columns.names), style)];
        for (column, (arch, width)) in archs.iter().zip(&columns.widths).enumerate() {
            let state = grid.rows.get(codestream).and_then(|row| row.get(*arch));
            let (text, mut style) = match state {
                None => ("-".to_owned(), theme.dim()),
                Some((state, _)) if columns.marks => (mark(state.standing).to_string(), theme.standing(state.standing)),
                Some((state, _)) => (
                    format!("{} {}", mark(state.standing), state.text),
                    theme.standing(state.standing),
                ),
            };
            if selected && column + columns.first == view.column {
                style = style.add_modifier(theme.selected());
            }
            let gap = if *width > 2 { 2.min(width - 1) } else { 1 };
            let gap = if columns.marks { 1 } else { gap };
            line.push((pad(&text, width - gap), style));
            line.push((" ".repeat(gap).into(), Style::new()));
        }
        paint::line(line, paint::row(area, place), buf);
    }
}

/// A text in a column of this width, cut or filled up.
fn pad(text: &str, width: usize) -> Cow<'static, str> {
    let text = paint::clip(text, width);
    let fill = " ".repeat(width - text.width().min(width));
    Cow::Owned(text.into_owned() + &fill)
}

/// How a line of the detail is meant.
#[derive(Clone, Copy)]
enum Tone {
    Name,
    Is(Standing),
    Plain,
}

impl Tone {
    fn of(self, theme: Theme) -> Style {
        match self {
            Tone::Name => theme.strong(),
            Tone::Is(standing) => theme.standing(standing),
            Tone::Plain => Style::new(),
        }
    }
}

/// All that is known of a cell, in lines.
fn detail(grid: &Grid<'_>, codestream: Option<&Codestream>, column: usize) -> Vec<(String, Tone)> {
    let (Some(codestream), Some(arch)) = (codestream, grid.archs.iter().nth(column)) else {
        return Vec::new();
    };
    let name = (format!("{codestream}/{arch}"), Tone::Name);
    let Some((state, task)) = grid.rows.get(codestream).and_then(|row| row.get(arch)) else {
        return vec![name, ("is no target of this livepatch".to_owned(), Tone::Plain)];
    };
    let mut lines = vec![name, (state.text.clone(), Tone::Is(state.standing))];
    if let Some(failure) = &task.failure {
        if task.state() != v1::TaskState::Failed {
            let again = format!("{} failed before:", task_kind(task));
            lines.push((again, Tone::Is(Standing::Failed)));
        }
        let message = plain::lines(&failure.message).into_owned();
        lines.extend(message.lines().map(|line| (line.to_owned(), Tone::Plain)));
    }
    lines
}

fn events(facts: &Facts, now: i64, theme: Theme, area: Rect, buf: &mut Buffer) {
    let newest = facts.events.len().saturating_sub(usize::from(area.height));
    for (place, (time, message)) in (0..).zip(facts.events.iter().skip(newest)) {
        let when = format!("{:>10}  ", ago(*time, now));
        paint::line(
            [(when.into(), theme.dim()), (message.as_str().into(), Style::new())],
            paint::row(area, place),
            buf,
        );
    }
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;

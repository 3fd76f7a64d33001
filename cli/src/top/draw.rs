//! A frame of the farm: totals, then its parts, as much of each as fits.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::farm::Farm;
use super::tables::{Told, told};
use super::view::{KEYS, PARTS, Part, View};
use crate::output::ago;
use crate::tui::{Theme, paint};

/// A part with fewer lines says nothing.
const LEAST: u16 = 4;

/// Lines for each of the parts, where these have so much to say.
fn shares(rest: u16, wanted: [u16; 3], focus: usize) -> [u16; 3] {
    let mut shares = [0; 3];
    if rest < 3 * LEAST {
        shares[focus] = rest;
        return shares;
    }
    let mut left = rest;
    for (share, wanted) in shares.iter_mut().zip(wanted) {
        *share = wanted.min(rest / 3);
        left -= *share;
    }
    for part in [focus, 0, 1, 2] {
        let more = (wanted[part] - shares[part]).min(left);
        shares[part] += more;
        left -= more;
    }
    // What nobody wants stays empty, below.
    shares
}

/// How many rows the selected part has.
pub fn rows(farm: &Farm, part: Part) -> usize {
    match part {
        Part::Workers => farm.workers.len(),
        Part::Livepatches => farm.livepatches.len(),
        Part::Queue => farm.waiting.len(),
    }
}

/// `lost`: since when the coordinator does not answer, and why.
pub fn draw(
    farm: &Farm,
    lost: Option<&(i64, String)>,
    view: &mut View,
    now: i64,
    theme: Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let tables: [Told<'_>; 3] = PARTS.map(|part| told(part, farm, view, now, theme));
    let focus = view.part as usize;
    let details = &tables[focus].details;
    let at = view.of(view.part).scroll.at.min(details.len().saturating_sub(1));
    let detail = details.get(at).map_or(&[][..], Vec::as_slice);
    let height = area.height;
    let totals = u16::from(height >= 4);
    let keys = u16::from(height >= 10);
    let lines = match (height, view.open) {
        (..7, _) => 0,
        (_, false) => 1,
        (_, true) => u16::try_from(detail.len()).unwrap_or(u16::MAX).clamp(1, height / 3),
    };
    let mut top = area.y;
    let mut part = |height: u16| {
        let part = Rect::new(area.x, top, area.width, height.min(area.bottom() - top));
        top = part.bottom();
        part
    };
    header(farm, lost, now, theme, part(1.min(height)), buf);
    total(farm, now, theme, part(totals), buf);
    let rest = height.saturating_sub(1 + totals + keys + lines);
    let shares = shares(rest, [0, 1, 2].map(|n: usize| tables[n].table.height()), focus);
    for ((told, share), which) in tables.iter().zip(shares).zip(PARTS) {
        let place = part(share);
        if share > 0 {
            told.table.draw(&mut view.of(which).scroll, theme, place, buf);
        }
    }
    // The last lines of the screen, wherever the parts end.
    part(rest - shares.iter().sum::<u16>());
    let place = part(lines);
    match view.open {
        true => {
            for (line, text) in (0..place.height).zip(detail) {
                let style = if line == 0 { theme.strong() } else { Style::new() };
                paint::line([(text.as_str().into(), style)], paint::row(place, line), buf);
            }
        }
        false => paint::line([(detail.join("; ").into(), Style::new())], place, buf),
    }
    let does = "q leave  ? help  Tab next part  ↑↓ select  Enter open  s sort  r reverse";
    paint::line([(does.into(), theme.dim())], part(keys), buf);
    if view.help {
        paint::help(KEYS, theme, area, buf);
    }
}

fn header(farm: &Farm, lost: Option<&(i64, String)>, now: i64, theme: Theme, area: Rect, buf: &mut Buffer) {
    let mut spans = vec![
        (Cow::from("klp-farm top  "), theme.strong()),
        (farm.coordinator.as_str().into(), Style::new()),
    ];
    if let Some((since, why)) = lost {
        // Before the address: it matters more.
        spans.insert(
            1,
            (
                format!("no answer since {}: {why}  ", ago(*since, now)).into(),
                theme.bad(),
            ),
        );
    }
    paint::line(spans, area, buf);
}

fn total(farm: &Farm, now: i64, theme: Theme, area: Rect, buf: &mut Buffer) {
    let totals = farm.totals(now);
    let plain = Style::new();
    let some = |count: usize, style: Style| if count > 0 { style } else { theme.dim() };
    let (busy, slots) = (totals.slots_busy, totals.slots);
    paint::line(
        [
            (format!("workers {} ready", totals.workers_ready).into(), plain),
            (
                format!(" {} held", totals.workers_held).into(),
                some(totals.workers_held, theme.warning()),
            ),
            (
                format!(" {} lost", totals.workers_lost).into(),
                some(totals.workers_lost, theme.bad()),
            ),
            (
                format!("   slots {} {busy}/{slots}", paint::bar(busy.into(), slots.into(), 10)).into(),
                theme.busy(),
            ),
            (
                format!("   tasks {} running, {} waiting", totals.leased, totals.waiting).into(),
                plain,
            ),
            (
                format!(", {} blocked", totals.blocked).into(),
                some(totals.blocked as usize, theme.warning()),
            ),
            (format!("   livepatches {}", totals.livepatches).into(), plain),
        ],
        area,
        buf,
    );
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;

//! Pieces that are drawn: lines that are cut where they don't fit, bars, tables in a frame, and a page of help.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Scroll, Theme};
use crate::plain;

/// A text as one harmless line of at most `width` columns, with an ellipsis where it was cut.
pub fn clip(text: &str, width: usize) -> Cow<'_, str> {
    let text = plain::line(text);
    if text.width() <= width {
        return text;
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    Cow::Owned(cut)
}

/// Draws a line of texts, cut at the end of the area.
pub fn line<'a>(spans: impl IntoIterator<Item = (Cow<'a, str>, Style)>, area: Rect, buf: &mut Buffer) {
    let mut left = usize::from(area.width);
    let mut line = Line::default();
    for (text, style) in spans {
        let text = clip(&text, left).into_owned();
        left -= text.width().min(left);
        line.push_span(Span::styled(text, style));
    }
    if area.height > 0 {
        buf.set_line(area.x, area.y, &line, area.width);
    }
}

/// `part` of `whole` as a bar of `width` columns.
pub fn bar(part: u64, whole: u64, width: usize) -> String {
    let filled = match whole {
        0 => 0,
        whole => (part.min(whole) as usize * width).div_ceil(whole as usize).min(width),
    };
    // Full only when it is.
    let filled = if part < whole {
        filled.min(width.saturating_sub(1))
    } else {
        filled
    };
    "█".repeat(filled) + &"░".repeat(width - filled)
}

/// A row of an area, from its top; empty below its end.
pub fn row(area: Rect, number: u16) -> Rect {
    let height = u16::from(number < area.height);
    Rect::new(
        area.x,
        area.y.saturating_add(number).min(area.bottom()),
        area.width,
        height,
    )
}

pub type Cell = (String, Style);

/// A table: the last column takes what is left.
pub struct Table<'a> {
    pub title: String,
    pub heads: &'a [&'a str],
    pub rows: Vec<Vec<Cell>>,
    /// What is said where there are no rows.
    pub empty: &'a str,
    pub focus: bool,
}

const WIDEST: usize = 40;
const GAP: usize = 2;

impl Table<'_> {
    /// Lines that it takes to draw all of it, and an empty one.
    pub fn height(&self) -> u16 {
        u16::try_from(self.rows.len().max(1))
            .unwrap_or(u16::MAX)
            .saturating_add(3)
    }

    pub fn draw(&self, scroll: &mut Scroll, theme: Theme, area: Rect, buf: &mut Buffer) {
        let seen = scroll.window(self.rows.len(), usize::from(area.height.saturating_sub(2)));
        let title = match seen.len() < self.rows.len() {
            true => format!(
                "{}  {} to {} of {}",
                self.title,
                seen.start + 1,
                seen.end,
                self.rows.len()
            ),
            false => self.title.clone(),
        };
        let style = if self.focus { theme.heading() } else { theme.strong() };
        let before = if self.focus { "▸ " } else { "  " };
        line([(before.into(), style), (title.into(), style)], row(area, 0), buf);
        let widths = self.widths();
        self.columns(
            &widths,
            self.heads.iter().map(|head| ((*head).into(), theme.dim())),
            row(area, 1),
            buf,
        );
        if self.rows.is_empty() {
            line([(format!("  {}", self.empty).into(), theme.dim())], row(area, 2), buf);
        }
        for (place, number) in seen.enumerate() {
            let line = row(area, u16::try_from(place + 2).unwrap_or(u16::MAX));
            let cells = self.rows[number]
                .iter()
                .map(|(text, style)| (text.as_str().into(), *style));
            self.columns(&widths, cells, line, buf);
            if self.focus && number == scroll.at {
                buf.set_style(line, theme.selected());
            }
        }
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|(text, _)| text.width());
            cells.chain([self.heads[column].width()]).max().unwrap_or(0).min(WIDEST)
        };
        (0..self.heads.len()).map(widest).collect()
    }

    fn columns<'c>(
        &self,
        widths: &[usize],
        cells: impl Iterator<Item = (Cow<'c, str>, Style)>,
        area: Rect,
        buf: &mut Buffer,
    ) {
        let last = widths.len().saturating_sub(1);
        let spans = cells
            .zip(widths)
            .enumerate()
            .flat_map(|(column, ((text, style), width))| {
                let (width, gap) = if column == last {
                    (usize::from(area.width), 0)
                } else {
                    (*width, GAP)
                };
                let text = clip(&text, width).into_owned();
                let fill = if gap > 0 {
                    " ".repeat(width - text.width().min(width) + gap)
                } else {
                    String::new()
                };
                [(Cow::Owned(text), style), (Cow::Owned(fill), Style::new())]
            });
        line(
            [(Cow::Borrowed("  "), Style::new())].into_iter().chain(spans),
            area,
            buf,
        );
    }
}

/// A page over everything else that says what keys do.
pub fn help(keys: &[(&str, &str)], theme: Theme, area: Rect, buf: &mut Buffer) {
    let wide = keys.iter().map(|(key, _)| key.width()).max().unwrap_or(0);
    let lines: Vec<Line<'_>> = keys
        .iter()
        .map(|(key, does)| {
            let fill = " ".repeat(wide - key.width());
            Line::from(vec![
                Span::styled(format!(" {key}{fill}  "), theme.strong()),
                Span::raw(*does),
            ])
        })
        .collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0) + 3;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let page = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    Clear.render(page, buf);
    Paragraph::new(lines)
        .block(Block::bordered().title(" Keys "))
        .render(page, buf);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_the_column() {
        assert_eq!(clip("15.6u1", 6), "15.6u1");
        assert_eq!(clip("15.6u10", 6), "15.6u…");
        assert_eq!(clip("日本語", 5), "日本…");
        assert_eq!(clip("日本語", 4), "日…");
        assert_eq!(clip("abc", 1), "…");
        assert_eq!(clip("abc", 0), "");
        assert_eq!(clip("a\x1b[31m", 9), "a�[31m");
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(0, 0, 3), "░░░");
        assert_eq!(bar(0, 9, 3), "░░░");
        assert_eq!(bar(1, 900, 3), "█░░");
        assert_eq!(bar(899, 900, 3), "██░");
        assert_eq!(bar(900, 900, 3), "███");
        assert_eq!(bar(9, 3, 2), "██");
        assert_eq!(bar(1, 2, 0), "");
    }
}

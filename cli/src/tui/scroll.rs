//! Which of many rows is selected, and which are seen.

use std::ops::Range;

use crossterm::event::{KeyCode, KeyEvent};

#[derive(Clone, Copy, Debug, Default)]
pub struct Scroll {
    /// The selected row.
    pub at: usize,
    top: usize,
    /// How many were seen last.
    page: usize,
}

impl Scroll {
    /// Moves the selection as the key says. False: the key is for something else.
    pub fn key(&mut self, key: KeyEvent, rows: usize) -> bool {
        let page = self.page.max(1);
        let to = match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.at + 1,
            KeyCode::PageUp => self.at.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => self.at + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return false,
        };
        self.at = to.min(rows.saturating_sub(1));
        true
    }

    /// The rows to draw where `height` of them fit: with the selected one, and no more moved than that needs.
    pub fn window(&mut self, rows: usize, height: usize) -> Range<usize> {
        self.page = height;
        self.at = self.at.min(rows.saturating_sub(1));
        let least = (self.at + 1).saturating_sub(height);
        let most = self.at.min(rows.saturating_sub(height));
        self.top = self.top.clamp(least.min(most), most);
        self.top..(self.top + height).min(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_always_seen() {
        let mut scroll = Scroll::default();
        for (rows, height) in [(60, 10), (60, 1), (3, 10), (0, 5), (60, 0), (1, 1)] {
            for key in [
                KeyCode::End,
                KeyCode::PageUp,
                KeyCode::Down,
                KeyCode::Home,
                KeyCode::PageDown,
                KeyCode::Up,
            ] {
                assert!(scroll.key(key.into(), rows));
                let seen = scroll.window(rows, height);
                assert!(seen.len() == rows.min(height), "{seen:?} of {rows} in {height}");
                assert!(
                    rows.min(height) == 0 || seen.contains(&scroll.at),
                    "{scroll:?} {seen:?}"
                );
            }
        }
        assert!(!scroll.key(KeyCode::Tab.into(), 1));
    }
}

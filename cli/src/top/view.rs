//! What a person chose to see of the farm: which part, which row, in which order. Pure: keys come in.

use crossterm::event::{KeyCode, KeyEvent};

use crate::tui::Scroll;

pub const KEYS: &[(&str, &str)] = &[
    ("Tab, Shift-Tab, 1 2 3", "workers, livepatches, queue"),
    ("↑ ↓, j k", "select a row"),
    ("PgUp PgDn Home End", "move faster"),
    ("Enter", "all of what is known of the row, or less again"),
    ("s", "sort by something else"),
    ("r", "turn the order around"),
    ("Ctrl-L", "draw all anew"),
    ("Ctrl-Z", "back to the shell for a while"),
    ("q, Esc, Ctrl-C", "leave"),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    Workers,
    Livepatches,
    Queue,
}

pub const PARTS: [Part; 3] = [Part::Workers, Part::Livepatches, Part::Queue];

impl Part {
    /// By what it can be sorted, the first at first.
    pub fn orders(self) -> &'static [&'static str] {
        match self {
            Part::Workers => &["name", "state", "busy", "heard"],
            Part::Livepatches => &["age", "progress", "failures", "name"],
            Part::Queue => &["tasks", "age", "reason"],
        }
    }
}

/// How a part is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    pub scroll: Scroll,
    /// Of the part's orders.
    order: usize,
    pub reversed: bool,
}

#[derive(Default)]
pub struct View {
    pub part: Part,
    shown: [Shown; 3],
    /// All of what is known of the selected row is shown.
    pub open: bool,
    pub help: bool,
}

impl View {
    pub fn of(&mut self, part: Part) -> &mut Shown {
        &mut self.shown[part as usize]
    }

    pub fn order(&self, part: Part) -> (&'static str, bool) {
        let shown = &self.shown[part as usize];
        (part.orders()[shown.order], shown.reversed)
    }

    /// Does what the key says, where the selected part has so many rows. True: leave.
    pub fn key(&mut self, key: KeyEvent, rows: usize) -> bool {
        let step = |by: usize| PARTS[(self.part as usize + by) % PARTS.len()];
        match key.code {
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Esc | KeyCode::Char('q') if self.help => self.help = false,
            KeyCode::Esc if self.open => self.open = false,
            KeyCode::Esc | KeyCode::Char('q') => return true,
            KeyCode::Tab | KeyCode::Right => self.part = step(1),
            KeyCode::BackTab | KeyCode::Left => self.part = step(PARTS.len() - 1),
            KeyCode::Char('1') => self.part = Part::Workers,
            KeyCode::Char('2') => self.part = Part::Livepatches,
            KeyCode::Char('3') => self.part = Part::Queue,
            KeyCode::Enter => self.open = !self.open,
            KeyCode::Char('s') => {
                let orders = self.part.orders().len();
                let shown = self.of(self.part);
                shown.order = (shown.order + 1) % orders;
            }
            KeyCode::Char('r') => {
                let shown = self.of(self.part);
                shown.reversed = !shown.reversed;
            }
            _ => {
                self.of(self.part).scroll.key(key, rows);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_choose_part_row_and_order() {
        let mut view = View::default();
        let mut press = |code: KeyCode| {
            assert!(!view.key(code.into(), 5));
            (view.part, view.order(view.part), view.of(view.part).scroll.at)
        };
        assert_eq!(press(KeyCode::Down), (Part::Workers, ("name", false), 1));
        assert_eq!(press(KeyCode::Char('s')), (Part::Workers, ("state", false), 1));
        assert_eq!(press(KeyCode::BackTab), (Part::Queue, ("tasks", false), 0));
        assert_eq!(press(KeyCode::Tab), (Part::Workers, ("state", false), 1));
        assert_eq!(press(KeyCode::Char('r')), (Part::Workers, ("state", true), 1));
        assert_eq!(press(KeyCode::Char('2')), (Part::Livepatches, ("age", false), 0));
        for _ in 0..4 {
            press(KeyCode::Char('s'));
        }
        assert_eq!(press(KeyCode::End), (Part::Livepatches, ("age", false), 4));
        assert!(view.key(KeyCode::Char('q').into(), 0));
    }
}

//! What a person chose to see of the livepatch: which cell is selected, in which order. Pure: keys come in.

use crossterm::event::{KeyCode, KeyEvent};
use klp_livepatch::Codestream;
use klp_proto::view::cell::{Grid, Standing};

use super::facts::order;
use crate::tui::Scroll;

pub const KEYS: &[(&str, &str)] = &[
    ("↑ ↓ ← →, h j k l", "select a cell"),
    ("PgUp PgDn Home End", "move faster"),
    ("Enter", "all of what is known of the cell, or less again"),
    ("f", "what needs attention first, or in natural order"),
    ("n, N", "the next cell that failed, or the one before"),
    ("Ctrl-L", "draw all anew"),
    ("Ctrl-Z", "back to the shell for a while"),
    ("q, Esc, Ctrl-C", "leave; the livepatch goes on"),
];

#[derive(Default)]
pub struct View {
    pub scroll: Scroll,
    pub column: usize,
    /// The row that stays selected when the order changes.
    selected: Option<Codestream>,
    pub attention: bool,
    /// All of what is known of the selected cell is shown.
    pub open: bool,
    pub help: bool,
}

impl View {
    /// The rows in their order, with the selected one still selected.
    pub fn rows(&mut self, grid: &Grid<'_>) -> Vec<Codestream> {
        let rows = order(grid, self.attention);
        if let Some(place) = rows.iter().position(|row| Some(row) == self.selected.as_ref()) {
            self.scroll.at = place;
        }
        self.column = self.column.min(grid.archs.len().saturating_sub(1));
        rows
    }

    /// Does what the key says. True: leave.
    pub fn key(&mut self, key: KeyEvent, grid: &Grid<'_>) -> bool {
        let rows = self.rows(grid);
        match key.code {
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Esc | KeyCode::Char('q') if self.help => self.help = false,
            KeyCode::Esc if self.open => self.open = false,
            KeyCode::Esc | KeyCode::Char('q') => return true,
            KeyCode::Left | KeyCode::Char('h') => self.column = self.column.saturating_sub(1),
            KeyCode::Right | KeyCode::Char('l') => self.column += 1,
            KeyCode::Enter => self.open = !self.open,
            KeyCode::Char('f') => {
                self.attention = !self.attention;
                // What needs attention is seen at once.
                (self.selected, self.scroll.at) = (None, 0);
                return false;
            }
            KeyCode::Char('n') => self.seek(grid, &rows, true),
            KeyCode::Char('N') => self.seek(grid, &rows, false),
            _ if self.scroll.key(key, rows.len()) => {}
            _ => return false,
        }
        self.column = self.column.min(grid.archs.len().saturating_sub(1));
        self.selected = rows.get(self.scroll.at).cloned();
        false
    }

    /// Selects the next failed cell, or the one before, around the end.
    fn seek(&mut self, grid: &Grid<'_>, rows: &[Codestream], forward: bool) {
        let failed = |cell: &(usize, usize)| {
            let state = grid
                .archs
                .iter()
                .nth(cell.1)
                .and_then(|arch| grid.rows.get(rows.get(cell.0)?)?.get(arch));
            state.is_some_and(|(state, _)| state.standing == Standing::Failed)
        };
        let columns = grid.archs.len();
        let cells = rows.len() * columns;
        let here = self.scroll.at * columns + self.column;
        let step = |by: usize| if forward { here + by } else { here + cells - by };
        let found = (1..=cells)
            .map(|by| step(by) % cells)
            .map(|n| (n / columns, n % columns))
            .find(failed);
        if let Some((row, column)) = found {
            (self.scroll.at, self.column) = (row, column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::facts::{Facts, tests};
    use klp_proto::v1::{TaskKind::Check, TaskState};

    fn facts() -> Facts {
        let cell = |codestream, arch, state| tests::task(codestream, arch, Check, state);
        Facts::new(tests::answer(
            1,
            vec![
                cell("15.6u1", "s390x", TaskState::Waiting),
                cell("15.6u1", "x86_64", TaskState::Failed),
                cell("15.6u2", "x86_64", TaskState::Leased),
                cell("15.6u3", "s390x", TaskState::Failed),
            ],
        ))
    }

    #[test]
    fn keys_move_the_selection_and_find_failures() {
        let facts = facts();
        let grid = facts.grid();
        let mut view = View::default();
        let mut after = |code: KeyCode| {
            assert!(!view.key(code.into(), &grid), "{code:?} leaves");
            (view.scroll.at, view.column)
        };
        assert_eq!(after(KeyCode::Down), (1, 0));
        assert_eq!(after(KeyCode::Right), (1, 1));
        assert_eq!(after(KeyCode::Right), (1, 1));
        assert_eq!(after(KeyCode::Char('n')), (2, 0));
        assert_eq!(after(KeyCode::Char('n')), (0, 1), "around the end");
        assert_eq!(after(KeyCode::Char('N')), (2, 0));
        assert_eq!(after(KeyCode::Home), (0, 0));
        assert_eq!(after(KeyCode::End), (2, 0));
    }

    #[test]
    fn a_selected_row_stays_selected_whatever_the_order() {
        let mut facts = facts();
        let mut view = View::default();
        view.key(KeyCode::Char('f').into(), &facts.grid());
        view.key(KeyCode::End.into(), &facts.grid());
        assert_eq!(view.rows(&facts.grid())[view.scroll.at].to_string(), "15.6u2");
        let failed = tests::task("15.6u2", "x86_64", Check, TaskState::Failed);
        facts.look(tests::answer(
            2,
            vec![failed, tests::task("15.6u1", "x86_64", Check, TaskState::Leased)],
        ));
        assert_eq!(view.rows(&facts.grid())[view.scroll.at].to_string(), "15.6u2");
        assert_eq!(view.scroll.at, 0);
    }

    #[test]
    fn escape_closes_before_it_leaves() {
        let facts = facts();
        let grid = facts.grid();
        let mut view = View::default();
        view.key(KeyCode::Enter.into(), &grid);
        view.key(KeyCode::Char('?').into(), &grid);
        assert!(view.help && view.open);
        assert!(!view.key(KeyCode::Esc.into(), &grid) && !view.help);
        assert!(!view.key(KeyCode::Esc.into(), &grid) && !view.open);
        assert!(view.key(KeyCode::Esc.into(), &grid));
        assert!(view.key(KeyCode::Char('q').into(), &grid));
    }

    #[test]
    fn nothing_to_select_is_no_trouble() {
        let facts = Facts::new(tests::answer(1, Vec::new()));
        for code in [
            KeyCode::Down,
            KeyCode::Right,
            KeyCode::Char('n'),
            KeyCode::Char('N'),
            KeyCode::Char('f'),
            KeyCode::End,
        ] {
            assert!(!View::default().key(code.into(), &facts.grid()));
        }
    }
}

//! The matrix of codestreams x architectures: what people look at.

use std::collections::BTreeSet;

use comfy_table::{Cell, Color};
use klp_livepatch::Codestream;
use klp_proto::v1;
use klp_proto::view::cell::{Grid, Standing, State};

use crate::output;
use crate::tui::mark;

/// A livepatch's grid as text.
pub struct Matrix<'a>(Grid<'a>);

impl<'a> Matrix<'a> {
    /// From all the livepatch's tasks.
    pub fn new(tasks: impl IntoIterator<Item = &'a v1::Task>, ended: bool) -> Self {
        Self(Grid::new(tasks, ended))
    }

    /// The matrix as text, with at most `max_rows` codestreams: those that need attention first to stay.
    pub fn render(&self, max_rows: usize, colours: bool) -> String {
        let mut header = vec!["CODESTREAM"];
        header.extend(self.0.archs.iter().map(String::as_str));
        let mut table = output::table(&header);
        if colours {
            table.enforce_styling();
        }
        let shown = self.rows_to_show(max_rows);
        let hidden = self.0.rows.len() - shown.len();
        for (codestream, row) in self.0.rows.iter().filter(|(c, _)| shown.contains(c)) {
            let mut cells = vec![Cell::new(codestream)];
            cells.extend(
                self.0
                    .archs
                    .iter()
                    .map(|arch| row.get(arch).map_or_else(|| Cell::new("-"), |(state, _)| cell(state))),
            );
            table.add_row(cells);
        }
        let mut text = table.trim_fmt();
        if hidden > 0 {
            text.push_str(&format!("\n… and {hidden} more"));
        }
        text
    }

    /// Every codestream, if they fit; else those with failures and running ones before the rest.
    fn rows_to_show(&self, max_rows: usize) -> BTreeSet<&Codestream> {
        let mut rows: Vec<(Standing, &Codestream)> = self
            .0
            .rows
            .iter()
            .map(|(c, row)| {
                (
                    row.values().map(|(s, _)| s.standing).min().unwrap_or(Standing::Waiting),
                    c,
                )
            })
            .collect();
        rows.sort();
        rows.into_iter().take(max_rows).map(|(_, c)| c).collect()
    }
}

fn cell(state: &State) -> Cell {
    let colour = match state.standing {
        Standing::Failed => Color::Red,
        Standing::Cancelled => Color::Yellow,
        Standing::Running => Color::Cyan,
        Standing::Waiting => Color::DarkGrey,
        Standing::Succeeded => Color::Green,
    };
    Cell::new(format!("{} {}", mark(state.standing), state.text)).fg(colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(codestream: &str, kind: v1::TaskKind, state: v1::TaskState) -> v1::Task {
        v1::Task {
            kind: kind.into(),
            state: state.into(),
            round: 1,
            platform: Some(v1::Platform {
                codestream: codestream.into(),
                arch: "x86_64".into(),
            }),
            started_ms: 1000,
            ended_ms: 2500,
            ..Default::default()
        }
    }

    #[test]
    fn a_cell_tells_what_matters_most() {
        use v1::{TaskKind::*, TaskState::*};
        let round = |kind, state, round| v1::Task {
            round,
            ..task("15.6u1", kind, state)
        };
        let cell = |tasks: &[v1::Task]| Matrix::new(tasks, true).render(9, false);
        let done = [
            round(Check, Succeeded, 1),
            round(Extract, Succeeded, 1),
            round(Extract, Succeeded, 2),
            round(Verify, Succeeded, 2),
        ];
        assert!(cell(&done).contains("compiles (round 2, 1.5 s)"), "{}", cell(&done));
        let taken = [round(Check, Succeeded, 1), round(Verify, Succeeded, 1)];
        assert!(cell(&taken).contains("symbols verified"));
        let failed = [
            round(Check, Succeeded, 1),
            round(Extract, Failed, 1),
            round(Verify, Succeeded, 1),
        ];
        assert!(cell(&failed).contains("extract failed"));
        let mut out = round(Check, Succeeded, 1);
        out.left_out = true;
        assert!(cell(&[out]).contains("not built here"));
    }

    #[test]
    fn a_matrix_reads_in_natural_order() {
        use v1::{TaskKind::*, TaskState::*};
        let mut lost = task("15.6u10", Check, Waiting);
        lost.waiting_for = "no worker holds 15.6u10/x86_64".into();
        let mut bad = task("15.6u2", Check, Failed);
        bad.failure = Some(v1::Failure {
            cause: v1::Cause::Yours.into(),
            message: "x".into(),
        });
        let tasks = [
            lost,
            task("15.6u9", Check, Succeeded),
            task("15.6u9", Extract, Succeeded),
            bad,
        ];
        let text = Matrix::new(&tasks, false).render(10, false);
        insta::assert_snapshot!(text, @r"
        CODESTREAM  x86_64
        15.6u2      ✗ check failed (yours)
        15.6u9      ✓ compiles (1.5 s)
        15.6u10     · check: no worker holds 15.6u10/x86_64
        ");
        let short = Matrix::new(&tasks, false).render(1, false);
        assert!(
            short.contains("15.6u2") && !short.contains("15.6u9") && short.ends_with("and 2 more"),
            "{short}"
        );
    }
}

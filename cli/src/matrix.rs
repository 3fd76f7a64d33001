//! The matrix of codestreams x architectures: what people look at.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Cell, Color};
use klp_livepatch::Codestream;
use klp_proto::v1;

use crate::output;
use crate::view::task_kind;

/// How far a codestream has come on an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Failed,
    Cancelled,
    Running,
    Waiting,
    Succeeded,
}

/// One cell: the standing, and a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub standing: Standing,
    pub text: String,
}

/// Cells by codestream and arch. Codestreams are in natural order.
pub struct Matrix {
    cells: BTreeMap<Codestream, BTreeMap<String, State>>,
    archs: BTreeSet<String>,
}

impl Matrix {
    /// A livepatch's matrix, from all its tasks. Tasks whose names can't be read are left out.
    pub fn new<'a>(tasks: impl IntoIterator<Item = &'a v1::Task>, ended: bool) -> Self {
        let mut newest: BTreeMap<(Codestream, String), &v1::Task> = BTreeMap::new();
        for task in tasks {
            let Some(platform) = &task.platform else { continue };
            let Ok(codestream) = platform.codestream.parse() else {
                continue;
            };
            let slot = newest.entry((codestream, platform.arch.clone())).or_insert(task);
            if weight(task) >= weight(slot) {
                *slot = task;
            }
        }
        let mut cells: BTreeMap<Codestream, BTreeMap<String, State>> = BTreeMap::new();
        for ((codestream, arch), task) in &newest {
            cells
                .entry(codestream.clone())
                .or_default()
                .insert(arch.clone(), state(task, ended));
        }
        Self {
            cells,
            archs: newest.into_keys().map(|(_, arch)| arch).collect(),
        }
    }

    /// The matrix as text, with at most `max_rows` codestreams: those that need attention first to stay.
    pub fn render(&self, max_rows: usize, colours: bool) -> String {
        let mut header = vec!["CODESTREAM"];
        header.extend(self.archs.iter().map(String::as_str));
        let mut table = output::table(&header);
        if colours {
            table.enforce_styling();
        }
        let shown = self.rows_to_show(max_rows);
        let hidden = self.cells.len() - shown.len();
        for (codestream, row) in self.cells.iter().filter(|(c, _)| shown.contains(c)) {
            let mut cells = vec![Cell::new(codestream)];
            cells.extend(
                self.archs
                    .iter()
                    .map(|arch| row.get(arch).map_or_else(|| Cell::new("-"), cell)),
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
            .cells
            .iter()
            .map(|(c, row)| (row.values().map(|s| s.standing).min().unwrap_or(Standing::Waiting), c))
            .collect();
        rows.sort();
        rows.into_iter().take(max_rows).map(|(_, c)| c).collect()
    }
}

fn cell(state: &State) -> Cell {
    let (mark, colour) = match state.standing {
        Standing::Failed => ('✗', Color::Red),
        Standing::Cancelled => ('⊘', Color::Yellow),
        Standing::Running => ('▶', Color::Cyan),
        Standing::Waiting => ('·', Color::DarkGrey),
        Standing::Succeeded => ('✓', Color::Green),
    };
    Cell::new(format!("{mark} {}", state.text)).fg(colour)
}

/// Which of a platform's tasks tells where it stands: what did not succeed or is under way before what is done, and the
/// newest source before what was looked for.
fn weight(task: &v1::Task) -> (u8, u8, u32) {
    let pressing = match task.state() {
        v1::TaskState::Failed => 3,
        v1::TaskState::Cancelled => 2,
        v1::TaskState::Leased | v1::TaskState::Waiting => 1,
        v1::TaskState::Succeeded | v1::TaskState::Unspecified => 0,
    };
    let telling = match task.kind() {
        v1::TaskKind::Extract => 2,
        v1::TaskKind::Verify => 1,
        v1::TaskKind::Check | v1::TaskKind::Unspecified => 0,
    };
    (pressing, telling, task.round)
}

/// Where a platform stands, from its most telling task.
fn state(task: &v1::Task, ended: bool) -> State {
    let kind = task_kind(task);
    match task.state() {
        v1::TaskState::Succeeded if task.kind() == v1::TaskKind::Extract => {
            let took = output::duration(task.ended_ms - task.started_ms);
            let round = match task.round {
                0 | 1 => String::new(),
                n => format!("round {n}, "),
            };
            State {
                standing: Standing::Succeeded,
                text: format!("compiles ({round}{took})"),
            }
        }
        v1::TaskState::Succeeded if task.left_out => State {
            standing: Standing::Succeeded,
            text: "not built here".to_owned(),
        },
        v1::TaskState::Succeeded if task.kind() == v1::TaskKind::Verify => State {
            standing: Standing::Succeeded,
            text: "symbols verified".to_owned(),
        },
        // Its extraction is not planned yet, or will never be.
        v1::TaskState::Succeeded if !ended => State {
            standing: Standing::Waiting,
            text: format!("{kind} passed"),
        },
        v1::TaskState::Succeeded => State {
            standing: Standing::Succeeded,
            text: format!("{kind} passed"),
        },
        v1::TaskState::Cancelled => State {
            standing: Standing::Cancelled,
            text: "cancelled".to_owned(),
        },
        v1::TaskState::Failed => {
            let whose = match task.failure.as_ref().map(v1::Failure::cause) {
                Some(v1::Cause::Yours) => "yours",
                Some(v1::Cause::Codestream) => "this codestream's",
                _ => "the farm's",
            };
            State {
                standing: Standing::Failed,
                text: format!("{kind} failed ({whose})"),
            }
        }
        v1::TaskState::Leased => {
            let doing = if task.progress.is_empty() {
                kind
            } else {
                task.progress.as_str()
            };
            State {
                standing: Standing::Running,
                text: format!("{doing} on {}", task.worker),
            }
        }
        v1::TaskState::Waiting | v1::TaskState::Unspecified => {
            let why = if task.waiting_for.is_empty() {
                "waiting"
            } else {
                task.waiting_for.as_str()
            };
            State {
                standing: Standing::Waiting,
                text: format!("{kind}: {why}"),
            }
        }
    }
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

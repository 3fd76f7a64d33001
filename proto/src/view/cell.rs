//! Where a codestream stands on an architecture, in one cell of the matrix that people look at.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::Codestream;

use super::task_kind;
use super::words::duration;
use crate::v1;

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

/// Cells by codestream, in natural order, and architecture, each with the task that tells most of it.
pub struct Grid<'a> {
    pub rows: BTreeMap<Codestream, BTreeMap<String, (State, &'a v1::Task)>>,
    pub archs: BTreeSet<String>,
}

impl<'a> Grid<'a> {
    /// A livepatch's grid, from all its tasks. Tasks whose names can't be read are left out.
    pub fn new(tasks: impl IntoIterator<Item = &'a v1::Task>, ended: bool) -> Self {
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
        let mut grid = Self {
            rows: BTreeMap::new(),
            archs: newest.keys().map(|(_, arch)| arch.clone()).collect(),
        };
        for ((codestream, arch), task) in newest {
            let row = grid.rows.entry(codestream).or_default();
            row.insert(arch, (state(task, ended), task));
        }
        grid
    }
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
            let took = duration(task.ended_ms - task.started_ms);
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

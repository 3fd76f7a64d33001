//! What is known of the livepatch that is followed. Pure: events and answers come in, whoever draws looks.

use std::collections::{BTreeMap, VecDeque};

use klp_livepatch::Codestream;
use klp_proto::v1;
use klp_proto::view::cell::{Grid, Standing, State};

/// Events that are kept to be seen.
const REMEMBERED: usize = 500;

pub struct Facts {
    pub livepatch: v1::Livepatch,
    tasks: BTreeMap<String, v1::Task>,
    /// The newest event that the tasks and the livepatch are known after.
    known: u64,
    /// When what happened, the newest last.
    pub events: VecDeque<(i64, String)>,
    /// Since when there is no connection.
    pub lost_ms: Option<i64>,
}

/// How many platforms are how far, and how many tasks are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub failed: usize,
    pub cancelled: usize,
    pub running: usize,
    pub waiting: usize,
    pub succeeded: usize,
    pub tasks_done: usize,
    pub tasks: usize,
}

impl Facts {
    pub fn new(answer: v1::GetResponse) -> Self {
        let mut facts = Self {
            livepatch: v1::Livepatch::default(),
            tasks: BTreeMap::new(),
            known: 0,
            events: VecDeque::new(),
            lost_ms: None,
        };
        facts.look(answer);
        facts
    }

    /// Takes in an answer about the whole livepatch, unless more has been heard since it was given.
    pub fn look(&mut self, answer: v1::GetResponse) {
        self.lost_ms = None;
        let livepatch = answer.livepatch.unwrap_or_default();
        if livepatch.last_event < self.known {
            return;
        }
        self.known = livepatch.last_event;
        self.livepatch = livepatch;
        self.tasks = answer.tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
    }

    /// Takes in an event. Older ones than what is known already are only told.
    pub fn hear(&mut self, event: v1::Event) {
        self.lost_ms = None;
        self.events.push_back((event.time_ms, event.message));
        if self.events.len() > REMEMBERED {
            self.events.pop_front();
        }
        if event.number > self.known {
            self.known = event.number;
            if let Some(task) = event.task {
                self.tasks.insert(task.id.clone(), task);
            }
            if let Some(livepatch) = event.ended {
                self.livepatch = livepatch;
            }
        }
    }

    pub fn grid(&self) -> Grid<'_> {
        Grid::new(self.tasks.values(), self.livepatch.ended_ms != 0)
    }

    pub fn progress(&self, grid: &Grid<'_>) -> Progress {
        let mut progress = Progress::default();
        for (state, _) in grid.rows.values().flat_map(BTreeMap::values) {
            *match state.standing {
                Standing::Failed => &mut progress.failed,
                Standing::Cancelled => &mut progress.cancelled,
                Standing::Running => &mut progress.running,
                Standing::Waiting => &mut progress.waiting,
                Standing::Succeeded => &mut progress.succeeded,
            } += 1;
        }
        let platforms = self.tasks.values().filter(|t| t.kind() == v1::TaskKind::Check).count();
        progress.tasks_done = self.tasks.values().filter(|t| t.ended_ms != 0).count();
        // Each platform will have a check and an extraction.
        progress.tasks = (2 * platforms).max(self.tasks.len());
        progress
    }
}

/// The codestreams in the order in which they are shown: their own, or those that need attention first.
pub fn order(grid: &Grid<'_>, attention: bool) -> Vec<Codestream> {
    let worst = |row: &BTreeMap<String, (State, &v1::Task)>| row.values().map(|(state, _)| state.standing).min();
    let mut rows: Vec<_> = grid
        .rows
        .iter()
        .map(|(codestream, row)| (worst(row), codestream))
        .collect();
    if attention {
        rows.sort();
    }
    rows.into_iter().map(|(_, codestream)| codestream.clone()).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn task(codestream: &str, arch: &str, kind: v1::TaskKind, state: v1::TaskState) -> v1::Task {
        let ended = matches!(
            state,
            v1::TaskState::Succeeded | v1::TaskState::Failed | v1::TaskState::Cancelled
        );
        v1::Task {
            id: format!("{codestream}/{arch}/{}", kind.as_str_name()),
            kind: kind.into(),
            state: state.into(),
            round: 1,
            platform: Some(v1::Platform {
                codestream: codestream.into(),
                arch: arch.into(),
            }),
            worker: "a".into(),
            started_ms: 1000,
            ended_ms: if ended { 2500 } else { 0 },
            ..Default::default()
        }
    }

    pub fn answer(last_event: u64, tasks: Vec<v1::Task>) -> v1::GetResponse {
        v1::GetResponse {
            livepatch: Some(v1::Livepatch {
                last_event,
                created_ms: 1000,
                spec: Some(v1::Spec {
                    name: "bsc1".into(),
                    cve: "2022-1048".into(),
                    ..Default::default()
                }),
                state: v1::LivepatchState::Running.into(),
                ..Default::default()
            }),
            tasks,
            ..Default::default()
        }
    }

    fn event(number: u64, task: v1::Task) -> v1::Event {
        v1::Event {
            number,
            message: format!("event {number}"),
            task: Some(task),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_known_never_goes_back() {
        use v1::{TaskKind::Check, TaskState::*};
        let at = |state| task("15.6u1", "x86_64", Check, state);
        let mut facts = Facts::new(answer(3, vec![at(Leased)]));
        let standing = |facts: &Facts| facts.grid().rows.values().next().unwrap()["x86_64"].0.standing;
        facts.hear(event(2, at(Waiting)));
        assert_eq!(standing(&facts), Standing::Running, "an old event");
        facts.lost_ms = Some(1);
        facts.hear(event(4, at(Failed)));
        assert_eq!((standing(&facts), facts.lost_ms), (Standing::Failed, None));
        facts.look(answer(3, vec![at(Leased)]));
        assert_eq!(standing(&facts), Standing::Failed, "an answer that was overtaken");
        facts.look(answer(4, vec![at(Waiting)]));
        assert_eq!(standing(&facts), Standing::Waiting, "an answer as new as the event");
        assert_eq!(facts.events.len(), 2);
    }

    #[test]
    fn those_that_need_attention_come_first() {
        use v1::{TaskKind::*, TaskState::*};
        let facts = Facts::new(answer(
            1,
            vec![
                task("15.6u1", "x86_64", Extract, Succeeded),
                task("15.6u2", "x86_64", Check, Leased),
                task("15.6u10", "x86_64", Check, Succeeded),
                task("15.6u10", "s390x", Check, Failed),
            ],
        ));
        let grid = facts.grid();
        let names = |attention| {
            order(&grid, attention)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["15.6u1", "15.6u2", "15.6u10"]);
        assert_eq!(names(true), ["15.6u10", "15.6u2", "15.6u1"]);
        let progress = facts.progress(&grid);
        assert_eq!((progress.tasks_done, progress.tasks), (3, 6));
        assert_eq!(
            (progress.failed, progress.running, progress.waiting, progress.succeeded),
            (1, 1, 1, 1)
        );
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let mut facts = Facts::new(answer(0, Vec::new()));
        for number in 1..=2 * REMEMBERED as u64 {
            facts.hear(event(number, v1::Task::default()));
        }
        assert_eq!(facts.events.len(), REMEMBERED);
        assert_eq!(facts.events.back().unwrap().1, format!("event {}", 2 * REMEMBERED));
    }
}

//! What everybody outside has been told, and what must hold of it: the promises, checked against the database.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::outcome::Digest;
use klp_livepatch::task::{AttemptId, LivepatchId, TaskId};
use rusqlite::Connection;

use crate::lifecycle::{AttemptState, Millis, State};
use crate::store::{self, LivepatchState, OpenTask};

#[derive(Default)]
pub struct Book {
    /// Submissions that were acknowledged.
    pub submitted: BTreeSet<LivepatchId>,
    /// Attempts whose commit was acknowledged, with how they ended.
    committed: BTreeMap<AttemptId, AttemptState>,
    /// When a worker's word on an attempt last got to the coordinator, or the attempt was given out.
    pub heard: BTreeMap<AttemptId, Millis>,
    /// Artifacts that are stored.
    pub blobs: BTreeSet<Digest>,
    /// Tasks that have ended, by the attempt that ended them.
    ended: BTreeMap<TaskId, (u32, State)>,
    /// Livepatches whose tasks were given a new chance since it was last looked.
    pub retried: BTreeSet<LivepatchId>,
    /// How far each livepatch's events were read.
    cursors: BTreeMap<LivepatchId, u64>,
}

impl Book {
    /// A worker was told that its outcome is recorded.
    pub fn acknowledged(&mut self, db: &Connection, id: AttemptId) {
        let recorded = store::attempt(db, id.task, id.number)
            .expect("readable")
            .expect("an attempt");
        let ends = [AttemptState::Succeeded, AttemptState::Failed, AttemptState::HandedBack];
        assert!(
            ends.contains(&recorded.state),
            "{id} was acknowledged and is {:?}",
            recorded.state
        );
        let before = self.committed.insert(id, recorded.state);
        assert!(before.is_none_or(|before| before == recorded.state), "{id} ended twice");
    }

    /// Checks all that was ever promised.
    pub fn check(&mut self, db: &Connection) {
        for id in &self.submitted {
            assert!(
                store::livepatch(db, *id).expect("readable").is_some(),
                "a submission is lost"
            );
        }
        for (id, state) in &self.committed {
            let recorded = store::attempt(db, id.task, id.number).expect("readable");
            assert_eq!(
                recorded.map(|a| a.state),
                Some(*state),
                "{id} was acknowledged as {state:?}"
            );
        }
        self.check_tasks(db);
        self.check_events(db);
    }

    fn check_tasks(&mut self, db: &Connection) {
        let ids = ids(db, "SELECT id FROM tasks");
        for id in ids {
            let task: OpenTask = store::open_task(db, TaskId(id)).expect("readable").expect("a task");
            let leased: u32 = count(db, "attempts WHERE state = 'leased' AND task = ", &id);
            let is_leased = matches!(task.status.state, State::Leased(_));
            assert_eq!(leased, u32::from(is_leased), "{}: one live lease, or none", task.key);
            let successes: u32 = count(db, "attempts WHERE state = 'succeeded' AND task = ", &id);
            let succeeded = task.status.state == State::Succeeded;
            assert_eq!(successes, u32::from(succeeded), "{}: one success, or none", task.key);
            let end = (task.status.attempt, task.status.state.clone());
            let retried = self.retried.contains(&task.livepatch);
            match self.ended.get(&task.id) {
                Some(before) if !retried || before.1 == State::Succeeded => {
                    assert_eq!(*before, end, "{} had ended", task.key);
                }
                _ if task.status.is_open() => drop(self.ended.remove(&task.id)),
                _ => drop(self.ended.insert(task.id, end)),
            }
        }
        self.retried.clear();
        let mut named = db.prepare_cached("SELECT digest FROM artifacts").expect("readable");
        let named = named.query_map([], |row| row.get::<_, String>(0)).expect("readable");
        for digest in named {
            let digest: Digest = digest.expect("readable").parse().expect("a digest");
            assert!(
                self.blobs.contains(&digest),
                "an outcome was recorded before its artifact was stored"
            );
        }
    }

    /// Reads each livepatch's events from where it was left, as a dashboard does.
    fn check_events(&mut self, db: &Connection) {
        for id in ids(db, "SELECT id FROM livepatches") {
            let id = LivepatchId(id);
            let row = store::livepatch(db, id).expect("readable").expect("a livepatch");
            let cursor = self.cursors.entry(id).or_default();
            for event in store::events_after(db, id, *cursor, u32::MAX).expect("readable") {
                assert_eq!(event.number, *cursor + 1, "events are numbered without gaps");
                *cursor = event.number;
            }
            assert_eq!(*cursor, row.last_event);
            let open = store::has_open_task(db, id).expect("readable");
            assert_eq!(
                open,
                row.state == LivepatchState::Running,
                "`{}` ends with its last task",
                row.spec.name
            );
        }
    }
}

fn ids(db: &Connection, sql: &str) -> Vec<uuid::Uuid> {
    let mut query = db.prepare_cached(sql).expect("a query");
    let rows = query.query_map([], |row| row.get::<_, String>(0)).expect("readable");
    rows.map(|id| id.expect("readable").parse().expect("a UUID")).collect()
}

fn count(db: &Connection, of: &str, id: &uuid::Uuid) -> u32 {
    let mut query = db
        .prepare_cached(&format!("SELECT count(*) FROM {of} ?"))
        .expect("a query");
    query.query_row([id.to_string()], |row| row.get(0)).expect("readable")
}

//! A livepatch as its events, its tasks, and what follows from these.

use std::collections::BTreeMap;

use klp_livepatch::outcome::Cause;
use klp_livepatch::task::TaskKind;

use super::farm::RETRY;
use super::moves::TaskName;
use super::task::{self, Stand};
use crate::lifecycle::Millis;
use crate::plan::Ended;

#[derive(Clone, Debug)]
pub struct Livepatch {
    pub id: u8,
    pub name: u8,
    pub filter: usize,
    pub created: Millis,
    pub share: (i32, u32),
    pub pause: Option<(Millis, String)>,
    pub end: Option<(Millis, Ended)>,
    pub events: Vec<Event>,
    /// In the order they were created.
    pub tasks: Vec<Task>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub time: Millis,
    pub ended: bool,
    pub about: Option<About>,
}

/// A task as it was at an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub name: TaskName,
    pub stand: Stand,
    pub attempt: u32,
    pub why: Option<Cause>,
}

#[derive(Clone, Debug)]
pub struct Task {
    pub name: TaskName,
    pub created: Millis,
    pub ended: Option<Millis>,
    /// Whose matter it is that it failed or waits again.
    pub why: Option<Cause>,
    pub history: task::Task,
    /// Which attempts came with a report, and with how many artifacts.
    pub found: BTreeMap<u32, (bool, u8)>,
}

impl Livepatch {
    pub fn create(&mut self, name: TaskName, now: Millis) {
        self.tasks.push(Task {
            name,
            created: now,
            ended: None,
            why: None,
            history: task::Task::default(),
            found: BTreeMap::new(),
        });
    }

    pub fn tell(&mut self, time: Millis, about: Option<About>, ended: bool) {
        self.events.push(Event { time, ended, about });
    }

    /// A task is another than before.
    pub fn record(&mut self, n: usize, why: Option<Cause>, now: Millis) {
        let task = &mut self.tasks[n];
        task.why = why;
        task.ended = (!task.history.is_open(RETRY)).then_some(now);
        let about = About {
            name: task.name,
            stand: task.history.stand(RETRY),
            attempt: task.history.attempts.len() as u32,
            why,
        };
        self.tell(now, Some(about), false);
    }

    /// A check that succeeded is followed by an extraction, once.
    pub fn follow_up(&mut self, n: usize, now: Millis) {
        let TaskName(id, kind, platform) = self.tasks[n].name;
        let extract = TaskName(id, TaskKind::Extract, platform);
        let succeeded = self.tasks[n].history.stand(RETRY) == Stand::Succeeded;
        if kind == TaskKind::Check && succeeded && self.tasks.iter().all(|t| t.name != extract) {
            self.create(extract, now);
        }
        self.conclude(now);
    }

    /// With its last open task it ends.
    pub fn conclude(&mut self, now: Millis) {
        let open = self.tasks.iter().any(|t| t.history.is_open(RETRY));
        if open || self.end.is_some() {
            return;
        }
        // A platform ends as its last task did, and no task follows one that failed or was cancelled.
        let mut platforms: BTreeMap<u8, Stand> = BTreeMap::new();
        for task in &self.tasks {
            let stand = task.history.stand(RETRY);
            let platform = platforms.entry(task.name.2).or_insert(Stand::Succeeded);
            if *platform == Stand::Succeeded || stand == Stand::Failed {
                *platform = stand;
            }
        }
        let count = |stand| platforms.values().filter(|s| **s == stand).count();
        let ended = match (count(Stand::Succeeded), count(Stand::Failed), count(Stand::Cancelled)) {
            (_, _, 1..) => Ended::Cancelled,
            (_, 0, _) => Ended::Succeeded,
            (0, ..) => Ended::Failed,
            _ => Ended::Partial,
        };
        self.end = Some((now, ended));
        self.tell(now, None, true);
    }
}

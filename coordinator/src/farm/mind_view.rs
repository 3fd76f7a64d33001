//! The mind laid open to be compared with another one.

use super::*;
use crate::standing::Standing;

/// All that follows from the database, and nothing else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub tasks: BTreeMap<TaskId, (OpenTask, Place)>,
    livepatches: BTreeMap<LivepatchId, (klp_livepatch::Share, bool)>,
    running: BTreeMap<LivepatchId, u64>,
    held: BTreeMap<WorkerName, (Vec<TaskId>, u32, u64)>,
    standings: BTreeMap<WorkerName, Standing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Queued,
    Delayed,
    Paused,
    Leased,
    /// Nobody will ever look at it again.
    Lost,
}

impl Mind {
    pub fn view(&self, now: Millis) -> View {
        let task = |task: &OpenTask| {
            let place = self.place(task, now);
            let mut task = task.clone();
            if let State::Leased(lease) = &mut task.status.state {
                lease.expires = 0;
            }
            (task.id, (task, place))
        };
        let held = self.roster.views(now).into_iter().filter_map(|worker| {
            let held: Vec<TaskId> = self.roster.get(&worker.name)?.held.keys().copied().collect();
            (!held.is_empty() || worker.busy > 0).then_some((worker.name, (held, worker.busy, worker.memory_busy)))
        });
        View {
            tasks: self.tasks.values().map(task).collect(),
            livepatches: self
                .livepatches
                .values()
                .map(|l| (l.id, (l.share, l.pause.is_some())))
                .collect(),
            running: self
                .standings
                .iter()
                .filter(|(_, s)| s.running > 0)
                .map(|(id, s)| (*id, s.running))
                .collect(),
            held: held.collect(),
            standings: self
                .roster
                .views(now)
                .into_iter()
                .filter(|w| w.standing != Standing::default())
                .map(|w| (w.name, w.standing))
                .collect(),
        }
    }

    fn place(&self, task: &OpenTask, now: Millis) -> Place {
        let paused = self.livepatches.get(&task.livepatch).is_some_and(|l| l.pause.is_some());
        match &task.status.state {
            State::Leased(lease) if self.leases.contains(&(lease.expires, task.id)) => Place::Leased,
            State::Waiting { not_before } => match (self.delayed.contains(&(*not_before, task.id)), paused) {
                (true, _) if *not_before > now => Place::Delayed,
                (_, true) if !self.queue.contains(task.id) => Place::Paused,
                (delayed, false) if delayed != self.queue.contains(task.id) => Place::Queued,
                _ => Place::Lost,
            },
            _ => Place::Lost,
        }
    }
}

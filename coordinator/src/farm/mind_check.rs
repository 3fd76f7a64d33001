//! What must hold of all that a mind keeps, for tests to ask after each step.

use std::collections::BTreeMap;

use super::*;

impl Mind {
    /// Every open task is in exactly one place, and every count and index agrees with the tasks.
    pub fn check(&self, now: Millis) {
        let mut running: BTreeMap<LivepatchId, u64> = BTreeMap::new();
        let mut queued = 0;
        for task in self.tasks.values() {
            let livepatch = self.livepatches.get(&task.livepatch);
            let paused = livepatch.is_some_and(|l| l.pause.is_some());
            assert!(livepatch.is_some(), "{} belongs to no open livepatch", task.key);
            match &task.status.state {
                State::Waiting { not_before } => {
                    let delayed = self.delayed.contains(&(*not_before, task.id));
                    let waits = self.queue.contains(task.id);
                    assert!(
                        delayed || *not_before <= now,
                        "{} waits for a time, and nobody knows",
                        task.key
                    );
                    assert_eq!(waits, !delayed && !paused, "{} is lost, or in two places", task.key);
                    queued += usize::from(waits);
                    let why = self.why_waiting(task);
                    assert!(
                        why.is_some_and(|why| !why.is_empty()),
                        "{} waits for no reason",
                        task.key
                    );
                }
                State::Leased(lease) => {
                    assert!(
                        self.leased.contains(&(lease.expires, task.id)),
                        "{} never expires",
                        task.key
                    );
                    let holder = self.roster.get(&lease.holder.worker);
                    assert!(
                        holder.is_some_and(|m| m.held.contains_key(&task.id)),
                        "{} is held by nobody",
                        task.key
                    );
                    *running.entry(task.livepatch).or_default() += 1;
                }
                ended => panic!("{} is kept though it is {ended:?}", task.key),
            }
        }
        assert_eq!(self.queue.len(), queued);
        let leased: u64 = running.values().sum();
        assert_eq!(self.leased.len() as u64, leased);
        let held: usize = self.roster.members().map(|(_, member)| member.held.len()).sum();
        assert_eq!(held as u64, leased);
        for (id, standing) in &self.standings {
            assert_eq!(standing.running, running.get(id).copied().unwrap_or_default());
        }
        for worker in self.roster.for_scheduling() {
            let member = self.roster.get(&worker.name);
            let lent: u64 = member.iter().flat_map(|m| m.held.values()).map(|l| l.memory).sum();
            assert_eq!(worker.memory_busy, lent, "memory of {}", worker.name);
            let on_trees: u32 = worker.running.values().sum();
            assert_eq!(worker.with_tools.values().sum::<u32>(), on_trees);
            assert_eq!(
                (worker.busy, on_trees as usize),
                (on_trees, member.map_or(0, |m| m.held.len()))
            );
        }
    }

    /// The open tasks as a database would hold them: renewals are kept in memory only.
    pub fn tasks_without_renewals(&self) -> BTreeMap<TaskId, OpenTask> {
        let plain = |task: &OpenTask| {
            let mut task = task.clone();
            if let State::Leased(lease) = &mut task.status.state {
                lease.expires = 0;
            }
            task
        };
        self.tasks.iter().map(|(id, task)| (*id, plain(task))).collect()
    }

    /// The workers of whom the farm thinks anything.
    pub fn standings_of_workers(&self, now: Millis) -> BTreeMap<WorkerName, crate::standing::Standing> {
        let workers = self.roster.views(now).into_iter().map(|w| (w.name, w.standing));
        workers
            .filter(|(_, standing)| *standing != Default::default())
            .collect()
    }
}

//! What open tasks wait for, as a whole: for whoever looks after the farm.

use std::collections::BTreeMap;

use klp_livepatch::names::LivepatchName;

use super::mind::Mind;
use crate::lifecycle::{Millis, State};
use crate::schedule::{self, Crowd};

/// What kind of thing tasks wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum For {
    /// A worker that could run them is there, and busy.
    Slot,
    /// No worker that is there could run them.
    Worker,
    /// A pause after an attempt that failed by the farm's fault.
    Pause,
    /// A user's word: their livepatch is paused.
    Resume,
}

impl For {
    pub const ALL: [For; 4] = [For::Slot, For::Worker, For::Pause, For::Resume];

    pub fn as_str(self) -> &'static str {
        match self {
            For::Slot => "slot",
            For::Worker => "worker",
            For::Pause => "pause",
            For::Resume => "resume",
        }
    }
}

/// Tasks that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub what: For,
    pub reason: String,
    /// No slot that becomes free will do: somebody has to do something.
    pub blocked: bool,
    pub tasks: usize,
    /// Since when the one waits that has waited the longest.
    pub since: Millis,
    /// Some of those whose tasks they are.
    pub livepatches: Vec<LivepatchName>,
}

impl Mind {
    /// What all waiting tasks wait for, the most tasks first.
    pub fn waiting(&mut self, now: Millis) -> Vec<Waiting> {
        self.refresh(now);
        let crowds = schedule::crowds(&self.queue, self.roster.for_scheduling());
        let named = |crowd: Crowd| {
            let names = crowd.livepatches.iter().filter_map(|id| self.livepatches.get(id));
            Waiting {
                livepatches: names.map(|l| l.spec.name.clone()).collect(),
                what: if crowd.blocked { For::Worker } else { For::Slot },
                reason: crowd.reason,
                blocked: crowd.blocked,
                tasks: crowd.tasks,
                since: crowd.since,
            }
        };
        let mut waiting: Vec<Waiting> = crowds.into_iter().map(named).collect();
        waiting.extend(self.delayed_ones());
        waiting.extend(self.paused_ones());
        waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.tasks));
        waiting
    }

    fn delayed_ones(&self) -> Option<Waiting> {
        let tasks = self.delayed.iter().filter_map(|(_, id)| self.tasks.get(id));
        let since = tasks.map(|task| task.created).min()?;
        Some(Waiting {
            what: For::Pause,
            reason: "a pause before the next attempt, after one that failed by the farm's fault".to_owned(),
            blocked: false,
            tasks: self.delayed.len(),
            since,
            livepatches: Vec::new(),
        })
    }

    fn paused_ones(&self) -> Vec<Waiting> {
        let paused = self.livepatches.values().filter_map(|l| Some((l, l.pause.as_ref()?)));
        let mut of: BTreeMap<_, Waiting> = paused
            .map(|(livepatch, pause)| {
                let reason = match pause.reason.as_str() {
                    "" => "the livepatch to be resumed".to_owned(),
                    why => format!("the livepatch to be resumed ({why})"),
                };
                let waiting = Waiting {
                    what: For::Resume,
                    reason,
                    blocked: true,
                    tasks: 0,
                    since: pause.since,
                    livepatches: vec![livepatch.spec.name.clone()],
                };
                (livepatch.id, waiting)
            })
            .collect();
        if of.is_empty() {
            return Vec::new();
        }
        for task in self.tasks.values() {
            let held_back = matches!(task.status.state, State::Waiting { .. }) && self.delayed_until(task).is_none();
            if let Some(waiting) = of.get_mut(&task.livepatch).filter(|_| held_back) {
                waiting.tasks += 1;
            }
        }
        of.into_values().filter(|waiting| waiting.tasks > 0).collect()
    }
}

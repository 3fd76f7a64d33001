//! Simulated users: they submit, change their minds, ask again when no answer comes, and watch.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::WorkerName;
use klp_livepatch::spec::{Draft, Spec, TargetDraft};
use klp_livepatch::task::LivepatchId;
use klp_livepatch::{CodestreamFilter, Share};
use rusqlite::Connection;
use uuid::Uuid;

use super::random::Random;
use super::worker::Worker;
use super::world::{Event, World};
use crate::ledger::{self, ChangeError, ForgetError, Selection, Submission, SubmitError};
use crate::store;

/// How many livepatches are submitted.
const LIVEPATCHES: u64 = 4;

#[derive(Clone, Debug)]
enum Wish {
    Submit(u64),
    Cancel(LivepatchId),
    Retry(LivepatchId),
    Pause(LivepatchId),
    Resume(LivepatchId),
    Share(LivepatchId, Share),
    Drain(WorkerName),
    Undrain(WorkerName),
    Forget(WorkerName),
}

#[derive(Default)]
pub(super) struct Clients {
    wishes: Vec<Wish>,
    answered: BTreeSet<usize>,
    /// Those that must be answered before all is over.
    last: Vec<usize>,
    settling: Vec<Wish>,
    /// What watchers have seen.
    cursors: BTreeMap<LivepatchId, u64>,
}

fn id(n: u64) -> LivepatchId {
    LivepatchId(Uuid::from_u128(u128::from(n) + 1))
}

fn spec(n: u64) -> Spec {
    Spec::parse(&Draft {
        name: format!("l{n}"),
        targets: vec![TargetDraft {
            file: "a.c".into(),
            functions: vec!["f".into()],
            config: "CONFIG_A".into(),
            object: String::new(),
        }],
        ..Draft::default()
    })
    .unwrap()
}

fn wish(random: &mut Random, workers: &[Worker]) -> Wish {
    let livepatch = id(random.next() % LIVEPATCHES);
    let worker = workers[random.below(workers.len())].name.clone();
    match random.below(20) {
        0..=7 => Wish::Submit(random.next() % LIVEPATCHES),
        8 => Wish::Cancel(livepatch),
        9 | 10 => Wish::Retry(livepatch),
        11 | 12 => Wish::Pause(livepatch),
        13 | 14 => Wish::Resume(livepatch),
        15 => Wish::Share(
            livepatch,
            Share::new(random.between(-2, 2) as i32, random.between(1, 9) as u32).unwrap(),
        ),
        16 => Wish::Drain(worker),
        17 | 18 => Wish::Undrain(worker),
        _ => Wish::Forget(worker),
    }
}

impl Clients {
    /// What has to be asked for so that all can end.
    pub fn settle_down(&mut self, workers: &[Worker]) {
        let resumed = (0..LIVEPATCHES).map(|n| Wish::Resume(id(n)));
        // Nobody asks any more for what else is unanswered.
        self.answered = (0..self.wishes.len()).collect();
        self.settling = workers
            .iter()
            .map(|w| Wish::Undrain(w.name.clone()))
            .chain(resumed)
            .collect();
    }

    pub fn are_done(&self) -> bool {
        !self.last.is_empty() && self.last.iter().all(|n| self.answered.contains(n))
    }

    /// One watcher reads on from where it was.
    pub fn watch(&mut self, db: &Connection, n: usize) -> Result<(), String> {
        self.read_on(db, id(n as u64), 3).map(drop)
    }

    fn read_on(&mut self, db: &Connection, id: LivepatchId, limit: u32) -> Result<bool, String> {
        let cursor = self.cursors.entry(id).or_default();
        let events = store::events_after(db, id, *cursor, limit).map_err(|e| e.to_string())?;
        for event in &events {
            if event.number != *cursor + 1 {
                return Err(format!("a watcher of {id} saw event {} after {cursor}", event.number));
            }
            *cursor = event.number;
        }
        Ok(!events.is_empty())
    }

    /// When all is over, each watcher sees the end.
    pub fn watched_all(&mut self, db: &Connection) -> Result<(), String> {
        for id in (0..LIVEPATCHES).map(id) {
            while self.read_on(db, id, 64)? {}
            let row = store::livepatch(db, id).map_err(|e| e.to_string())?;
            let last = row.map_or(0, |row| row.last_event);
            if self.cursors.get(&id).copied().unwrap_or(0) != last {
                return Err(format!("a watcher of {id} did not see event {last}"));
            }
        }
        Ok(())
    }
}

impl World {
    /// A client thinks of something; the same may be asked for twice.
    pub(super) fn client(&mut self) {
        if self.calm {
            for wish in std::mem::take(&mut self.clients.settling) {
                self.clients.last.push(self.clients.wishes.len());
                self.wish(wish);
            }
            return;
        }
        let pause = self.random.between(20, 400);
        self.plan(pause, Event::Client);
        let wish = wish(&mut self.random, &self.workers);
        self.wish(wish);
    }

    fn wish(&mut self, wish: Wish) {
        self.clients.wishes.push(wish);
        self.plan(0, Event::Ask(self.clients.wishes.len() - 1));
    }

    /// Sends a request, and again while no answer comes.
    pub(super) fn ask(&mut self, n: usize) {
        if self.clients.answered.contains(&n) {
            return;
        }
        let again = self.random.between(100, 500);
        self.plan(again, Event::Ask(n));
        let generation = self.generation;
        if self.coordinator.is_some() && (self.calm || self.random.percent(90)) {
            let pause = self.random.between(0, 40);
            self.plan(pause, Event::Request { generation, n });
        }
    }

    pub(super) fn request(&mut self, n: usize) -> Result<(), String> {
        if self.coordinator.is_none() || (self.calm && self.clients.answered.contains(&n)) {
            return Ok(());
        }
        let wish = self.clients.wishes[n].clone();
        let now = self.stamp();
        let said = format!("{wish:?}");
        let mut stored = None;
        let result = match wish {
            Wish::Submit(n) => {
                let submission = Submission {
                    id: id(n),
                    spec: spec(n),
                    share: Share::default(),
                    max_open: 100,
                    max_platforms: 100,
                };
                match self.transact(move |tx| ledger::submit(tx, submission, now))? {
                    Ok(row) => {
                        stored = Some((row.id, row.spec.name.to_string()));
                        Ok(())
                    }
                    // Before any worker has come.
                    Err(SubmitError::Invalid(_)) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Wish::Cancel(id) => refused(self.transact(move |tx| ledger::cancel(tx, id, None, now))?),
            Wish::Retry(id) => {
                let selection = Selection {
                    codestreams: CodestreamFilter::all(),
                    archs: BTreeSet::new(),
                };
                refused(self.transact(move |tx| ledger::retry(tx, id, &selection, now))?)
            }
            Wish::Pause(id) => refused(self.transact(move |tx| ledger::pause(tx, id, None, now))?),
            Wish::Resume(id) => refused(self.transact(move |tx| ledger::resume(tx, id, now))?),
            Wish::Share(id, share) => refused(self.transact(move |tx| ledger::set_share(tx, id, share, now))?),
            Wish::Drain(worker) => {
                let reason = klp_livepatch::Reason::optional("new disk").unwrap().unwrap();
                let drained = self.transact(move |tx| ledger::drain(tx, &worker, &reason, now))?;
                drained.map(drop).map_err(|e| e.to_string())
            }
            Wish::Undrain(worker) => {
                let undrained = self.transact(move |tx| ledger::undrain(tx, &worker))?;
                undrained.map(drop).map_err(|e| e.to_string())
            }
            Wish::Forget(worker) => match self.transact(move |tx| ledger::forget(tx, &worker))? {
                Ok(()) | Err(ForgetError::Unknown(_) | ForgetError::Holds(_)) => Ok(()),
                Err(error @ ForgetError::Store(_)) => Err(error.to_string()),
            },
        };
        self.say(|| format!("{said}: {result:?}"));
        result?;
        // The reply may be lost, or the coordinator die before it.
        if !self.calm && self.random.percent(12) {
            if self.random.percent(20) {
                self.kill_coordinator();
            }
            return Ok(());
        }
        self.changed = true;
        if let Some((id, name)) = stored {
            self.book.acknowledged(id, name);
        }
        self.clients.answered.insert(n);
        Ok(())
    }
}

/// That a request makes no sense now is an answer, too.
fn refused<T>(result: Result<T, ChangeError>) -> Result<(), String> {
    match result {
        Ok(_) | Err(ChangeError::Unknown(_) | ChangeError::Refused(_)) => Ok(()),
        Err(error @ ChangeError::Store(_)) => Err(error.to_string()),
    }
}

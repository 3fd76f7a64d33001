//! The simulated world: its clock, its agenda, its network, and what goes wrong in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klp_livepatch::outcome::{Digest, Outcome};
use klp_livepatch::task::{AttemptId, Platform};

use super::clients::Clients;
use super::coordinator::Coordinator;
use super::promises::{Book, standing_of};
use super::random::Random;
use super::worker::{self, Worker};
use crate::config::Config;
use crate::farm::{Order, Report};
use crate::ledger::{self, CommitError, Committing, Disposition, Now};
use crate::lifecycle::{Holder, Millis};
use crate::store::{Solo, open_livepatches};

/// How long things go wrong, and how long all may take after that.
const TROUBLE_MS: Millis = 6_000;
const PATIENCE_MS: Millis = 300_000;

pub(super) enum Event {
    Arrive(Packet),
    /// The coordinator comes up.
    Start,
    Loop {
        generation: u64,
        alarm: u64,
    },
    /// A worker's commit reaches the database.
    Commit {
        generation: u64,
        worker: usize,
        committing: Box<Committing>,
        forged: bool,
    },
    /// A client's request does.
    Request {
        generation: u64,
        n: usize,
    },
    Boot(usize),
    Beat {
        worker: usize,
        life: u64,
    },
    Connect {
        worker: usize,
        life: u64,
    },
    Done {
        worker: usize,
        life: u64,
        attempt: AttemptId,
    },
    Deliver {
        worker: usize,
        life: u64,
        attempt: AttemptId,
    },
    Stop {
        worker: usize,
        life: u64,
    },
    Client,
    Ask(usize),
    Watch,
    Sweep,
    Trouble,
    Calm,
}

#[derive(Clone)]
pub(super) enum Packet {
    Report {
        line: u64,
        worker: usize,
        report: Report,
    },
    HangUp {
        line: u64,
    },
    Upload {
        digest: Digest,
    },
    Commit {
        worker: usize,
        attempt: AttemptId,
        by: Holder,
        outcome: Outcome,
        forged: bool,
    },
    Orders {
        line: u64,
        worker: usize,
        orders: Arc<[Order]>,
    },
    Broken {
        line: u64,
        worker: usize,
    },
    Settled {
        worker: usize,
        attempt: AttemptId,
        disposition: Disposition,
    },
}

pub(super) struct World {
    pub now: Millis,
    pub random: Random,
    agenda: BTreeMap<(Millis, u64), Event>,
    serial: u64,
    pub trace: Option<Vec<String>>,
    pub db: Solo,
    pub config: Arc<Config>,
    /// The coordinator's folder of artifacts.
    pub blobs: BTreeSet<Digest>,
    pub coordinator: Option<Coordinator>,
    pub generation: u64,
    pub dead_lines: BTreeSet<u64>,
    lines: u64,
    pub workers: Vec<Worker>,
    pub clients: Clients,
    pub book: Book,
    pub transactions: u64,
    /// After how many of these the mind was last compared with the database.
    pub compared: u64,
    /// The last transaction changed something.
    pub changed: bool,
    pub calm: bool,
}

impl World {
    pub fn new(seed: u64, tell: bool) -> Self {
        let mut random = Random::new(seed);
        let platforms: Vec<Platform> = ["a", "b", "c"][..=random.below(3)]
            .iter()
            .map(|name| platform(name))
            .collect();
        let workers = (0..=random.below(3))
            .map(|n| {
                // The first holds all trees, so that all can end.
                let trees = platforms
                    .iter()
                    .filter(|_| n == 0 || random.percent(60))
                    .cloned()
                    .collect();
                Worker::new(&format!("w{n}"), trees, random.between(1, 3) as u32)
            })
            .collect();
        let config = Config {
            lease_ms: 1_000,
            heartbeat_ms: 200,
            match_period_ms: 250,
            quarantine_ms: 300,
            quarantine_max_ms: 1_000,
            backoff_ms: 50,
            backoff_max_ms: 400,
            ..Config::default()
        };
        let now = 1_000_000;
        let mut world = Self {
            now,
            random,
            agenda: BTreeMap::new(),
            serial: 0,
            trace: tell.then(Vec::new),
            db: Solo::new(),
            config: Arc::new(config),
            blobs: BTreeSet::new(),
            coordinator: None,
            generation: 0,
            dead_lines: BTreeSet::new(),
            lines: 0,
            workers,
            clients: Clients::default(),
            book: Book::default(),
            transactions: 0,
            compared: 0,
            changed: false,
            calm: false,
        };
        world.plan(0, Event::Start);
        for n in 0..world.workers.len() {
            let pause = world.random.between(0, 300);
            world.plan(pause, Event::Boot(n));
        }
        for event in [Event::Client, Event::Watch, Event::Sweep, Event::Trouble] {
            world.plan(400, event);
        }
        world.plan(TROUBLE_MS, Event::Calm);
        world
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} {}", now - 1_000_000, what()));
        }
    }

    pub fn plan(&mut self, pause: Millis, event: Event) {
        self.serial += 1;
        self.agenda.insert((self.now + pause, self.serial), event);
    }

    pub fn stamp(&mut self) -> Now {
        let seed = self.random.wide();
        Now { ms: self.now, seed }
    }

    /// Lives it to its end.
    pub fn run(&mut self) -> Result<(), String> {
        let start = self.now;
        while let Some(((at, _), event)) = self.agenda.pop_first() {
            self.now = at;
            self.happen(event)?;
            if self.calm && self.all_ended()? {
                self.book.kept()?;
                return self.clients.watched_all(self.db.read());
            }
            if at > start + TROUBLE_MS + PATIENCE_MS {
                break;
            }
        }
        Err("all is well again, and a livepatch does not end".to_owned())
    }

    fn all_ended(&mut self) -> Result<bool, String> {
        if !self.changed {
            return Ok(false);
        }
        self.changed = false;
        let open = open_livepatches(self.db.read()).map_err(|e| e.to_string())?;
        Ok(open.is_empty() && self.clients.are_done())
    }

    /// Puts something on the network, which may lose it, delay it or bring it twice.
    pub fn send(&mut self, worker: usize, packet: Packet) {
        if self.workers[worker].cut_until > self.now {
            return;
        }
        let (lose, twice, late) = if self.calm { (0, 3, 3) } else { (8, 8, 10) };
        if self.random.percent(lose) {
            return;
        }
        let delay = |world: &mut Self| match world.random.percent(late) {
            true => world.random.between(20, 1_500),
            false => world.random.between(0, 15),
        };
        if self.random.percent(twice) {
            let pause = delay(self);
            self.plan(pause, Event::Arrive(packet.clone()));
        }
        let pause = delay(self);
        self.plan(pause, Event::Arrive(packet));
    }

    /// Whether an event of this life of a worker still means something.
    fn lives(&self, worker: usize, life: u64) -> bool {
        self.workers[worker].up && self.workers[worker].life == life
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let whose = match &event {
            Event::Beat { worker, life }
            | Event::Connect { worker, life }
            | Event::Done { worker, life, .. }
            | Event::Deliver { worker, life, .. }
            | Event::Stop { worker, life } => match self.lives(*worker, *life) {
                true => Some(*worker),
                false => return Ok(()),
            },
            Event::Arrive(
                Packet::Orders { worker, .. } | Packet::Broken { worker, .. } | Packet::Settled { worker, .. },
            ) => match self.workers[*worker].up {
                true => Some(*worker),
                false => return Ok(()),
            },
            _ => None,
        };
        if let Some(until) = whose
            .map(|worker| self.workers[worker].stalled_until)
            .filter(|until| *until > self.now)
        {
            let pause = until - self.now;
            self.plan(pause, event);
            return Ok(());
        }
        match event {
            Event::Arrive(packet) => return self.arrive(packet),
            Event::Start if self.coordinator.is_none() => return self.start_coordinator(),
            Event::Start => {}
            Event::Loop { generation, alarm } if generation == self.generation => {
                self.go_on(alarm)?;
                self.perhaps_crash();
            }
            Event::Commit {
                generation,
                worker,
                committing,
                forged,
            } if generation == self.generation => {
                return self.commit(worker, *committing, forged);
            }
            Event::Request { generation, n } if generation == self.generation => return self.request(n),
            Event::Loop { .. } | Event::Commit { .. } | Event::Request { .. } => {}
            Event::Boot(n) if !self.workers[n].up => self.boot(n),
            Event::Boot(_) => {}
            Event::Beat { worker, life } => {
                let pause = Millis::from(self.config.heartbeat_ms) + self.random.between(-20, 20);
                self.plan(pause, Event::Beat { worker, life });
                self.report(worker);
            }
            Event::Connect { worker, .. } => self.connect(worker),
            Event::Done { worker, attempt, .. } => self.done(worker, attempt),
            Event::Deliver { worker, life, attempt } => self.deliver(worker, life, attempt),
            Event::Stop { worker, life } => self.stop(worker, life),
            Event::Client => self.client(),
            Event::Ask(n) => self.ask(n),
            Event::Watch => {
                self.plan(70, Event::Watch);
                let n = self.random.below(4);
                if self.coordinator.is_some() {
                    self.clients.watch(self.db.read(), n)?;
                }
            }
            Event::Sweep => {
                self.plan(250, Event::Sweep);
                self.sweep();
            }
            Event::Trouble => self.trouble(),
            Event::Calm => self.calm_down(),
        }
        Ok(())
    }

    fn arrive(&mut self, packet: Packet) -> Result<(), String> {
        match packet {
            // What is for the coordinator is lost while there is none.
            Packet::Report { .. } | Packet::Upload { .. } | Packet::Commit { .. } if self.coordinator.is_none() => {}
            Packet::Report { line, worker, report } => self.hear(line, worker, report),
            Packet::HangUp { line } => self.hang_up(line),
            Packet::Upload { digest } => drop(self.blobs.insert(digest)),
            Packet::Commit {
                worker,
                attempt,
                by,
                outcome,
                forged,
            } => {
                let missing = outcome
                    .artifacts
                    .iter()
                    .map(|a| a.digest)
                    .filter(|d| !self.blobs.contains(d))
                    .collect();
                let committing = Box::new(Committing {
                    attempt,
                    by,
                    outcome,
                    missing,
                });
                let (pause, generation) = (self.random.between(0, 12), self.generation);
                self.plan(
                    pause,
                    Event::Commit {
                        generation,
                        worker,
                        committing,
                        forged,
                    },
                );
            }
            Packet::Orders { line, worker, orders } => self.follow(line, worker, &orders),
            Packet::Broken { line, worker } => {
                if self.workers[worker].line == Some(line) {
                    self.workers[worker].line = None;
                    self.reconnect(worker);
                }
            }
            Packet::Settled {
                worker,
                attempt,
                disposition,
            } => {
                self.say(|| format!("w{worker} hears that {attempt} is {disposition:?}"));
                let parcel = self.workers[worker].outbox.get(&attempt).cloned();
                if let (Some((_, outcome)), Disposition::Committed) = (&parcel, &disposition) {
                    self.book.told(attempt, outcome);
                }
                match disposition {
                    Disposition::ArtifactsMissing(_) => {}
                    _ => self.workers[worker].settled(attempt),
                }
                self.report(worker);
            }
        }
        Ok(())
    }

    fn commit(&mut self, worker: usize, committing: Committing, forged: bool) -> Result<(), String> {
        let (now, rules) = (self.stamp(), self.config.rules());
        let before = standing_of(self.db.read(), committing.attempt, &committing.by)?;
        let job = committing.clone();
        let result = self.transact(move |tx| ledger::commit(tx, &job, &rules, now))?;
        let changed = self.changed;
        let attempt = committing.attempt;
        let disposition = match result {
            Ok(disposition) => disposition,
            Err(error @ (CommitError::Unknown(_) | CommitError::Contradiction(_) | CommitError::Store(_))) => {
                return Err(format!("{attempt}: {error}"));
            }
        };
        self.say(|| {
            format!(
                "commit of {attempt} by w{worker}: {:?} is {disposition:?}",
                committing.outcome.ending
            )
        });
        let missing = !committing.missing.is_empty();
        self.book
            .committed(&committing, before, &disposition, changed, missing)?;
        // After the commit, before the reply.
        if self.perhaps_crash() {
            return Ok(());
        }
        if !forged {
            self.send(
                worker,
                Packet::Settled {
                    worker,
                    attempt,
                    disposition,
                },
            );
        }
        Ok(())
    }

    fn perhaps_crash(&mut self) -> bool {
        let crash = !self.calm && self.random.below(400) == 0;
        if crash {
            self.kill_coordinator();
        }
        crash
    }

    fn boot(&mut self, n: usize) {
        let stranger = self.random.percent(15);
        let worker = &mut self.workers[n];
        worker.boot();
        let life = worker.life;
        let kept: Vec<AttemptId> = worker.outbox.keys().copied().collect();
        self.say(|| format!("w{n} starts, for the {life}th time"));
        for attempt in kept {
            if stranger && let Some((_, outcome)) = self.workers[n].outbox.get(&attempt).cloned() {
                // Whoever commits what another was given must not be heeded.
                let by = self.workers[n].holder(life);
                let forged = true;
                self.send(
                    n,
                    Packet::Commit {
                        worker: n,
                        attempt,
                        by,
                        outcome,
                        forged,
                    },
                );
            }
            self.plan(
                0,
                Event::Deliver {
                    worker: n,
                    life,
                    attempt,
                },
            );
        }
        let pause = self.random.between(0, 60);
        self.plan(pause, Event::Connect { worker: n, life });
        self.plan(pause + 1, Event::Beat { worker: n, life });
    }

    fn connect(&mut self, n: usize) {
        if self.workers[n].line.is_none() {
            self.lines += 1;
            self.workers[n].line = Some(self.lines);
            self.report(n);
        }
    }

    fn reconnect(&mut self, n: usize) {
        let life = self.workers[n].life;
        let pause = self.random.between(5, 200);
        self.plan(pause, Event::Connect { worker: n, life });
    }

    fn report(&mut self, n: usize) {
        let worker = &self.workers[n];
        let Some(line) = worker.line else { return };
        // Now and then a worker thinks that its connection is gone.
        if !self.calm && self.random.percent(2) {
            self.workers[n].line = None;
            self.send(n, Packet::HangUp { line });
            return self.reconnect(n);
        }
        let report = self.workers[n].report();
        self.send(
            n,
            Packet::Report {
                line,
                worker: n,
                report,
            },
        );
    }

    fn follow(&mut self, line: u64, n: usize, orders: &[Order]) {
        let worker = &mut self.workers[n];
        if worker.line != Some(line) {
            return;
        }
        let life = worker.life;
        let followed = worker.follow(orders);
        if !followed.started.is_empty() || followed.stopped > 0 {
            self.say(|| format!("w{n} starts {:?} and stops {}", followed.started, followed.stopped));
            self.report(n);
        }
        for attempt in followed.started {
            let takes = match self.random.percent(10) {
                true => self.random.between(400, 2_500),
                false => self.random.between(1, 200),
            };
            self.plan(
                takes,
                Event::Done {
                    worker: n,
                    life,
                    attempt,
                },
            );
        }
    }

    fn done(&mut self, n: usize, attempt: AttemptId) {
        let Some(kind) = self.workers[n].running.get(&attempt).map(|key| key.kind) else {
            return;
        };
        if !self.calm && self.random.percent(4) {
            return self.kill_worker(n);
        }
        let outcome = worker::outcome(kind, &mut self.random, self.calm);
        let worker = &mut self.workers[n];
        worker.finish(attempt, outcome);
        let life = worker.life;
        self.plan(
            0,
            Event::Deliver {
                worker: n,
                life,
                attempt,
            },
        );
    }

    /// Uploads and commits what is in the outbox, again and again until it is settled.
    fn deliver(&mut self, n: usize, life: u64, attempt: AttemptId) {
        let Some((ran, outcome)) = self.workers[n].outbox.get(&attempt).cloned() else {
            return;
        };
        for artifact in &outcome.artifacts {
            let digest = artifact.digest;
            if self.random.percent(85) {
                self.send(n, Packet::Upload { digest });
            }
        }
        let by = self.workers[n].holder(ran);
        let forged = false;
        self.send(
            n,
            Packet::Commit {
                worker: n,
                attempt,
                by,
                outcome,
                forged,
            },
        );
        let pause = self.random.between(60, 200);
        self.plan(
            pause,
            Event::Deliver {
                worker: n,
                life,
                attempt,
            },
        );
    }

    fn kill_worker(&mut self, n: usize) {
        self.say(|| format!("w{n} dies"));
        if let Some(line) = self.workers[n].line {
            self.send(n, Packet::HangUp { line });
        }
        self.workers[n].die();
        let pause = self.random.between(1, 2_000);
        self.plan(pause, Event::Boot(n));
    }

    /// Ends a worker's process in order: what runs may end or is handed back, then it goes.
    fn stop(&mut self, n: usize, life: u64) {
        if !self.workers[n].draining {
            self.say(|| format!("w{n} is to stop"));
            self.workers[n].draining = true;
            self.report(n);
            let patience = self.random.between(50, 600);
            return self.plan(patience, Event::Stop { worker: n, life });
        }
        let left: Vec<AttemptId> = self.workers[n].running.keys().copied().collect();
        for attempt in &left {
            let outcome = Outcome {
                ending: worker::hand_back(),
                report: None,
                artifacts: Vec::new(),
            };
            self.workers[n].finish(*attempt, outcome);
            self.plan(
                0,
                Event::Deliver {
                    worker: n,
                    life,
                    attempt: *attempt,
                },
            );
        }
        match left.is_empty() {
            true => self.kill_worker(n),
            false => self.plan(200, Event::Stop { worker: n, life }),
        }
    }

    fn trouble(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.random.between(50, 700);
        self.plan(pause, Event::Trouble);
        let n = self.random.below(self.workers.len());
        let until = self.now + self.random.between(100, 2_500);
        let (up, life) = (self.workers[n].up, self.workers[n].life);
        match self.random.below(8) {
            0 if up => self.kill_worker(n),
            1 | 2 => {
                self.say(|| format!("w{n} is cut off"));
                self.workers[n].cut_until = until;
            }
            3 | 4 => {
                self.say(|| format!("w{n} stalls"));
                self.workers[n].stalled_until = until;
            }
            5 if up => self.plan(0, Event::Stop { worker: n, life }),
            6 => self.kill_coordinator(),
            _ => {}
        }
    }

    fn calm_down(&mut self) {
        self.say(|| "all is well again".to_owned());
        self.calm = true;
        self.changed = true;
        for worker in &mut self.workers {
            worker.cut_until = 0;
            worker.stalled_until = 0;
        }
        self.clients.settle_down(&self.workers);
        self.plan(0, Event::Client);
    }
}

pub(super) fn platform(name: &str) -> Platform {
    Platform {
        codestream: name.parse().unwrap(),
        arch: klp_livepatch::Arch::X86_64,
    }
}

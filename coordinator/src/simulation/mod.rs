//! A farm in one thread with a clock of its own: the real mind, the real transactions and a real database, with simulated
//! workers, clients and wires that fail in every way a seed can think of. After each step the promises are checked.
//!
//! The same seed gives the same run. `KLP_SIM_SEED=7` replays one and prints what happened; `KLP_SIM_SEEDS=100000`
//! tries so many.

mod book;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klp_livepatch::outcome::{Artifact, Outcome};
use klp_livepatch::spec::{Draft, Spec, TargetDraft};
use klp_livepatch::task::{AttemptId, LivepatchId, Platform};
use klp_livepatch::{Arch, CodestreamFilter, Reason, Share};
use tokio::sync::watch;
use uuid::Uuid;

use self::book::Book;
use self::worker::Worker;
use crate::config::Config;
use crate::farm::mind::Mind;
use crate::farm::{self, Order, Running, SessionId, Signal};
use crate::ledger::{self, ChangeError, Committing, Disposition, ForgetError, Now, Selection, Submission};
use crate::lifecycle::{Holder, Millis, Taken};
use crate::store::direct::Direct;
use crate::store::{self, LivepatchState, StoreError, Tx};

/// A message on its way.
#[derive(Clone, Debug)]
enum Message {
    Report(SessionId, Box<farm::Report>),
    Orders(SessionId, Vec<Order>),
    Upload(Vec<Artifact>),
    Commit(AttemptId, Holder, Box<Outcome>),
    Answer(AttemptId, Disposition),
}

struct World {
    rng: fastrand::Rng,
    now: Millis,
    /// No faults any more: everything must come to its end.
    calm: bool,
    config: Arc<Config>,
    db: Direct,
    /// `None`: the coordinator is down.
    mind: Option<Mind>,
    /// When the coordinator last started.
    started: Millis,
    sessions: SessionId,
    workers: Vec<Worker>,
    /// What is on its way to or from which worker, by time of arrival.
    wire: BTreeMap<(Millis, u64), (usize, Message)>,
    sent: u64,
    submissions: Vec<(LivepatchId, Spec)>,
    book: Book,
    trace: Vec<String>,
}

fn platforms() -> Vec<Platform> {
    let platform = |codestream: &str| Platform {
        codestream: codestream.parse().expect("a codestream"),
        arch: Arch::X86_64,
    };
    vec![platform("15.5u1"), platform("15.5u2"), platform("15.6")]
}

fn spec(n: usize) -> Spec {
    let draft = Draft {
        name: format!("lp{n}"),
        targets: vec![TargetDraft {
            file: "a.c".to_owned(),
            functions: vec!["f".to_owned()],
            config: "CONFIG_A".to_owned(),
            object: String::new(),
        }],
        codestreams: ["", "15.5", "15.6"][n % 3].to_owned(),
        ..Draft::default()
    };
    Spec::parse(&draft).expect("a valid spec")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let all = platforms();
        let workers = (0..rng.u32(1..4)).map(|n| {
            let mut trees: BTreeSet<Platform> = all.iter().filter(|_| rng.bool()).cloned().collect();
            if n == 0 {
                trees.extend(all.iter().cloned());
            }
            Worker::new(n, rng.u32(1..4), trees)
        });
        let workers = workers.collect();
        let config = Config {
            lease_ms: 10_000,
            restart_grace_ms: 0,
            heartbeat_ms: 2_000,
            quarantine_ms: 3_000,
            quarantine_max_ms: 10_000,
            fault_limit: 4,
            ..Config::default()
        };
        Self {
            rng,
            now: 1_000_000,
            calm: false,
            config: Arc::new(config),
            db: Direct::new().expect("a database in memory"),
            mind: None,
            started: 0,
            sessions: 0,
            workers,
            wire: BTreeMap::new(),
            sent: 0,
            submissions: Vec::new(),
            book: Book::default(),
            trace: Vec::new(),
        }
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        self.trace.push(format!("{:>9} {}", self.now, what()));
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.calm && self.rng.u32(0..100) < percent
    }

    fn stamp(&mut self) -> Now {
        Now {
            ms: self.now,
            seed: self.rng.u128(..),
        }
    }

    /// Sends a message, which may be lost, late, or there twice.
    fn send(&mut self, worker: usize, message: Message) {
        // Reports and orders of one session keep their order, as on a real stream.
        let stream = matches!(message, Message::Report(..) | Message::Orders(..));
        let copies = match (stream, self.chance(10), self.chance(10)) {
            (_, true, _) => 0,
            (false, _, true) => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = match self.chance(5) {
                true => self.rng.i64(1..20_000),
                false => self.rng.i64(1..50),
            };
            self.sent += 1;
            self.wire
                .insert((self.now + delay, self.sent), (worker, message.clone()));
        }
    }

    /// The coordinator dies, and every session with it.
    fn crash(&mut self, why: &str) {
        self.say(|| format!("coordinator dies {why}"));
        self.mind = None;
        self.workers.iter_mut().for_each(|w| w.session = None);
    }

    fn start(&mut self) {
        let open = store::open(&self.db).expect("readable");
        self.mind = Some(Mind::new(self.config.clone(), open, self.now));
        self.started = self.now;
        self.say(|| "coordinator starts".to_owned());
    }

    /// One transaction of the coordinator, which may die before it or after it. `None`: nobody is told how it went.
    fn write<T, E: From<StoreError>>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        self.mind.as_ref()?;
        if self.chance(1) {
            self.crash(&format!("before {what}"));
            return None;
        }
        let done = self.db.write(work);
        if self.chance(1) {
            self.crash(&format!("after {what}, before the reply"));
            return None;
        }
        Some(done.map(|(answer, changes)| {
            let now = self.now;
            let mind = self.mind.as_mut().expect("it has not died");
            changes.into_iter().for_each(|change| mind.apply(change, now));
            answer
        }))
    }

    /// A round of the farm's loop.
    fn round(&mut self) {
        let (now, rules) = (self.stamp(), self.config.rules());
        let Some(mind) = &self.mind else { return };
        let unregistered = mind.unregistered();
        if !unregistered.is_empty() {
            let write = self.write("registering", |tx| {
                ledger::register(tx, &unregistered, &rules.retry, now)
            });
            let Some(Ok(())) = write else { return };
            self.mind.as_mut().expect("up").registered(&unregistered);
        }
        let losses = self.mind.as_ref().expect("up").losses(self.now);
        for loss in &losses {
            self.say(|| format!("lost {}: {}", loss.attempt, loss.reason));
            // A worker that was heard of, or could not be, keeps what it runs.
            let since = self
                .book
                .heard
                .get(&loss.attempt)
                .copied()
                .unwrap_or_default()
                .max(self.started);
            let stands = loss.taken == Taken::Expired && self.now < since + Millis::from(self.config.lease_ms);
            assert!(!stands, "{} was taken while its lease stood", loss.attempt);
        }
        if !losses.is_empty() {
            let Some(Ok(())) = self.write("a loss", |tx| ledger::lose(tx, &losses, &rules, now)) else {
                return;
            };
        }
        self.mind.as_mut().expect("up").settled();
        let grants = self.mind.as_mut().expect("up").grants(self.now);
        for grant in &grants {
            let task = store::open_task(&self.db, grant.task)
                .expect("readable")
                .expect("a task");
            let livepatch = store::livepatch(&self.db, task.livepatch)
                .expect("readable")
                .expect("a livepatch");
            assert_eq!(
                livepatch.state,
                LivepatchState::Running,
                "{} is not wanted any more",
                task.key
            );
            assert_eq!(livepatch.pause, None, "{} is paused", task.key);
            let standing = store::standing(&self.db, &grant.to.worker)
                .expect("readable")
                .expect("known");
            assert_eq!(standing.drain, None, "{} is drained", grant.to.worker);
            let attempt = AttemptId {
                task: grant.task,
                number: task.status.attempt + 1,
            };
            self.book.heard.insert(attempt, self.now);
            self.say(|| format!("grant {attempt} {} to {}", task.key, grant.to.worker));
        }
        if !grants.is_empty() {
            let lease_ms = self.config.lease_ms;
            let Some(Ok(())) = self.write("a lease", |tx| ledger::lease(tx, grants, lease_ms, now)) else {
                return;
            };
        }
        for answer in self.mind.as_mut().expect("up").answers() {
            for order in &answer.orders {
                let lease = store::attempt(&self.db, order.attempt.task, order.attempt.number).expect("readable");
                let lease = lease.expect("a lease is durable before the worker hears of it");
                assert_eq!(lease.holder.worker, answer.worker);
                assert_eq!(lease.state, crate::lifecycle::AttemptState::Leased, "{}", order.attempt);
            }
            let to = self
                .workers
                .iter()
                .position(|w| w.name == answer.worker)
                .expect("known");
            self.send(to, Message::Orders(answer.session, answer.orders));
        }
    }

    fn arrive(&mut self, worker: usize, message: Message) {
        let cut = self.workers[worker].cut_until > self.now;
        match message {
            Message::Report(session, report) => {
                if cut || self.workers[worker].session != Some(session) {
                    return;
                }
                let Some(mind) = &mut self.mind else { return };
                for Running { attempt: id, .. } in &report.attempts {
                    let given_to = store::attempt(&self.db, id.task, id.number).expect("readable");
                    let own = given_to.is_some_and(|a| a.holder.incarnation == report.registration.incarnation);
                    if own {
                        self.book.heard.insert(*id, self.now);
                    }
                }
                mind.hear(session, watch::Sender::new(Signal::Silence), &report, self.now);
            }
            Message::Orders(session, orders) => {
                let (now, rng) = (self.now, &mut self.rng);
                let worker = &mut self.workers[worker];
                if !cut && worker.up && worker.session == Some(session) {
                    worker.hear(&orders, now, rng);
                }
            }
            Message::Upload(artifacts) if !cut && self.mind.is_some() => {
                self.book.blobs.extend(artifacts.iter().map(|a| a.digest));
            }
            Message::Upload(_) => {}
            Message::Commit(attempt, by, outcome) if !cut => self.commit(worker, attempt, by, *outcome),
            Message::Commit(..) => {}
            Message::Answer(attempt, disposition) => {
                if cut || !self.workers[worker].up {
                    return;
                }
                match disposition {
                    Disposition::Committed | Disposition::Superseded => {
                        self.workers[worker].outbox.remove(&attempt);
                    }
                    Disposition::ArtifactsMissing(_) => self.workers[worker].next_delivery = self.now,
                }
            }
        }
    }

    fn commit(&mut self, worker: usize, attempt: AttemptId, by: Holder, outcome: Outcome) {
        let stored = |a: &&Artifact| !self.book.blobs.contains(&a.digest);
        let missing = outcome.artifacts.iter().filter(stored).map(|a| a.digest).collect();
        let committing = Committing {
            attempt,
            by,
            outcome,
            missing,
        };
        let before = store::open_task(&self.db, attempt.task).expect("readable");
        let (now, rules) = (self.stamp(), self.config.rules());
        let Some(answer) = self.write("a commit", |tx| ledger::commit(tx, &committing, &rules, now)) else {
            return;
        };
        let disposition = answer.expect("what a worker was given it may commit");
        self.say(|| format!("commit {attempt} {:?}: {disposition:?}", committing.outcome.ending));
        match disposition {
            Disposition::Committed => self.book.acknowledged(&self.db, attempt),
            Disposition::Superseded | Disposition::ArtifactsMissing(_) => {
                let after = store::open_task(&self.db, attempt.task).expect("readable");
                assert_eq!(before, after, "{attempt} was refused and changed its task");
            }
        }
        self.send(worker, Message::Answer(attempt, disposition));
    }

    /// What each worker does of its own accord.
    fn workers_act(&mut self) {
        for n in 0..self.workers.len() {
            let (now, calm) = (self.now, self.calm);
            if !self.workers[n].up {
                if calm || self.chance(10) {
                    self.workers[n].start();
                    self.say(|| format!("w{n} starts"));
                }
                continue;
            }
            self.workers[n].work(now, &mut self.rng, calm);
            if self.workers[n].next_delivery <= now {
                self.deliver(n);
            }
            // A worker that starts delivers what is left before it opens its session.
            let worker = &mut self.workers[n];
            if worker.session.is_none() && (worker.taken_anything() || worker.outbox.is_empty()) {
                self.sessions += 1;
                worker.session = Some(self.sessions);
                worker.next_report = 0;
            }
            if let (Some(session), true) = (worker.session, worker.next_report <= now) {
                worker.next_report = now + Millis::from(self.config.heartbeat_ms);
                let report = worker.report();
                self.send(n, Message::Report(session, Box::new(report)));
            }
        }
    }

    fn deliver(&mut self, n: usize) {
        self.workers[n].next_delivery = self.now + 1_000;
        for (attempt, (by, outcome)) in self.workers[n].outbox.clone() {
            if !outcome.artifacts.is_empty() {
                self.send(n, Message::Upload(outcome.artifacts.clone()));
            }
            self.send(n, Message::Commit(attempt, by, Box::new(outcome)));
        }
    }

    /// The world is unkind.
    fn strike(&mut self) {
        let n = self.rng.usize(0..self.workers.len());
        match self.rng.u32(0..100) {
            0..=2 => {
                self.say(|| format!("w{n} crashes"));
                self.workers[n].crash();
            }
            3..=5 => {
                let until = self.now + self.rng.i64(100..25_000);
                self.say(|| format!("w{n} is cut off until {until}"));
                self.workers[n].cut_until = until;
            }
            6..=8 => {
                // Its session breaks, and it notices.
                let broken = self.workers[n].session.take();
                if let (Some(session), Some(mind)) = (broken, &mut self.mind) {
                    mind.closed(session, &self.workers[n].name);
                }
            }
            9 => {
                self.say(|| format!("w{n} is told to stop"));
                self.workers[n].stop();
            }
            10 => self.crash("for no reason"),
            11..=13 if self.mind.is_none() => self.start(),
            _ => {}
        }
    }

    /// Somebody wants something.
    fn ask(&mut self) {
        if self.mind.is_none() || self.rng.u32(0..100) >= 12 {
            return;
        }
        let known = self.submissions.len();
        match self.rng.u32(0..10) {
            0..=2 if known < 5 => {
                let id = LivepatchId(Uuid::from_u128(known as u128 + 1));
                self.submissions.push((id, spec(known)));
                self.submit(known);
            }
            3 if known > 0 => {
                let again = self.rng.usize(0..known);
                self.submit(again);
            }
            4.. if known > 0 => {
                let id = self.submissions[self.rng.usize(0..known)].0;
                self.change(id);
            }
            _ => {}
        }
    }

    fn submit(&mut self, n: usize) {
        let (id, spec) = self.submissions[n].clone();
        let now = self.stamp();
        let submission = Submission {
            id,
            spec,
            share: Share::default(),
            submitted_by: Default::default(),
            max_open: 100,
            max_platforms: 100,
            scopes: None,
        };
        match self.write("a submission", |tx| ledger::submit(tx, submission, now)) {
            Some(Ok(row)) => {
                assert_eq!(row.id, id);
                self.book.submitted.insert(id);
            }
            // No worker has registered yet.
            Some(Err(ledger::SubmitError::Invalid(_))) | None => {}
            Some(Err(error)) => panic!("a submission that is sent again is answered again: {error}"),
        }
    }

    fn change(&mut self, id: LivepatchId) {
        let now = self.stamp();
        let what = self.rng.u32(0..9);
        let worker = self.workers[self.rng.usize(0..self.workers.len())].name.clone();
        let (priority, weight) = (self.rng.i32(-1..2), self.rng.u32(1..200));
        let reason: Reason = "because".parse().expect("a reason");
        self.say(|| format!("change {what} of {id} or {worker}"));
        if what == 1 {
            // Even if nobody hears of it, it may have happened.
            self.book.retried.insert(id);
        }
        let retry = Selection {
            codestreams: "".parse::<CodestreamFilter>().expect("all"),
            archs: BTreeSet::new(),
        };
        let changed = self.write("a change", |tx| match what {
            0 => ledger::cancel(tx, id, None, now).map(drop),
            1 => ledger::retry(tx, id, &retry, now).map(drop),
            2 => ledger::pause(tx, id, Some(&reason), now).map(drop),
            3 => ledger::resume(tx, id, now).map(drop),
            4 => ledger::set_share(tx, id, Share::new(priority, weight).expect("in range"), now).map(drop),
            5 => ledger::drain(tx, &worker, &reason, now)
                .map(drop)
                .map_err(ChangeError::from),
            6 => match ledger::forget(tx, &worker) {
                Err(ForgetError::Store(error)) => Err(error.into()),
                // One that holds something is refused.
                Ok(()) | Err(ForgetError::Unknown(_) | ForgetError::Holds(_)) => Ok(()),
            },
            _ => ledger::undrain(tx, &worker).map(drop).map_err(ChangeError::from),
        });
        if let Some(Err(ChangeError::Store(error))) = changed {
            panic!("{error}");
        }
    }

    fn check(&mut self, thorough: bool) {
        if let Some(mind) = &self.mind {
            mind.check(self.now);
        }
        if !thorough {
            return;
        }
        self.book.check(&self.db);
        let breaches = store::audit::breaches(&self.db).expect("readable");
        assert!(breaches.is_empty(), "{breaches:?}");
        if let Some(mind) = &self.mind {
            let open = store::open(&self.db).expect("readable");
            let fresh = Mind::new(self.config.clone(), open, self.now);
            assert_eq!(mind.tasks_without_renewals(), fresh.tasks_without_renewals());
            assert_eq!(
                mind.standings_of_workers(self.now),
                fresh.standings_of_workers(self.now)
            );
        }
    }

    fn step(&mut self, n: u32) {
        self.now += self.rng.i64(1..400);
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (worker, message) = entry.remove();
            self.arrive(worker, message);
        }
        self.workers_act();
        if !self.calm {
            self.strike();
            self.ask();
        }
        if self.mind.is_none() && (self.calm || self.chance(20)) {
            self.start();
        }
        if self.calm || self.rng.u32(0..10) < 8 {
            self.round();
        }
        self.check(n.is_multiple_of(16));
    }

    /// The faults stop: within bounded time every livepatch ends.
    fn come_to_rest(&mut self) {
        self.calm = true;
        if self.mind.is_none() {
            self.start();
        }
        for worker in &mut self.workers {
            worker.cut_until = 0;
            if worker.stopping {
                worker.crash();
            }
        }
        let names: Vec<_> = self.workers.iter().map(|w| w.name.clone()).collect();
        for name in names {
            self.write("an end", |tx| ledger::undrain(tx, &name));
        }
        for (id, _) in self.submissions.clone() {
            let now = self.stamp();
            let resumed = self.write("an end", |tx| ledger::resume(tx, id, now));
            assert!(matches!(resumed, Some(Ok(_) | Err(ChangeError::Unknown(_)))));
        }
        for n in 0..2_000 {
            self.step(n);
            if n.is_multiple_of(16) && self.mind.as_ref().is_some_and(|mind| mind.pulse().tasks == 0) {
                break;
            }
        }
        self.check(true);
        for (id, spec) in &self.submissions {
            let row = store::livepatch(&self.db, *id).expect("readable");
            let running = row.is_some_and(|row| row.state == LivepatchState::Running);
            assert!(!running, "`{}` never ends", spec.name);
        }
    }
}

/// One run, to its end.
fn run(seed: u64) -> Vec<String> {
    let mut world = World::new(seed);
    world.start();
    // What happened is told if this panics.
    let told = std::panic::AssertUnwindSafe(&mut world);
    let ended = std::panic::catch_unwind(move || {
        let std::panic::AssertUnwindSafe(world) = { told };
        for n in 0..300 {
            world.step(n);
        }
        world.come_to_rest();
    });
    if let Err(panic) = ended {
        eprintln!("{}", world.trace.join("\n"));
        eprintln!("replay it with KLP_SIM_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
    world.trace
}

/// One of four parts of all seeds: test runners go through them side by side.
fn part(n: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("KLP_SIM_SEED") {
        println!("{}", run(seed).join("\n"));
        return;
    }
    let seeds = number("KLP_SIM_SEEDS").unwrap_or(2_000);
    (0..seeds).filter(|seed| seed % 4 == n).for_each(|seed| drop(run(seed)));
}

#[test]
fn promises_are_kept_whatever_happens() {
    part(0);
}

#[test]
fn promises_are_kept_whatever_happens_2() {
    part(1);
}

#[test]
fn promises_are_kept_whatever_happens_3() {
    part(2);
}

#[test]
fn promises_are_kept_whatever_happens_4() {
    part(3);
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(11), run(11));
}

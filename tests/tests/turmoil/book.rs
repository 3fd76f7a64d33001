//! What everybody was told, and what was recorded after each commit: the promises are checked against both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use klp_coordinator::failpoint::Point;
use klp_livepatch::task::AttemptId;
use klp_proto::v1::{self, Disposition};
use tonic::Status;

use crate::database::{Database, Recorded};
use crate::world::{LEASE, TICK};

/// What this test is for: a run without it has shown nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// The coordinator died after a commit, or a file's rename, and before the reply.
    DeathBeforeReply,
    /// Such a commit was of an outcome, and its worker's repetition was answered the same.
    OutcomeRepeated,
    /// So with a submission.
    SubmissionRepeated,
    /// A commit came when its attempt had been taken from its worker.
    Superseded,
    /// An attempt went on over a death of the coordinator, and its outcome was taken.
    Readopted,
    LeaseExpired,
    WorkerDied,
    Cancelled,
}

impl Case {
    pub const ALL: [Case; 8] = [
        Case::DeathBeforeReply,
        Case::OutcomeRepeated,
        Case::SubmissionRepeated,
        Case::Superseded,
        Case::Readopted,
        Case::LeaseExpired,
        Case::WorkerDied,
        Case::Cancelled,
    ];
}

/// How often each case came up.
pub type Counts = BTreeMap<Case, u32>;

/// A handle; all hosts write into one book.
#[derive(Clone)]
pub struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    data_dir: PathBuf,
    db: Option<Database>,
    now: Duration,
    trace: Vec<String>,
    wrong: Vec<String>,
    counts: Counts,
    /// The coordinator is to die the so-manieth time at this point.
    fuse: Option<(Point, u32)>,
    /// It is dead, though its host goes on to the end of its tick: nothing leaves it any more.
    dead: bool,
    /// When it last started.
    started: Duration,
    connections: usize,
    attempts: BTreeMap<AttemptId, Recorded>,
    /// By livepatch, the number of its newest event.
    events: BTreeMap<String, u32>,
    /// The outcomes and the livepatches of the newest commit.
    newest: (Vec<AttemptId>, Vec<String>),
    /// Those whose reply was lost with the coordinator.
    lost_outcomes: BTreeSet<AttemptId>,
    lost_submissions: BTreeSet<String>,
    /// What ran when the coordinator died.
    orphans: BTreeSet<AttemptId>,
    submitted: BTreeSet<String>,
    /// Attempts whose outcome was acknowledged, and as what.
    committed: BTreeMap<AttemptId, Recorded>,
    /// What was ever run.
    taken: BTreeSet<AttemptId>,
    /// What workers still have to deliver.
    undelivered: BTreeSet<AttemptId>,
    /// By livepatch, the events that its client saw.
    seen: BTreeMap<String, Vec<String>>,
}

impl Book {
    pub fn new(data_dir: &Path) -> Self {
        Self(Arc::new(Mutex::new(Pages {
            data_dir: data_dir.to_owned(),
            ..Pages::default()
        })))
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().expect("nobody panics over the open book")
    }

    /// It is so late now.
    pub fn at(&self, now: Duration) {
        self.pages().now = now;
    }

    pub fn say(&self, what: impl Into<String>) {
        self.pages().say(what);
    }

    /// A promise is broken.
    pub fn wrong(&self, what: String) {
        self.pages().wrong(what);
    }

    /// All that is wrong so far.
    pub fn all_wrong(&self) -> Vec<String> {
        self.pages().wrong.clone()
    }

    pub fn trace(&self) -> Vec<String> {
        self.pages().trace.clone()
    }

    pub fn counts(&self) -> Counts {
        self.pages().counts.clone()
    }

    /// Whether no worker has anything left to deliver.
    pub fn is_delivered(&self) -> bool {
        self.pages().undelivered.is_empty()
    }

    /// Has the coordinator die the `count`th time at a point, unless it is to die already.
    pub fn light(&self, point: Point, count: u32) {
        let mut pages = self.pages();
        if pages.fuse.is_none() {
            pages.say(format!("to die at {point:?} {count}"));
            pages.fuse = Some((point, count));
        }
    }

    pub fn put_out(&self) {
        self.pages().fuse = None;
    }

    pub fn started(&self) {
        let mut pages = self.pages();
        pages.started = pages.now;
        pages.say("farm starts");
    }

    /// The coordinator passes a point. Answers whether it dies there.
    pub fn passes(&self, point: Point) -> bool {
        let mut pages = self.pages();
        if point == Point::AfterCommit {
            pages.look();
        }
        let burnt = match &mut pages.fuse {
            Some((at, left)) if *at == point => {
                *left -= 1;
                *left == 0
            }
            _ => false,
        };
        if burnt {
            pages.say(format!("farm dies {point:?}"));
            pages.count(Case::DeathBeforeReply);
            (pages.fuse, pages.dead) = (None, true);
            pages.lose_replies();
        }
        burnt
    }

    pub fn is_dead(&self) -> bool {
        self.pages().dead
    }

    /// Nothing is left of the coordinator's process.
    pub fn buried(&self) {
        let mut pages = self.pages();
        (pages.fuse, pages.dead) = (None, false);
        let running = pages.attempts.iter().filter(|(_, a)| a.state == "leased");
        pages.orphans = running.map(|(id, _)| *id).collect();
    }

    /// A worker runs an attempt.
    pub fn took(&self, id: AttemptId, worker: &str) {
        let mut pages = self.pages();
        pages.say(format!("{worker} takes {id}"));
        if !pages.taken.insert(id) {
            pages.wrong(format!("{id} runs twice"));
        }
    }

    /// A worker has an outcome to deliver.
    pub fn finished(&self, id: AttemptId, worker: &str) {
        let mut pages = self.pages();
        pages.undelivered.insert(id);
        pages.say(format!("{worker} delivers {id}"));
    }

    /// It was told what became of it.
    pub fn answered(&self, id: AttemptId, worker: &str, answer: Option<Disposition>) {
        let mut pages = self.pages();
        pages.undelivered.remove(&id);
        let said = answer.map_or("refused", |answer| answer.as_str_name());
        pages.say(format!("{worker} is told of {id}: {said}"));
        let Some(recorded) = pages.attempts.get(&id).cloned() else {
            return pages.wrong(format!("{id} was answered, and there is none"));
        };
        match answer {
            Some(Disposition::Committed) if recorded.is_outcome() => {
                pages.committed.insert(id, recorded);
                if pages.lost_outcomes.remove(&id) {
                    pages.count(Case::OutcomeRepeated);
                }
            }
            Some(Disposition::Superseded) if !recorded.is_outcome() && recorded.state != "leased" => {
                pages.count(Case::Superseded);
            }
            _ => pages.wrong(format!("{id} is {}, and its worker was told: {said}", recorded.state)),
        }
    }

    /// A client was answered, other than by a broken connection.
    pub fn heard(&self, what: &str, id: &str, answer: &Result<(), Status>) {
        let mut pages = self.pages();
        match answer {
            Ok(()) => pages.say(format!("{what} {id}: done")),
            Err(status) => pages.wrong(format!("{what} {id}: {status}")),
        }
    }

    pub fn submitted(&self, id: &str) {
        let mut pages = self.pages();
        pages.submitted.insert(id.to_owned());
        if pages.lost_submissions.remove(id) {
            pages.count(Case::SubmissionRepeated);
        }
    }

    /// A client was told of an event.
    pub fn saw(&self, id: &str, event: &v1::Event) {
        let mut pages = self.pages();
        let seen = pages.seen.entry(id.to_owned()).or_default();
        seen.push(event.message.clone());
        let expected = seen.len() as u64;
        if event.number != expected {
            pages.wrong(format!("event {} of {id} came in place of {expected}", event.number));
        }
    }

    /// The coordinator has so many connections.
    pub fn connections(&self, count: usize) {
        self.pages().connections = count;
    }

    /// Everything has come to its end, or should have; there are so many hosts that may be connected.
    pub fn close(&self, hosts: usize) {
        self.pages().close(hosts);
    }
}

impl Pages {
    fn say(&mut self, what: impl Into<String>) {
        let line = format!("{:>7} {}", self.now.as_millis(), what.into());
        self.trace.push(line);
    }

    fn wrong(&mut self, what: String) {
        self.say(format!("WRONG: {what}"));
        self.wrong.push(what);
    }

    fn count(&mut self, case: Case) {
        *self.counts.entry(case).or_default() += 1;
    }

    /// Something is durable that was not.
    fn look(&mut self) {
        let db = self.db.take().unwrap_or_else(|| Database::open(&self.data_dir));
        self.newest = Default::default();
        for (livepatch, newest, _) in db.livepatches() {
            let known = self.events.insert(livepatch.clone(), newest);
            for message in db.events(&livepatch, known.unwrap_or(0)) {
                // As `klp_worker::delivery` says it in an outcome's place.
                if message.contains("could not be delivered") {
                    self.wrong(format!("an outcome was given up: {message}"));
                }
                self.say(format!("event: {message}"));
            }
            if known.is_none() {
                self.newest.1.push(livepatch);
            }
        }
        let attempts = db.attempts();
        let before = std::mem::replace(&mut self.attempts, attempts.clone());
        let mut leased = BTreeSet::new();
        for (id, is) in attempts {
            if is.state == "leased" && !leased.insert(id.task) {
                self.wrong(format!("{} has two live leases", id.task));
            }
            match before.get(&id) {
                Some(was) if *was == is => {}
                // It became known later that its worker had died.
                Some(was) if was.state == "lost" && is.state == "died" => {}
                Some(was) if was.state != "leased" => {
                    self.wrong(format!("{id} had ended as {was:?} and is {is:?} now"));
                }
                _ => self.became(id, &is, &db),
            }
        }
        self.db = Some(db);
        if self.dead {
            self.lose_replies();
        }
    }

    /// An attempt is new, or has ended.
    fn became(&mut self, id: AttemptId, is: &Recorded, db: &Database) {
        if is.is_outcome() {
            self.newest.0.push(id);
            if self.orphans.contains(&id) {
                self.count(Case::Readopted);
            }
            let missing = db.missing(id);
            if !missing.is_empty() {
                self.wrong(format!(
                    "{id} was recorded before its artifacts were stored: {missing:?}"
                ));
            }
        }
        match is.state.as_str() {
            "lost" => {
                self.count(Case::LeaseExpired);
                // Its worker may be back any moment.
                if self.now + TICK < self.started + LEASE {
                    self.wrong(format!(
                        "{id} was lost before its lease was over that the restart renewed"
                    ));
                }
            }
            "died" => self.count(Case::WorkerDied),
            "cancelled" => self.count(Case::Cancelled),
            _ => {}
        }
    }

    /// Of what was committed last nobody is told.
    fn lose_replies(&mut self) {
        self.lost_outcomes.extend(self.newest.0.iter().copied());
        self.lost_submissions.extend(self.newest.1.iter().cloned());
    }

    fn close(&mut self, hosts: usize) {
        if self.connections > hosts {
            let count = self.connections;
            self.wrong(format!("the coordinator keeps {count} connections to {hosts} hosts"));
        }
        let db = Database::open(&self.data_dir);
        for breach in db.breaches() {
            self.wrong(breach);
        }
        let mut stored = BTreeSet::new();
        for (id, _, has_ended) in db.livepatches() {
            if !has_ended {
                self.wrong(format!("{id} never ends"));
            }
            let events = db.events(&id, 0);
            if self.seen.get(&id) != Some(&events) {
                self.wrong(format!("the client of {id} saw other events than there are"));
            }
            stored.insert(id);
        }
        let lost: Vec<_> = self.submitted.difference(&stored).cloned().collect();
        if !lost.is_empty() {
            self.wrong(format!("submissions are lost that were acknowledged: {lost:?}"));
        }
        let attempts = db.attempts();
        for (id, acknowledged) in self.committed.clone() {
            if attempts.get(&id) != Some(&acknowledged) {
                self.wrong(format!(
                    "{id} was acknowledged as {acknowledged:?} and is {:?}",
                    attempts.get(&id)
                ));
            }
        }
    }
}

//! One run: the hosts, what befalls them, and the peace after that, in which everything must come to its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use klp_coordinator::failpoint::{self, Point};
use klp_coordinator::{Aside, Clock, Config, Coordinator, Ground};
use turmoil::Sim;

use crate::book::{Book, Counts};
use crate::net::{self, FARM};
use crate::{client, worker};

pub const TICK: Duration = Duration::from_millis(10);
pub const LEASE: Duration = Duration::from_secs(6);
/// How long it goes on that things break, and how long everything may take to end after that.
const WAR: Duration = Duration::from_secs(40);
const PEACE: Duration = Duration::from_secs(240);

const CODESTREAMS: [&str; 3] = ["15.5u1", "15.5u2", "15.6"];
const WORKERS: [&str; 3] = ["w0", "w1", "w2"];
const CLIENTS: [&str; 2] = ["c0", "c1"];
const PEERS: [&str; 5] = ["w0", "w1", "w2", "c0", "c1"];

pub struct Run {
    pub trace: Vec<String>,
    pub counts: Counts,
}

/// What is the matter with a link to the coordinator.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// What is sent is lost.
    Cut,
    /// One way only: what the coordinator says is lost, or what it is told.
    Deaf,
    Mute,
    /// What is sent comes later.
    Held,
}

struct World<'a> {
    sim: Sim<'a>,
    rng: Rng,
    book: Book,
    /// By the host at the other end, until when.
    faults: BTreeMap<&'static str, (Fault, Duration)>,
    /// Hosts that have crashed, and when they come back.
    down: BTreeMap<&'static str, Duration>,
}

/// One run, to its end.
///
/// # Panics
/// A promise was broken. The trace has been printed then.
pub fn run(seed: u64) -> Run {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let book = Book::new(&folder.path().join("farm"));
    // What happened is told if something panics.
    let ended = std::panic::catch_unwind({
        let book = std::panic::AssertUnwindSafe(book.clone());
        || live(seed, folder.path(), &{ book }.0)
    });
    let wrong = book.all_wrong();
    if ended.is_err() || !wrong.is_empty() {
        eprintln!("{}", book.trace().join("\n"));
        eprintln!("replay it with KLP_TURMOIL_SEED={seed}");
        ended.unwrap();
        panic!("{}", wrong.join("\n"));
    }
    Run {
        trace: book.trace(),
        counts: book.counts(),
    }
}

/// Where each commit's fsync costs nothing, if there is such a place: turmoil loses no writes anyway.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let usable = tempfile::tempfile_in(&memory).is_ok();
    if usable { memory } else { std::env::temp_dir() }
}

fn live(seed: u64, folder: &Path, book: &Book) {
    // Ids, jitter, and how long things take.
    fastrand::seed(seed);
    let watcher = book.clone();
    failpoint::watch(move |point| {
        if watcher.passes(point) {
            // Nothing leaves the host any more, though it goes on to the end of its tick.
            PEERS.iter().for_each(|peer| turmoil::partition(FARM, *peer));
        }
    });
    let mut rng = Rng::with_seed(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .tick_duration(TICK)
        .simulation_duration(WAR + PEACE)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(80))
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    let (data_dir, farms) = (folder.join("farm"), book.clone());
    sim.host(FARM, move || coordinate(config(&data_dir), farms.clone()));
    for name in WORKERS {
        let mut trees: Vec<_> = CODESTREAMS.into_iter().filter(|_| rng.bool()).collect();
        if name == WORKERS[0] {
            trees = CODESTREAMS.to_vec();
        }
        let kind = worker::Kind {
            name,
            trees,
            slots: rng.u32(1..4),
            data_dir: folder.join(name),
        };
        let book = book.clone();
        sim.host(name, move || worker::work(kind.clone(), book.clone()));
    }
    for name in CLIENTS {
        sim.client(name, client::use_farm(name, rng.usize(1..4), WAR, book.clone()));
    }
    let mut world = World {
        sim,
        rng,
        book: book.clone(),
        faults: BTreeMap::new(),
        down: BTreeMap::new(),
    };
    while world.sim.elapsed() < WAR {
        if world.rng.u32(0..100) < 5 {
            world.strike();
        }
        world.recover(false);
        for _ in 0..10 {
            world.step();
        }
    }
    world.recover(true);
    while !(world.step() && book.is_delivered()) {
        if world.sim.elapsed() > WAR + PEACE - Duration::from_secs(10) {
            book.wrong("not everything ends".to_owned());
            break;
        }
    }
    // Half-open connections are noticed at the coordinator's end too.
    for _ in 0..600 {
        world.step();
    }
    book.close(PEERS.len());
}

fn config(data_dir: &Path) -> Config {
    Config {
        insecure: true,
        data_dir: data_dir.to_owned(),
        lease_ms: LEASE.as_millis() as u32,
        heartbeat_ms: 1_500,
        match_period_ms: 500,
        fault_limit: 6,
        death_limit: 3,
        backoff_ms: 200,
        backoff_max_ms: 2_000,
        quarantine_ms: 2_000,
        quarantine_max_ms: 8_000,
        keepalive_ms: 2_000,
        keepalive_timeout_ms: 2_000,
        // Tryouts are nowhere recorded.
        tryout_ms: 0,
        min_free_bytes: 0,
        log_compact_ms: 3_000,
        ..Config::default()
    }
}

/// Runs until its host crashes.
async fn coordinate(config: Config, book: Book) -> turmoil::Result {
    let epoch = turmoil::since_epoch().unwrap_or_default();
    let ground = Ground {
        clock: Clock::new(epoch, || fastrand::u128(..)),
        aside: Aside::InPlace,
    };
    let mut coordinator = Coordinator::start_on(config, net::incoming().await?, ground).await?;
    book.started();
    loop {
        tokio::select! {
            biased;
            () = coordinator.broken() => return Err("a part of the coordinator has ended".into()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        book.connections(turmoil::established_tcp_stream_count());
    }
}

impl World<'_> {
    /// Lets a tick pass. Answers whether all clients are done.
    fn step(&mut self) -> bool {
        self.book.at(self.sim.elapsed());
        let done = self.sim.step().expect("no host fails");
        if self.book.is_dead() {
            self.crash(FARM);
        }
        done
    }

    fn time(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(50..most))
    }

    /// The world is unkind.
    fn strike(&mut self) {
        match self.rng.u32(0..100) {
            0..50 => {
                let peer = PEERS[self.rng.usize(0..PEERS.len())];
                if self.faults.contains_key(peer) {
                    return;
                }
                let fault = [Fault::Cut, Fault::Cut, Fault::Deaf, Fault::Mute, Fault::Held][self.rng.usize(0..5)];
                let until = self.sim.elapsed() + self.time(15_000);
                self.book.say(format!("{peer}: {fault:?} until {}", until.as_millis()));
                match fault {
                    Fault::Cut => self.sim.partition(FARM, peer),
                    Fault::Deaf => self.sim.partition_oneway(FARM, peer),
                    Fault::Mute => self.sim.partition_oneway(peer, FARM),
                    Fault::Held => self.sim.hold(FARM, peer),
                }
                self.faults.insert(peer, (fault, until));
            }
            50..65 => {
                let name = WORKERS[self.rng.usize(0..WORKERS.len())];
                if !self.down.contains_key(name) {
                    self.crash(name);
                }
            }
            65..70 if !self.down.contains_key(FARM) => self.crash(FARM),
            _ => {
                let points = [
                    Point::AfterCommit,
                    Point::AfterCommit,
                    Point::BeforeAnswer,
                    Point::AfterRename,
                ];
                let point = points[self.rng.usize(0..points.len())];
                let count = self.rng.u32(1..6);
                self.book.light(point, count);
            }
        }
    }

    fn crash(&mut self, name: &'static str) {
        let until = self.sim.elapsed() + self.time(6_000);
        self.book.say(format!("{name} is down until {}", until.as_millis()));
        // Its connections end with its process, unless nothing leaves the host.
        self.sim.crash(name);
        self.down.insert(name, until);
        if name != FARM {
            return;
        }
        if self.book.is_dead() {
            // All its links were cut as it died, whatever was the matter with them before.
            self.faults.clear();
            PEERS.iter().for_each(|peer| self.sim.repair(FARM, *peer));
        }
        self.book.buried();
    }

    fn mend(&mut self, which: impl Fn(Duration) -> bool) {
        let over: Vec<_> = self.faults.iter().filter(|(_, (_, until))| which(*until)).collect();
        let over: Vec<_> = over.into_iter().map(|(peer, (fault, _))| (*peer, *fault)).collect();
        for (peer, fault) in over {
            self.faults.remove(peer);
            match fault {
                Fault::Held => self.sim.release(FARM, peer),
                Fault::Cut | Fault::Deaf | Fault::Mute => self.sim.repair(FARM, peer),
            }
        }
    }

    /// What is over is over; in the end, everything.
    fn recover(&mut self, all: bool) {
        let now = self.sim.elapsed();
        self.mend(|until| all || until <= now);
        if all {
            self.book.say("peace");
            self.book.put_out();
        }
        let back: Vec<_> = self.down.iter().filter(|(_, until)| all || **until <= now).collect();
        let back: Vec<_> = back.into_iter().map(|(name, _)| *name).collect();
        for name in back {
            self.down.remove(name);
            self.book.say(format!("{name} is back"));
            self.sim.bounce(name);
        }
    }
}

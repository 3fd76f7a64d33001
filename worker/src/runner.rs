//! One attempt, from its assignment to what it made. Each kind of task is a file below this one.

mod checking;
mod extracting;
#[doc(hidden)]
pub mod fuzzing;
mod verifying;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use klp_livepatch::names::SymbolName;
use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::round::WantedSymbol;
use klp_livepatch::spec::{Backend, Fix, Target};
use klp_livepatch::task::{AttemptId, Platform, TaskKind};
use klp_proto::convert;
use klp_proto::v1::Assignment;
use klp_telemetry::TraceParent;
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span};

use crate::attempt_log::AttemptLog;
use crate::attempts::Attempts;
use crate::isolation::{Cell, Room, quota};
use crate::outbox::Product;
use crate::process;
use crate::trees::Tree;
use crate::worker::{Shared, handed_back};

/// An assignment whose every field is known to be good.
struct Job {
    kind: TaskKind,
    platform: Platform,
    targets: Vec<Target>,
    backend: Backend,
    time_limit: Duration,
    memory_limit: u64,
    livepatch: String,
    /// Symbols that are copied rather than externalized.
    avoid: Vec<SymbolName>,
    /// What a verification looks for.
    wanted: Vec<WantedSymbol>,
    /// What is applied to the sources first.
    fixes: Vec<Fix>,
    /// What is wrong with symbols stops nothing.
    forgiving: bool,
    /// Somebody waits for it.
    tryout: bool,
    parent: Option<TraceParent>,
}

/// What an attempt may use, and where it tells what it does.
pub struct Context {
    id: AttemptId,
    attempts: Attempts,
    pub log: AttemptLog,
    pub cancel: CancellationToken,
    /// A folder of the attempt's own, removed when it ends. Tools see it, and write to rooms in it.
    pub scratch: PathBuf,
    /// What tools see: the tree, and the scratch folder.
    pub cell: Cell,
    /// Wall time a tool may take.
    pub time_limit: Duration,
    /// Address space a tool may take, in bytes.
    pub memory_limit: u64,
    /// The span that the attempt is below, for what it asks of others where nothing is traced here.
    pub parent: Option<TraceParent>,
}

impl Context {
    /// Tells in a few words what the attempt is doing.
    pub fn progress(&self, text: &str) {
        self.attempts.set_progress(self.id, text);
        self.log.note(text);
    }

    /// A new folder in the scratch folder, for a tool to write to.
    ///
    /// # Errors
    /// The disk refused.
    pub fn room(&self, name: &str) -> Result<Room, Failure> {
        let made = tempfile::Builder::new().prefix(name).tempdir_in(&self.scratch);
        let room = made.and_then(|dir| Room::at(dir.keep()));
        room.map_err(|e| farm(format!("can't make a folder in {}: {e}", self.scratch.display())))
    }
}

/// Where attempts have their folders.
fn scratch_of(data_dir: &Path) -> io::Result<PathBuf> {
    std::path::absolute(data_dir.join("scratch"))
}

/// Kills and removes what former runs left in the scratch folder.
///
/// # Errors
/// The disk refused.
pub fn clear_scratch(data_dir: &Path) -> io::Result<()> {
    let scratch = scratch_of(data_dir)?;
    process::kill_left_over(&scratch);
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    // Tools that are somebody else go through it where they have no file system of their own. Only the worker can list it, and
    // names there can't be guessed.
    fs::set_permissions(scratch, Permissions::from_mode(0o711))
}

/// Runs an attempt to its end; whatever happens, there is a product.
pub async fn run(
    shared: &Shared,
    id: AttemptId,
    assignment: Assignment,
    log: &AttemptLog,
    cancel: CancellationToken,
) -> Product {
    let product = match parse(assignment) {
        Err(violation) => Err(farm(format!(
            "the coordinator sent an assignment this worker can't read: {violation}"
        ))),
        Ok(job) => {
            let started = std::time::Instant::now();
            log.note(&format!(
                "{} {} of {}, attempt {}, on {}",
                job.kind, job.platform, job.livepatch, id.number, shared.config.name
            ));
            let limit = job.time_limit;
            let attempt = with_scratch(shared, id, job, log, cancel.clone());
            let done = tokio::select! {
                () = cancel.cancelled() => Ok(Ok(handed_back(shared.why_stopped()))),
                done = tokio::time::timeout(limit, attempt) => done,
            };
            log.note(&format!("took {:.1} s", started.elapsed().as_secs_f64()));
            done.unwrap_or_else(|_| {
                Err(Failure::new(
                    Cause::Codestream,
                    format!(
                        "the attempt was stopped at its time limit of {} s; see its log",
                        limit.as_secs()
                    ),
                ))
            })
        }
    };
    let product = product.unwrap_or_else(Product::failed);
    match &product.ending {
        Ending::Succeeded => log.note("succeeded"),
        Ending::Failed(failure) => log.note(&format!("failed ({}): {}", failure.cause, failure.message)),
        Ending::HandedBack { reason } => log.note(&format!("handed back: {reason}")),
    }
    product
}

fn parse(wire: Assignment) -> Result<Job, klp_livepatch::spec::Violation> {
    let mut targets = Vec::with_capacity(wire.targets.len());
    for (i, target) in wire.targets.into_iter().enumerate() {
        let path = format!("targets[{i}]");
        targets.push(Target::parse(&target.into(), &path).map_err(|mut violations| violations.swap_remove(0))?);
    }
    let mut fixes = Vec::with_capacity(wire.fixes.len());
    for (i, fix) in wire.fixes.into_iter().enumerate() {
        let path = format!("fixes[{i}]");
        fixes.push(Fix::parse(&fix.into(), &path).map_err(|mut violations| violations.swap_remove(0))?);
    }
    let avoid = wire.avoid.iter().map(|name| convert::parse("avoid", name));
    let wanted = wire.wanted.into_iter().map(WantedSymbol::try_from);
    Ok(Job {
        avoid: avoid.collect::<Result<_, _>>()?,
        wanted: wanted.collect::<Result<_, _>>()?,
        fixes,
        forgiving: wire.forgiving,
        tryout: wire.tryout,
        parent: wire.traceparent.parse().ok(),
        kind: convert::task_kind(wire.kind)?,
        platform: convert::platform(wire.platform)?,
        targets,
        backend: convert::parse("backend", &wire.backend)?,
        time_limit: Duration::from_millis(wire.time_limit_ms.clamp(1000, 24 * 3_600_000)),
        memory_limit: wire.memory_limit,
        livepatch: wire.livepatch.chars().filter(|c| !c.is_control()).take(64).collect(),
    })
}

async fn with_scratch(
    shared: &Shared,
    id: AttemptId,
    job: Job,
    log: &AttemptLog,
    cancel: CancellationToken,
) -> Result<Product, Failure> {
    let tree = shared
        .trees
        .get(&job.platform)
        .map_err(|e| farm(format!("{}: {e}", shared.config.name)))?;
    let scratch = scratch_of(&shared.config.data_dir)
        .and_then(|dir| {
            let prefix = format!("{id}-").replace('#', "-");
            tempfile::Builder::new().prefix(&prefix).tempdir_in(dir)
        })
        .map_err(|e| farm(format!("{}: can't make a scratch folder: {e}", shared.config.name)))?;
    let read = fs::set_permissions(scratch.path(), Permissions::from_mode(0o755));
    read.map_err(|e| {
        farm(format!(
            "{}: can't open the scratch folder to tools: {e}",
            shared.config.name
        ))
    })?;
    let places = tree.places();
    let seen = places.iter().map(PathBuf::as_path).chain([scratch.path()]);
    let context = Context {
        cell: shared.isolation.cell(seen),
        id,
        attempts: shared.attempts.clone(),
        log: log.clone(),
        cancel,
        scratch: scratch.path().to_owned(),
        time_limit: job.time_limit,
        memory_limit: job.memory_limit,
        parent: job.parent,
    };
    let limit = shared.isolation.scratch_limit;
    tokio::select! {
        done = Box::pin(by_kind(shared, tree, job, &context)) => done,
        // What runs is killed with its future.
        () = quota::exceeded(scratch.path().to_owned(), limit) => Err(Failure::new(
            Cause::Codestream,
            format!(
                "the attempt was stopped because its tools wrote more than {} MiB to its scratch folder (limit); see its log. A \
                 worker allows more with --scratch-limit",
                limit >> 20
            ),
        )),
    }
}

async fn by_kind(shared: &Shared, tree: Tree, job: Job, context: &Context) -> Result<Product, Failure> {
    match job.kind {
        TaskKind::Check => {
            checking::run(shared, &tree, &job, context)
                .instrument(info_span!("check"))
                .await
        }
        TaskKind::Verify => {
            verifying::run(tree, job, context)
                .instrument(info_span!("verify"))
                .await
        }
        TaskKind::Extract => {
            let done = extracting::run(shared, &tree, &job, context).await;
            match disk_is_full(&context.scratch) {
                true => blame_the_disk(shared, done),
                false => done,
            }
        }
    }
}

/// Less free room than this is taken for a full disk, in bytes: what could not be written is removed again by then.
const ROOM: u64 = 16 << 20;

fn disk_is_full(dir: &Path) -> bool {
    // A system that won't say is not to blame.
    statvfs(dir).is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() < ROOM)
}

/// What fails on a full disk fails by this worker's fault, whatever it looks like: a compiler that can't write its object
/// ends like one that can't compile its source.
fn blame_the_disk(shared: &Shared, done: Result<Product, Failure>) -> Result<Product, Failure> {
    let (Ok(Product {
        ending: Ending::Failed(failure),
        ..
    })
    | Err(failure)) = done
    else {
        return done;
    };
    Err(disk_s_fault(shared, &failure))
}

fn disk_s_fault(shared: &Shared, failure: &Failure) -> Failure {
    let (name, dir) = (&shared.config.name, shared.config.data_dir.display());
    farm(format!(
        "worker {name}: the disk of {dir} is full, so that this may mean nothing: {}",
        failure.message
    ))
}

fn farm(message: String) -> Failure {
    Failure::new(Cause::Farm, message)
}

/// Work on files and memory, on a thread of its own.
async fn aside<T: Send + 'static, E: std::fmt::Display>(
    what: &str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    let broke = |e| {
        farm(format!(
            "the {what} itself failed: {e}. This is a bug; please report it with the log"
        ))
    };
    let span = Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(|| work().map_err(|e| e.to_string()))).await;
    done.map_err(broke)?.map_err(farm)
}

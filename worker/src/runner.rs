//! One attempt, from its assignment to what it made.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use klp_livepatch::names::ObjectName;
use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::report::{CheckReport, ExtractReport, Report, TargetExtraction};
use klp_livepatch::spec::{Backend, Target};
use klp_livepatch::task::{AttemptId, Platform, TaskKind};
use klp_proto::convert;
use klp_proto::v1::Assignment;
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;

use crate::attempt_log::AttemptLog;
use crate::attempts::Attempts;
use crate::check;
use crate::extract::{ExtractRequest, Extracted};
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
}

/// What an attempt may use, and where it tells what it does.
pub struct Context {
    id: AttemptId,
    attempts: Attempts,
    pub log: AttemptLog,
    pub cancel: CancellationToken,
    /// A folder of the attempt's own, removed when it ends.
    pub scratch: PathBuf,
    /// Wall time a tool may take.
    pub time_limit: Duration,
    /// Address space a tool may take, in bytes.
    pub memory_limit: u64,
}

impl Context {
    /// Tells in a few words what the attempt is doing.
    pub fn progress(&self, text: &str) {
        self.attempts.set_progress(self.id, text);
        self.log.note(text);
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
    fs::create_dir_all(scratch)
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
    Ok(Job {
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
    let context = Context {
        id,
        attempts: shared.attempts.clone(),
        log: log.clone(),
        cancel,
        scratch: scratch.path().to_owned(),
        time_limit: job.time_limit,
        memory_limit: job.memory_limit,
    };
    match job.kind {
        TaskKind::Check => run_check(tree, job, &context).await,
        TaskKind::Extract => {
            let done = run_extract(shared, &tree, &job, &context).await;
            match disk_is_full(scratch.path()) {
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
    let (name, dir) = (&shared.config.name, shared.config.data_dir.display());
    Err(farm(format!(
        "worker {name}: the disk of {dir} is full, so that this may mean nothing: {}",
        failure.message
    )))
}

async fn run_check(tree: Tree, job: Job, context: &Context) -> Result<Product, Failure> {
    context.progress("checking configs, files, objects and symbols");
    let mut report = check_targets(&tree, &job.targets).await?;
    for target in &mut report.targets {
        for problem in &target.problems {
            context.log.line(&format!("error: {problem}"));
        }
        for warning in &target.warnings {
            context.log.line(&format!("warning: {warning}"));
        }
        shorten(&mut target.problems);
        shorten(&mut target.warnings);
    }
    Ok(Product {
        ending: check_ending(&report),
        report: Some(Report::Check(report)),
        files: Vec::new(),
    })
}

/// Keeps the first of many sentences: the log has them all, and a report must fit into a message.
fn shorten(sentences: &mut Vec<String>) {
    const MOST: usize = 50;
    if sentences.len() > MOST {
        let more = sentences.len() - MOST;
        sentences.truncate(MOST);
        sentences.push(format!("… and {more} more; the attempt's log has them all"));
    }
}

async fn check_targets(tree: &Tree, targets: &[Target]) -> Result<CheckReport, Failure> {
    let (tree, targets) = (tree.clone(), targets.to_vec());
    let checked = tokio::task::spawn_blocking(move || check::check(&tree, &targets)).await;
    checked
        .map_err(|e| {
            farm(format!(
                "the check itself failed: {e}. This is a bug; please report it with the log"
            ))
        })?
        .map_err(|e| farm(e.to_string()))
}

/// A check succeeds if no target has a problem; else the failure is the user's and says all of them.
fn check_ending(report: &CheckReport) -> Ending {
    let problems: Vec<&str> = report
        .targets
        .iter()
        .flat_map(|t| &t.problems)
        .map(String::as_str)
        .collect();
    if problems.is_empty() {
        return Ending::Succeeded;
    }
    Ending::Failed(Failure::new(Cause::Yours, problems.join("\n")))
}

async fn run_extract(shared: &Shared, tree: &Tree, job: &Job, context: &Context) -> Result<Product, Failure> {
    let tool = shared.inventory.extractor(job.backend);
    let tool = tool.ok_or_else(|| {
        farm(format!(
            "{}: the {} backend does not work here",
            shared.config.name, job.backend
        ))
    })?;
    if !tool.supports(job.platform.arch) {
        let message = format!(
            "{}: the {} backend can't read {} kernels yet",
            job.platform, job.backend, job.platform.arch
        );
        return Err(Failure::new(Cause::Codestream, message));
    }
    let identity = tool.identity();
    let mut report = ExtractReport {
        tool: format!("{} {}", identity.backend, identity.version),
        targets: Vec::new(),
    };
    let mut files = Vec::new();
    for target in &job.targets {
        context.progress(&format!("extracting {}", target.file));
        let object = object_of(tree, target).await?;
        let Extracted {
            source,
            report: extraction,
            files: kept,
        } = tool
            .extract(
                ExtractRequest {
                    tree,
                    target,
                    object: &object,
                    avoid: &[],
                },
                context,
            )
            .await?;
        log_extraction(&extraction, context);
        files.push((extraction.source_artifact.clone(), source.into_bytes()));
        files.extend(kept);
        report.targets.push(extraction);
    }
    Ok(Product {
        ending: extract_ending(&job.platform, &report),
        report: Some(Report::Extract(report)),
        files,
    })
}

/// The object that holds a target here. Its check has found it before, on this tree or another worker's copy of it.
async fn object_of(tree: &Tree, target: &Target) -> Result<ObjectName, Failure> {
    let checked = check_targets(tree, std::slice::from_ref(target)).await?.targets.pop();
    checked.and_then(|t| t.object).ok_or_else(|| {
        let message = format!(
            "{}: no object holds {} here; its check says more",
            tree.platform, target.file
        );
        Failure::new(Cause::Yours, message)
    })
}

fn log_extraction(extraction: &TargetExtraction, context: &Context) {
    let log = &context.log;
    log.line(&format!(
        "{}: {} functions patched, {} symbols externalized, in {} ms",
        extraction.file,
        extraction.patched.len(),
        extraction.externalized.len(),
        extraction.tool_ms
    ));
    for warning in &extraction.warnings {
        log.line(&format!("warning: {warning}"));
    }
    let compile = &extraction.compile;
    if compile.passed {
        log.line("compile check passed");
        return;
    }
    log.line("compile check FAILED");
    for error in &compile.errors {
        log.line(&format!("  {error}"));
    }
    for name in &compile.missing_functions {
        log.line(&format!("  not defined: {name}"));
    }
    for name in &compile.unresolved {
        log.line(&format!("  unresolved: {name}"));
    }
}

/// An extraction succeeds if every source compiles; a source that does not is kept, and said to be broken.
fn extract_ending(platform: &Platform, report: &ExtractReport) -> Ending {
    let broken: Vec<String> = report
        .targets
        .iter()
        .filter(|t| !t.compile.passed)
        .map(|t| {
            format!(
                "{platform}: {}: the extracted source does not pass the compile check: {}",
                t.file,
                t.compile.summary()
            )
        })
        .collect();
    if broken.is_empty() {
        return Ending::Succeeded;
    }
    let advice = "The source is kept as an artifact, to be finished by hand; the attempt's log has all errors.";
    Ending::Failed(Failure::new(
        Cause::Codestream,
        format!("{}\n{advice}", broken.join("\n")),
    ))
}

fn farm(message: String) -> Failure {
    Failure::new(Cause::Farm, message)
}

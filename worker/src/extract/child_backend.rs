//! The backends as the worker uses them: a child process under limits for each target, whichever engine does the work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use klp_livepatch::names::{FunctionName, ObjectName};
use klp_livepatch::outcome::{Cause, Failure};
use klp_livepatch::report::{CompileCheck, ExternalizedSymbol, PatchedFunction, TargetExtraction};
use klp_livepatch::spec::{Backend, Target};
use klp_telemetry::TraceParent;
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use super::backend::{ExtractRequest, Extracted, Extracting, Extractor, ToolIdentity};
use super::ccp::Ccp;
use super::clang_extract::ClangExtract;
use super::measure::Measured;
use super::native_child::{Answer, Job, NATIVE_COMMAND};
use super::{CompileCheck as NativeCheck, Engine, Extraction, Kept, child_trace, probe};
use crate::check::inlining::{self, Lab};
use crate::config::ToolPaths;
use crate::isolation::{Cell, Isolation, Room};
use crate::process::{self, Command, End, Limits};
use crate::runner::Context;
use crate::trees::Tree;
use crate::trees::overlay::View;

/// libclang needs its place told only where it is not in the usual ones.
const LIBCLANG_PATH: &str = "LIBCLANG_PATH";

/// How long before the attempt's limit the tool is stopped.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Indirect branch tracking: functions that nobody calls indirectly lose the mark that an indirect call must land on.
const IBT_WARNING: &str = "this kernel has indirect branch tracking (CONFIG_X86_KERNEL_IBT): a call through a klpe_ pointer \
     may fault; have externalized functions resolved by relocation (klp-convert) before the livepatch is loaded";

/// The most of an answer that is read, in bytes; one that is cut is not understood.
const MAX_ANSWER: u64 = 256 << 20;

/// The most of a tool's outputs that are kept beside a source, in bytes each.
const MOST_KEPT: u64 = 64 << 20;

/// A backend that was found to work on this host.
pub struct ChildBackend {
    identity: ToolIdentity,
    engine: Engine,
}

impl ChildBackend {
    /// Tries whether a backend works here; `None`: it isn't installed, which is no fault.
    ///
    /// # Errors
    /// Why it is there and does not work.
    pub async fn probe(
        backend: Backend,
        paths: &ToolPaths,
        isolation: &Arc<Isolation>,
    ) -> Result<Option<Self>, String> {
        let cell = isolation.cell([]);
        let found = match backend {
            Backend::Native => Some((Engine::Native, libclang(&cell).await?)),
            Backend::Ccp => match paths.ccp() {
                Some(program) => {
                    let policy = paths.policy.clone();
                    let ccp = Ccp { program, policy };
                    let version = probe::tool(&ccp, &ccp.program, &cell).await?;
                    Some((Engine::Ccp(ccp), version))
                }
                None => None,
            },
            Backend::ClangExtract => match paths.clang_extract() {
                Some(program) => {
                    let tool = ClangExtract { program };
                    let version = probe::tool(&tool, &tool.program, &cell).await?;
                    Some((Engine::ClangExtract(tool), version))
                }
                None => None,
            },
        };
        Ok(found.map(|(engine, version)| Self {
            identity: ToolIdentity { backend, version },
            engine,
        }))
    }

    async fn run(&self, request: ExtractRequest<'_>, context: &Context) -> Result<Extracted, Failure> {
        let ExtractRequest {
            tree,
            view,
            target,
            object,
            avoid,
        } = request;
        let room = context.room("extract")?;
        let mut job = job(tree, target, object, room.path()).await?;
        if let Some(view) = view {
            job = in_view(job, tree, target, view, &room, context).await?;
        }
        job.engine = self.engine.clone();
        job.avoid = avoid.to_vec();
        let Done {
            mut extraction,
            check,
            kept,
            measured,
            tool_ms,
        } = self.child(&job, &room, context).await?;
        if let Some(view) = view {
            extraction.source = view.to_tree(&extraction.source);
            extraction
                .warnings
                .iter_mut()
                .for_each(|warning| *warning = view.to_tree(warning));
        }
        let by_pointer = extraction.externalized.iter().any(|e| e.variable != e.symbol);
        let mut extracted = report(request, extraction, check, measured, tool_ms).map_err(farm)?;
        if by_pointer && job.ibt {
            extracted.report.warnings.push(IBT_WARNING.to_owned());
        }
        for Kept { name, path } in kept {
            extracted.files.push((name, read_kept(&room, &path)?));
        }
        Ok(extracted)
    }

    async fn child(&self, job: &Job, room: &Room, context: &Context) -> Result<Done, Failure> {
        let (job_path, answer_path) = (room.path().join("job.json"), room.path().join("answer.json"));
        let bytes = serde_json::to_vec(job).map_err(|e| farm(e.to_string()))?;
        std::fs::write(&job_path, bytes).map_err(|e| farm(format!("can't write {}: {e}", job_path.display())))?;
        let command = own_program(room.path())
            .map_err(farm)?
            // What a compiler leaves when it is killed goes with the rest.
            .env("TMPDIR", room.path())
            .arg("--job")
            .arg(&job_path)
            .arg("--answer")
            .arg(&answer_path);
        let command = match context.parent {
            // Where the child has a span of its own, that comes in its place.
            Some(parent) => command.env(TraceParent::VARIABLE, parent.to_string()),
            None => command,
        };
        let read = [Some(&job.symvers), Some(&job.vmlinux), job.module.as_ref()];
        let cell = context
            .cell
            .reading(read.into_iter().flatten().map(PathBuf::as_path))
            .writing(room);
        let command =
            command.within(&cell.map_err(|e| farm(format!("can't hand over {}: {e}", room.path().display())))?);
        let limits = Limits {
            // Before the whole attempt's limit, so that what the tool said is still logged.
            wall: context.time_limit.saturating_sub(LAST_WORDS),
            memory: Some(context.memory_limit),
            // The log keeps head and tail by itself.
            output_kept: u64::MAX,
            ..Limits::default()
        };
        let mut sink = |_, line: &str| context.log.line(line);
        let started = SystemTime::now();
        let finish = process::run(&command, &limits, &context.cancel, &mut sink)
            .await
            .map_err(|e| farm(e.to_string()))?;
        child_trace::tell(room, started);
        if !finish.end.success() {
            let how = finish.describe();
            let message = format!(
                "{}: the {} extraction {how}; see the attempt's log",
                job.file, self.identity.backend
            );
            return Err(Failure::new(whose(&finish.end), message));
        }
        let answer = room.read(&answer_path, MAX_ANSWER);
        let answer = answer.map_err(|e| farm(format!("the extraction's process left no answer: {e}")))?;
        match serde_json::from_slice(&answer).map_err(|e| farm(format!("the extraction's answer: {e}")))? {
            Answer::Extracted {
                extraction,
                check,
                kept,
                measured,
                tool_ms,
            } => Ok(Done {
                extraction: *extraction,
                check,
                kept,
                measured: *measured,
                tool_ms,
            }),
            Answer::Failed { cause, message } => Err(Failure::new(cause, message)),
        }
    }
}

/// What a child has done.
struct Done {
    extraction: Extraction,
    check: NativeCheck,
    kept: Vec<Kept>,
    measured: Measured,
    tool_ms: u64,
}

impl Extractor for ChildBackend {
    fn identity(&self) -> &ToolIdentity {
        &self.identity
    }

    fn extract<'a>(&'a self, request: ExtractRequest<'a>, context: &'a Context) -> Extracting<'a> {
        Box::pin(self.run(request, context))
    }
}

/// libclang's version, told by a child that loads it.
async fn libclang(cell: &Cell) -> Result<String, String> {
    let command = own_program(Path::new("/"))?.arg("--identity").within(cell);
    let limits = Limits {
        wall: Duration::from_secs(20),
        ..Limits::default()
    };
    let child = process::capture(&command, &limits, &CancellationToken::new())
        .await
        .map_err(|e| e.to_string())?;
    if !child.finish.end.success() {
        let why = child.stderr.trim().trim_start_matches("error: ").to_owned();
        return Err(if why.is_empty() { child.finish.describe() } else { why });
    }
    Ok(format!("{} ({})", env!("CARGO_PKG_VERSION"), child.stdout.trim()))
}

/// The job for a target. A tree's symbols may have to be listed first, which takes a while.
async fn job(tree: &Tree, target: &Target, object: &ObjectName, scratch: &Path) -> Result<Job, Failure> {
    let functions = target.functions.iter().map(FunctionName::to_string).collect();
    let (tree, file, object, scratch) = (tree.clone(), target.file.clone(), object.clone(), scratch.to_owned());
    let making = move || Job::for_tree(&tree, file.as_str(), functions, object.as_str(), &scratch);
    let made = tokio::task::spawn_blocking(making)
        .await
        .map_err(|e| farm(e.to_string()))?;
    made.map_err(|e| farm(e.to_string()))
}

/// The job in the view. The build is asked for the compile command, which takes a while.
async fn in_view(
    mut job: Job,
    tree: &Tree,
    target: &Target,
    view: &View,
    room: &Room,
    context: &Context,
) -> Result<Job, Failure> {
    let lab = Lab {
        room,
        cell: &context.cell,
        limits: Limits {
            wall: context.time_limit.saturating_sub(LAST_WORDS),
            memory: Some(context.memory_limit),
            ..Limits::default()
        },
        cancel: &context.cancel,
    };
    let codestreams = |e: super::Error| Failure::new(e.cause(), e.to_string());
    let command = inlining::compile_command(tree, &target.file, &lab).await;
    let command = command.map_err(|why| {
        codestreams(super::Error::Command {
            file: target.file.to_string(),
            why,
        })
    });
    job.command = Some(command?);
    job.in_view(view).map_err(codestreams)
}

/// One of a tool's outputs; its end is cut off where it is too long.
fn read_kept(room: &Room, path: &Path) -> Result<Vec<u8>, Failure> {
    let read = room.read(path, MOST_KEPT);
    read.map_err(|e| farm(format!("can't take over the tool's output {}: {e}", path.display())))
}

/// Whose matter a child's end is: somebody who stops it, or a host without memory, is no fault of the source.
fn whose(end: &End) -> Cause {
    match end {
        End::Cancelled => Cause::Farm,
        End::Signalled(signal) if matches!(Signal::try_from(*signal), Ok(Signal::SIGTERM | Signal::SIGKILL)) => {
            Cause::Farm
        }
        _ => Cause::Codestream,
    }
}

/// The compiler's words with lines that an expanded macro can make endless cut short.
fn cut(errors: Vec<String>) -> Vec<String> {
    const LONGEST: usize = 400;
    let short = |e: String| match e.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &e[..end]),
        None => e,
    };
    errors.into_iter().map(short).collect()
}

/// This program, as the child that runs in `dir`.
fn own_program(dir: &Path) -> Result<Command, String> {
    let exe = std::env::current_exe().map_err(|e| format!("can't find this program's own file: {e}"))?;
    let command = Command::new(exe, dir).arg(NATIVE_COMMAND);
    Ok(match std::env::var_os(LIBCLANG_PATH) {
        Some(path) => command.env(LIBCLANG_PATH, path),
        None => command,
    })
}

/// The answer in the domain's words.
fn report(
    request: ExtractRequest<'_>,
    extraction: Extraction,
    check: NativeCheck,
    measured: Measured,
    tool_ms: u64,
) -> Result<Extracted, String> {
    let bad = |name: &str| format!("the extraction's answer holds the odd name {name:?}");
    let mut warnings = extraction.warnings;
    warnings.extend(extraction.dependencies.into_iter().map(|d| {
        let namespace = d.namespace.map(|n| format!(" in namespace {n}")).unwrap_or_default();
        format!(
            "{} is exported by module {}{namespace}: the livepatch depends on it",
            d.symbol, d.module
        )
    }));
    let patched = extraction
        .patched
        .into_iter()
        .map(|p| {
            Ok(PatchedFunction {
                function: p.function.parse().map_err(|_| bad(&p.function))?,
                replacement: p.replacement.parse().map_err(|_| bad(&p.replacement))?,
                prototype: p.prototype,
                sympos: 0,
            })
        })
        .collect::<Result<_, String>>()?;
    let externalized = extraction
        .externalized
        .into_iter()
        .map(|e| {
            let object = e.object.parse().map_err(|_| bad(&e.object))?;
            Ok(ExternalizedSymbol {
                symbol: e.symbol,
                object,
                variable: e.variable,
                sympos: 0,
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(Extracted {
        source: extraction.source,
        report: TargetExtraction {
            file: request.target.file.clone(),
            object: request.object.clone(),
            source_artifact: request.target.file.to_string(),
            patched,
            externalized,
            warnings,
            compile: CompileCheck {
                passed: check.ok,
                errors: cut(check.errors),
                missing_functions: check.missing_functions,
                unresolved: check.unresolved,
            },
            tool_ms,
        },
        measured,
        files: Vec::new(),
    })
}

fn farm(message: impl Into<String>) -> Failure {
    Failure::new(Cause::Farm, message)
}

//! The native backend as the worker uses it: a child process under limits for each target.

use std::path::Path;
use std::time::Duration;

use klp_livepatch::Arch;
use klp_livepatch::names::FunctionName;
use klp_livepatch::outcome::{Cause, Failure};
use klp_livepatch::report::{CompileCheck, ExternalizedSymbol, PatchedFunction, TargetExtraction};
use klp_livepatch::spec::Backend;
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use super::backend::{ExtractRequest, Extracted, Extracting, Extractor, ToolIdentity};
use super::native_child::{Answer, Job, NATIVE_COMMAND};
use super::{CompileCheck as NativeCheck, Extraction};
use crate::process::{self, Command, End, Limits};
use crate::runner::Context;
use crate::trees::Tree;
use crate::trees::config::Setting;

/// libclang needs its place told only where it is not in the usual ones.
const LIBCLANG_PATH: &str = "LIBCLANG_PATH";

/// How long before the attempt's limit the tool is stopped.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Indirect branch tracking: functions that nobody calls indirectly lose the mark that an indirect call must land on.
const IBT_WARNING: &str = "this kernel has indirect branch tracking (CONFIG_X86_KERNEL_IBT): a call through a klpe_ pointer \
     may fault; have externalized functions resolved by relocation (klp-convert) before the livepatch is loaded";

pub struct NativeBackend {
    identity: ToolIdentity,
}

impl NativeBackend {
    /// Tries whether libclang can be loaded.
    ///
    /// # Errors
    /// What is missing, and the package that has it.
    pub async fn probe() -> Result<Self, String> {
        let command = own_program(Path::new("/"))?.arg("--identity");
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
        let version = format!("{} ({})", env!("CARGO_PKG_VERSION"), child.stdout.trim());
        Ok(Self {
            identity: ToolIdentity {
                backend: Backend::Native,
                version,
            },
        })
    }

    async fn run(&self, request: ExtractRequest<'_>, context: &Context) -> Result<Extracted, Failure> {
        let ExtractRequest { tree, target, object } = request;
        let functions = target.functions.iter().map(FunctionName::to_string).collect();
        let job = Job::for_tree(tree, target.file.as_str(), functions, object.as_str(), &context.scratch)
            .map_err(|e| farm(e.to_string()))?;
        let (extraction, check, tool_ms) = self.child(&job, context).await?;
        let mut extracted = report(request, extraction, check, tool_ms).map_err(farm)?;
        if !extracted.report.externalized.is_empty() && has_ibt(tree)? {
            extracted.report.warnings.push(IBT_WARNING.to_owned());
        }
        Ok(extracted)
    }

    async fn child(&self, job: &Job, context: &Context) -> Result<(Extraction, NativeCheck, u64), Failure> {
        let (job_path, answer_path) = (context.scratch.join("job.json"), context.scratch.join("answer.json"));
        let _ = std::fs::remove_file(&answer_path);
        let bytes = serde_json::to_vec(job).map_err(|e| farm(e.to_string()))?;
        std::fs::write(&job_path, bytes).map_err(|e| farm(format!("can't write {}: {e}", job_path.display())))?;
        let command = own_program(&context.scratch)
            .map_err(farm)?
            // What a compiler leaves when it is killed goes with the rest.
            .env("TMPDIR", &context.scratch)
            .arg("--job")
            .arg(&job_path)
            .arg("--answer")
            .arg(&answer_path);
        let limits = Limits {
            // Before the whole attempt's limit, so that what the tool said is still logged.
            wall: context.time_limit.saturating_sub(LAST_WORDS),
            memory: Some(context.memory_limit),
            // The log keeps head and tail by itself.
            output_kept: u64::MAX,
            ..Limits::default()
        };
        let mut sink = |_, line: &str| context.log.line(line);
        let finish = process::run(&command, &limits, &context.cancel, &mut sink)
            .await
            .map_err(|e| farm(e.to_string()))?;
        if !finish.end.success() {
            let how = finish.describe();
            let message = format!("{}: the native extraction {how}; see the attempt's log", job.file);
            return Err(Failure::new(whose(&finish.end), message));
        }
        let answer =
            std::fs::read(&answer_path).map_err(|e| farm(format!("the native extraction left no answer: {e}")))?;
        match serde_json::from_slice(&answer).map_err(|e| farm(format!("the native extraction's answer: {e}")))? {
            Answer::Extracted {
                extraction,
                check,
                tool_ms,
            } => Ok((*extraction, check, tool_ms)),
            Answer::Failed { cause, message } => Err(Failure::new(cause, message)),
        }
    }
}

impl Extractor for NativeBackend {
    fn identity(&self) -> &ToolIdentity {
        &self.identity
    }

    /// libclang parses for each of them; whether the compiler is there, is told with the tree.
    fn supports(&self, arch: Arch) -> bool {
        match arch {
            Arch::X86_64 | Arch::S390x | Arch::Ppc64le | Arch::Aarch64 => true,
        }
    }

    fn extract<'a>(&'a self, request: ExtractRequest<'a>, context: &'a Context) -> Extracting<'a> {
        Box::pin(self.run(request, context))
    }
}

fn has_ibt(tree: &Tree) -> Result<bool, Failure> {
    let config = tree.kernel_config().map_err(|e| farm(e.to_string()))?;
    Ok(config.get("CONFIG_X86_KERNEL_IBT") == Setting::BuiltIn)
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
    tool_ms: u64,
) -> Result<Extracted, String> {
    let bad = |name: &str| format!("the native extraction's answer holds the odd name {name:?}");
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
    })
}

fn farm(message: impl Into<String>) -> Failure {
    Failure::new(Cause::Farm, message)
}

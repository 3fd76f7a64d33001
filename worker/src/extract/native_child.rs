//! The native backend's own process: reads a job, extracts and compiles, writes the answer.
//!
//! libclang can crash or eat memory on hostile input; in a process of its own that ends one attempt, not the worker.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use klp_livepatch::outcome::Cause;
use serde::{Deserialize, Serialize};

use super::{CommandSource, CompileCheck, Error, Extraction, Request, compile_command, native};
use crate::symbols::Symbols;

/// The hidden subcommand under which our programs start this process.
pub const NATIVE_COMMAND: &str = "native-extract";

#[derive(clap::Args)]
pub struct NativeArgs {
    /// Print libclang's version and end
    #[arg(long, exclusive = true)]
    identity: bool,
    /// The file that holds the job
    #[arg(long, required_unless_present = "identity")]
    job: Option<PathBuf>,
    /// The file to write the answer to
    #[arg(long, required_unless_present = "identity")]
    answer: Option<PathBuf>,
}

/// One extraction, with all paths it needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    pub file: String,
    pub functions: Vec<String>,
    pub object: String,
    pub src_dir: PathBuf,
    pub obj_dir: PathBuf,
    pub compiler: String,
    /// The arguments of each `make` call for this kernel.
    pub make_args: Vec<String>,
    pub symvers: PathBuf,
    /// vmlinux's names, or an ELF file that has them.
    pub vmlinux: PathBuf,
    /// The patched module's file; `None`: vmlinux is patched.
    pub module: Option<PathBuf>,
    pub scratch: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Extracted {
        extraction: Box<Extraction>,
        check: CompileCheck,
        tool_ms: u64,
    },
    Failed {
        cause: Cause,
        message: String,
    },
}

/// # Errors
/// The job can't be read or the answer can't be written; a failed extraction is an answer.
pub fn native_main(args: NativeArgs) -> anyhow::Result<()> {
    let (Some(job), Some(answer)) = (args.job, args.answer) else {
        println!("{}", native::identity()?);
        return Ok(());
    };
    let bytes = std::fs::read(&job).with_context(|| format!("can't read the job {}", job.display()))?;
    let job: Job = serde_json::from_slice(&bytes).context("the job is not valid")?;
    let outcome = extract(job).unwrap_or_else(|error| Answer::Failed {
        cause: cause(&error),
        message: format!("{error:#}"),
    });
    write(&answer, &outcome)
}

fn write(path: &Path, answer: &Answer) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_vec(answer)?)
        .with_context(|| format!("can't write the answer {}", path.display()))
}

fn extract(job: Job) -> anyhow::Result<Answer> {
    let started = Instant::now();
    let symbols = Symbols::open(&job.symvers, &job.vmlinux, job.module.as_deref())?;
    let source = CommandSource {
        src_dir: &job.src_dir,
        obj_dir: &job.obj_dir,
        cc: &job.compiler,
        make_args: &job.make_args,
    };
    let command = compile_command(&source, &job.file)?;
    let request = Request {
        file: job.file,
        functions: job.functions,
        object: job.object,
        src_dir: job.src_dir,
        obj_dir: job.obj_dir,
        command,
        scratch: job.scratch,
    };
    let (extraction, check) = native::extract_and_check(&request, &symbols)?;
    let tool_ms = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    Ok(Answer::Extracted {
        extraction: Box::new(extraction),
        check,
        tool_ms,
    })
}

/// Whose matter an error is.
fn cause(error: &anyhow::Error) -> Cause {
    error.downcast_ref::<Error>().map_or(Cause::Farm, Error::cause)
}

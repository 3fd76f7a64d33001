//! An extraction's own process: reads a job, extracts and compiles, writes the answer.
//!
//! libclang can crash or eat memory on hostile input, and so can klp-ccp and clang-extract, which are run from here; in a
//! process of its own that ends one attempt, not the worker.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use klp_livepatch::Arch;
use klp_livepatch::names::ObjectName;
use klp_livepatch::outcome::Cause;
use serde::{Deserialize, Serialize};

use super::child_trace::{Step, Steps};
use super::external::{self, External, Inputs};
use super::measure::{Measured, measure};
use super::{
    CommandSource, CompileCheck, CompileCommand, Engine, Error, Extraction, Kept, Request, Unpatched, changed_headers,
    compile_command, native,
};
use crate::process;
use crate::symbols::{SymbolError, Symbols};
use crate::trees::config::Setting;
use crate::trees::overlay::View;
use crate::trees::{Tree, TreeError};

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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub engine: Engine,
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
    pub arch: Arch,
    /// Indirect branch tracking: functions that nobody calls indirectly lose the mark that an indirect call must land on.
    pub ibt: bool,
    /// Symbols to copy rather than externalize.
    pub avoid: Vec<String>,
    #[serde(default)]
    pub unpatched: Option<Unpatched>,
    /// How the file is compiled; `None`: the kernel's build is asked.
    pub command: Option<CompileCommand>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Extracted {
        extraction: Box<Extraction>,
        check: CompileCheck,
        /// Files in the scratch folder to keep.
        kept: Vec<Kept>,
        measured: Box<Measured>,
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
    let mut steps = Steps::begin();
    let outcome = extract(job, &mut steps).unwrap_or_else(|error| Answer::Failed {
        cause: cause(&error),
        message: format!("{error:#}"),
    });
    let written = write(&answer, &outcome);
    steps.leave(answer.parent().unwrap_or(Path::new(".")));
    // What a tool daemonized is still this process's, but not the worker's any more once this one has ended.
    process::leave_nothing();
    written
}

fn write(path: &Path, answer: &Answer) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_vec(answer)?)
        .with_context(|| format!("can't write the answer {}", path.display()))
}

impl Job {
    /// A job for the native backend; the engine may be changed.
    ///
    /// # Errors
    /// The tree has no such module, or can't be read.
    pub fn for_tree(
        tree: &Tree,
        file: &str,
        functions: Vec<String>,
        object: &str,
        scratch: &Path,
    ) -> Result<Self, TreeError> {
        let module = match object {
            ObjectName::VMLINUX => None,
            name => Some(tree.modules()?.find(name)?),
        };
        let ibt = tree.kernel_config()?.get("CONFIG_X86_KERNEL_IBT") == Setting::BuiltIn;
        Ok(Self {
            engine: Engine::Native,
            file: file.to_owned(),
            functions,
            object: object.to_owned(),
            src_dir: tree.src.clone(),
            obj_dir: tree.obj.clone(),
            compiler: tree.compiler.clone(),
            make_args: tree.make_args(scratch),
            symvers: tree.symvers.clone(),
            vmlinux: tree.vmlinux_names(),
            module,
            scratch: scratch.to_owned(),
            arch: tree.platform.arch,
            ibt,
            avoid: Vec::new(),
            unpatched: None,
            command: None,
        })
    }

    /// # Errors
    /// A symbol table can't be read.
    pub fn symbols(&self) -> Result<Symbols, SymbolError> {
        Symbols::open(&self.symvers, &self.vmlinux, self.module.as_deref())
    }

    /// How the file is compiled.
    ///
    /// # Errors
    /// Nobody knows.
    pub fn command(&self) -> Result<CompileCommand, Error> {
        if let Some(command) = &self.command {
            return Ok(command.clone());
        }
        let source = CommandSource {
            src_dir: &self.src_dir,
            obj_dir: &self.obj_dir,
            cc: &self.compiler,
            make_args: &self.make_args,
        };
        compile_command(&source, &self.file)
    }

    /// The job reading the patched sources. The tree is asked for the compile command all the same: a patched Makefile would be
    /// a program.
    ///
    /// # Errors
    /// Nobody knows how to compile the file.
    pub fn in_view(mut self, view: &View) -> Result<Self, Error> {
        let command = self.command()?;
        self.command = Some(view.command(&command));
        self.unpatched = Some(Unpatched {
            src_dir: std::mem::replace(&mut self.src_dir, view.src().to_owned()),
            command,
        });
        self.obj_dir = view.obj().to_owned();
        Ok(self)
    }

    /// The job with the file's compile command.
    ///
    /// # Errors
    /// Nobody knows how to compile the file.
    pub fn into_request(self) -> Result<Request, Error> {
        let command = self.command()?;
        Ok(Request {
            arch: self.arch,
            file: self.file,
            functions: self.functions,
            object: self.object,
            src_dir: self.src_dir,
            obj_dir: self.obj_dir,
            command,
            scratch: self.scratch,
            avoid: self.avoid,
            unpatched: self.unpatched,
        })
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            symvers: self.symvers.clone(),
            symbols: self.module.as_ref().unwrap_or(&self.vmlinux).clone(),
            arch: self.arch,
            ibt: self.ibt,
        }
    }

    /// Does the job in this process.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self, symbols: &Symbols) -> Result<(Extraction, CompileCheck, Vec<Kept>), Error> {
        let (engine, inputs) = (self.engine.clone(), self.inputs());
        run(&engine, &inputs, &self.into_request()?, symbols)
    }

    /// As [`Job::run`], and measures what it took.
    fn run_measured(self, symbols: &Symbols) -> Result<(Extraction, CompileCheck, Vec<Kept>, Measured), Error> {
        let (engine, inputs) = (self.engine.clone(), self.inputs());
        let request = self.into_request()?;
        let (extraction, check, kept) = run(&engine, &inputs, &request, symbols)?;
        let measured = measure(&request, &engine, &inputs.symvers, &extraction)?;
        Ok((extraction, check, kept, measured))
    }
}

fn run(
    engine: &Engine,
    inputs: &Inputs,
    request: &Request,
    symbols: &Symbols,
) -> Result<(Extraction, CompileCheck, Vec<Kept>), Error> {
    match engine {
        Engine::Native => {
            let (extraction, check) = native::extract_and_check(request, symbols)?;
            Ok((extraction, check, vec![keep_command(request)?]))
        }
        Engine::Ccp(ccp) => by_tool(ccp, request, inputs, symbols),
        Engine::ClangExtract(tool) => by_tool(tool, request, inputs, symbols),
    }
}

fn by_tool(
    tool: &dyn External,
    request: &Request,
    inputs: &Inputs,
    symbols: &Symbols,
) -> Result<(Extraction, CompileCheck, Vec<Kept>), Error> {
    let (mut extraction, check, kept) = external::extract_and_check(tool, request, inputs, symbols)?;
    let changed = changed_headers::warnings(request, &extraction.source)?;
    extraction.warnings.extend(changed);
    Ok((extraction, check, kept))
}

/// The kernel's own command for the file, in the form that clangd reads: how the source is compiled by hand.
fn keep_command(request: &Request) -> Result<Kept, Error> {
    let (src_dir, command) = match &request.unpatched {
        Some(Unpatched { src_dir, command }) => (src_dir, command),
        None => (&request.src_dir, &request.command),
    };
    let entry = serde_json::json!([{
        "directory": command.directory,
        "file": src_dir.join(&request.file),
        "arguments": std::iter::once(&command.compiler).chain(&command.args).collect::<Vec<_>>(),
    }]);
    let path = request.scratch.join("compile_commands.json");
    std::fs::write(&path, format!("{entry:#}\n")).map_err(|source| Error::Io {
        action: "write",
        path: path.clone(),
        source,
    })?;
    let name = format!("work_{}/compile_commands.json", request.file.replace('/', "_"));
    Ok(Kept { name, path })
}

fn extract(job: Job, steps: &mut Steps) -> anyhow::Result<Answer> {
    let started = Instant::now();
    let symbols = steps.run(Step::ReadSymbols, || job.symbols())?;
    let done = steps.run(Step::ExtractAndCompile, || job.run_measured(&symbols));
    let (extraction, check, kept, measured) = done?;
    let tool_ms = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    Ok(Answer::Extracted {
        extraction: Box::new(extraction),
        check,
        kept,
        measured: Box::new(measured),
        tool_ms,
    })
}

/// Whose matter an error is.
fn cause(error: &anyhow::Error) -> Cause {
    error.downcast_ref::<Error>().map_or(Cause::Farm, Error::cause)
}

//! Extraction: turns a kernel source file and the functions to patch into one livepatch source, and checks that it compiles.
//!
//! The main path: [`compile_command`] finds how the kernel builds the file, an [`Engine`] slices it ([`native::extract`],
//! or [`external`], a tool of its own), [`compile_check::check`] compiles the result with the kernel's own compiler.

pub mod backend;
pub mod ccp;
mod changed_headers;
pub mod child_backend;
mod child_trace;
pub mod clang_extract;
mod cleanup;
pub mod command;
pub mod compile_check;
mod declarations;
pub mod external;
pub mod faithful;
pub mod flags;
#[doc(hidden)]
pub mod fuzzing;
pub mod invocation;
pub mod ipa_clones;
mod measure;
pub mod native;
pub mod native_child;
mod never;
mod preprocessor;
mod probe;
mod relocations;
pub mod symbol_file;
mod tool;
pub mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klp_livepatch::Arch;
use klp_livepatch::outcome::Cause;
use serde::{Deserialize, Serialize};

pub use backend::{ExtractRequest, Extracted, Extractor, ToolIdentity};
pub use child_backend::ChildBackend;
pub use command::{CommandSource, CompileCommand, compile_command};
pub use compile_check::CompileCheck;
pub use external::{Engine, Kept};
pub use native_child::{Job, NATIVE_COMMAND, NativeArgs, native_main};

use crate::symbols::{Export, SymbolError};

/// One file's functions to extract.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    pub arch: Arch,
    /// The source file, relative to the source directory.
    pub file: String,
    /// The functions to patch.
    pub functions: Vec<String>,
    /// What holds them: `vmlinux` or a module's name as its file is called (`snd-pcm`).
    pub object: String,
    pub src_dir: PathBuf,
    pub obj_dir: PathBuf,
    pub command: CompileCommand,
    /// A private directory for temporary files; nothing is written anywhere else.
    pub scratch: PathBuf,
    /// Symbols to copy rather than reach at run time, because some other kernel has not got them.
    #[serde(default)]
    pub avoid: Vec<String>,
    /// Where the fixes are not applied, if they are where the rest says: a livepatch is compiled against the kernel that it
    /// is loaded into.
    #[serde(default)]
    pub unpatched: Option<Unpatched>,
}

impl Request {
    /// The same of the sources without the fixes, if those are applied.
    pub fn as_unpatched(&self) -> Option<Self> {
        let Unpatched { src_dir, command } = self.unpatched.as_ref()?;
        let in_place = self.obj_dir == self.src_dir;
        Some(Self {
            src_dir: src_dir.clone(),
            obj_dir: if in_place { src_dir } else { &self.obj_dir }.clone(),
            command: command.clone(),
            unpatched: None,
            ..self.clone()
        })
    }

    /// A tool's words with paths from the tree's root, as they are the same on every machine.
    fn relative(&self, text: &str) -> String {
        let root = |text: String, dir: &Path| text.replace(&format!("{}/", dir.display()), "");
        root(root(text.to_owned(), &self.src_dir), &self.obj_dir)
    }
}

/// A tree's own sources, and how the file is compiled there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unpatched {
    pub src_dir: PathBuf,
    pub command: CompileCommand,
}

/// What is known about a kernel's symbols.
pub trait Symbols {
    /// The symbol's export, if a module may link to it.
    fn exported(&self, name: &str) -> Option<&Export>;
    /// True if the patched object's symbol table has exactly this name.
    fn in_object(&self, name: &str) -> bool;
    /// True if the kernel image has exactly this name.
    fn in_vmlinux(&self, name: &str) -> bool;
    /// How many symbols of the patched object have exactly this name.
    fn occurrences(&self, name: &str) -> u32 {
        u32::from(self.in_object(name))
    }
    /// The patched object's symbols that are `NAME.SUFFIX` for one of the names: what the compiler made of functions
    /// (`f.isra.0`) and of variables inside functions (`v.12`). One for each symbol, sorted.
    fn variants(&self, _names: &BTreeSet<String>) -> Vec<String> {
        Vec::new()
    }
}

impl Symbols for crate::symbols::Symbols {
    fn exported(&self, name: &str) -> Option<&Export> {
        self.exported(name)
    }

    fn in_object(&self, name: &str) -> bool {
        self.in_object(name)
    }

    fn in_vmlinux(&self, name: &str) -> bool {
        self.in_vmlinux(name)
    }

    fn occurrences(&self, name: &str) -> u32 {
        self.lookup_in_object(name).map_or(0, |s| s.count)
    }

    fn variants(&self, names: &BTreeSet<String>) -> Vec<String> {
        let mut found = Vec::new();
        self.object().for_each_name(&mut |symbol| {
            if let Some((base, _)) = symbol.split_once('.')
                && names.contains(base)
            {
                found.push(symbol.to_owned());
            }
        });
        found.sort();
        found.dedup();
        found
    }
}

/// A symbol the livepatch reaches at run time because it can't link to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Externalized {
    pub symbol: String,
    /// `vmlinux` or the module's name.
    pub object: String,
    /// The pointer variable in the source.
    pub variable: String,
}

/// A function that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchedFunction {
    pub function: String,
    /// The name of its replacement in the source.
    pub replacement: String,
    /// A declaration of the replacement.
    pub prototype: String,
}

/// What an extraction gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Extraction {
    pub source: String,
    pub externalized: Vec<Externalized>,
    pub patched: Vec<PatchedFunction>,
    pub warnings: Vec<String>,
    /// What had to be taken from the preprocessor's output, as `file:line what`.
    pub expanded: Vec<String>,
    /// Symbols linked to as they are, though a module other than the kernel itself exports them: `symbol module`.
    pub dependencies: Vec<Dependency>,
    /// How the private headers were treated in the form that was kept.
    pub form: Form,
    /// The command line that gave it, variables first.
    pub command: Vec<String>,
}

/// A symbol that is linked to and that a module provides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dependency {
    pub symbol: String,
    pub module: String,
    pub namespace: Option<String>,
}

/// The forms tried, the most readable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Private headers are sliced like the file itself; only what hides in macros is expanded.
    Sliced,
    /// As `Sliced`, with the functions that failed the compile check taken whole from the preprocessor's output.
    SlicedExpanded,
    /// Private headers are included by their path from the source root.
    Included,
    /// As `Included`, with the failing functions expanded.
    IncludedExpanded,
    /// As klp-ccp or clang-extract wrote it, cleaned up.
    External,
}

/// Why an extraction failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "libclang not found ({why}): install libclang1-19 or set LIBCLANG_PATH; searched {}",
        list(searched)
    )]
    LibclangMissing { searched: Vec<PathBuf>, why: String },
    #[error("libclang alone does not fit into this attempt's memory, which was limited to {} MiB: raise memory_limit", limit >> 20)]
    NoRoom {
        /// Bytes.
        limit: u64,
    },
    #[error("no compile command for {file}: {why}")]
    Command { file: String, why: String },
    #[error("{file} can't be parsed: {why}")]
    Parse { file: String, why: String },
    #[error(
        "{file} does not define {function}{}: correct the name, or pick the file that holds it",
        near(near_matches)
    )]
    NoFunction {
        file: String,
        function: String,
        near_matches: Vec<String>,
    },
    #[error("{file} is no path to a source file in the tree: {why}")]
    BadPath { file: String, why: &'static str },
    #[error("{tool} can't be started ({source}): install it, or correct the tree's compiler")]
    Tool { tool: String, source: std::io::Error },
    #[error("{tool} {how} on {file}: {last}. Its whole log is kept with the attempt; another backend may do better")]
    ToolFailed {
        tool: &'static str,
        file: String,
        /// How it ended, or what is wrong with its output.
        how: String,
        /// The last it said.
        last: String,
    },
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    #[error("{tool} was killed after {most} MiB of output (limit)")]
    Flood { tool: String, most: u64 },
    #[error("{file}: the preprocessor failed: {why}")]
    Preprocess { file: String, why: String },
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Error {
    /// Whose matter it is.
    pub fn cause(&self) -> Cause {
        match self {
            Self::NoFunction { .. } | Self::BadPath { .. } => Cause::Yours,
            Self::Command { .. }
            | Self::NoRoom { .. }
            | Self::Parse { .. }
            | Self::Flood { .. }
            | Self::ToolFailed { .. }
            | Self::Preprocess { .. } => Cause::Codestream,
            Self::LibclangMissing { .. } | Self::Tool { .. } | Self::Symbols(_) | Self::Io { .. } => Cause::Farm,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn near(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(" (it has {})", names.join(", "))
    }
}

//! The kernel trees a worker holds: for each codestream and architecture a source folder, an object folder with its
//! configuration, Module.symvers, vmlinux's symbol names, and modules.
//!
//! A [`TreeStore`] finds them below one folder, as `<arch>/<codestream>/tree.json`. [`debian`] makes one from the
//! distribution's packages, [`kdir`] from a kernel somebody built; those of [`suse`]'s data folder are found by themselves.
//! [`verify`] says whether one is still what it was. After a tree is in place nothing writes into it: an attempt that has
//! patches works on an [`overlay`] of it.

pub mod config;
pub mod cross;
pub mod debian;
mod disk;
mod kbuild;
pub mod kdir;
mod lock;
mod measure;
pub mod modules;
pub mod overlay;
mod partial;
pub mod progress;
mod record;
mod relocate;
mod store;
pub mod suse;
mod tools;
pub mod verify;

use std::path::{Path, PathBuf};

use klp_livepatch::names::ObjectName;
use klp_livepatch::task::Platform;

use crate::process::{Command, ProcessError};
use crate::symbols::{SymbolError, SymbolTable, Symbols, open_places};
pub use config::KernelConfig;
pub use modules::{ModuleError, ModuleIndex};
pub use record::{KeyFile, TreeKind};
pub use store::{Listing, TreeStore};

/// A kernel a worker can check and extract from. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Tree {
    pub platform: Platform,
    pub kind: TreeKind,
    /// The folder that holds `tree.json`; SUSE's data folder for a tree in it.
    pub dir: PathBuf,
    /// The kernel's sources.
    pub src: PathBuf,
    /// Where `make` was run: `.config`, generated headers, host tools. The same folder as `src` for a kdir.
    pub obj: PathBuf,
    pub config: PathBuf,
    pub symvers: PathBuf,
    /// Holds the modules, somewhere below, and usually their `modules.order`.
    pub modules_dir: PathBuf,
    /// As `uname -r` prints it: `6.1.0-50-amd64`.
    pub release: String,
    /// The compiler the configuration names, such as `gcc-12`.
    pub compiler: String,
    /// The kernel image, where there is one: to boot it.
    pub boot_image: Option<PathBuf>,
    /// What a person should know about this tree, such as options that differ from the distribution's.
    pub warnings: Vec<String>,
    /// Files that must not change, with their digests.
    pub key_files: Vec<KeyFile>,
    /// The number of modules when the tree was added.
    pub module_count: usize,
    /// Where the tree was when `make` wrote its paths into the object folder.
    built_at: PathBuf,
    vmlinux: record::VmlinuxNames,
}

impl Tree {
    /// The arguments every `make` call in the object folder needs; add flags and goals. With `-sn` it then writes nothing
    /// into the tree: kbuild tries out compiler options even then, and does so in `scratch`, an existing folder without
    /// spaces in its path. (Where it can't write, it takes every option for unsupported, silently.)
    pub fn make_args(&self, scratch: &Path) -> Vec<String> {
        let mut args = vec!["--no-print-directory".to_owned()];
        args.extend(kbuild::for_folder(&self.obj, &self.compiler, self.platform.arch));
        // kbuild's own default, `.tmp_$$$$` (scripts/Makefile.compiler), is in the object folder.
        args.push(format!("TMPOUT={}/.kbuild_$$$$", scratch.display()));
        args
    }

    /// All that a tool may have to read of it.
    pub fn places(&self) -> Vec<PathBuf> {
        let files = [
            &self.dir,
            &self.src,
            &self.obj,
            &self.config,
            &self.symvers,
            &self.modules_dir,
        ];
        let names = std::iter::once(self.vmlinux.table.as_path()).chain(self.vmlinux_file());
        files.into_iter().cloned().chain(names.map(Path::to_owned)).collect()
    }

    /// `make` in the object folder, with [`Tree::make_args`].
    pub fn make_command(&self, scratch: &Path) -> Command {
        Command::new("make", &self.obj).args(self.make_args(scratch))
    }

    /// A file with vmlinux's symbols: the name table made when the tree was added, or vmlinux itself if it was built anew
    /// since. For a tree in SUSE's data folder the table is made now if there is none, which takes a second or two.
    pub fn vmlinux_names(&self) -> PathBuf {
        match &self.vmlinux.made_from {
            Some(stamp) if self.kind == TreeKind::Suse && stamp.is_current() => {
                suse::current_names(&self.vmlinux.table, &stamp.path)
            }
            _ => self.vmlinux.current(&self.dir),
        }
    }

    /// vmlinux itself, perhaps compressed, where it is kept: its names without their order are in
    /// [`Tree::vmlinux_names`]. For a kdir it may be the boot image.
    pub fn vmlinux_file(&self) -> Option<&Path> {
        self.vmlinux.made_from.as_ref().map(|stamp| &*stamp.path)
    }

    /// vmlinux's symbol table.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn vmlinux_symbols(&self) -> Result<Box<dyn SymbolTable>, SymbolError> {
        open_places(&self.vmlinux_names())
    }

    /// The modules of this kernel by name.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn modules(&self) -> Result<ModuleIndex, ModuleError> {
        ModuleIndex::read(&self.modules_dir)
    }

    /// What an extraction asks about symbols when it patches `object`.
    ///
    /// # Errors
    /// If there is no such module, or a table can't be read.
    pub fn symbols(&self, object: &ObjectName) -> Result<Symbols, TreeError> {
        let module = if object.is_vmlinux() {
            None
        } else {
            Some(self.modules()?.find(object.as_str())?)
        };
        Ok(Symbols::open(&self.symvers, &self.vmlinux_names(), module.as_deref())?)
    }

    /// The kernel's configuration.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn kernel_config(&self) -> Result<KernelConfig, TreeError> {
        KernelConfig::open(&self.config)
    }
}

/// What is wrong with a tree, or in the way of adding one.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// What was asked for can't be; the text says what to do instead.
    #[error("{0}")]
    Refused(String),
    #[error("there is no tree for {platform} in {}; add one with `klp-worker tree add`, see `klp-worker tree list`", dir.display())]
    NotFound { platform: Platform, dir: PathBuf },
    #[error("the tree in {} can't be used: {problem}", dir.display())]
    Broken { dir: PathBuf, problem: String },
    #[error("can't {doing} {}: {cause}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("the disk that holds {} is full: {what}, {free} MiB are free; free some space or give another folder with --trees, then run the same command again", path.display())]
    DiskFull {
        path: PathBuf,
        /// What could not be done, or what is needed.
        what: String,
        /// MiB.
        free: u64,
    },
    #[error("interrupted; run the same command again to go on from here")]
    Interrupted,
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    #[error(transparent)]
    Module(#[from] ModuleError),
}

impl TreeError {
    fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |cause| Self::Io {
            doing,
            path: path.to_owned(),
            cause,
        }
    }
}

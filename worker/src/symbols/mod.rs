//! What a kernel's symbol tables say about a name: who exports it, and whether the patched object or `vmlinux` has it.
//!
//! [`symvers`] reads Module.symvers, [`elf`] the symbol tables of modules and vmlinux, [`kallsyms`] recovers vmlinux's
//! names, addresses and ftrace locations from a boot image ([`boot`], [`addresses`], [`traceable`]), and [`table`] is the
//! small sorted file those are kept in so that a task opens them at once. [`Symbols`] puts the three together for one
//! object. Where a name's symbols are, and which functions ftrace can divert, [`places`] says of an ELF file ([`index`],
//! [`ftrace`]).

mod addresses;
mod boot;
pub mod elf;
mod ftrace;
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
pub mod index;
pub mod kallsyms;
pub mod places;
mod raw;
pub mod symvers;
pub mod table;
pub mod traceable;

use std::path::{Path, PathBuf};

pub use elf::ObjectSymbols;
pub use index::ObjectIndex;
pub use places::{Place, Places};
pub use symvers::{Export, Symvers};
pub use table::{NameTable, NamedSymbol};

/// What kind of thing a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    Function,
    /// Data.
    Object,
    /// Labels, absolute values, assembler code without a type.
    Other,
}

/// What is known about all symbols of one name in one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolInfo {
    /// `Function` if any symbol of the name is one.
    pub kind: SymbolKind,
    /// At least one of them is global (or weak).
    pub global: bool,
    /// How many symbols have this name; more than one needs a position (sympos) to be told apart.
    pub count: u32,
}

/// The names an object defines.
pub trait SymbolTable: Send + Sync {
    fn lookup(&self, name: &str) -> Option<SymbolInfo>;
    /// Calls `each` for every name; one that occurs twice may be given twice.
    fn for_each_name(&self, each: &mut dyn FnMut(&str));
    /// Every symbol of each of the names.
    ///
    /// # Errors
    /// Why the table does not tell, and what would make it.
    fn places(&self, names: &[&str]) -> Result<Places, String>;
}

/// A symbol table that can't be read, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    #[error("can't read {}: {cause}", path.display())]
    Io { path: PathBuf, cause: std::io::Error },
    #[error("{}: {problem}", path.display())]
    Broken { path: PathBuf, problem: String },
}

impl SymbolError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |cause| Self::Io {
            path: path.to_owned(),
            cause,
        }
    }

    pub(crate) fn broken(path: &Path, problem: impl Into<String>) -> Self {
        Self::Broken {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Everything an extraction asks about symbols, for one patched object.
pub struct Symbols {
    exports: Symvers,
    vmlinux: Box<dyn SymbolTable>,
    /// `None`: the object is vmlinux itself.
    module: Option<ObjectSymbols>,
}

impl Symbols {
    /// Opens the tables: `symvers` is the Module.symvers, `vmlinux` either a name table made by [`NameTable::write`] or
    /// an ELF file with its symbol table, `module` the patched module (`None`: vmlinux is patched). Takes some
    /// milliseconds with a name table.
    ///
    /// # Errors
    /// If a file can't be read or isn't what it should be.
    pub fn open(symvers: &Path, vmlinux: &Path, module: Option<&Path>) -> Result<Self, SymbolError> {
        Ok(Self {
            exports: Symvers::open(symvers)?,
            vmlinux: open_vmlinux(vmlinux)?,
            module: module.map(ObjectSymbols::open).transpose()?,
        })
    }

    /// Who exports `name`, if anybody does.
    pub fn exported(&self, name: &str) -> Option<&Export> {
        self.exports.get(name)
    }

    /// Whether the patched object defines `name`.
    pub fn in_object(&self, name: &str) -> bool {
        self.lookup_in_object(name).is_some()
    }

    /// Whether vmlinux defines `name`.
    pub fn in_vmlinux(&self, name: &str) -> bool {
        self.vmlinux.lookup(name).is_some()
    }

    /// What the patched object has under `name`.
    pub fn lookup_in_object(&self, name: &str) -> Option<SymbolInfo> {
        self.object().lookup(name)
    }

    /// The patched object's table.
    pub fn object(&self) -> &dyn SymbolTable {
        match &self.module {
            Some(module) => module,
            None => &*self.vmlinux,
        }
    }
}

/// Opens an object to ask where its symbols are: an ELF file, compressed or not, or vmlinux's name table.
///
/// # Errors
/// If the file is neither, or an ELF file without a symbol table.
pub fn open_places(path: &Path) -> Result<Box<dyn SymbolTable>, SymbolError> {
    if image::may_hold_elf(path)? {
        Ok(Box::new(ObjectIndex::open(path)?))
    } else {
        Ok(Box::new(NameTable::open(path)?))
    }
}

/// Opens vmlinux's names, from a name table or from an ELF file, which may be compressed.
///
/// # Errors
/// If the file is neither, or an ELF file without a symbol table.
pub fn open_vmlinux(path: &Path) -> Result<Box<dyn SymbolTable>, SymbolError> {
    if image::may_hold_elf(path)? {
        Ok(Box::new(ObjectSymbols::open(path)?))
    } else {
        Ok(Box::new(NameTable::open(path)?))
    }
}

/// The names in a vmlinux or a boot image: those of its symbol table, or where it has none those of its kallsyms tables.
///
/// # Errors
/// If the file is neither, or holds no names.
pub fn kernel_names(path: &Path) -> Result<Vec<NamedSymbol>, SymbolError> {
    if image::may_hold_elf(path)?
        && let Ok(symbols) = ObjectIndex::open(path)
            .and_then(|index| index.to_named().map_err(|problem| SymbolError::broken(path, problem)))
        && !symbols.is_empty()
    {
        return Ok(symbols);
    }
    kallsyms::read_boot_image(path)
}

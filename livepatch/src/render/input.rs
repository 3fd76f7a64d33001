//! What a codestream's livepatch is written from: plain values, and the mistakes that can be in them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::{ConfigName, Cve, FunctionName, LivepatchName, ObjectName, SourcePath};
use crate::report::{ExternalizedSymbol, PatchedFunction, TargetCheck, TargetExtraction, VerifiedSymbol};
use crate::suse::SuseName;
use crate::{Arch, Codestream};

/// How a livepatch reaches symbols that no module can link to, and who registers its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// A folder of SUSE's kernel livepatches whose `klpe_` pointers are looked up in kallsyms.
    SuseKallsyms {
        /// Modules are looked up under `module_mutex`, which later kernels don't export.
        module_mutex: bool,
    },
    /// A folder of SUSE's kernel livepatches whose symbols klp-convert makes relocations of.
    SuseReloc,
    /// A module of its own, for any kernel since 5.1.
    Upstream,
}

impl Flavour {
    /// What a codestream's kernels take. `ibt`: the kernel has indirect branch tracking, so SUSE's are built with klp-convert.
    pub fn of(codestream: &Codestream, ibt: bool) -> Self {
        match SuseName::of(codestream) {
            None => Flavour::Upstream,
            Some(name) if ibt || name.needs_ibt() => Flavour::SuseReloc,
            Some(name) => Flavour::SuseKallsyms {
                module_mutex: name.has_module_mutex(),
            },
        }
    }
}

/// Whose name is on what is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    pub name: String,
    pub mail: String,
    /// Who holds the copyright; empty: the author.
    pub company: String,
    /// The licence's notice, put at the head of each C file.
    pub licence: String,
}

impl Author {
    /// The licence's notice where no other is configured.
    pub const LICENCE: &str = "SPDX-License-Identifier: GPL-2.0-or-later";

    /// As in a mail's header: `Name <mail>`.
    pub fn address(&self) -> String {
        format!("{} <{}>", self.name, self.mail)
    }
}

/// One codestream's livepatch: sources that serve all its architectures, and what differs between these.
#[derive(Clone, Debug)]
pub struct LivepatchOutput<'a> {
    pub name: &'a LivepatchName,
    pub cve: Option<&'a Cve>,
    pub flavour: Flavour,
    pub author: &'a Author,
    /// Of the copyright.
    pub year: u32,
    /// The architectures this will be built for. What is not on all of them is put under its CONFIG.
    pub archs: BTreeSet<Arch>,
    /// At least one, each with another path.
    pub files: Vec<SourceFile>,
}

/// One extracted source.
#[derive(Clone, Debug)]
pub struct SourceFile {
    pub file: SourcePath,
    pub config: ConfigName,
    /// The text that the backend gave.
    pub source: String,
    pub patched: Vec<PatchedFunction>,
    /// As the source's own architecture has them.
    pub externalized: Vec<ExternalizedSymbol>,
    /// Flags of the file's own compile command that not every file gets, such as `-I$(srctree)/drivers/x`; for upstream
    /// modules, whose makefile is ours.
    pub flags: Vec<String>,
    /// The architectures that have this file, at least one.
    pub platforms: BTreeMap<Arch, ArchFacts>,
}

/// Where one architecture has the functions and symbols of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchFacts {
    /// The object that is patched.
    pub object: ObjectName,
    /// Positions of functions among their namesakes, from 1; those that have none may be left out.
    pub functions: BTreeMap<FunctionName, u32>,
    /// Where externalized symbols are. One that isn't here is taken to be as [`SourceFile::externalized`] says.
    pub symbols: BTreeMap<String, Provider>,
}

/// Where a symbol is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub object: ObjectName,
    /// Its position among namesakes there, from 1; 0: it is the only one.
    pub sympos: u32,
}

impl ArchFacts {
    /// Of an architecture that the file was extracted on.
    pub fn of_extraction(target: &TargetExtraction) -> Self {
        let provider = |e: &ExternalizedSymbol| Provider {
            object: e.object.clone(),
            sympos: e.sympos,
        };
        let functions = target.patched.iter().map(|p| (p.function.clone(), p.sympos));
        let symbols = target.externalized.iter().map(|e| (e.symbol.clone(), provider(e)));
        Self {
            object: target.object.clone(),
            functions: functions.collect(),
            symbols: symbols.collect(),
        }
    }

    /// Of an architecture that takes another's source, checked and verified; `None` if it has no such object.
    pub fn of_checks(check: &TargetCheck, verified: &[VerifiedSymbol]) -> Option<Self> {
        let functions = check.functions.iter().map(|f| (f.function.clone(), f.sympos));
        let symbols = verified.iter().filter_map(|v| {
            let provider = Provider {
                object: v.found_in.clone()?,
                sympos: v.sympos,
            };
            Some((v.symbol.clone(), provider))
        });
        Some(Self {
            object: check.object.clone()?,
            functions: functions.collect(),
            symbols: symbols.collect(),
        })
    }
}

impl SourceFile {
    /// The CONFIG that must be asked for, if some architecture of the livepatch has not set it.
    pub(super) fn guard(&self, archs: &BTreeSet<Arch>) -> Option<&ConfigName> {
        let everywhere = archs.iter().all(|arch| self.platforms.contains_key(arch));
        (!everywhere).then_some(&self.config)
    }

    /// True if the patched object is a module, `None` if that depends on the architecture.
    pub(super) fn in_module(&self) -> Option<bool> {
        let mut all = self.platforms.values().map(|facts| !facts.object.is_vmlinux());
        let first = all.next()?;
        all.all(|module| module == first).then_some(first)
    }

    /// Where an externalized symbol is on each architecture.
    pub(super) fn providers(&self, symbol: &ExternalizedSymbol) -> BTreeMap<Arch, Provider> {
        let provider = |facts: &ArchFacts| {
            let known = facts.symbols.get(&symbol.symbol);
            Provider {
                object: known.map_or(&symbol.object, |p| &p.object).as_loaded(),
                sympos: known.map_or(symbol.sympos, |p| p.sympos),
            }
        };
        let platforms = self.platforms.iter();
        platforms.map(|(arch, facts)| (*arch, provider(facts))).collect()
    }
}

/// Why there is nothing to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error("the livepatch has no source: extract at least one file first")]
    NoFile,
    #[error("{0}: no architecture has this file")]
    NoPlatform(SourcePath),
    #[error("{0} and {1} would both become {2}: make two livepatches of them")]
    SameName(SourcePath, SourcePath, String),
    #[error("{file}: the backend named a symbol {symbol}, which is none of C: extract it again")]
    OddSymbol { file: SourcePath, symbol: String },
    #[error(
        "{file}: {symbol} is used by its own name, which needs a kernel built with klp-convert: extract it without IBT"
    )]
    NeedsRelocation { file: SourcePath, symbol: String },
}

impl LivepatchOutput<'_> {
    /// Everything the templates rely on.
    pub(super) fn check(&self) -> Result<(), RenderError> {
        if self.files.is_empty() {
            return Err(RenderError::NoFile);
        }
        let mut names: BTreeMap<String, &SourcePath> = BTreeMap::new();
        for file in &self.files {
            if file.platforms.is_empty() {
                return Err(RenderError::NoPlatform(file.file.clone()));
            }
            let name = file.file.flattened();
            if let Some(other) = names.insert(name.clone(), &file.file) {
                return Err(RenderError::SameName(other.clone(), file.file.clone(), name));
            }
            for symbol in &file.externalized {
                self.check_symbol(file, symbol)?;
            }
        }
        Ok(())
    }

    fn check_symbol(&self, file: &SourceFile, symbol: &ExternalizedSymbol) -> Result<(), RenderError> {
        // A compiler's own names have dots in them, as in `f.isra.0`.
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.$".contains(c);
        let variable = symbol.variable.parse::<FunctionName>();
        if symbol.symbol.is_empty() || !symbol.symbol.chars().all(plain) || variable.is_err() {
            return Err(RenderError::OddSymbol {
                file: file.file.clone(),
                symbol: crate::names::quoted(&symbol.symbol),
            });
        }
        if self.flavour != Flavour::SuseReloc && symbol.variable == symbol.symbol {
            return Err(RenderError::NeedsRelocation {
                file: file.file.clone(),
                symbol: symbol.symbol.clone(),
            });
        }
        Ok(())
    }
}

//! The `check` task: can each target be patched on this codestream and architecture?
//!
//! [`check`] asks in the order a kernel is built: is the target's CONFIG set ([`config`]), is the source file there, which
//! object holds it ([`object`]), does that define the functions ([`symbols`]), which of several namesakes is meant
//! ([`namesake`]), can ftrace divert them ([`ftrace`]), and who holds copies of them ([`inlining`])? It reads the kernel
//! through the [`Kernel`] trait, so that every answer can be tried without one. All that is wrong is found, not just the first.
//!
//! [`verify`] and [`positions`] answer for symbols that a livepatch reaches, [`fixes`] for what its patches change.

mod config;
mod copies;
mod definitions;
pub mod fixes;
mod ftrace;
pub mod inlining;
mod ipa_clones;
mod namesake;
mod near;
mod object;
mod symbols;
mod verify;
mod view;

use std::sync::Arc;

use klp_livepatch::names::{ConfigName, SourcePath};
use klp_livepatch::report::{CheckReport, TargetCheck};
use klp_livepatch::spec::Target;
use klp_livepatch::task::Platform;

use definitions::Definitions;
pub use inlining::{Inlining, Lab};
pub use ipa_clones::IpaClones;
pub use verify::{Position, positions, verify};

use crate::symbols::SymbolTable;
use crate::trees::{KernelConfig, ModuleError, Tree, TreeError};

/// What the checks need to know about a kernel. The questions that take long are asked only to explain a failure.
pub trait Kernel {
    fn platform(&self) -> &Platform;
    fn config(&self) -> &KernelConfig;
    /// A source file's content; `None`: there is no such file.
    fn source(&self, file: &SourcePath) -> Option<String>;
    /// vmlinux's symbols.
    ///
    /// # Errors
    /// If the tree is damaged.
    fn vmlinux(&self) -> Result<Arc<dyn SymbolTable>, TreeError>;
    /// A module's symbols.
    ///
    /// # Errors
    /// [`TreeError::Module`] if there is no such module, else the tree is damaged.
    fn module(&self, name: &str) -> Result<Arc<dyn SymbolTable>, TreeError>;
    /// A module's file, below the folder of modules.
    fn module_path(&self, name: &str) -> Option<String>;
    /// What a module's `.modinfo` has under a key.
    fn modinfo(&self, name: &str, key: &str) -> Option<String>;
    /// All modules' names, with underscores.
    fn module_names(&self) -> Vec<String>;
    /// The names of the modules that are built from a source folder.
    fn modules_in(&self, folder: &str) -> Vec<String>;
    /// Whether some Kconfig file has the option.
    fn has_option(&self, option: &ConfigName) -> bool;
    /// Source files that have the last part of this one's path.
    fn files_named_like(&self, file: &SourcePath) -> Vec<String>;
}

/// How strict a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Ask what was inlined where, too, which takes a compilation for each file: see [`inlining::gather`].
    pub full: bool,
    /// What is wrong with symbols stops nothing: it becomes a warning.
    pub forgiving: bool,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            full: true,
            forgiving: false,
        }
    }
}

/// Checks targets against a tree, without asking what was inlined.
///
/// # Errors
/// If the tree itself can't be read: the farm's failure, not the user's.
pub fn check(tree: &Tree, targets: &[Target]) -> Result<CheckReport, TreeError> {
    check_with(tree, targets, CheckOptions::default(), &Inlining::default())
}

/// Checks targets against a tree.
///
/// # Errors
/// As for [`check`].
pub fn check_with(
    tree: &Tree,
    targets: &[Target],
    options: CheckOptions,
    inlining: &Inlining,
) -> Result<CheckReport, TreeError> {
    check_kernel(&view::TreeView::open(tree)?, targets, options, inlining)
}

/// Checks targets against any kernel.
///
/// # Errors
/// As for [`check`].
pub fn check_kernel(
    kernel: &dyn Kernel,
    targets: &[Target],
    options: CheckOptions,
    inlining: &Inlining,
) -> Result<CheckReport, TreeError> {
    let targets = targets
        .iter()
        .map(|target| check_target(kernel, target, options, inlining))
        .collect::<Result<_, _>>()?;
    Ok(CheckReport {
        targets,
        ..CheckReport::default()
    })
}

fn check_target(
    kernel: &dyn Kernel,
    target: &Target,
    options: CheckOptions,
    inlining: &Inlining,
) -> Result<TargetCheck, TreeError> {
    let mut findings = Findings::new(kernel.platform(), target, options.forgiving);
    let config = config::check(kernel, target, &mut findings);
    if config.is_some() {
        config::warn_of_kernel(kernel, &mut findings);
    }
    let source = kernel.source(&target.file);
    if source.is_none() && findings.left_out.is_none() {
        missing_file(kernel, target, &mut findings);
    }
    // Without a CONFIG value nobody knows where to look, and without the file nobody should.
    let object = match config {
        Some(value) => object::check(kernel, target, value, &mut findings)?,
        None => None,
    };
    let mut functions = Vec::new();
    if let Some(object) = &object {
        let text = source.as_deref().map(|text| (text, Definitions::of(text)));
        let asked = symbols::Asked {
            kernel,
            target,
            object,
            source: text.as_ref().map(|(text, definitions)| (*text, definitions)),
            copies: copies::Copies::of(inlining, target, options.full, &mut findings),
        };
        functions = symbols::check(&asked, &mut findings)?;
    }
    Ok(TargetCheck {
        file: target.file.clone(),
        config,
        module_path: object
            .as_ref()
            .and_then(|object| kernel.module_path(object.name.as_str())),
        object: object.map(|object| object.name),
        left_out: findings.left_out,
        functions,
        problems: findings.problems,
        warnings: findings.warnings,
    })
}

fn missing_file(kernel: &dyn Kernel, target: &Target, findings: &mut Findings) {
    let elsewhere = kernel.files_named_like(&target.file);
    findings.problem(if elsewhere.is_empty() {
        "this kernel has no such file; leave this codestream out, or name the file it has instead".to_owned()
    } else {
        format!("this kernel has no such file; is it {}?", near::or_list(&elsewhere))
    });
}

/// Collects sentences, each beginning with what it is about.
struct Findings {
    about: String,
    forgiving: bool,
    left_out: Option<String>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn new(platform: &Platform, target: &Target, forgiving: bool) -> Self {
        Self {
            about: format!("{platform}: {}", target.file),
            forgiving,
            left_out: None,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn problem(&mut self, text: impl AsRef<str>) {
        self.problems.push(format!("{}: {}", self.about, text.as_ref()));
    }

    /// A problem that who knows better may go on with.
    fn doubt(&mut self, text: impl AsRef<str>) {
        match self.forgiving {
            true => self.warning(text),
            false => self.problem(text),
        }
    }

    fn leave_out(&mut self, text: impl AsRef<str>) {
        self.left_out = Some(format!("{}: {}", self.about, text.as_ref()));
    }

    fn warning(&mut self, text: impl AsRef<str>) {
        self.warnings.push(format!("{}: {}", self.about, text.as_ref()));
    }
}

#[cfg(test)]
mod tests;

//! The `check` task: can each target be patched on this codestream and architecture?
//!
//! [`check`] asks in the order a kernel is built: is the target's CONFIG set ([`config`]), is the source file there, which
//! object holds it ([`object`]), and does that define the functions ([`symbols`])? It reads the kernel through the
//! [`Kernel`] trait, so that every answer can be tried without one. All that is wrong is found, not just the first.

mod config;
mod near;
mod object;
mod symbols;
mod view;

use std::sync::Arc;

use klp_livepatch::names::{ConfigName, SourcePath};
use klp_livepatch::report::{CheckReport, TargetCheck};
use klp_livepatch::spec::Target;
use klp_livepatch::task::Platform;

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
    /// All modules' names, with underscores.
    fn module_names(&self) -> Vec<String>;
    /// The names of the modules that are built from a source folder.
    fn modules_in(&self, folder: &str) -> Vec<String>;
    /// Whether some Kconfig file has the option.
    fn has_option(&self, option: &ConfigName) -> bool;
    /// Source files that have the last part of this one's path.
    fn files_named_like(&self, file: &SourcePath) -> Vec<String>;
}

/// Checks targets against a tree.
///
/// # Errors
/// If the tree itself can't be read: the farm's failure, not the user's.
pub fn check(tree: &Tree, targets: &[Target]) -> Result<CheckReport, TreeError> {
    check_kernel(&view::TreeView::open(tree)?, targets)
}

/// Checks targets against any kernel.
///
/// # Errors
/// As for [`check`].
pub fn check_kernel(kernel: &dyn Kernel, targets: &[Target]) -> Result<CheckReport, TreeError> {
    let targets = targets
        .iter()
        .map(|target| check_target(kernel, target))
        .collect::<Result<_, _>>()?;
    Ok(CheckReport { targets })
}

fn check_target(kernel: &dyn Kernel, target: &Target) -> Result<TargetCheck, TreeError> {
    let mut findings = Findings::new(kernel.platform(), target);
    let config = config::check(kernel, target, &mut findings);
    let source = kernel.source(&target.file);
    if source.is_none() {
        missing_file(kernel, target, &mut findings);
    }
    // Without a CONFIG value nobody knows where to look, and without the file nobody should.
    let object = match config {
        Some(value) => object::check(kernel, target, value, &mut findings)?,
        None => None,
    };
    let mut functions = Vec::new();
    if let Some(object) = &object {
        functions = symbols::check(kernel, target, object, source.as_deref(), &mut findings)?;
    }
    Ok(TargetCheck {
        file: target.file.clone(),
        config,
        object: object.map(|object| object.name),
        module_path: None,
        left_out: None,
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
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn new(platform: &Platform, target: &Target) -> Self {
        Self {
            about: format!("{platform}: {}", target.file),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn problem(&mut self, text: impl AsRef<str>) {
        self.problems.push(format!("{}: {}", self.about, text.as_ref()));
    }

    fn warning(&mut self, text: impl AsRef<str>) {
        self.warnings.push(format!("{}: {}", self.about, text.as_ref()));
    }
}

#[cfg(test)]
mod tests;

//! SUSE klp-build's own files, so that its users can switch, either way.
//!
//! `codestreams.json` holds the state of a livepatch between klp-build's commands. [`import()`] reads what any of its
//! versions wrote into a [`Project`], [`export`] writes it as version 2 does, and [`from_spec`] makes a project of what the
//! farm found out. Beside it: [`missing_syms`], [`kbuild`], and how its output files are called ([`naming`]). Its groups
//! are in [`crate::compression`], its lists of patched functions in [`crate::patched_funcs`].

mod export;
mod from_spec;
mod import;
mod json;
pub mod kbuild;
pub mod missing_syms;
pub mod naming;
mod project;
#[cfg(test)]
mod tests;

pub use export::export;
pub use from_spec::{CodestreamFacts, LivepatchFacts, TargetFacts, from_spec};
pub use import::{Generation, ImportError, Imported, import};
pub use project::{DataPath, Extra, ModulePath, PatchName, Project, ProjectCodestream, ProjectFile};

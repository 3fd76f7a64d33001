//! A fix as patches: what it changes, what of that can be livepatched, and what makes that hard.
//!
//! The main path: [`patch`] reads a patch's text, [`apply`] makes the file's other version out of the one that is at hand,
//! [`functions`] compares the two, [`lint`] says what a person should know before they build on it, and [`kbuild`] finds
//! the CONFIG and the module that a file is built by. [`judge`] does the last but one for a livepatch whose targets are
//! known. [`series`] reads the order in which a kernel's patches are applied.
//!
//! All of it reads texts that somebody else wrote: every parser is bounded and none panics.

pub mod apply;
pub mod functions;
pub mod judge;
pub mod kbuild;
pub mod lint;
pub mod outline;
pub mod patch;
pub mod series;
pub mod supported;
pub mod syscalls;
mod tokens;

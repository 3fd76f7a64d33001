//! The worker: runs on a build host that holds kernel trees, and does what the coordinator asks.
//!
//! The main path: [`session`] keeps the coordinator told of all that this worker does and starts what it should do;
//! [`runner`] takes one attempt from its assignment to its outcome; [`outbox`] keeps the outcome on disk until the
//! coordinator has acknowledged it, and [`delivery`] sees to that. Trees, checks and extraction tools are in [`trees`],
//! [`check`] and [`extract`], and [`scan`] reads a kernel-source repository. Around them, [`attempts`] is the table of what runs, [`attempt_log`] carries an attempt's log
//! away, [`identity`] is who this worker is on the [`line`] to its coordinator, [`process`] keeps child processes within their limits, and
//! [`isolation`] from all that is none of theirs.

pub mod attempt_log;
pub mod attempts;
pub mod check;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod errands;
pub mod extract;
pub mod fixes;
pub mod identity;
pub mod inventory;
pub mod isolation;
pub mod line;
pub mod outbox;
pub mod process;
pub mod runner;
pub mod scan;
pub mod session;
pub mod symbols;
mod told;
mod trace;
pub mod tree_cli;
pub mod trees;
pub mod upload;
pub mod usage;
pub mod worker;

pub use config::WorkerConfig;

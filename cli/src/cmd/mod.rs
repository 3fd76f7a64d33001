//! The commands, a file each.

pub mod audit;
pub mod codestreams;
pub mod control;
pub mod diff;
pub mod enroll;
pub mod extract;
pub mod fleet;
pub mod format_patches;
pub mod get;
pub mod groups;
pub mod import;
pub mod list;
pub mod logs;
pub mod scan;
pub mod setup;
pub mod status;
pub mod submit;
pub mod token;
pub mod top;
pub mod up;
pub mod verify_provenance;
pub mod watch;
pub mod workers;

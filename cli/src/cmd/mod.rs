//! The commands, a file each.

pub mod control;
pub mod fleet;
pub mod get;
pub mod list;
pub mod logs;
pub mod status;
pub mod submit;
pub mod up;
pub mod watch;
pub mod workers;

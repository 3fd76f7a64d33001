//! Settings of all programs: a TOML file, and over it the environment and flags.
//!
//! A program has one struct of settings whose every field has a default and that denies unknown ones. [`File`] reads the
//! text, [`Overrides`] are what flags and the environment say, and [`Effective`] is what follows from both: the settings,
//! and for each where it comes from. [`Reload`] tells of a file that was read again what a running program takes over. A
//! [`sample`] explains them to whoever configures.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")
)]

mod effective;
mod file;
mod overrides;
mod reload;
pub mod sample;
mod slip;

pub use effective::{Effective, Origin};
pub use file::{File, Problem};
pub use overrides::Overrides;
pub use reload::Reload;
pub use slip::{Slip, keys, parse};

//! What livepatches were made from: written beside them by `get`, checked offline by `verify-provenance`.
//!
//! The main path of a check: [`verify`] finds the codestreams' folders ([`inventory`]), has [`statements`] believe or refuse
//! what is stated of each, and [`contents`] compare what is there with it; a [`report`] tells all of it.

mod contents;
mod inventory;
pub mod report;
mod statements;
#[cfg(test)]
mod tests;
mod verify;
mod written;

pub use verify::verify;
pub use written::{Statements, WrittenBy, write};

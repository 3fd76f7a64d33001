//! placeholder
pub mod process;
pub mod symbols;

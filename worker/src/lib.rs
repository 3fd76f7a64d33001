//! placeholder
pub mod symbols;

//! placeholder
pub mod check;
pub mod process;
pub mod symbols;
pub mod tree_cli;
pub mod trees;

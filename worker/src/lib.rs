//! The worker of klp-farm (being laid out).
pub mod extract;
pub mod process;
pub mod symbols;

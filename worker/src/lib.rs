//! The worker of klp-farm (being laid out).
pub mod extract;

//! The domain of klp-farm: what a livepatch is and how its work is named.
//!
//! The main path: a [`spec::Draft`] (what somebody typed) is parsed into a [`spec::Spec`], which is split into
//! [`task::TaskKey`]s, one for each codestream x architecture; attempts at them end in a [`outcome::Outcome`] with a
//! [`report::Report`]; outputs that are equal after [`normalize`] form [`grouping`] groups, and [`layout`] says where
//! each file lands on the engineer's disk; [`provenance`] states what they were made from. Before that, [`fix`] reads patches
//! and tells what they change, and [`scan`] which codestreams they concern. The [`catalog`] says which codestreams there are, and [`suse`] what their names
//! tell; [`klp_build`], [`compression`] and [`patched_funcs`] are the formats shared with SUSE klp-build.
//!
//! Nothing here talks to a network, opens a database or starts a process.

pub mod arch;
pub mod catalog;
pub mod codestream;
pub mod compression;
pub mod date;
pub mod difference;
pub mod filter;
pub mod fix;
pub mod grouping;
pub mod klp_build;
pub mod layout;
pub mod names;
pub mod normalize;
pub mod outcome;
pub mod patched_funcs;
pub mod provenance;
pub mod render;
pub mod report;
pub mod round;
pub mod scan;
pub mod share;
pub mod spec;
pub mod suse;
pub mod task;
pub mod words;

pub use arch::Arch;
pub use codestream::Codestream;
pub use filter::CodestreamFilter;
pub use share::{Reason, Share, Submitter};

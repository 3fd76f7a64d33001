//! The whole system under test: the real programs as processes, real sockets, real kernel trees.
//!
//! A [`Farm`] is a coordinator with its workers; its verbs start, kill and restart them. Everything it starts is killed
//! when it is dropped. [`suse`] makes small kernels of our own in SUSE's layout. Tests that need kernels read KLP_FARM_TREES, which `make test` sets.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

pub mod bench;
mod browser;
mod disk;
mod farm;
mod http;
mod identity;
mod manager;
mod net;
mod proc;
pub mod prometheus;
mod qemu;
mod s3;
mod serve;
pub mod suse;
mod tools;

pub use browser::{Browser, Theme, WIDTHS, keys};
pub use disk::Disk;
pub use farm::{CommandResult, Farm, SUBMIT, WorkerOptions};
pub use http::{Answer, Http};
pub use identity::Identity;
pub use manager::Manager;
pub use net::Net;
pub use proc::{Proc, command_on, program, wait_until};
pub use qemu::Machine;
pub use s3::S3;
pub use serve::serve;
pub use tools::{Tools, runs};

use std::path::{Path, PathBuf};

/// The folder of kernel trees. `None` only for who asks to go without: a test that is skipped unasked proves nothing.
pub fn trees() -> Option<PathBuf> {
    match (
        std::env::var_os("KLP_FARM_TREES"),
        std::env::var_os("KLP_FARM_SKIP_REAL"),
    ) {
        (Some(dir), _) => Some(dir.into()),
        (None, Some(_)) => None,
        (None, None) => panic!(
            "KLP_FARM_TREES is not set: run `make test`, which makes kernel trees and sets it, or set KLP_FARM_SKIP_REAL=1 \
             to go without the tests on real kernels"
        ),
    }
}

/// One codestream that these trees hold, for a test to which one is enough.
pub fn one_codestream(trees: &Path) -> String {
    let kernels = std::fs::read_dir(trees.join("x86_64")).expect("trees of x86_64");
    let names = kernels.map(|entry| {
        entry
            .expect("readable")
            .file_name()
            .into_string()
            .expect("a codestream")
    });
    names.max().expect("a tree")
}

//! The coordinator of klp-farm: takes livepatches, splits them into tasks, hands these to workers, and tells how it goes.
//!
//! The main path: [`api`] takes a submission, has it tried out ([`tryout`]), and [`ledger`] stores it with the tasks that [`plan`] names. The loop of
//! [`farm`] hears of them, [`schedule`] matches them with free workers, and `ledger` leases them as [`lifecycle`] says;
//! each worker's session is told what to run. The worker uploads what it made to [`blobs`], its log to [`logs`], and
//! commits: one `ledger` transaction over the [`store`] with outcome, event and what `plan` wants next, until
//! the livepatch has its verdict.
//!
//! Who may ask for what is decided in [`auth`].
//!
//! What happens is counted in [`metrics`], for whoever watches the farm.
//!
//! Beside it, the data is looked after: [`logs`] compresses, [`admin`] checks, copies and clears away, [`space`] says what
//! to refuse while the disk has little room.
//!
//! `plan`, `schedule` and `lifecycle` are pure; `ledger` is all that writes; everything in memory can be read anew.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod failpoint;
pub mod lifecycle;
pub mod plan;
mod provenance;
pub mod schedule;
pub mod standing;
pub mod store;

mod api;
mod aside;
mod auth;
mod bell;
mod blobs;
mod clock;
mod disk;
mod errands;
mod farm;
mod groups;
pub mod ledger;
mod logs;
mod metrics;
#[cfg(test)]
mod model;
mod server;
#[cfg(test)]
mod simulation;
mod space;
mod tryout;
mod versions;
mod web;

pub use aside::Aside;
pub use auth::methods;
pub use auth::rotation::Step;
pub use clock::Clock;
pub use config::{Config, ConfigError};
pub use farm::Pulse;
pub use server::{Connection, Coordinator, Ground, Heart, StartError};

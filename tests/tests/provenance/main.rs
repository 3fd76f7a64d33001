//! What sources were made from, stated by a real farm about real kernels: it can be checked offline, and whatever was changed
//! afterwards is noticed.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod alike;
mod altered;
mod former;
mod got;

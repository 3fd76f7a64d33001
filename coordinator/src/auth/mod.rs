//! Who is let in, and to what.
//!
//! A connection comes through the [`door`], by TLS as [`tls`] has it from its files, and brings what is known of its peer.
//! Each request passes the [`gate`]: it finds out who the [`caller`] is, by the [`book`] of tokens and certificates, asks
//! [`methods`], the one table of what needs which role, and keeps to the [`limits`]. [`layer`] puts the gate before gRPC,
//! `web::guard` before HTTP, where browsers have [`sessions`]. What callers change is told by their [`deed`]s.
//! How the farm's CA is replaced is decided by [`rotation`]. What the coordinator states it signs with the key of [`signing`].

mod body;
mod book;
pub mod caller;
mod deed;
mod door;
mod gate;
mod layer;
mod limits;
pub mod methods;
pub mod rotation;
mod sessions;
pub mod signing;
mod tls;

pub use book::Book;
pub use caller::{Caller, Peer};
pub use deed::Deed;
pub use door::{Door, accept, incoming};
pub use gate::{Gate, Presented};
pub use layer::Guard;
pub use sessions::LIFE as SESSION_LIFE;
pub use tls::{Tls, files};

pub use body::{Last, until_revoked};

//! The farm at a glance: [`Poll`] asks the coordinator, [`farm`] is what it said, [`view`] what a person chose to see of
//! it, [`tables`] and [`draw`] make a frame of both, and [`live()`] runs them. [`once`] tells it where there is no screen.

mod draw;
mod farm;
mod live;
mod once;
mod poll;
mod tables;
mod view;

pub use live::live;
pub use once::{describe, picture};
pub use poll::Poll;

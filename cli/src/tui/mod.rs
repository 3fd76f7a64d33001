//! What everything that is drawn on a whole terminal has in common: [`Screen`] takes the terminal and gives it back,
//! [`Inputs`] tells what happens to it, [`paint`] and [`Scroll`] draw what doesn't fit.

mod inputs;
pub mod paint;
mod screen;
mod scroll;
#[cfg(test)]
pub mod testing;
mod theme;

pub use inputs::{Input, Inputs};
pub use screen::Screen;
pub use scroll::Scroll;
pub use theme::{Theme, mark};

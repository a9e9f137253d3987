//! What runs the golden scripts.

mod args;
mod commands;
mod format;
mod show;
mod world;

pub use format::{Outcome, check};

//! The driver: feeds a [`quorate_core::Raft`] with what happens, and does what it asks for.

mod transport;

pub use transport::{BoxFuture, ForwardError, Inbound, Transport};

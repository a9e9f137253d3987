//! Transports on loopback: with each other, with strangers, and with hostile peers.

mod common;
mod connections;
mod forward;
mod hostile;
mod messages;
mod refusals;

//! Transports on loopback: with each other, with strangers, and with hostile peers.

mod allowed;
mod book;
mod bulk;
mod common;
mod connections;
mod forward;
mod hostile;
mod messages;
mod refusals;
mod rotation;
mod storms;
mod versions;

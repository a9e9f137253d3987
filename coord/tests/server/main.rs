//! The services, by a real client over TCP.
#![cfg(feature = "server")]

mod cluster;
mod single;
mod snapshot;
mod support;

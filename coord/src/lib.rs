//! A coordination engine on quorate: etcd's revisioned key-value store, replicated, and served with etcd's v3 API.
//!
//! - [`pb`]: the messages, compiled from `proto/`.
//! - [`machine`]: the replicated store, pure: no I/O, no clock, no randomness. It is all that is built without the
//!   feature `server`.
//! - `server`: the gRPC services over a running node.
//! - `metrics`: what a process tells about itself, and the endpoint where Prometheus asks for it.

pub mod machine;
#[cfg(feature = "server")]
pub mod metrics;
pub mod pb;

#[cfg(feature = "server")]
pub mod server;

/// The pages for users, whose code is compiled with the tests: here, where all the crates are.
#[cfg(all(doctest, feature = "server"))]
mod pages {
    #[doc = include_str!("../../docs/guide.md")]
    struct Guide;
    #[doc = include_str!("../../docs/migration.md")]
    struct Migration;
}

//! Messages and services, compiled from `proto/` by the build script; the comments there document them.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]

/// The key-value API, compatible with etcd's on the wire.
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// What a stored key looks like.
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

/// quorate's own definitions, in modules as their package is named.
pub mod quorate {
    pub mod coord {
        /// What is in a log entry, and its answer.
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/quorate.coord.v1.rs"));
        }
    }
}

pub use quorate::coord::v1 as command;

/// All the definitions, encoded as a `FileDescriptorSet`: what gRPC reflection serves.
#[cfg(feature = "server")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

//! A store and a network that live in memory: for tests, examples and caches that may forget.

mod network;
mod snapshots;
mod store;

pub use network::MemoryNetwork;
pub use snapshots::{MemorySnapshotReader, MemorySnapshotWriter, MemorySnapshots};
pub use store::{MemoryStore, MemoryStoreError, MemoryStoreReader};

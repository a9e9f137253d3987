//! The driver: feeds a [`quorate_core::Raft`] with what happens, and does what it asks for.
//!
//! A [`Node`] is a replica of a [`StateMachine`](quorate_core::StateMachine). It is given a
//! [`Store`](quorate_core::Store) and, unless it is alone, a [`Transport`]; then any node takes proposals and serves
//! linearizable reads.
//!
//! ```
//! use bytes::Bytes;
//! use quorate_core::{Entry, Membership, NodeId, StateMachine};
//! use quorate_runtime_tokio::{MemoryStore, Node};
//!
//! struct Latest(Bytes);
//!
//! impl StateMachine for Latest {
//!     type Command = Bytes;
//!     type Reply = Bytes; // what was there before
//!     fn apply(&mut self, entry: &Entry) -> Bytes {
//!         std::mem::replace(&mut self.0, entry.payload.clone())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
//! let node = Node::builder(NodeId(1)).store(store).start(Latest(Bytes::new())).await?;
//! node.propose("one").await?;
//! assert_eq!(node.propose("two").await?, "one");
//! assert_eq!(node.read(|machine| machine.0.clone()).await?, "two");
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! ```text
//!   callers ──┐                                    ┌──► store thread ── one durable commit for all that waits
//!   peers ────┼──► inbox ──► the task that owns ───┼──► read thread ─── old entries, for a slow follower or apply
//!   threads ──┘              the Raft              ├──► apply thread ── the state machine: commands, reads
//!                            (does nothing slow)   └──► transport ───── messages to peers
//! ```
//!
//! The task takes up everything that waits at once. Proposals that have come together are proposed together: one block
//! in the log, one write. Reads that have come together share a read index. The store thread makes all writes that it
//! finds durable with one commit, so the slower the disk, the bigger the commits. Each thread wakes the task when it has
//! done something, and the task sleeps until then, or until the core's next deadline. A slow state machine or disk
//! delays its own callers, and never a heartbeat.
//!
//! Time is measured by a clock that goes on while the machine is suspended (CLOCK_BOOTTIME on Linux, where
//! `std::time::Instant` stands still then), for a leader's lease rests on it.
//!
//! # Snapshots
//!
//! When the log has grown by so many entries or bytes ([`SnapshotPolicy`]), or [`Node::snapshot`] asks for it, the apply
//! thread has the state machine [hold its state still](quorate_core::StateMachine::freeze), which should take no time; another
//! thread writes it, no faster than [`SnapshotLimits`] say, while commands go on being applied. Once it is durable the log is cut to it,
//! a piece at a time. A follower that lacks what was cut gets the newest snapshot over a stream of its own, which gives
//! way to all else; it goes on where it was if it is cut short; and a leader that sends as many as it may already has another
//! member send its own. The follower's core hears of it when it is published in its store, and not before.
//! [`Node::snapshot_progress`] shows what is going on, [`Node::snapshot_counts`] what was.
//!
//! # What is bounded, and by what
//!
//! | queue | bound | beyond it |
//! | --- | --- | --- |
//! | proposals without an outcome | [`Builder::max_pending`] | [`ProposeError::Overloaded`] |
//! | time that the oldest of 256 and more proposals has waited, while somebody leads | a quarter of [`Builder::request_timeout`] | the same |
//! | bytes of proposals not yet taken up | `Config::max_uncommitted_bytes` | the same |
//! | bytes of proposals not yet committed | `Config::max_uncommitted_bytes`, in the core | the same |
//! | bytes of commands for another node, or until one leads | `Config::max_uncommitted_bytes` | [`ProposeError::Overloaded`] |
//! | reads without an answer | [`Builder::max_pending`] | [`ReadError::Overloaded`] |
//! | messages not yet taken up | 16,384, and `Config::max_unpersisted_bytes` | dropped |
//! | bytes of entries for the store thread | `Config::max_unpersisted_bytes` | proposals are refused, appends dropped |
//! | entries for the apply thread | `Config::max_applying_bytes`, in the core | no more come |
//! | requests about the cluster | [`Builder::max_pending`]; under way: one transfer and one change, in the core | [`ControlError::Overloaded`], or why not now |
//! | snapshots being taken | one in a process; others wait | |
//! | snapshots being sent, and received | [`SnapshotLimits`]; others wait their turn | refused as busy after a while, and offered again |
//! | bytes of a snapshot in memory | one or two chunks for each transfer | the stream slows the sender down |
//! | streams of which nobody knows yet what they want | 64 | dropped |
//! | questions for the read thread | one for each peer and one for apply, in the core; one for each feed | no more come |
//! | entries kept for feeds, all together | [`Builder::feed_bytes`], and 128 bytes for each run of entries count as well; nothing without feeds | feeds that lag read the log |
//! | entries that a feed holds | what was asked for last: [`Feed::max_bytes`], or one entry | it is told no more before it is asked |
//! | hashes of states to be compared | the last 256 of each replica | who lags by more is not compared |
//! | reports of hashes under way | one to each peer, of 16 hashes | the next one says it all |
//! | divergences that are told | one for each replica | the newest counts |
//!
//! # What was applied, for others
//!
//! [`Node::subscribe`] feeds a program with the entries that its node applies, from any index on, in order. Whoever keeps up
//! is told from memory; who lags, from the log; and where a snapshot has taken the place of the log the [`Feed`] says so and goes
//! on after the gap. A slow reader delays nobody.
//!
//! # Replicas that are not the same
//!
//! With [`Builder::compare_state_every`] the replicas tell each other what their [states hash
//! to](quorate_core::StateMachine::state_hash) at the same indexes. Two that have applied the same and differ are found by both:
//! [`Node::divergences`] says which, and between which two entries they began to.
//!
//! # Settings from a file
//!
//! [`NodeConfig`] is all settings of a node in one value, with the same defaults; [`Builder::with_config`] takes it. With the feature
//! `serde` it is read from TOML or whatever else serde reads.
//!
//! # Tests without waiting
//!
//! With the feature `virtual-time` a host can live in the time of a tokio runtime whose clock is paused
//! (`HostBuilder::in_virtual_time`): it starts no threads, and a run is the same whenever its seed is taken again.
//!
//! # Seeing what it does
//!
//! A node tells its [`metrics`](mod@metrics) to whatever recorder is installed, and makes [spans](trace) for each proposal, which
//! join up over all nodes, if a subscriber wants them.
//!
//! # Stores of your own
//!
//! What a [`Store`](quorate_core::Store) promises is held against a suite that any store can be run with: see the module `conformance`,
//! behind the feature of that name.
//!
//! # What it does not do
//!
//! A [`Node`] is one replica of one group; a [`Host`] has those of many. A machine whose
//! [`freeze`](quorate_core::StateMachine::freeze) gives nothing takes no snapshots, and its log grows for ever. Over a
//! [`Transport`] that carries no streams none are sent, and who lags too far can't be helped. A snapshot is written
//! whole each time: there are no incremental ones.

mod admission;
mod alarm;
mod apply;
mod background;
mod builder;
mod clock;
mod compare;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consistency;
mod control;
mod driver;
mod error;
mod feed;
mod forward;
mod health;
mod host;
mod inbox;
mod lane;
mod memory;
pub mod metrics;
mod node;
#[cfg(all(test, feature = "shuttle"))]
mod races;
#[cfg(feature = "record")]
mod record;
mod recorded;
pub mod sessions;
mod shared;
mod snapshot;
mod snapshots;
mod status;
mod sync;
mod thread;
pub mod trace;
mod transport;
mod waiters;

pub use crate::metrics::MetricsLevel;
pub use builder::{Builder, StartError};
pub use compare::Divergence;
pub use config::{LimitsConfig, NodeConfig, NodeConfigError};
pub use consistency::Consistency;
pub use error::{
    ControlError, FreezeError, GroupError, ProposeError, ReadError, SnapshotError, StopReason, Stopped,
};
pub use feed::{DEFAULT_BATCH_BYTES, Feed, FeedEntries, FeedError, FeedItem};
pub use host::{Host, HostBuilder};
#[cfg(feature = "virtual-time")]
pub use lane::Kind as WorkKind;
pub use memory::{
    MemoryNetwork, MemorySnapshotReader, MemorySnapshotWriter, MemorySnapshots, MemoryStore,
    MemoryStoreError, MemoryStoreReader,
};
pub use node::Node;
#[cfg(feature = "record")]
pub use quorate_core::recording::Payloads;
#[cfg(feature = "record")]
pub use record::{DumpError, Recording, RecordingDump, RecordingEnded, RecordingStatus};
pub use snapshot::SnapshotSource;
pub use snapshots::{
    SnapshotActivity, SnapshotConfigError, SnapshotCounts, SnapshotLimits, SnapshotPolicy, SnapshotProgress,
    SnapshotSourcing,
};
pub use status::{Counts, Leadership, NodeStatus, Progress};
pub use transport::{BoxFuture, BoxStream, ForwardError, Inbound, Stream, Transport};

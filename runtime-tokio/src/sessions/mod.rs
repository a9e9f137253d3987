//! Client sessions: a command that is sent again is applied once (dissertation, section 6.3).
//!
//! A node never tries a proposal again that may have happened, for then it might happen twice: it says
//! [`ProposeError::Unknown`](crate::ProposeError::Unknown), and leaves the matter to the caller. [`Sessions`] is a state
//! machine around the caller's that settles it: each command names its session and its place in it, and what was answered
//! is kept until the client has it. A [`Client`] then sends a command until it knows what has become of it.
//!
//! ```
//! use bytes::Bytes;
//! use quorate_core::{Entry, Membership, NodeId, StateMachine};
//! use quorate_runtime_tokio::{MemoryStore, Node, sessions::{Client, Limits, Sessions}};
//!
//! struct Count(u8);
//!
//! impl StateMachine for Count {
//!     type Command = Bytes;
//!     type Reply = Bytes;
//!     fn apply(&mut self, _: &Entry) -> Bytes {
//!         self.0 += 1;
//!         Bytes::copy_from_slice(&[self.0])
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
//! let machine = Sessions::new(Count(0), Limits::default())?;
//! let node = Node::builder(NodeId(1)).store(store).start(machine).await?;
//! let client = Client::<Count, _>::new(node.clone());
//! assert_eq!(client.propose("up").await?[..], [1]);
//! assert_eq!(client.propose("up").await?[..], [2]);
//! # client.close().await?;
//! # node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What the log decides
//!
//! Everything: a session is called by the index of the entry that registers it; when there are more than
//! [`Limits::sessions`], the one that no entry has named for longest goes; and if [`Limits::idle`] is set, time is what the
//! commands say it is. No replica looks at a clock.
//!
//! # What it does not do
//!
//! * **Machines on disk.** The table of sessions is in memory: it comes back from a snapshot and the log, in step with a
//!   machine within that does the same. A machine whose own storage is ahead of that snapshot would be ahead of the
//!   table, and a retry would be applied again. So [`Sessions::new`] refuses a machine that has
//!   [applied](quorate_core::StateMachine::applied) something, and [`Sessions`] stops the node at the first
//!   [flush](quorate_core::StateMachine::flush) after which the machine says so: not only at the next start, when it
//!   would be too late.
//! * **Reads.** They change nothing, and need no session.
//! * **Order.** Commands of one session that are under way together are applied in any order, as without sessions.

mod client;
mod machine;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub use client::{Client, Failure, Propose, SessionError};
pub use machine::{Sessions, SessionsError};
pub use table::{Limits, LimitsError, SnapshotError};
pub use wire::{Command, Reply, SessionId, WireError};

//! Snapshots: taken, sent, received, and the log cut to them.
//!
//! | | where | |
//! | --- | --- | --- |
//! | when, and how much of the log stays | `policy` | pure |
//! | writing a state that is held still | `take` | on a blocking thread, throttled, one at a time in a process |
//! | what is said on a stream | `frame` | versioned, with checksums |
//! | what the driver does about them | `keeper` | when one is due; the log cut piece by piece; sends begun and given up |
//! | the sender, for one stream | `send` | |
//! | the sender, until it has got there | `outgoing` | several streams; another node's snapshot when this one is busy |
//! | the receiver | `receive`, `serve` | staged, published, and only then told to the core |
//! | what all groups share | `desk`, `throttle`, `progress` | how many at a time, how fast, what is going on |
//!
//! # A transfer
//!
//! ```text
//!   leader                                   follower
//!     │ install: which snapshot, which term     │
//!     ├────────────────────────────────────────►│ waits its turn, opens the store
//!     │                        accept: from here│ (where an earlier transfer of the same bytes was cut)
//!     │◄────────────────────────────────────────┤
//!     │ chunk, chunk, …, end                    │ stages and syncs; the stream itself slows the leader down
//!     ├────────────────────────────────────────►│ publishes: length and checksum of the whole are compared
//!     │                                         │ then hands InstallSnapshot to its core
//!     │                                     done│
//!     │◄────────────────────────────────────────┤
//! ```
//!
//! A follower that has it says so (`holds`) instead of accepting, and is told which message to hand to its core
//! (`adopt`). So a leader can have *another* node bring the bytes (`relay`, `stage`), and what the follower's core hears still comes from the leader
//! itself, over a stream that the transport vouches for. The other snapshot may be of another index than the leader's: not before the leader's log
//! begins, or it would not help; earlier or later than the leader's own snapshot, both is well. The core of the leader takes
//! an acknowledgement of more than it has sent for impossible and ignores it; but the probe that follows every snapshot finds the
//! follower's log where it is, as entries before its base agree by definition.

mod desk;
mod erased;
mod error;
mod frame;
mod keeper;
mod outgoing;
mod policy;
mod progress;
mod receive;
mod send;
mod serve;
mod take;
#[cfg(test)]
mod tests;
mod throttle;

pub(crate) use desk::Desk;
pub(crate) use erased::{AnySnapshots, AnySource};
pub(crate) use keeper::{Keeper, News, SnapshotAnswer};
pub(crate) use outgoing::Ways;
pub(crate) use receive::Inlet;
pub(crate) use serve::{Local, serve};

pub use desk::{SnapshotLimits, SnapshotSourcing};
pub use policy::{SnapshotConfigError, SnapshotPolicy};
pub use progress::{SnapshotActivity, SnapshotCounts, SnapshotProgress};

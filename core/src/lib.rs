//! The Raft protocol as a pure, synchronous state machine: no I/O, no clock, no threads, no async, no `unsafe`.
//!
//! Raft keeps a log of commands the same on several nodes, as long as a majority of them lives (Ongaro and Ousterhout,
//! *In Search of an Understandable Consensus Algorithm*, 2014: "the paper" here; Ongaro's dissertation, *Consensus:
//! Bridging Theory and Practice*, of the same year: "diss."). This crate is to be read beside them: files and functions
//! are named as they name things, rules cite their section, and where we do otherwise it says
//! `Differs from the paper:` and why (all such places are listed below).
//!
//! # The contract
//!
//! ```text
//! raft.step(now, input) -> Result<(), Rejected>       // the only thing that changes anything
//! raft.poll() -> Option<Action>  /  raft.drain()      // what is to be done, from one queue
//! raft.deadline() -> Option<(Instant, Reason)>        // when to step with Input::Tick next
//! ```
//!
//! * Time and randomness are arguments. The same configuration, recovered state, inputs and polls give the same actions,
//!   bit for bit, everywhere: record the inputs of any run (feature `serde`) and replay it (feature `replay`).
//! * An [`Action`] may be done the moment it is polled, together with all the others. Three lanes keep their
//!   order: [writes](Action::Write); [applies](Action::Apply) and [restores](Action::Restore); messages to one peer of one
//!   [`Class`] (a hint). There is
//!   nothing like "send this only after that was saved" for a driver to forget: a message is held back until what it
//!   claims is durable ([`Message::claims`]).
//! * Durability is a [`Receipt`]: it comes with a [`Write`], can't be copied, and is used up by [`Input::Persisted`].
//! * A request carries the caller's [`Token`] and is resolved exactly once: by an error of [`Raft::step`] (refused,
//!   nothing happened), by [`Apply::done`], or by [`Action::Resolve`].
//! * After [`Input::StorageFailed`] every step says [`Rejected::Stopped`]. There is no retry: nobody knows what a
//!   disk holds after a failed fsync.
//! * No input makes it panic: bad ones are [`Rejected`], and change nothing.
//! * Everything is bounded, by [`Config`].
//!
//! `examples/plain_thread.rs` is a driver of threads and channels; the crate `quorate-runtime-tokio` is a real one.
//!
//! # From the paper to the files
//!
//! | paper | what | file |
//! | --- | --- | --- |
//! | Figure 2, "State" | currentTerm, votedFor, log, commitIndex, lastApplied | `raft.rs`, `log.rs`, `apply.rs` |
//! | Figure 2, "Rules for Servers"; Figure 4 | terms, roles | `raft.rs`, `receive.rs` |
//! | Figure 2, RPCs | messages, with `claims` | `message.rs`, `wire.rs` |
//! | §5.2, §5.4.1; diss. 4.2.3, 9.6 | elections, pre-vote, stickiness | `election.rs` |
//! | §5.3; diss. 10.2.1 | replication, consistency check, pipelining | `replication.rs`, `progress.rs` |
//! | §5.4.2, Figure 8 | commit rule | `replication.rs`, `quorum.rs` |
//! | §6; diss. 4.1, 4.3 | membership as a log entry, joint quorums | `membership.rs`, `memberships.rs`, `quorum.rs` |
//! | §6; diss. 4.2 | changing it, learners that catch up, a leader that leaves | `change.rs`, `reconfigure.rs` |
//! | §7, Figure 13 | snapshots, compaction | `snapshot.rs` |
//! | §8; diss. 6.4 | linearizable reads, leases | `read.rs` |
//! | diss. 3.10 | leadership transfer | `transfer.rs` |
//! | diss. 3.8, 10.2.1 | persist before send | `outbox.rs` |
//! | diss. 6.2 | a leader without a quorum steps down | `raft.rs` |
//! | — | groups without work sleep | `quiesce.rs` |
//!
//! # Where it differs
//!
//! * RPCs are one-way messages, and answers name what they answer. An append's answer says up to where the log is
//!   durable ([`Body::Appended`]) or which earlier entry could be common ([`Body::Conflict`]): a leader goes back a term
//!   at a time.
//! * Heartbeats are messages of their own, so that they never wait behind entries, and their answers rest on term and
//!   vote only, so that a read's round never waits for a log write.
//! * InstallSnapshot says which snapshot it is; the bytes travel beside it, in the driver's way.
//! * Any change of the membership is one request; where two majorities still overlap (diss. 4.1) it takes one entry, by joint
//!   consensus (§6) two.
//! * The first entry of a log is its membership, so that nothing depends on what each node was started with.
//! * The commit index travels with votes, too; a candidate that a quorum has refused gives up at once.
//! * Another term alone doesn't begin a follower's election timeout anew.
//! * Who keeps its vote back for a leader that it hears is silent; it doesn't refuse.
//! * A leader that is removed tells another to campaign, as if it handed over.
//! * A leader that has nothing to do falls silent, if [`Config::quiesce_after`] says so, once everyone has agreed; and a follower that
//!   has agreed waits for no election timeout (§5.2 has a leader speak for ever).
//! * A leader appends, sends and writes at once; its own log counts towards a majority when it is durable
//!   (diss. 10.2.1).
//!
//! # What is not here
//!
//! Client sessions (diss. 6.3) are a state machine's; bytes of snapshots and their chunks (Figure 13: offset, data, done) are a
//! driver's, and so is noticing that the leader of a group that sleeps is gone. Pre-votes, stickiness and leases assume nodes that may fail and not ones
//! that lie: a member that forges messages can do harm.
#![no_std]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_underscore,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        reason = "tests may fail loudly"
    )
)]

extern crate alloc;

mod action;
mod apply;
mod backlog;
mod change;
mod config;
mod election;
mod entry;
mod few;
mod fifo;
mod input;
mod log;
mod machine;
mod membership;
mod memberships;
mod message;
mod outbox;
mod progress;
mod quiesce;
pub mod quorum;
mod raft;
mod read;
mod receive;
mod reconfigure;
#[cfg(feature = "serde")]
pub mod recording;
mod recovery;
mod replication;
mod ring;
mod rng;
mod snapshot;
mod status;
mod store;
mod transfer;
mod types;
pub mod wire;

pub use action::{
    Action, Apply, Done, Event, Load, Outcome, Rebase, Receipt, RoleKind, SendSnapshot, Snapshot, Write,
};
pub use change::{ChangeError, ChangeOp, MembershipChange, Transition};
pub use config::{Config, ConfigError};
pub use entry::{Batch, BlockError, ENTRY_HEADER, Entry, EntryKind, EntryRef, EntryRefs, Run};
pub use few::Few;
pub use input::{Input, LoadId, Loaded, Proposal, ReadKind, Rejected, Resource, SendId};
pub use machine::{Frozen, Sink, Source, StateError, StateMachine};
pub use membership::{Membership, MembershipError, MembershipParts};
pub use message::{Body, Claims, Class, Malformed, Message, RequestId};
pub use raft::{Raft, Reason, StartError};
pub use status::{Mode, PeerStatus, Status};
pub use store::{
    LogReader, Recovered, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots, Store, TermStart,
};
pub use types::{
    GroupId, HardState, Incarnation, Index, Instant, LogId, NodeId, Term, Token, Tokens, WriteSeq,
};

//! The Raft protocol as a pure, synchronous state machine.
#![no_std]

extern crate alloc;

mod action;
mod apply;
mod config;
mod election;
mod entry;
mod few;
mod input;
mod log;
mod membership;
mod memberships;
mod message;
mod outbox;
mod progress;
pub mod quorum;
mod raft;
mod read;
mod replication;
mod rng;
mod status;
mod store;
mod types;

pub use action::{Action, Apply, Done, Event, Load, Outcome, Receipt, RoleKind, Write};
pub use config::{Config, ConfigError};
pub use entry::{Batch, BlockError, ENTRY_HEADER, Entries, Entry, EntryKind, Run, payloads};
pub use few::Few;
pub use input::{Input, LoadId, Loaded, Proposal, Rejected, Resource};
pub use membership::{Membership, MembershipError, MembershipParts};
pub use message::{Body, Claims, Class, Malformed, Message, RequestId};
pub use raft::{Raft, Reason, StartError};
pub use status::{Mode, PeerStatus, Status};
pub use store::{LogReader, Recovered, StateMachine, Store, TermStart};
pub use types::{
    GroupId, HardState, Incarnation, Index, Instant, LogId, NodeId, Term, Token, Tokens, WriteSeq,
};

pub mod wire;

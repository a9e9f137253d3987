//! A look at a node from outside: cheap, and nothing but data.

use alloc::vec::Vec;

use crate::{GroupId, Incarnation, Index, Instant, LogId, Membership, NodeId, RoleKind, Term};

/// What a node knows and does.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Status {
    /// Who it is.
    pub id: NodeId,
    /// In which group.
    pub group: GroupId,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The part it plays.
    pub role: RoleKind,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Where its log begins: what a snapshot has replaced.
    pub base: LogId,
    /// The newest snapshot; [`LogId::ZERO`] without one.
    pub snapshot: LogId,
    /// The end of its log.
    pub last: LogId,
    /// The end of the durable part of its log.
    pub durable: Index,
    /// commitIndex.
    pub commit: Index,
    /// lastApplied.
    pub applied: Index,
    /// The membership in force.
    pub membership: Membership,
    /// Since which index.
    pub membership_index: Index,
    /// To whom leadership is being handed over.
    pub transfer: Option<NodeId>,
    /// Until when a leader's lease lasts, by its clock; `None` without one.
    pub lease_until: Option<Instant>,
    /// A leader's view of the others; else empty.
    pub peers: Vec<PeerStatus>,
    /// Bytes of entries not yet committed.
    pub uncommitted_bytes: u64,
    /// Bytes of entries not yet durable.
    pub unpersisted_bytes: u64,
    /// Bytes of entries in memory.
    pub cached_bytes: u64,
    /// Requests without an outcome yet.
    pub pending: u64,
    /// Messages that wait for a write.
    pub parked: u64,
    /// How often `now` went backwards and was held.
    pub clock_regressions: u64,
    /// Does it sleep, for there is nothing to do?
    pub asleep: bool,
    /// Has the store failed?
    pub stopped: bool,
}

/// A leader's view of one other member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerStatus {
    /// Who.
    pub id: NodeId,
    /// matchIndex: its durable log agrees with the leader's up to here.
    pub match_index: Index,
    /// nextIndex: what is sent to it next.
    pub next_index: Index,
    /// How it is sent to.
    pub mode: Mode,
    /// Appends under way to it.
    pub inflight_messages: u64,
    /// Bytes of entries under way to it.
    pub inflight_bytes: u64,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mode {
    /// One append at a time, to find where the logs agree.
    Probe,
    /// As many as the window has room for.
    Replicate,
    /// Nothing: it lacks what the log no longer has, and is getting a snapshot.
    Snapshot,
}

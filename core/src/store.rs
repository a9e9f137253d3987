//! What a driver brings: somewhere durable, and something to replicate. The protocol never calls either.

use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

use crate::{
    Entry, GroupId, HardState, Incarnation, Index, Load, Loaded, LogId, Membership, Snapshot, Term, Write,
};

/// Durable state of one or more groups.
///
/// A store is owned by one thread that writes; [`Store::reader`] gives others a view.
pub trait Store: Send + 'static {
    /// What can go wrong. After an error from [`Store::commit`] the store is never written again.
    type Error: core::error::Error + Send + Sync + 'static;
    /// Reads the log beside the writer.
    type Reader: LogReader<Error = Self::Error>;

    /// What is durable of `group`, without its payloads, in a new incarnation whose number is durable before
    /// this returns.
    ///
    /// # Errors
    /// If the group does not exist, or anything in it is damaged or missing.
    fn recover(&mut self, group: GroupId) -> Result<Recovered, Self::Error>;

    /// Makes all the writes durable, in order, each atomically: in one transaction if it can. When it returns, their
    /// receipts may be handed in.
    ///
    /// # Errors
    /// If any of it may not be durable. No receipt may be handed in then.
    fn commit(&mut self, writes: &[Write]) -> Result<(), Self::Error>;

    /// There is nothing to write for a while: a store that leaves something for its next commit to make durable, such as
    /// what guards the last one, does so now. Does nothing by default.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn settle(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// A view of the log for another thread.
    fn reader(&self) -> Self::Reader;
}

/// Reads entries while another thread writes.
pub trait LogReader: Clone + Send + 'static {
    /// What can go wrong.
    type Error: core::error::Error + Send + Sync + 'static;

    /// The entries that `load` asks for; it may stop short, but not before the first. None at all if the log has been
    /// truncated below them since: nobody waits for them then.
    ///
    /// # Errors
    /// If they can't be read, or are damaged.
    fn load(&self, group: GroupId, load: &Load) -> Result<Loaded, Self::Error>;
}

/// What a store found when it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recovered {
    /// The number of this life of the node, never used before.
    pub incarnation: Incarnation,
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins: the last entry that was compacted away, or [`LogId::ZERO`].
    pub base: LogId,
    /// The membership in force at `base`.
    pub base_membership: Membership,
    /// The newest snapshot, at `base` or after it; `None` only if nothing was compacted.
    pub snapshot: Option<Snapshot>,
    /// For every term in the log, in order, the first index that has it.
    pub terms: Vec<TermStart>,
    /// The last index in the log, or `base`'s.
    pub last: Index,
    /// The memberships in the log above `base`, in order.
    pub memberships: Vec<(Index, Membership)>,
    /// What the state machine holds already: what it has applied durably, or the snapshot that its driver has restored
    /// before the start. Below `base` it counts as `base`.
    pub applied: Index,
}

impl Recovered {
    /// A new node's: nothing in the log, this membership. For the first nodes of a cluster it is the same everywhere;
    /// for one that joins later any without itself, such as the cluster's present one: the log brings the rest.
    #[must_use]
    pub const fn fresh(incarnation: Incarnation, membership: Membership) -> Self {
        Self {
            incarnation,
            hard_state: HardState { term: Term(0), vote: None },
            base: LogId::ZERO,
            base_membership: membership,
            snapshot: None,
            terms: Vec::new(),
            last: Index(0),
            memberships: Vec::new(),
            applied: Index(0),
        }
    }
}

/// From `first` on, entries are of `term`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TermStart {
    /// The first index of that term.
    pub first: Index,
    /// The term.
    pub term: Term,
}

/// What is replicated: the same commands in the same order give the same state everywhere.
pub trait StateMachine: Send + 'static {
    /// What a command answers to whoever proposed it. It has a byte form, so that an answer can travel to a node that
    /// forwarded the command.
    type Reply: Send + 'static + Into<Bytes> + TryFrom<Bytes, Error: fmt::Display>;

    /// Applies one command. Must depend on nothing but the state and the entry: no clock, no randomness.
    fn apply(&mut self, entry: &Entry) -> Self::Reply;

    /// A membership is committed at `id`. Of interest to few.
    fn membership(&mut self, _id: LogId, _membership: &Membership) {}
}

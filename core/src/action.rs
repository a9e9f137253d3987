//! What a node wants done: the one way out.

use alloc::boxed::Box;

use crate::{
    Few, GroupId, HardState, Incarnation, Index, LoadId, LogId, Membership, Message, Mode, NodeId, Run,
    SendId, Term, Tokens, WriteSeq,
};

/// Something to do. Each may be done the moment it is emitted, concurrently with all others, but for three ordered
/// lanes: [`Write`](Action::Write)s among themselves; [`Apply`](Action::Apply) and [`Restore`](Action::Restore) among
/// themselves; sends to one peer of one class (and that order is only a hint).
#[derive(PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
#[must_use = "an action that is dropped is a message lost, a write forgotten or a caller left waiting"]
pub enum Action {
    /// Send this, if you can: the network may lose it.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Make this durable, atomically, after the writes before it; then say so with its receipt.
    Write(Write),
    /// Apply these entries, in order; then say [`Input::Applied`](crate::Input::Applied).
    Apply(Apply),
    /// Replace the state machine's state by this snapshot, which is durable and adopted; then say
    /// [`Input::Applied`](crate::Input::Applied) up to its index.
    Restore(Box<Snapshot>),
    /// Stream a snapshot to a peer; then say [`Input::SnapshotSent`](crate::Input::SnapshotSent).
    SendSnapshot(SendSnapshot),
    /// Read these entries from the log; answer with [`Input::Loaded`](crate::Input::Loaded).
    Load(Load),
    /// A request is at its end.
    Resolve {
        /// Which.
        tokens: Tokens,
        /// How.
        outcome: Outcome,
    },
    /// Something worth telling: for logs, metrics and pictures. May be ignored.
    Event(Event),
}

/// One atomic change of what is durable: all of it or nothing.
#[derive(PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
#[must_use = "a write that is dropped stops its node for ever"]
pub struct Write {
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// Lets the log begin later, before anything else.
    pub rebase: Option<Box<Rebase>>,
    /// Removes the entries at this index and after, before anything is appended.
    pub truncate: Option<Index>,
    /// Appends these, without a gap.
    pub entries: Few<Run>,
    pub(crate) receipt: Receipt,
}

#[cfg(feature = "replay")]
impl Write {
    /// A write that does nothing yet, with a receipt from thin air: its public fields are for the caller to fill in. For
    /// tests of stores, which take writes that no core has made.
    pub const fn minted(group: GroupId, incarnation: Incarnation, seq: WriteSeq) -> Self {
        let receipt = Receipt { group, incarnation, first: seq, last: seq };
        Self { hard_state: None, rebase: None, truncate: None, entries: Few::new(), receipt }
    }
}

impl Write {
    /// Its number.
    #[must_use]
    pub const fn seq(&self) -> WriteSeq {
        self.receipt.last
    }

    /// Bytes of entries in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// Its receipt, to be handed in by [`Input::Persisted`](crate::Input::Persisted) once all of it is durable.
    pub const fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Takes the receipt: to be called when all of it is durable, and not before.
    #[inline]
    pub fn into_receipt(self) -> Receipt {
        self.receipt
    }
}

/// A point in the log, and the membership in force there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Snapshot {
    /// The last entry that it includes: lastIncludedIndex, lastIncludedTerm (paper §7).
    pub last: LogId,
    /// The membership in force there.
    pub membership: Membership,
}

/// Where a log begins anew. What is before comes from a snapshot that is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Rebase {
    /// Compaction: the entries up to `last` are removed, and only those. A snapshot at or after it is there.
    Compact(Snapshot),
    /// The staged snapshot at `last` becomes the newest one, and the log holds nothing else: it begins and ends there.
    Install(Snapshot),
}

/// A snapshot that a peer is to get.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SendSnapshot {
    /// To be given back at its end.
    pub id: SendId,
    /// To whom.
    pub to: NodeId,
    /// A [`Body::InstallSnapshot`](crate::Body::InstallSnapshot), which says which snapshot: the newest that
    /// [`Input::Compact`](crate::Input::Compact) told of, or that was installed. It goes last: the peer's driver hands it
    /// to the peer's core once the bytes are staged, durably.
    pub message: Message,
}

/// The proof, in the type system, that somebody has dealt with a [`Write`]: it can't be copied and is used up by
/// [`Input::Persisted`](crate::Input::Persisted).
#[derive(PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
#[must_use = "a receipt that is not handed in holds up all that waits for it"]
pub struct Receipt {
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) first: WriteSeq,
    pub(crate) last: WriteSeq,
}

impl Receipt {
    /// Which group's.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// Of which incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The newest write it stands for.
    #[must_use]
    pub const fn seq(&self) -> WriteSeq {
        self.last
    }

    /// One receipt for this write and the `next` one, as a group commit gives for all the writes it has merged.
    ///
    /// # Errors
    /// Both are given back if `next` does not follow at once.
    pub fn merge(self, next: Self) -> Result<Self, (Self, Self)> {
        let follows = self.group == next.group
            && self.incarnation == next.incarnation
            && self.last.next() == next.first;
        if follows { Ok(Self { last: next.last, ..self }) } else { Err((self, next)) }
    }
}

/// Committed entries, to be applied in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Apply {
    /// The entries, without a gap after those of the `Apply` before.
    pub entries: Few<Run>,
    /// Which of them were proposed here, by whom: with this, those proposals are resolved as done.
    pub done: Few<Done>,
}

impl Apply {
    /// The last index in it.
    #[must_use]
    #[inline]
    pub fn last(&self) -> Index {
        self.entries.last().map_or(Index(0), Run::last)
    }
}

/// Proposals that are committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Done {
    /// Where the first of them is.
    pub first: Index,
    /// Their names.
    pub tokens: Tokens,
}

/// A question to the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Load {
    /// To be given back with the answer.
    pub id: LoadId,
    /// From here.
    pub first: Index,
    /// Up to here; there is an entry at `first` at least.
    pub last: Index,
    /// Stop after this many bytes of entries, but answer with one entry at least.
    pub max_bytes: usize,
}

/// How a request ended, other than a proposal that is done: that is said by [`Apply::done`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// A read is linearizable once the state machine has applied `index`; everything up to there has been handed to
    /// apply, so a driver that sends reads down the apply lane need not even look.
    Read {
        /// readIndex (dissertation 6.4).
        index: Index,
    },
    /// The membership that was asked for is committed: the final one, or a joint one that is to be left on request.
    Changed {
        /// Where it is in the log.
        index: Index,
    },
    /// Leadership was handed over.
    Transferred {
        /// To whom.
        to: NodeId,
    },
    /// Nothing happened: ask again, or ask the leader.
    Refused {
        /// Who leads now, as far as is known.
        leader: Option<NodeId>,
    },
    /// It may yet be committed, or never: leadership was lost, or the store failed, after it was appended.
    Unknown,
}

/// The part that a node plays in its term (paper §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RoleKind {
    /// Answers others.
    Follower,
    /// Asks whether an election could be won, before it disturbs anyone.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Decides.
    Leader,
}

/// Something worth telling.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// The node plays another part, or the same in another term.
    Role {
        /// Its term.
        term: Term,
        /// Its part.
        role: RoleKind,
    },
    /// Somebody is known to lead, or nobody is any more.
    Leader {
        /// In which term.
        term: Term,
        /// Who.
        leader: Option<NodeId>,
    },
    /// The end of the log has been replaced: a leader's log differs from there on.
    Truncated {
        /// From this index.
        from: Index,
        /// The last one that was there.
        last: LogId,
    },
    /// Another membership is in force.
    Membership {
        /// Since this index.
        index: Index,
        /// Which.
        membership: Box<Membership>,
    },
    /// The log begins later.
    Compacted {
        /// After this entry.
        base: LogId,
    },
    /// A snapshot took the place of the log.
    Installed {
        /// What it includes.
        last: LogId,
    },
    /// A leader sends to a peer in another way.
    Peer {
        /// To whom.
        id: NodeId,
        /// How.
        mode: Mode,
    },
    /// Leadership is being handed over, or (`None`) no longer.
    Transfer {
        /// To whom.
        to: Option<NodeId>,
    },
    /// The node sleeps: it has nothing to do, and no deadline ([`Config::quiesce_after`](crate::Config)).
    Asleep,
    /// It sleeps no more.
    Awake,
    /// The store has failed: this incarnation is over.
    Stopped,
}

//! What happens to a node: the one way in.

use crate::{
    Batch, ChangeError, Few, Index, Malformed, MembershipChange, Message, NodeId, Receipt, RequestId, Run,
    Term, Token, Tokens,
};

/// Something happened. Handed to [`Raft::step`](crate::Raft::step) with the time at which it was taken up.
#[derive(PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
// With a tag of its own, instead of one hidden somewhere in the message, it is known at compile time which input it is
// where a driver makes one.
#[repr(u8)]
pub enum Input {
    /// Time has passed: the only input that fires timers. A driver empties its inbox first, so that a process
    /// that was paused doesn't depose a leader whose messages lie waiting.
    Tick,
    /// A message came. The transport vouches for `from`.
    Receive {
        /// Its author.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Please replicate these commands.
    Propose(Proposal),
    /// Please tell me from where on a read may be served.
    Read {
        /// The caller's name for it.
        token: Token,
        /// What it promises.
        kind: ReadKind,
    },
    /// Gives up a [`ReadKind::AtLeast`] that still waits: it is refused. Nothing happens if none of that name does.
    CancelRead {
        /// The name under which it was asked for.
        token: Token,
    },
    /// Please change who is in the cluster. Resolved by [`Outcome::Changed`](crate::Outcome).
    ChangeMembership {
        /// The caller's name for it.
        token: Token,
        /// What is to change.
        change: MembershipChange,
    },
    /// Please hand leadership over. Proposals are refused meanwhile; after an election timeout it is given up. Resolved by
    /// [`Outcome::Transferred`](crate::Outcome).
    TransferLeadership {
        /// The caller's name for it.
        token: Token,
        /// To whom; `None`: to the voter that has most of the log.
        to: Option<NodeId>,
    },
    /// Gives up handing leadership over, as far as that is possible still.
    AbortTransfer,
    /// Please lead no longer, whoever leads next: this node's disk makes no progress, say. It follows nobody then, and waits
    /// as long as a node of priority 0 before it campaigns. Its reads and transfers end as with any loss of leadership.
    StepDown,
    /// Please campaign now, not only when the leader is silent. It forces nothing: those who hear a leader still refuse.
    Campaign,
    /// The leader is known to be gone: who is asked for a vote need not wait. Refused with
    /// [`Config::lease_reads`](crate::Config), for a leader may rest on being heard.
    ForgetLeader,
    /// A snapshot of the state machine at `snapshot` is durable: the log may begin later. It keeps `keep` entries before
    /// that, for followers that lag a little: enough, if it can be, for what is committed while a snapshot is on its way to one.
    Compact {
        /// Which: applied already, and no older than the one before.
        snapshot: Index,
        /// How many entries to keep.
        keep: u64,
    },
    /// What an [`Action::SendSnapshot`](crate::Action::SendSnapshot) asked for is over: everything was handed over, or
    /// not.
    SnapshotSent {
        /// Its id.
        id: SendId,
        /// Did all of it arrive?
        arrived: bool,
    },
    /// The transport has lost touch with a peer, and what is under way to it. The peer is the other node's part of this group: a
    /// process that lives, but has stopped the group, is out of touch too.
    ///
    /// With [`Config::quiesce_after`](crate::Config) nothing else tells a follower that sleeps of a leader that is gone. So it is
    /// said whenever touch is lost, of every peer and to whoever it is lost by; and to a node that starts, of all with whom
    /// there is none.
    Unreachable {
        /// Which.
        peer: NodeId,
    },
    /// The transport is in touch with a peer again, or for the first time: a leader that sleeps without it brings it up to date. Owed
    /// after each [`Input::Unreachable`], also one that was a mistake: until then nobody sleeps by that peer's leave.
    Reachable {
        /// Which.
        peer: NodeId,
    },
    /// A write is durable. Consumes its receipt.
    Persisted(Receipt),
    /// What an [`Action::Load`](crate::Action::Load) asked for.
    Loaded {
        /// Its id.
        id: LoadId,
        /// What was found.
        result: Loaded,
    },
    /// The state machine has applied what it was handed, up to here. It says nothing of another life: a group that is started
    /// again in one process has its apply lane emptied first.
    Applied {
        /// The last index applied.
        up_to: Index,
    },
    /// The store has failed: final for this incarnation, there is no retry.
    StorageFailed,
}

impl Input {
    /// A linearizable read.
    #[must_use]
    pub const fn read(token: Token) -> Self {
        Self::Read { token, kind: ReadKind::Linearizable }
    }
}

/// Commands, and the names under which the caller wants to hear of them: one token an entry.
///
/// They are taken or refused together, so a driver that merges proposals keeps a batch below
/// [`Config::max_uncommitted_bytes`](crate::Config).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Proposal {
    /// The name of the first; the others count on from it.
    pub first_token: Token,
    /// The commands.
    pub batch: Batch,
    /// Only in this term: refused in any other. So a leader's own decision is never carried out by a later leadership.
    pub term: Option<Term>,
}

impl Proposal {
    /// One command.
    #[must_use]
    pub fn one(token: Token, command: &[u8]) -> Self {
        Self::new(token, Batch::one(command))
    }

    /// Some commands, in whatever term.
    #[must_use]
    pub const fn new(first_token: Token, batch: Batch) -> Self {
        Self { first_token, batch, term: None }
    }

    /// The tokens of all its commands.
    #[must_use]
    pub const fn tokens(&self) -> Tokens {
        Tokens { first: self.first_token, count: self.batch.count() }
    }
}

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ReadKind {
    /// It reflects all that was acknowledged before it began: a round of heartbeats confirms that (paper §8, dissertation
    /// 6.4).
    #[default]
    Linearizable,
    /// The same, as long as no clock drifts by more than [`Config::max_clock_drift`](crate::Config): asked of the leader,
    /// its lease saves the round (dissertation 6.4.1). Without one, and on any other node, it is
    /// [`ReadKind::Linearizable`].
    Lease,
    /// It reflects everything up to this index, and asks nobody: for a caller that knows what it has seen or written.
    AtLeast(Index),
}

/// Names a snapshot under way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct SendId(pub RequestId);

/// Names a question to the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct LoadId(pub RequestId);

/// What the store found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Loaded {
    /// Entries from the first one asked for, without a gap; at least one, maybe fewer than asked for.
    Entries(Few<Run>),
    /// They are gone: a snapshot has taken their place.
    Compacted,
}

/// The input was refused and nothing was changed by it. For a request this is its resolution: refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Rejected {
    /// Only a leader takes proposals.
    #[error("not the leader{}", Hint(*.leader))]
    NotLeader {
        /// Who leads in the current term, as far as is known.
        leader: Option<NodeId>,
    },
    /// The caller wanted another term.
    #[error("the term is {term}, not the one that was asked for")]
    WrongTerm {
        /// The current term.
        term: Term,
    },
    /// No proposals and no changes while leadership is handed over.
    #[error("leadership is being handed over to node {to}")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// Nobody of that name could lead.
    #[error("leadership can't be handed over: there is no such other voter")]
    NoSuchVoter,
    /// Only a voter campaigns.
    #[error("only a voter may campaign")]
    NotVoter,
    /// With leases, a leader rests on being heard: nobody campaigns, or forgets it, until that is over.
    #[error("a leader may hold a lease that rests on this node")]
    Leased,
    /// The membership can't be changed like this, or not now.
    #[error("membership: {0}")]
    Change(ChangeError),
    /// A snapshot of something that isn't applied, or older than the last.
    #[error("no snapshot at {snapshot}: it must be from {from} on and applied, which is so up to {applied}")]
    BadSnapshot {
        /// Where it is said to be.
        snapshot: Index,
        /// The last one's index.
        from: Index,
        /// Up to here the state machine is.
        applied: Index,
    },
    /// Nobody waits to hear of that snapshot any more: harmless.
    #[error("nobody waits for the end of this snapshot")]
    StaleSend,
    /// An answer, or something that only members ask, from a node that has left or was never in: harmless.
    #[error("node {from} is no member (any more)")]
    NotMember {
        /// Who.
        from: NodeId,
    },
    /// Nobody to ask for a read index.
    #[error("no leader is known in term {term}")]
    NoLeader {
        /// The current term.
        term: Term,
    },
    /// A bound would be passed; try again when some of it has been worked off.
    #[error("overloaded: {what} would pass its bound of {bound}")]
    Overloaded {
        /// What would.
        what: Resource,
        /// How much there may be.
        bound: u64,
    },
    /// A batch without commands.
    #[error("a proposal without commands")]
    Empty,
    /// A batch that no log could ever take, for it is bigger than the bound itself.
    #[error("a proposal of {bytes} bytes is bigger than may ever be uncommitted ({bound})")]
    TooBig {
        /// Its size.
        bytes: u64,
        /// The bound.
        bound: u64,
    },
    /// A message that no correct node sends.
    #[error("malformed message: {0}")]
    Malformed(#[cfg_attr(feature = "serde", serde(skip))] Malformed),
    /// An answer, or something only a leader says, from a node that can't have sent it.
    #[error("unexpected message from node {from}")]
    Unexpected {
        /// Who sent it.
        from: NodeId,
    },
    /// A receipt of another incarnation or group, or out of turn.
    #[error("stale or out-of-order receipt")]
    StaleReceipt,
    /// An answer that nobody waits for, any more or at all: harmless.
    #[error("nobody waits for these entries")]
    StaleLoad,
    /// The answer to a question, but not with entries of this log: the store is damaged, or answers wrongly, and the
    /// question stays open. A driver says [`Input::StorageFailed`] then.
    #[error("the store answers with entries that are not those of this log")]
    BadLoad,
    /// More applied than was handed out, or less than before.
    #[error("applied up to {up_to}, but only {handed} was handed out")]
    BadApplied {
        /// What was said.
        up_to: Index,
        /// What would have been possible.
        handed: Index,
    },
    /// The log has no room for another term or index: 2⁶³ of them have been used.
    #[error("terms or indexes are used up")]
    Exhausted,
    /// The store has failed; only a new incarnation may go on.
    #[error("stopped: the store has failed")]
    Stopped,
}

/// What is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Resource {
    /// Bytes proposed and not yet committed, or not yet handed to apply.
    UncommittedBytes,
    /// Bytes appended and not yet durable.
    UnpersistedBytes,
    /// Reads that wait for an answer.
    Reads,
    /// Actions that nobody has polled.
    Actions,
}

impl core::fmt::Display for Resource {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::UncommittedBytes => "uncommitted bytes",
            Self::UnpersistedBytes => "unpersisted bytes",
            Self::Reads => "pending reads",
            Self::Actions => "undrained actions",
        })
    }
}

struct Hint(Option<NodeId>);

impl core::fmt::Display for Hint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |leader| write!(f, "; try node {leader}"))
    }
}

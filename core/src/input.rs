//! What happens to a node: the one way in.

use crate::{Batch, Few, Index, Malformed, Message, NodeId, Receipt, Run, Term, Token, Tokens};

/// Something happened. Handed to [`Raft::step`](crate::Raft::step) with the time at which it was taken up.
#[derive(PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
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
    /// Please tell me from where on a read is linearizable.
    Read {
        /// The caller's name for it.
        token: Token,
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
    /// The state machine has applied what it was handed, up to here.
    Applied {
        /// The last index applied.
        up_to: Index,
    },
    /// The store has failed: final for this incarnation, there is no retry.
    StorageFailed,
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
}

impl Proposal {
    /// One command.
    #[must_use]
    pub fn one(token: Token, command: &[u8]) -> Self {
        Self { first_token: token, batch: Batch::one(command) }
    }

    /// The tokens of all its commands.
    #[must_use]
    pub const fn tokens(&self) -> Tokens {
        Tokens { first: self.first_token, count: self.batch.count() }
    }
}

/// Names a question to the log, within an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct LoadId(pub u64);

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
    /// Bytes proposed and not yet committed.
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

//! A look at a node from outside.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quorate_core::{Index, NodeId, Raft, RoleKind, Status, Term};

/// Who leads, as a node knows it. Watch it with [`Node::leadership`](crate::Node::leadership).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// The node's term.
    pub term: Term,
    /// Who leads in it, as far as is known.
    pub leader: Option<NodeId>,
    /// The node's own part.
    pub role: RoleKind,
}

impl Leadership {
    pub(crate) const fn of(raft: &Raft) -> Self {
        Self { term: raft.term(), leader: raft.leader(), role: raft.role() }
    }
}

/// How far a node has come. Watch it with [`Node::progress`](crate::Node::progress), or wait for what it should be with
/// [`Node::until`](crate::Node::until).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Who leads.
    pub leadership: Leadership,
    /// The end of the log.
    pub last: Index,
    /// The end of its durable part.
    pub durable: Index,
    /// commitIndex, as far as the node knows.
    pub commit: Index,
    /// The last entry that the state machine has applied.
    pub applied: Index,
}

impl Progress {
    pub(crate) const fn of(raft: &Raft, applied: Index) -> Self {
        Self {
            leadership: Leadership::of(raft),
            last: raft.last().index,
            durable: raft.durable(),
            commit: raft.commit(),
            applied,
        }
    }
}

/// What a node knows and does, and has done since it started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    /// The protocol's state.
    pub raft: Status,
    /// What was done so far.
    pub counts: Counts,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often things have happened since the node started.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// [`Counts`], while they count.
        #[derive(Default, Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn look(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Commands that this node's core took, to replicate them.
    proposals,
    /// In how many batches.
    batches,
    /// Reads that its core took, to say when they may be served: all but stale ones.
    reads,
    /// In how many batches.
    read_batches,
    /// Proposals handed on to the leader.
    forwarded,
    /// Messages taken in.
    messages,
    /// Messages that the core refused: malformed, or from somebody who can't have sent them.
    messages_refused,
    /// Messages dropped because the inbox was full.
    messages_dropped,
    /// Requests that ended as overloaded.
    overloaded,
    /// Durable commits by the storage thread.
    commits,
    /// Writes that they made durable.
    writes,
    /// How often leadership was given up because the store made no progress.
    disk_stalls,
    /// Questions to the log.
    loads,
    /// Entries applied.
    applied,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

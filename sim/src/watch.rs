//! Onlookers: told of everything that happens in a run, right after it has happened. Pictures, exports and the specification
//! are made of what they see; a run that nobody watches pays one branch for it.

use std::fmt;

use quorate_core::{
    Action, Batch, Index, Input, Instant, Loaded, Membership, MembershipChange, Message, NodeId, Raft,
    ReadKind, Rejected, Term, Write, WriteSeq,
};

use crate::violation::Verdict;

/// Somebody who looks on. What it returns is held against the run like any check's verdict.
pub(crate) trait Watch: fmt::Debug {
    /// Something has happened at `at`, in µs of true time.
    ///
    /// # Errors
    /// If it must not happen.
    fn see(&mut self, at: u64, seen: &Seen<'_>) -> Verdict;
}

/// What has happened. A node's slot is its id less one; a slot is never used again.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    /// A machine was set up; its empty disk says that the cluster is this.
    Provisioned { slot: usize, membership: &'a Membership },
    /// A process has started from what its disk holds.
    Started { slot: usize, raft: &'a Raft },
    /// A process is gone. What was kept of its unfinished writes came as [`Seen::Durable`] before this.
    Crashed { slot: usize, kept: usize, lost: usize },
    /// A core has taken a step.
    Stepped(Step<'a>),
    /// A disk has done a write, whole. The core hears of it later, or never.
    Durable { slot: usize, write: &'a Write },
    /// A message (or the announcement of a snapshot) has left a node. Copies of it share its number.
    Sent { id: u64, from: usize, to: usize, message: &'a Message },
    /// One copy of a message won't arrive.
    Lost { id: u64, why: &'static str },
    /// A state machine has applied all up to `index`, or was restored there.
    Applied { slot: usize, index: u64, restored: bool },
    /// A state has become a durable snapshot.
    SnapshotTaken { slot: usize, index: u64 },
    /// A fault has struck, or was mended: in words, and whom it concerns.
    Fault { slots: &'a [usize], what: &'a str },
}

/// One step of one core.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) slot: usize,
    /// What its clock showed.
    pub(crate) now: Instant,
    pub(crate) stimulus: &'a Stimulus,
    pub(crate) result: Result<(), Rejected>,
    pub(crate) actions: &'a [Action],
    /// As it is after the step.
    pub(crate) raft: &'a Raft,
}

/// An input, to be looked at when the core has taken it.
#[derive(Clone, Debug)]
pub(crate) enum Stimulus {
    Tick,
    Receive { id: u64, from: NodeId, message: Message },
    Propose { first_token: u64, batch: Batch, term: Option<Term> },
    Read { token: u64, kind: ReadKind },
    CancelRead { token: u64 },
    ChangeMembership { token: u64, change: MembershipChange },
    TransferLeadership { token: u64, to: Option<NodeId> },
    AbortTransfer,
    StepDown,
    Campaign,
    ForgetLeader,
    Compact { snapshot: Index, keep: u64 },
    SnapshotSent { arrived: bool },
    Unreachable { peer: NodeId },
    Reachable { peer: NodeId },
    Persisted { up_to: WriteSeq },
    Loaded { result: Loaded },
    Applied { up_to: Index },
    StorageFailed,
}

impl Stimulus {
    /// What `input` is; `id` is the message's number, if it is one.
    pub(crate) fn of(input: &Input, id: u64) -> Self {
        match input {
            Input::Tick => Self::Tick,
            Input::Receive { from, message } => Self::Receive { id, from: *from, message: message.clone() },
            Input::Propose(proposal) => Self::Propose {
                first_token: proposal.first_token.0,
                batch: proposal.batch.clone(),
                term: proposal.term,
            },
            Input::Read { token, kind } => Self::Read { token: token.0, kind: *kind },
            Input::CancelRead { token } => Self::CancelRead { token: token.0 },
            Input::ChangeMembership { token, change } => {
                Self::ChangeMembership { token: token.0, change: change.clone() }
            }
            Input::TransferLeadership { token, to } => Self::TransferLeadership { token: token.0, to: *to },
            Input::AbortTransfer => Self::AbortTransfer,
            Input::StepDown => Self::StepDown,
            Input::Campaign => Self::Campaign,
            Input::ForgetLeader => Self::ForgetLeader,
            Input::Compact { snapshot, keep } => Self::Compact { snapshot: *snapshot, keep: *keep },
            Input::SnapshotSent { arrived, .. } => Self::SnapshotSent { arrived: *arrived },
            Input::Unreachable { peer } => Self::Unreachable { peer: *peer },
            Input::Reachable { peer } => Self::Reachable { peer: *peer },
            Input::Persisted(receipt) => Self::Persisted { up_to: receipt.seq() },
            Input::Loaded { result, .. } => Self::Loaded { result: result.clone() },
            Input::Applied { up_to } => Self::Applied { up_to: *up_to },
            Input::StorageFailed => Self::StorageFailed,
        }
    }
}

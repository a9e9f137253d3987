//! What is done to a cluster, one thing after another. A run is a list of these, and nothing else: whoever does the same
//! again sees the same, without queue, dice or plan. So a schedule that fails can be written down, replayed, and made shorter.
//!
//! Everything is named by what is there at that moment: "the Append that node 1 has sent to node 2 last but one", "the oldest two
//! writes of node 3": so that a name outlives it if something before is left out. Whatever is not there (any more) is left out, so that any part of a list is a run of its own: the network may
//! lose or hold up anything, a disk take its time, and a client not ask.

use bytes::Bytes;
use quorate_core::{Body, Membership, MembershipChange, NodeId, ReadKind, Term};
use serde::{Deserialize, Serialize};

/// One thing that is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    /// Another machine is set up, in the next slot. Its disk says that the cluster is this.
    Provision { membership: Membership },
    /// A process starts from what its disk holds, while its clock shows `now`.
    Start { slot: usize, now: u64 },
    /// A process is gone. Of the writes that its disk had not done, the `kept` oldest are durable all the same.
    Crash { slot: usize, kept: usize },
    /// A group is started again within its process: the `kept` oldest of its writes reach the disk before that, the others after;
    /// and all that the old life had asked for answers the new one.
    Reopen { slot: usize, kept: usize, now: u64 },
    /// A core takes something up, while its clock shows `now`.
    Input { slot: usize, now: u64, what: What },
    /// What the state machine holds now is written down.
    TakeSnapshot { slot: usize },
    /// That is durable.
    SnapshotDurable { slot: usize },
    /// A disk has lost what it said was durable: the newest so many writes. Only where that is to be noticed.
    Forget { slot: usize, writes: usize },
    /// A disk's bits have rotted: its node never starts again.
    Rot { slot: usize },
    /// Everyone in `slots` has come to rest: nobody waits for an answer any more.
    AllResolved { slots: Vec<usize> },
}

/// What a core takes up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Tick,
    /// The message of that kind that `from` has sent to this node last (0), last but one (1), and so on.
    Deliver {
        from: usize,
        kind: Kind,
        #[serde(default, skip_serializing_if = "is_zero")]
        ago: u32,
        /// A hint in it says less than it could, as another version might have it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        vague: bool,
    },
    /// The last snapshot from there (or an earlier one) is here, whole.
    Ship {
        from: usize,
        #[serde(default, skip_serializing_if = "is_zero")]
        ago: u32,
    },
    /// The last snapshot that this node has sent there (or an earlier one) has arrived, or not.
    Shipped {
        to: usize,
        #[serde(default, skip_serializing_if = "is_zero")]
        ago: u32,
        arrived: bool,
    },
    Propose {
        commands: Vec<Bytes>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<Term>,
        /// Each is longer by so many bytes, which mean nothing.
        #[serde(default, skip_serializing_if = "is_zero")]
        pad: u32,
    },
    /// A read; what is asked of the state machine when it may be, if anything is.
    Read {
        kind: ReadKind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<Bytes>,
    },
    /// The oldest read at an index that is open here is given up.
    CancelRead,
    Change {
        change: MembershipChange,
    },
    Transfer {
        to: Option<NodeId>,
    },
    AbortTransfer,
    StepDown,
    Campaign,
    ForgetLeader,
    Unreachable {
        peer: NodeId,
    },
    Reachable {
        peer: NodeId,
    },
    /// The log may begin later: after the newest snapshot, or (wrongly, perhaps) after `snapshot`.
    Compact {
        snapshot: Option<u64>,
        keep: u64,
    },
    /// The `count` oldest writes are durable, in one commit.
    Persist {
        count: usize,
    },
    /// So many writes were being made durable, and that failed.
    DiskFails {
        count: usize,
    },
    /// The nth question to the log that is open is answered.
    Load {
        nth: usize,
    },
    /// The state machine is done with the oldest that it was handed.
    Apply,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The kinds of message, without what they say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    PreVote,
    PreVoteReply,
    Vote,
    VoteReply,
    Append,
    Appended,
    Conflict,
    Heartbeat,
    HeartbeatReply,
    Commit,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    InstallSnapshot,
}

impl Kind {
    pub(crate) const COUNT: usize = Self::InstallSnapshot as usize + 1;

    pub(crate) const fn of(body: &Body) -> Self {
        match body {
            Body::PreVote { .. } => Self::PreVote,
            Body::PreVoteReply { .. } => Self::PreVoteReply,
            Body::Vote { .. } => Self::Vote,
            Body::VoteReply { .. } => Self::VoteReply,
            Body::Append { .. } => Self::Append,
            Body::Appended { .. } => Self::Appended,
            Body::Conflict { .. } => Self::Conflict,
            Body::Heartbeat { .. } => Self::Heartbeat,
            Body::HeartbeatReply { .. } => Self::HeartbeatReply,
            Body::Commit { .. } => Self::Commit,
            Body::ReadIndex { .. } => Self::ReadIndex,
            Body::ReadIndexReply { .. } => Self::ReadIndexReply,
            Body::TimeoutNow => Self::TimeoutNow,
            Body::InstallSnapshot { .. } => Self::InstallSnapshot,
        }
    }
}

impl Op {
    /// Whose it is.
    pub(crate) const fn slot(&self) -> Option<usize> {
        match self {
            Self::Provision { .. } | Self::AllResolved { .. } => None,
            Self::Start { slot, .. }
            | Self::Crash { slot, .. }
            | Self::Reopen { slot, .. }
            | Self::Input { slot, .. }
            | Self::TakeSnapshot { slot }
            | Self::SnapshotDurable { slot }
            | Self::Forget { slot, .. }
            | Self::Rot { slot } => Some(*slot),
        }
    }
}

/// An operation, and when it was done, in µs of true time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Timed(pub(crate) u64, pub(crate) Op);

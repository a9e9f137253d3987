//! What a call to a [`Node`](crate::Node) can end in, other than its answer.

use std::{sync::Arc, time::Duration};

use quorate_core::{ChangeError, GroupId, LogId, NodeId, Rejected};

/// Why a proposal has no reply.
///
/// Only [`ProposeError::Unknown`] and [`ProposeError::Reply`] leave room for the command to have been applied; after
/// all others certainly nothing happened, and proposing it again is safe.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Nobody took it in time. Nothing happened.
    #[error("no leader took the proposal within {waited:?} ({last})")]
    NoLeader {
        /// How long was tried.
        waited: Duration,
        /// How the last attempt ended.
        last: String,
    },
    /// A bound would be passed. Nothing happened; try again when some of it has been worked off.
    #[error("{what}")]
    Overloaded {
        /// Which bound, of which node.
        what: String,
    },
    /// No log would ever take a command of this size. Nothing happened.
    #[error("a command of {bytes} bytes is too big: at most {bound} may be uncommitted")]
    TooBig {
        /// Its size in the log.
        bytes: u64,
        /// The bound.
        bound: u64,
    },
    /// Refused for another reason, given here. Nothing happened.
    #[error("the proposal was refused: {why}")]
    Refused {
        /// The reason.
        why: String,
    },
    /// It may have been applied, may yet be, or never will be. It was not tried again, for then it might happen twice.
    #[error("it is unknown whether the proposal was or will be applied: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// It was applied, but the reply that came back can't be read.
    #[error("the proposal was applied, but its reply can't be read: {why}")]
    Reply {
        /// What the reply's `TryFrom<Bytes>` said.
        why: String,
    },
    /// This node has stopped. Nothing happened.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a read has no answer. A read changes nothing, so it may always be tried again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// Nobody could say in time from where on the read would be linearizable; or what it is to see had not come here, or not
    /// to the state machine, in time.
    #[error("the read was not answered within {waited:?} ({last})")]
    NoLeader {
        /// How long was tried.
        waited: Duration,
        /// How the last attempt ended.
        last: String,
    },
    /// A stale read, which asks nobody: this node's state machine has not come to it in time.
    #[error("the state machine did not come to the read within {waited:?}")]
    Behind {
        /// How long it had.
        waited: Duration,
    },
    /// A bound would be passed; try again when some of it has been worked off.
    #[error("{what}")]
    Overloaded {
        /// Which bound.
        what: String,
    },
    /// Refused for another reason, given here.
    #[error("the read was refused: {why}")]
    Refused {
        /// The reason.
        why: String,
    },
    /// The closure panicked. The node lives on.
    #[error("the read panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// This node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a group was not created, removed or listed.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// It is open, or about to be: shut its node down first.
    #[error("group {0} is open: shut its node down first")]
    Open(GroupId),
    /// The store refuses, or can't.
    #[error("the store: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The host has been shut down, or its store has failed.
    #[error("the host has been shut down, or its store has failed")]
    Closed,
}

impl GroupError {
    pub(crate) fn store(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Why a state was not held still.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FreezeError {
    /// The state machine takes no snapshots: its [`freeze`](quorate_core::StateMachine::freeze) gives nothing.
    #[error("the state machine takes no snapshots")]
    Unsupported,
    /// It could not be looked at.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why no snapshot was taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The state machine takes no snapshots: its [`freeze`](quorate_core::StateMachine::freeze) gives nothing.
    #[error("the state machine takes no snapshots")]
    Unsupported,
    /// The leader has sent a newer one meanwhile.
    #[error("a snapshot from the leader has taken its place")]
    Superseded,
    /// The store or the state machine has failed at it. The node lives on.
    #[error("the snapshot could not be taken: {why}")]
    Failed {
        /// What was said.
        why: String,
    },
    /// A bound would be passed; try again when some of it has been worked off.
    #[error("{what}")]
    Overloaded {
        /// Which bound.
        what: String,
    },
    /// This node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a request about the cluster itself ([`Node::transfer_leadership`](crate::Node::transfer_leadership) and others) was
/// not carried out.
///
/// Only [`ControlError::Unknown`] leaves room for it to happen, or to have happened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// Only the leader can do that.
    #[error("this node does not lead{}", .leader.map_or_else(String::new, |leader| format!(": ask node {leader}")))]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// Not while leadership is handed over: ask again in a moment, the node that leads then.
    #[error("leadership is being handed over to node {to}: ask again when that is done")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// The membership can't be changed like this, or not now.
    #[error("the membership: {0}")]
    Membership(#[from] ChangeError),
    /// There is no other voter of that id, or none at all.
    #[error("there is no such other voter to hand leadership over to")]
    NoSuchVoter,
    /// Only a voter campaigns.
    #[error("this node has no vote, so it can't campaign")]
    NotVoter,
    /// Lease reads are on, and a leader may rest on having been heard here.
    #[error("a leader was heard lately, and may hold a lease: try again when it is silent")]
    Leased,
    /// Leadership could not be handed over in time: the other has not caught up. This node leads on.
    #[error("the other node has not caught up in time: this one leads on")]
    GivenUp,
    /// A bound would be passed; try again when some of it has been worked off.
    #[error("{what}")]
    Overloaded {
        /// Which bound.
        what: String,
    },
    /// Refused for another reason, given here.
    #[error("refused: {why}")]
    Refused {
        /// The reason.
        why: String,
    },
    /// It may have happened, may yet happen, or never will.
    #[error("it is unknown what became of it: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// This node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<Rejected> for ControlError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::NotLeader { leader } => Self::NotLeader { leader },
            Rejected::NoLeader { .. } => Self::NotLeader { leader: None },
            Rejected::Transferring { to } => Self::Transferring { to },
            Rejected::Change(error) => Self::Membership(error),
            Rejected::NoSuchVoter => Self::NoSuchVoter,
            Rejected::NotVoter => Self::NotVoter,
            Rejected::Leased => Self::Leased,
            Rejected::Overloaded { .. } => Self::Overloaded { what: rejected.to_string() },
            Rejected::Empty
            | Rejected::TooBig { .. }
            | Rejected::Malformed(_)
            | Rejected::Unexpected { .. }
            | Rejected::StaleReceipt
            | Rejected::StaleLoad
            | Rejected::BadLoad
            | Rejected::BadApplied { .. }
            | Rejected::WrongTerm { .. }
            | Rejected::BadSnapshot { .. }
            | Rejected::StaleSend
            | Rejected::NotMember { .. }
            | Rejected::Exhausted
            | Rejected::Stopped => Self::Refused { why: rejected.to_string() },
        }
    }
}

/// The node has stopped, for ever: only a new one, started from its store, goes on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has stopped: {why}")]
pub struct Stopped {
    /// Why.
    pub why: StopReason,
}

/// Why a node has stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StopReason {
    /// [`Node::shutdown`](crate::Node::shutdown) was called.
    #[error("it was shut down")]
    Shutdown,
    /// Its last handle was dropped.
    #[error("its last handle was dropped")]
    Dropped,
    /// Its store failed. There is no retry: what a failed write has left behind is known only to a new start.
    #[error("its store failed: {0}")]
    Storage(Arc<str>),
    /// Its state machine could not be brought to a snapshot that its leader has sent: the store doesn't have it (any more), or the
    /// state machine can't take what it holds.
    #[error("its state machine could not be restored from the snapshot at {at}: {message}")]
    Restore {
        /// What the snapshot includes.
        at: LogId,
        /// Why not.
        message: Arc<str>,
    },
    /// What its state machine keeps its state in has failed.
    #[error("its state machine's storage failed at entry {at}: {message}")]
    StateMachine {
        /// After applying which entry.
        at: LogId,
        /// What it said.
        message: Arc<str>,
    },
    /// Its state machine panicked, and may be in any state now.
    #[error("its state machine panicked at entry {at}: {message}")]
    Panicked {
        /// Applying which entry.
        at: LogId,
        /// What it said.
        message: Arc<str>,
    },
    /// The tokio runtime that it ran on was shut down, or its driver panicked, which would be a bug.
    #[error("its runtime was shut down, or its driver panicked")]
    Died,
}

/// Why a request was not served here, as the parts of the driver tell each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Somebody else leads, or nobody. Nothing happened.
    NotLeader(Option<NodeId>),
    /// Leadership is being handed over to this node. Nothing happened: it will be the one to ask in a moment.
    Transferring(NodeId),
    /// A bound. Nothing happened.
    Overloaded(String),
    /// It would never fit. Nothing happened.
    TooBig { bytes: u64, bound: u64 },
    /// Something else. Nothing happened.
    Other(String),
    /// The node asked has stopped. Nothing happened.
    Stopped(Stopped),
    /// It may have happened.
    Unknown(String),
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::NotLeader { leader } => Self::NotLeader(leader),
            Rejected::NoLeader { .. } => Self::NotLeader(None),
            Rejected::Transferring { to } => Self::Transferring(to),
            Rejected::Overloaded { .. } => Self::Overloaded(rejected.to_string()),
            Rejected::TooBig { bytes, bound } => Self::TooBig { bytes, bound },
            Rejected::Empty
            | Rejected::Malformed(_)
            | Rejected::Unexpected { .. }
            | Rejected::StaleReceipt
            | Rejected::StaleLoad
            | Rejected::BadLoad
            | Rejected::BadApplied { .. }
            | Rejected::WrongTerm { .. }
            | Rejected::NoSuchVoter
            | Rejected::NotVoter
            | Rejected::Leased
            | Rejected::Change(_)
            | Rejected::BadSnapshot { .. }
            | Rejected::StaleSend
            | Rejected::NotMember { .. }
            | Rejected::Exhausted
            | Rejected::Stopped => Self::Other(rejected.to_string()),
        }
    }
}

/// An error with what has caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

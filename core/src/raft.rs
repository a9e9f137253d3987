//! The node (being written).

use crate::{Action, Config, ConfigError, Index, Input, Instant, NodeId, Recovered, Rejected, RoleKind, Status, Term};

/// One node of one group.
#[derive(Debug)]
pub struct Raft {}

/// Why a node wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// To begin an election, or another one.
    Election,
    /// To say that it lives.
    Heartbeat,
    /// To see whether a quorum still answers it.
    CheckQuorum,
    /// To ask the leader again for a read index.
    Read,
}

/// Why a node can't start from what its store holds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// What was recovered contradicts itself.
    #[error("recovered state: {0}")]
    Recovered(&'static str),
}

impl Raft {
    /// A node as it starts: from its configuration and what its store holds.
    ///
    /// # Errors
    /// If one of them is not valid.
    pub fn new(config: Config, recovered: Recovered, now: Instant) -> Result<Self, StartError> {
        let _ = (config, recovered, now);
        Ok(Self {})
    }
    /// Something happened at `now`.
    ///
    /// # Errors
    /// If refused; nothing has changed then.
    pub fn step(&mut self, now: Instant, input: Input) -> Result<(), Rejected> {
        let _ = (now, input);
        Err(Rejected::Stopped)
    }
    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        None
    }
    /// All there is to do.
    pub fn drain(&mut self) -> impl Iterator<Item = Action> + '_ {
        core::iter::from_fn(|| self.poll())
    }
    /// When to call with `Input::Tick` next, and why.
    pub fn deadline(&self) -> Option<(Instant, Reason)> {
        None
    }
    /// All about it.
    pub fn status(&self) -> Option<Status> {
        None
    }
    /// Its term.
    pub fn term(&self) -> Term {
        Term(0)
    }
    /// Its part.
    pub fn role(&self) -> RoleKind {
        RoleKind::Follower
    }
    /// Who leads.
    pub fn leader(&self) -> Option<NodeId> {
        None
    }
    /// commitIndex.
    pub fn commit(&self) -> Index {
        Index(0)
    }
}

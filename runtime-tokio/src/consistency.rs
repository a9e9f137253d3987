//! What a read promises.

use quorate_core::Index;

/// What [`Node::read_with`](crate::Node::read_with) promises of the state that it looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// It reflects all that was acknowledged before the call, by any node: the leader asks a quorum whether it still leads
    /// (dissertation 6.4).
    #[default]
    Linearizable,
    /// The same, but the leader's lease saves it from asking, if lease reads are on in the whole cluster
    /// ([`Builder::lease_reads`](crate::Builder::lease_reads)): true as long as no clock drifts by more than
    /// `Config::max_clock_drift` within an election timeout (dissertation 6.4.1). Without a lease it is
    /// [`Consistency::Linearizable`].
    Lease,
    /// It reflects everything up to this index, such as that of the caller's own last write, and asks no other node.
    AtLeast(Index),
    /// It looks at this node's state as it is, which may lag behind by any amount.
    Stale,
}

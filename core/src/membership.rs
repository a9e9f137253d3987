//! Who is in the cluster: an entry in the log, in force from the moment it is there (paper §6, dissertation 4).

use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message as _;

use crate::NodeId;

/// The voters, in two sets while a change is under way (joint consensus, paper §6), and the learners.
///
/// Sorted and without doubles; at least one voter; nobody is both voter and learner, but for a voter of the
/// outgoing set that is to become a learner. Node ids are never used again: `next_id` only grows.
/// [`Membership::change`] makes the next one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "MembershipParts", into = "MembershipParts"))]
pub struct Membership {
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
    joining: Vec<NodeId>,
    next_id: NodeId,
    held: bool,
}

/// A membership as it comes from a caller, a wire or a disk: not looked at yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MembershipParts {
    /// The voters; while a change is under way, those it leads to (Cnew).
    pub voters: Vec<NodeId>,
    /// While a change is under way, the voters it comes from (Cold); else empty.
    pub outgoing: Vec<NodeId>,
    /// Who receives the log without a vote (dissertation 4.2.1).
    pub learners: Vec<NodeId>,
    /// The learners that the leader is to promote once they have caught up.
    pub joining: Vec<NodeId>,
    /// No id at or above this was ever used; 0 means "one above the largest here".
    pub next_id: NodeId,
    /// While a change is under way: it stays so until somebody asks to leave it.
    pub held: bool,
}

/// Why something is not a membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MembershipError {
    /// Nobody could ever decide anything.
    #[error("a membership without voters could never decide anything")]
    NoVoters,
    /// 0 is not a node id.
    #[error("0 is not a node id; ids begin at 1")]
    ZeroId,
    /// A voter can't be a learner as well.
    #[error("node {0} is both a voter and a learner")]
    VoterAndLearner(NodeId),
    /// Only learners are promoted.
    #[error("node {0} is to be promoted, but is no learner")]
    JoiningNoLearner(NodeId),
    /// Nothing to hold.
    #[error("a membership that is not joint can't be held in that state")]
    HeldNotJoint,
    /// An id at or above the high-water mark.
    #[error("node {id} is not below next_id {next_id}")]
    NextId {
        /// The id found.
        id: NodeId,
        /// The mark.
        next_id: NodeId,
    },
    /// Bytes that are no membership.
    #[error("these bytes are no membership: {0}")]
    Decode(&'static str),
    /// A format that this version doesn't know.
    #[error("unknown membership format {0}; this version knows 1")]
    Version(u32),
}

impl Membership {
    /// The format that [`Membership::encode`] writes.
    pub const VERSION: u32 = 1;

    /// A cluster of these voters; 0 and `u64::MAX`, which are no ids, are left out. With none at all it is of node 1 alone, so that no
    /// membership without voters exists.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        let mut voters: Vec<NodeId> = voters.into_iter().filter(|id| id.0 > 0 && id.0 < u64::MAX).collect();
        if voters.is_empty() {
            voters.push(NodeId(1));
        }
        voters.sort_unstable();
        voters.dedup();
        let next_id = NodeId(voters.last().map_or(1, |id| id.0).saturating_add(1));
        Self { voters, outgoing: Vec::new(), learners: Vec::new(), joining: Vec::new(), next_id, held: false }
    }

    /// The voters; during a change, those it leads to.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The voters that a change under way comes from; else empty.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// Who receives the log without a vote.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// The learners that become voters once they have caught up (dissertation 4.2.1).
    #[must_use]
    pub fn joining(&self) -> &[NodeId] {
        &self.joining
    }

    /// A change under way that ends only when it is asked to ([`MembershipChange::leave`](crate::MembershipChange)).
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.held
    }

    /// The lowest id that was never used.
    #[must_use]
    pub const fn next_id(&self) -> NodeId {
        self.next_id
    }

    /// Is a change under way?
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Does `id` have a vote, in either set?
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        // Clusters are small.
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Is `id` part of it in any role?
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.binary_search(&id).is_ok()
    }

    /// Everyone, sorted, each once.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> =
            self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// As the payload of an entry: its format version is inside.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Bytes::from(self.record().encode_to_vec())
    }

    pub(crate) fn record(&self) -> MembershipRecord {
        let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
        MembershipRecord {
            version: Self::VERSION,
            voters: ids(&self.voters),
            outgoing: ids(&self.outgoing),
            learners: ids(&self.learners),
            next_id: self.next_id.0,
            joining: ids(&self.joining),
            held: self.held,
        }
    }

    /// The payload of an entry, looked through.
    ///
    /// # Errors
    /// If the bytes are none, of an unknown version, or break a rule that every membership keeps.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let record =
            MembershipRecord::decode(bytes).map_err(|_| MembershipError::Decode("not a protobuf message"))?;
        Self::of_record(record)
    }

    pub(crate) fn of_record(record: MembershipRecord) -> Result<Self, MembershipError> {
        if record.version != Self::VERSION {
            return Err(MembershipError::Version(record.version));
        }
        let ids = |ids: Vec<u64>| ids.into_iter().map(NodeId).collect();
        Self::try_from(MembershipParts {
            voters: ids(record.voters),
            outgoing: ids(record.outgoing),
            learners: ids(record.learners),
            joining: ids(record.joining),
            next_id: NodeId(record.next_id),
            held: record.held,
        })
    }
}

impl TryFrom<MembershipParts> for Membership {
    type Error = MembershipError;

    fn try_from(parts: MembershipParts) -> Result<Self, MembershipError> {
        let MembershipParts { mut voters, mut outgoing, mut learners, mut joining, mut next_id, held } =
            parts;
        for ids in [&mut voters, &mut outgoing, &mut learners, &mut joining] {
            ids.sort_unstable();
            ids.dedup();
            if ids.first() == Some(&NodeId(0)) {
                return Err(MembershipError::ZeroId);
            }
        }
        if voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        if let Some(both) = learners.iter().find(|id| voters.binary_search(id).is_ok()) {
            return Err(MembershipError::VoterAndLearner(*both));
        }
        if let Some(other) = joining.iter().find(|id| learners.binary_search(id).is_err()) {
            return Err(MembershipError::JoiningNoLearner(*other));
        }
        if held && outgoing.is_empty() {
            return Err(MembershipError::HeldNotJoint);
        }
        let largest = [&voters, &outgoing, &learners].iter().filter_map(|ids| ids.last()).max().copied();
        let largest = largest.unwrap_or_default();
        if next_id == NodeId(0) {
            next_id = NodeId(largest.0.saturating_add(1));
        }
        if largest >= next_id {
            return Err(MembershipError::NextId { id: largest, next_id });
        }
        Ok(Self { voters, outgoing, learners, joining, next_id, held })
    }
}

impl From<Membership> for MembershipParts {
    fn from(membership: Membership) -> Self {
        let Membership { voters, outgoing, learners, joining, next_id, held } = membership;
        Self { voters, outgoing, learners, joining, next_id, held }
    }
}

/// `quorate.v1.Membership` of `proto/quorate.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MembershipRecord {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, repeated, tag = "2")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    learners: Vec<u64>,
    #[prost(uint64, tag = "5")]
    next_id: u64,
    #[prost(uint64, repeated, tag = "6")]
    joining: Vec<u64>,
    #[prost(bool, tag = "7")]
    held: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn parts(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> MembershipParts {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        MembershipParts {
            voters: ids(voters),
            outgoing: ids(outgoing),
            learners: ids(learners),
            ..MembershipParts::default()
        }
    }

    #[test]
    fn round_trips_sorted_and_without_doubles() {
        let membership = Membership::try_from(parts(&[3, 1, 3], &[2, 1], &[2, 9])).unwrap();
        assert_eq!(membership.voters(), &[NodeId(1), NodeId(3)]);
        assert!(membership.is_joint() && membership.is_voter(NodeId(2)) && !membership.is_voter(NodeId(9)));
        assert_eq!(membership.members(), vec![NodeId(1), NodeId(2), NodeId(3), NodeId(9)]);
        assert_eq!(membership.next_id(), NodeId(10));
        assert_eq!(Membership::decode(&membership.encode()), Ok(membership));
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let refused = |p: MembershipParts| Membership::try_from(p).unwrap_err();
        assert_eq!(refused(parts(&[], &[1], &[])), MembershipError::NoVoters);
        assert_eq!(refused(parts(&[0], &[], &[])), MembershipError::ZeroId);
        assert_eq!(refused(parts(&[1, 2], &[], &[2])), MembershipError::VoterAndLearner(NodeId(2)));
        let reused = MembershipParts { next_id: NodeId(2), ..parts(&[1, 2], &[], &[]) };
        assert_eq!(refused(reused), MembershipError::NextId { id: NodeId(2), next_id: NodeId(2) });
        let joining = MembershipParts { joining: alloc::vec![NodeId(1)], ..parts(&[1, 2], &[], &[3]) };
        assert_eq!(refused(joining), MembershipError::JoiningNoLearner(NodeId(1)));
        let held = MembershipParts { held: true, ..parts(&[1, 2], &[], &[]) };
        assert_eq!(refused(held), MembershipError::HeldNotJoint);
        assert!(Membership::decode(b"\xFF\xFF").is_err());
        assert_eq!(Membership::decode(&[]), Err(MembershipError::Version(0)));
    }
}

//! From one membership to the next (paper §6; dissertation 4.1 to 4.3): what is asked for, and what that leads to.
//!
//! Pure functions; when a leader may append what comes out of them is decided in `reconfigure.rs`.

use alloc::vec::Vec;

use crate::{Index, Membership, MembershipParts, NodeId};

/// What is to change, all of it in one step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MembershipChange {
    /// The changes; at most one of each node. None at all: leave the joint membership that is held.
    pub ops: Vec<ChangeOp>,
    /// By which way.
    pub transition: Transition,
}

/// A change of one node's part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ChangeOp {
    /// A new node becomes a voter at once. Its id must never have been used: after a change of unknown outcome, take another. Until it has caught up, one more of the others is needed for a majority:
    /// [`ChangeOp::Join`] avoids that.
    AddVoter(NodeId),
    /// A new node becomes a learner: it receives the log and has no vote (dissertation 4.2.1).
    AddLearner(NodeId),
    /// A new node becomes a learner, and the leader promotes it once it has caught up (dissertation 4.2.1): when a round,
    /// in which everything that the log held at its beginning reached the node, took less than an election timeout. It waits
    /// while another change is under way, or held.
    Join(NodeId),
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// Leaves. Its id is never used again.
    Remove(NodeId),
}

impl ChangeOp {
    /// Whom it is about.
    #[must_use]
    pub const fn node(self) -> NodeId {
        match self {
            Self::AddVoter(id)
            | Self::AddLearner(id)
            | Self::Join(id)
            | Self::Promote(id)
            | Self::Demote(id)
            | Self::Remove(id) => id,
        }
    }
}

/// By which way one membership becomes the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Transition {
    /// In one entry where at most one voter comes or goes (dissertation 4.1: any two majorities still overlap), by joint
    /// consensus else.
    #[default]
    Auto,
    /// By joint consensus (paper §6), which the leader leaves as soon as it may.
    Implicit,
    /// By joint consensus, until a change without any [`ops`](MembershipChange::ops) ends it.
    Explicit,
}

/// Why a membership can't be changed like this, or not now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ChangeError {
    /// No operations, and nothing to leave.
    #[error("a change without operations, and no joint membership to leave")]
    Nothing,
    /// One node twice.
    #[error("node {0} is changed twice in one request")]
    Twice(NodeId),
    /// Not a node id.
    #[error("{0} is not a node id; they are from 1 to 2^64 - 2")]
    NoId(NodeId),
    /// It is in already.
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    /// It isn't in.
    #[error("node {0} is no member")]
    NotMember(NodeId),
    /// Only learners are promoted.
    #[error("node {0} is no learner, and so can't be promoted")]
    NotLearner(NodeId),
    /// Only voters are demoted.
    #[error("node {0} is no voter, and so can't be demoted")]
    NotVoter(NodeId),
    /// Ids are used once.
    #[error("node id {id} was used before, or skipped; give the node a new one, from {next} on")]
    IdUsed {
        /// The id.
        id: NodeId,
        /// The lowest that is free.
        next: NodeId,
    },
    /// Nobody could decide anything any more.
    #[error("no voter would be left")]
    NoVoters,
    /// One change at a time.
    #[error("the membership at index {index} is not committed, or about to be left; wait for it")]
    Pending {
        /// Where it is in the log.
        index: Index,
    },
    /// First the one under way.
    #[error("the membership is joint; leave it first")]
    Joint,
    /// A leader changes nothing before it knows what is committed (a bug of the dissertation's single-server change,
    /// found in 2015).
    #[error("the leader has not committed an entry of its term {term} yet; try again")]
    Early {
        /// The term.
        term: crate::Term,
    },
}

impl MembershipChange {
    /// These changes, by the shortest way.
    #[must_use]
    pub const fn new(ops: Vec<ChangeOp>) -> Self {
        Self { ops, transition: Transition::Auto }
    }

    /// The end of a change that was [`Transition::Explicit`].
    #[must_use]
    pub const fn leave() -> Self {
        Self::new(Vec::new())
    }
}

impl Membership {
    /// The membership that `change` leads to from this one: a joint one if both majorities are needed on the way.
    ///
    /// # Errors
    /// If it can't be made from this one.
    pub fn change(&self, change: &MembershipChange) -> Result<Self, ChangeError> {
        if change.ops.is_empty() {
            return if self.is_joint() { Ok(self.left()) } else { Err(ChangeError::Nothing) };
        }
        if self.is_joint() {
            return Err(ChangeError::Joint);
        }
        let mut next = MembershipParts::from(self.clone());
        for (at, op) in change.ops.iter().enumerate() {
            let node = op.node();
            if change.ops.iter().skip(at.saturating_add(1)).any(|other| other.node() == node) {
                return Err(ChangeError::Twice(node));
            }
            self.apply(*op, &mut next)?;
        }
        if next.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        next.voters.sort_unstable();
        if change.transition != Transition::Auto || self.voters_changed(&next.voters) > 1 {
            next.outgoing = self.voters().to_vec();
            next.held = change.transition == Transition::Explicit;
        }
        // Every rule has been looked at above, but the types ask again.
        Self::try_from(next).map_err(|_| ChangeError::NoVoters)
    }

    /// The membership after a joint one: the outgoing voters are gone.
    #[must_use]
    pub fn left(&self) -> Self {
        let parts =
            MembershipParts { outgoing: Vec::new(), held: false, ..MembershipParts::from(self.clone()) };
        Self::try_from(parts).unwrap_or_else(|_| self.clone())
    }

    fn apply(&self, op: ChangeOp, next: &mut MembershipParts) -> Result<(), ChangeError> {
        let id = op.node();
        if id.0 == 0 || id.0 == u64::MAX {
            return Err(ChangeError::NoId(id));
        }
        let learner = self.learners().contains(&id);
        match op {
            ChangeOp::AddVoter(_) | ChangeOp::AddLearner(_) | ChangeOp::Join(_) => {
                if self.contains(id) {
                    return Err(ChangeError::AlreadyMember(id));
                }
                if id < self.next_id() {
                    return Err(ChangeError::IdUsed { id, next: self.next_id() });
                }
                next.next_id = next.next_id.max(NodeId(id.0.saturating_add(1)));
                match op {
                    ChangeOp::AddVoter(_) => next.voters.push(id),
                    ChangeOp::Join(_) => {
                        next.learners.push(id);
                        next.joining.push(id);
                    }
                    ChangeOp::AddLearner(_)
                    | ChangeOp::Promote(_)
                    | ChangeOp::Demote(_)
                    | ChangeOp::Remove(_) => next.learners.push(id),
                }
            }
            ChangeOp::Promote(_) if !learner => return Err(ChangeError::NotLearner(id)),
            ChangeOp::Promote(_) => {
                next.learners.retain(|other| *other != id);
                next.joining.retain(|other| *other != id);
                next.voters.push(id);
            }
            ChangeOp::Demote(_) if !self.is_voter(id) => return Err(ChangeError::NotVoter(id)),
            ChangeOp::Demote(_) => {
                next.voters.retain(|other| *other != id);
                next.learners.push(id);
            }
            ChangeOp::Remove(_) if !self.contains(id) => return Err(ChangeError::NotMember(id)),
            ChangeOp::Remove(_) => {
                for ids in [&mut next.voters, &mut next.learners, &mut next.joining] {
                    ids.retain(|other| *other != id);
                }
            }
        }
        Ok(())
    }

    /// How many voters come or go.
    fn voters_changed(&self, next: &[NodeId]) -> usize {
        let come = next.iter().filter(|id| !self.is_voter(**id)).count();
        let go = self.voters().iter().filter(|id| next.binary_search(id).is_err()).count();
        come.saturating_add(go)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn of(voters: &[u64], learners: &[u64]) -> Membership {
        let parts =
            MembershipParts { voters: ids(voters), learners: ids(learners), ..MembershipParts::default() };
        Membership::try_from(parts).unwrap()
    }

    fn change(from: &Membership, ops: &[ChangeOp]) -> Result<Membership, ChangeError> {
        from.change(&MembershipChange::new(ops.to_vec()))
    }

    #[test]
    fn one_voter_in_one_step_more_of_them_by_joint_consensus() {
        let three = of(&[1, 2, 3], &[]);
        let four = change(&three, &[ChangeOp::AddVoter(NodeId(4))]).unwrap();
        assert_eq!((four.voters(), four.is_joint()), (&ids(&[1, 2, 3, 4])[..], false));
        let replaced = change(&three, &[ChangeOp::Remove(NodeId(2)), ChangeOp::AddVoter(NodeId(4))]).unwrap();
        assert_eq!((replaced.voters(), replaced.outgoing()), (&ids(&[1, 3, 4])[..], &ids(&[1, 2, 3])[..]));
        assert_eq!(replaced.left().voters(), &ids(&[1, 3, 4])[..]);
        assert!(!replaced.left().is_joint());
        // A learner may come with it, at no price.
        let grown = change(&three, &[ChangeOp::AddVoter(NodeId(4)), ChangeOp::Join(NodeId(5))]).unwrap();
        assert!(!grown.is_joint() && grown.joining() == [NodeId(5)] && grown.next_id() == NodeId(6));
    }

    #[test]
    fn the_way_can_be_asked_for() {
        let three = of(&[1, 2, 3], &[]);
        let ops = vec![ChangeOp::Remove(NodeId(3))];
        let held =
            three.change(&MembershipChange { ops: ops.clone(), transition: Transition::Explicit }).unwrap();
        assert!(held.is_joint() && held.is_held());
        assert_eq!(held.change(&MembershipChange::new(ops)), Err(ChangeError::Joint), "one at a time");
        let left = held.change(&MembershipChange::leave()).unwrap();
        assert_eq!((left.voters(), left.is_joint(), left.is_held()), (&ids(&[1, 2])[..], false, false));
    }

    #[test]
    fn a_demoted_voter_keeps_its_vote_until_the_change_is_over() {
        let three = of(&[1, 2, 3], &[]);
        let joint = change(&three, &[ChangeOp::Demote(NodeId(2)), ChangeOp::Demote(NodeId(3))]).unwrap();
        assert!(joint.is_voter(NodeId(2)) && joint.learners() == ids(&[2, 3]));
        let left = joint.left();
        assert!(!left.is_voter(NodeId(2)) && left.contains(NodeId(2)) && left.voters() == [NodeId(1)]);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let some = of(&[1, 2], &[3]);
        for (op, error) in [
            (ChangeOp::AddVoter(NodeId(3)), ChangeError::AlreadyMember(NodeId(3))),
            (ChangeOp::AddLearner(NodeId(0)), ChangeError::NoId(NodeId(0))),
            (ChangeOp::AddVoter(NodeId(u64::MAX)), ChangeError::NoId(NodeId(u64::MAX))),
            (ChangeOp::Promote(NodeId(1)), ChangeError::NotLearner(NodeId(1))),
            (ChangeOp::Demote(NodeId(3)), ChangeError::NotVoter(NodeId(3))),
            (ChangeOp::Remove(NodeId(9)), ChangeError::NotMember(NodeId(9))),
        ] {
            assert_eq!(change(&some, &[op]), Err(error));
        }
        let all = [ChangeOp::Remove(NodeId(1)), ChangeOp::Demote(NodeId(2))];
        assert_eq!(change(&some, &all), Err(ChangeError::NoVoters));
        let twice = [ChangeOp::Promote(NodeId(3)), ChangeOp::Remove(NodeId(3))];
        assert_eq!(change(&some, &twice), Err(ChangeError::Twice(NodeId(3))));
        assert_eq!(some.change(&MembershipChange::leave()), Err(ChangeError::Nothing));
        let without = change(&some, &[ChangeOp::Remove(NodeId(3))]).unwrap();
        assert_eq!(
            change(&without, &[ChangeOp::AddVoter(NodeId(3))]),
            Err(ChangeError::IdUsed { id: NodeId(3), next: NodeId(4) })
        );
    }
}

//! Who decides, and how that changes (M1 to M5): the observer's own arithmetic, for one set of voters or two.

use quorate_core::{ChangeOp, Membership, MembershipChange, NodeId, Raft, RoleKind, Transition};

use super::{Cause, Ghost};
use crate::{
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

fn sets(membership: &Membership) -> impl Iterator<Item = &[NodeId]> {
    [membership.voters(), membership.outgoing()].into_iter().filter(|set| !set.is_empty())
}

const fn slot(id: NodeId) -> usize {
    id.0 as usize - 1
}

/// Are those for which `holds` is true a quorum: a majority of each set of voters?
pub(crate) fn agree(membership: &Membership, holds: impl Fn(usize) -> bool) -> bool {
    sets(membership).all(|set| set.iter().filter(|id| holds(slot(**id))).count() * 2 > set.len())
}

/// The highest value that a quorum has reached.
pub(crate) fn reached(membership: &Membership, value: impl Fn(usize) -> u64) -> u64 {
    let of_set = |set: &[NodeId]| {
        let values = set.iter().map(|id| value(slot(*id)));
        let enough =
            |wanted: &u64| set.iter().filter(|id| value(slot(**id)) >= *wanted).count() * 2 > set.len();
        values.filter(enough).max().unwrap_or(0)
    };
    sets(membership).map(of_set).min().unwrap_or(0)
}

/// What somebody wants the membership to become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    joining: Vec<NodeId>,
    /// It stays joint.
    held: bool,
}

impl Wanted {
    /// What is to come of `before`.
    pub(crate) fn of(before: &Membership, change: &MembershipChange) -> Self {
        let mut wanted = Self {
            voters: before.voters().to_vec(),
            learners: before.learners().to_vec(),
            joining: before.joining().to_vec(),
            held: !change.ops.is_empty() && change.transition == Transition::Explicit,
        };
        for op in &change.ops {
            let id = op.node();
            for ids in [&mut wanted.voters, &mut wanted.learners, &mut wanted.joining] {
                ids.retain(|other| *other != id);
            }
            match op {
                ChangeOp::AddVoter(_) | ChangeOp::Promote(_) => wanted.voters.push(id),
                ChangeOp::AddLearner(_) | ChangeOp::Demote(_) => wanted.learners.push(id),
                ChangeOp::Join(_) => {
                    wanted.learners.push(id);
                    wanted.joining.push(id);
                }
                ChangeOp::Remove(_) => {}
            }
        }
        for ids in [&mut wanted.voters, &mut wanted.learners, &mut wanted.joining] {
            ids.sort_unstable();
        }
        wanted
    }

    /// It was taken: is this what node `n` appends for it?
    pub(crate) fn check_taken(&self, n: usize, membership: &Membership) -> Verdict {
        hold!(
            self.is(membership) && membership.is_held() == self.held,
            "M3",
            "node {n} was asked for {self:?}, but appends {membership:?}"
        );
        Ok(())
    }

    /// It is said to be done at `index`: is it this membership, in force since `since`?
    pub(crate) fn check_changed(
        &self,
        token: u64,
        index: u64,
        since: u64,
        membership: &Membership,
    ) -> Verdict {
        hold!(
            since == index && self.is(membership) && membership.is_joint() == self.held,
            "T1",
            "change {token} to {self:?} is said to be done at {index}, but since {since} it is {membership:?}"
        );
        Ok(())
    }

    /// Is it that?
    fn is(&self, membership: &Membership) -> bool {
        self.voters == membership.voters()
            && self.learners == membership.learners()
            && self.joining == membership.joining()
    }
}

impl Ghost {
    /// Entries from `first` on were written: what of the memberships among them?
    pub(super) fn check_memberships(
        &self,
        slot: usize,
        first: u64,
        raft: &Raft,
        leads_on: bool,
        cause: Cause,
        counts: &mut Counts,
    ) -> Verdict {
        let (n, images) = (slot + 1, &self.nodes[slot]);
        for (index, membership) in images.live.memberships_after(first - 1) {
            let (before, old) = images.live.membership_at(index - 1);
            // Before the log's first entry a node that came late knows only of a cluster that is younger.
            if *index > 1 || raft.role() == RoleKind::Leader {
                check_succession(n, *index, old, membership)?;
            }
            if raft.role() != RoleKind::Leader {
                continue;
            }
            counts.bump(Count::Memberships);
            if membership.is_joint() {
                counts.bump(Count::JointMemberships);
            }
            // The first entry says again what each node began with.
            if *index == 1 {
                continue;
            }
            // What is asked for is appended before anything else happens in its step; a joint one is left, or a learner
            // promoted, after something was committed in it.
            let commit = if leads_on && cause.change { images.commit } else { raft.commit().0 };
            hold!(
                before <= commit,
                "M1",
                "node {n} appends a membership at {index} while the one at {before} is not committed"
            );
            let settled = images.live.get(commit).is_some_and(|stone| stone.term == raft.term().0);
            hold!(
                settled || commit < images.live.base(),
                "M4",
                "node {n} appends a membership at {index} before it has committed anything in term {}",
                raft.term()
            );
        }
        Ok(())
    }

    /// A change was taken, and is in the log now.
    pub(crate) fn on_change_taken(&self, slot: usize, wanted: &Wanted) -> Verdict {
        wanted.check_taken(slot + 1, self.nodes[slot].live.membership().1)
    }

    /// A change is said to be done by the membership at `index`.
    pub(super) fn check_changed(&self, token: u64, index: u64, wanted: &Wanted) -> Verdict {
        hold!(
            index <= self.committed.last(),
            "T1",
            "change {token} is said to be done at {index}, which is not committed"
        );
        let (since, membership) = self.committed.membership_at(index);
        wanted.check_changed(token, index, since, membership)
    }
}

/// One membership after another in a log: any quorum of the one meets any of the other (M2), and no id comes back.
pub(crate) fn check_succession(n: usize, index: u64, old: &Membership, new: &Membership) -> Verdict {
    let same_voters = old.voters() == new.voters();
    let right = if old == new {
        // Said again.
        true
    } else if old.is_joint() {
        !new.is_joint() && same_voters && old.learners() == new.learners()
    } else if new.is_joint() {
        new.outgoing() == old.voters()
    } else {
        let differ =
            |a: &Membership, b: &Membership| a.voters().iter().filter(|id| !b.voters().contains(id)).count();
        differ(old, new) + differ(new, old) <= 1
    };
    hold!(right, "M2", "node {n} has {new:?} at {index} after {old:?}");
    let fresh = |id: &NodeId| old.contains(*id) || *id >= old.next_id();
    let fits = new.members().iter().all(fresh) && new.next_id() >= old.next_id();
    hold!(fits, "M5", "node {n} has {new:?} at {index} after {old:?}: an id is used again");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::MembershipParts;

    #[test]
    fn both_sets_of_voters_must_agree_and_learners_need_not() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        let parts = MembershipParts {
            voters: ids(&[1, 2, 3]),
            outgoing: ids(&[3, 4]),
            learners: ids(&[5]),
            ..MembershipParts::default()
        };
        let membership = Membership::try_from(parts).unwrap();
        let agree = |slots: &[usize]| agree(&membership, |slot| slots.contains(&slot));
        assert!(!agree(&[0, 1]), "the outgoing voters don't agree");
        assert!(agree(&[0, 2, 3]) && !agree(&[2, 3, 4]));
        assert_eq!(reached(&membership, |slot| [9, 8, 7, 6, 99][slot]), 6);
    }

    #[test]
    fn memberships_follow_each_other_by_one_voter_or_by_a_joint_one() {
        let of = |voters: &[u64]| Membership::of_voters(voters.iter().copied().map(NodeId));
        let three = of(&[1, 2, 3]);
        assert!(check_succession(1, 2, &three, &of(&[1, 2, 3, 4])).is_ok());
        assert!(check_succession(1, 2, &three, &of(&[1, 2, 3, 4, 5])).is_err());
        let change = MembershipChange::new(vec![ChangeOp::AddVoter(NodeId(4)), ChangeOp::Remove(NodeId(1))]);
        let joint = three.change(&change).unwrap();
        assert!(check_succession(1, 2, &three, &joint).is_ok());
        assert!(check_succession(1, 3, &joint, &joint.left()).is_ok());
        assert!(check_succession(1, 3, &joint, &three).is_err());
        assert!(Wanted::of(&three, &change).is(&joint));
        // Node 1 has left: its id is used.
        assert!(check_succession(1, 4, &joint.left(), &three).is_err());
    }
}

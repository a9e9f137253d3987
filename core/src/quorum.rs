//! Majorities, and two of them at once while the membership changes (paper §6): pure functions.

use alloc::vec::Vec;

use crate::{Membership, NodeId};

/// How an election stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VoteOutcome {
    /// A quorum has said yes.
    Won,
    /// So many have said no that no quorum can say yes.
    Lost,
    /// Neither yet.
    Pending,
}

/// How many of `voters` decide: more than half.
#[must_use]
pub const fn majority(voters: usize) -> usize {
    (voters / 2).saturating_add(1)
}

/// The highest value that a quorum of `membership` has reached: with acknowledged indexes, what is committed; with
/// heartbeat rounds, what is confirmed; with times of last contact, since when a quorum is silent. While a change is
/// under way, both of its majorities must have reached it.
#[inline]
pub fn reached<T: Ord + Copy + Default>(membership: &Membership, value: impl Fn(NodeId) -> T) -> T {
    // The middle one of three: most clusters are of so many, and never sort.
    if let [a, b, c] = membership.voters()
        && !membership.is_joint()
    {
        let (a, b, c) = (value(*a), value(*b), value(*c));
        return a.max(b).min(a.min(b).max(c));
    }
    let new = reached_by(membership.voters(), &value);
    if membership.is_joint() { new.min(reached_by(membership.outgoing(), &value)) } else { new }
}

/// How an election stands in `membership`, given who has answered what. While a change is under way, it is won by
/// winning in both of its majorities, and lost by losing in one.
pub fn vote_outcome(membership: &Membership, vote: impl Fn(NodeId) -> Option<bool>) -> VoteOutcome {
    let new = outcome_in(membership.voters(), &vote);
    if !membership.is_joint() {
        return new;
    }
    match (new, outcome_in(membership.outgoing(), &vote)) {
        (VoteOutcome::Won, VoteOutcome::Won) => VoteOutcome::Won,
        (VoteOutcome::Lost, _) | (_, VoteOutcome::Lost) => VoteOutcome::Lost,
        (VoteOutcome::Won | VoteOutcome::Pending, VoteOutcome::Won | VoteOutcome::Pending) => {
            VoteOutcome::Pending
        }
    }
}

fn reached_by<T: Ord + Copy + Default>(voters: &[NodeId], value: impl Fn(NodeId) -> T) -> T {
    // The k-th largest is what k have reached. Clusters are small: sort in place, on the stack.
    const SMALL: usize = 9;
    let skip = majority(voters.len()).saturating_sub(1);
    let mut small = [T::default(); SMALL];
    if voters.len() <= SMALL {
        for (slot, id) in small.iter_mut().zip(voters) {
            *slot = value(*id);
        }
        let values = small.get_mut(..voters.len()).unwrap_or_default();
        values.sort_unstable_by(|a, b| b.cmp(a));
        return values.get(skip).copied().unwrap_or_default();
    }
    let mut values: Vec<T> = voters.iter().map(|id| value(*id)).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(skip).copied().unwrap_or_default()
}

fn outcome_in(voters: &[NodeId], vote: impl Fn(NodeId) -> Option<bool>) -> VoteOutcome {
    let (mut yes, mut no) = (0_usize, 0_usize);
    for id in voters {
        match vote(*id) {
            Some(true) => yes = yes.saturating_add(1),
            Some(false) => no = no.saturating_add(1),
            None => {}
        }
    }
    let needed = majority(voters.len());
    if yes >= needed {
        VoteOutcome::Won
    } else if voters.len().saturating_sub(no) < needed {
        VoteOutcome::Lost
    } else {
        VoteOutcome::Pending
    }
}

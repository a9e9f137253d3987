//! The arithmetic of majorities against an oracle that tries every subset.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_core::{
    Membership, MembershipParts, NodeId,
    quorum::{self, VoteOutcome, majority},
};

fn membership() -> impl Strategy<Value = Membership> {
    let ids = |min| prop::collection::btree_set(1..12_u64, min..8);
    (ids(1), ids(0)).prop_map(|(voters, outgoing)| {
        let ids = |ids: std::collections::BTreeSet<u64>| ids.into_iter().map(NodeId).collect();
        let parts =
            MembershipParts { voters: ids(voters), outgoing: ids(outgoing), ..MembershipParts::default() };
        Membership::try_from(parts).unwrap()
    })
}

/// Is more than half of each set in favour? By counting, one by one.
fn is_quorum(membership: &Membership, in_favour: impl Fn(NodeId) -> bool) -> bool {
    [membership.voters(), membership.outgoing()]
        .into_iter()
        .filter(|voters| !voters.is_empty())
        .all(|voters| voters.iter().filter(|id| in_favour(**id)).count() * 2 > voters.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reached_is_the_highest_that_a_quorum_has(
        membership in membership(),
        values in prop::collection::btree_map(1..12_u64, 0..20_u64, 0..12),
    ) {
        let value = |id: NodeId| values.get(&id.0).copied().unwrap_or_default();
        let expected = (0..=20_u64).rev().find(|v| is_quorum(&membership, |id| value(id) >= *v));
        prop_assert_eq!(quorum::reached(&membership, value), expected.unwrap());
    }

    #[test]
    fn an_election_is_decided_when_no_answer_could_change_it(
        membership in membership(),
        votes in prop::collection::btree_map(1..12_u64, any::<bool>(), 0..12),
    ) {
        let votes: BTreeMap<NodeId, bool> = votes.into_iter().map(|(id, vote)| (NodeId(id), vote)).collect();
        let with = |rest: bool| is_quorum(&membership, |id| votes.get(&id).copied().unwrap_or(rest));
        let expected = match (with(false), with(true)) {
            (true, _) => VoteOutcome::Won,
            (false, true) => VoteOutcome::Pending,
            (false, false) => VoteOutcome::Lost,
        };
        prop_assert_eq!(quorum::vote_outcome(&membership, |id| votes.get(&id).copied()), expected);
    }
}

#[test]
fn a_majority_of_an_even_number_is_more_than_half() {
    assert_eq!([1, 2, 3, 4, 5, 6, 7].map(majority), [1, 2, 2, 3, 3, 4, 4]);
}

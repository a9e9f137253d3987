//! Changing the membership, one server at a time: §6; diss. 4.1, 4.2.

use quorate_core::{
    Body, ChangeError, ChangeOp, Few, LogId, Membership, MembershipChange, NodeId, Outcome, Rejected,
    RequestId, RoleKind, Run, Term,
};

use crate::{common::*, support::*};

fn voters(ids: &[u64]) -> Membership {
    Membership::of_voters(ids.iter().copied().map(NodeId))
}

fn change(ops: &[ChangeOp]) -> MembershipChange {
    MembershipChange::new(ops.to_vec())
}

/// An entry with a membership.
fn entry(term: u64, index: u64, membership: &Membership) -> Few<Run> {
    Few::one(Run::membership(Term(term), i(index), membership))
}

/// Three voters, led by node 1, and learners 4 and 5, which have everything.
fn with_learners() -> Cluster {
    let mut cluster = led(3);
    for id in [4, 5] {
        cluster.start_as(id, Disk::default(), voters(&[1, 2, 3]));
    }
    cluster
        .change(1, 1, change(&[ChangeOp::AddLearner(NodeId(4)), ChangeOp::AddLearner(NodeId(5))]))
        .unwrap();
    cluster.run(1_000_000);
    assert_eq!(cluster.raft(5).last(), cluster.raft(1).last());
    cluster.wire.clear();
    cluster
}

// ---- 4.1, safety ----

/// §6: "a server always uses the latest configuration in its log, regardless of whether the entry is committed"; diss. 4.1: "a
/// majority of the new configuration is used to determine the Cnew entry's commitment."
///
/// Mutation: 601-membership-in-force-late
#[test]
fn a_new_membership_is_in_force_as_soon_as_the_leader_has_it() {
    let mut cluster = led(3);
    cluster.change(1, 1, change(&[ChangeOp::AddVoter(NodeId(4))])).unwrap();
    let index = index_of_last(&cluster, 1);
    assert_eq!(cluster.raft(1).membership(), &voters(&[1, 2, 3, 4]));
    cluster.deliver_unless(only(&[1, 2]));
    assert!(cluster.raft(1).commit() < index, "two of four");
    cluster.run_unless(500_000, only(&[1, 2, 3]));
    assert!(cluster.raft(1).commit() >= index, "three of four");
}

/// The same, for followers: the election that they would hold is one of the new membership.
///
/// Mutation: 601-membership-in-force-late
#[test]
fn a_new_membership_is_in_force_as_soon_as_a_follower_has_it() {
    let mut cluster = follower(3);
    cluster.receive(2, 1, 2, append(id(2, 5), 3, entry(2, 6, &voters(&[1, 2, 3])))).unwrap();
    cluster.receive(2, 1, 2, append(id(2, 6), 3, entry(2, 7, &voters(&[1, 2, 3, 4])))).unwrap();
    cluster.wire.clear();
    cluster.fire(1);
    let asked = on_wire(&cluster, |body| matches!(body, Body::PreVote { .. }));
    assert_eq!(asked, [(1, 2), (1, 3), (1, 4)]);
}

/// diss. 4.1: "a log entry for a configuration change can be removed (if leadership changes); in this case, a server must be
/// prepared to fall back to the previous configuration in its log."
///
/// Mutation: 602-no-rollback
#[test]
fn a_membership_that_is_truncated_is_no_longer_in_force() {
    let mut cluster = follower(3);
    cluster.receive(2, 1, 2, append(id(2, 5), 3, entry(2, 6, &voters(&[1, 2, 3, 4])))).unwrap();
    assert_eq!(cluster.raft(1).membership().voters().len(), 4);
    cluster.receive(3, 1, 3, append(id(2, 5), 3, Few::one(run(3, 6, 1)))).unwrap();
    assert_eq!(cluster.raft(1).membership(), &voters(&[1, 2, 3]));
    cluster.restart(1);
    assert_eq!(cluster.raft(1).membership(), &voters(&[1, 2, 3]));
}

/// diss. 4.1, once the entry is committed: "Further configuration changes can be started. Before this point, overlapping
/// configuration changes could degrade to unsafe situations."
///
/// Mutation: 603-two-changes-at-once
#[test]
fn one_change_at_a_time() {
    let mut cluster = led(3);
    cluster.change(1, 1, change(&[ChangeOp::AddVoter(NodeId(4))])).unwrap();
    let index = index_of_last(&cluster, 1);
    let refused = cluster.change(1, 2, change(&[ChangeOp::AddVoter(NodeId(5))]));
    assert_eq!(refused, Err(Rejected::Change(ChangeError::Pending { index })));
    cluster.deliver();
    cluster.change(1, 3, change(&[ChangeOp::AddVoter(NodeId(5))])).unwrap();
}

/// Ongaro's erratum to 4.1, of 2015: "a leader may not append a Cnew entry until it has committed an entry from its current
/// term."
///
/// Mutation: 604-change-before-first-commit
#[test]
fn no_change_before_the_terms_first_commit() {
    let mut cluster = candidate(3);
    cluster.receive(2, 1, 1, voted(true)).unwrap();
    let add = || change(&[ChangeOp::AddVoter(NodeId(4))]);
    let early = Err(Rejected::Change(ChangeError::Early { term: Term(1) }));
    assert_eq!(cluster.change(1, 1, add()), early);
    cluster.deliver();
    cluster.change(1, 2, add()).unwrap();
}

/// diss. 4.1: "only one server can be added or removed from the cluster at a time": then "any majority of the old cluster
/// overlaps with any majority of the new cluster". More at once take joint consensus.
///
/// Mutation: 607-two-voters-in-one-step
#[test]
fn one_server_in_one_step_and_more_by_joint_consensus() {
    let from = voters(&[1, 2, 3]);
    for op in [ChangeOp::AddVoter(NodeId(4)), ChangeOp::Remove(NodeId(3)), ChangeOp::Demote(NodeId(3))] {
        assert!(!from.change(&change(&[op])).unwrap().is_joint(), "{op:?}");
    }
    for ops in [
        [ChangeOp::AddVoter(NodeId(4)), ChangeOp::AddVoter(NodeId(5))],
        [ChangeOp::AddVoter(NodeId(4)), ChangeOp::Remove(NodeId(3))],
        [ChangeOp::Remove(NodeId(2)), ChangeOp::Demote(NodeId(3))],
    ] {
        assert!(from.change(&change(&ops)).unwrap().is_joint(), "{ops:?}");
    }
}

/// diss. 4.1: "The configuration change is complete once the Cnew entry is committed."
///
/// Mutation: 608-settled-before-committed
#[test]
fn a_change_is_complete_when_it_is_committed() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.change(1, 2, change(&[ChangeOp::Remove(NodeId(3))])).unwrap();
    let index = index_of_last(&cluster, 1);
    cluster.wire.clear();
    cluster.receive(2, 1, now, appended(index.0 - 1)).unwrap();
    assert_eq!((cluster.raft(1).commit(), outcome(&mut cluster, 1, 2)), (index.prev(), None));
    cluster.receive(2, 1, now, appended(index.0)).unwrap();
    assert_eq!(outcome(&mut cluster, 1, 2), Some(Outcome::Changed { index }));
}

/// diss. 4.1: "it is the caller's configuration that is used in reaching consensus": "A server accepts AppendEntries requests
/// from a leader that is not part of the server's latest configuration."
///
/// Mutation: 605-appends-from-members-only
#[test]
fn a_leader_from_outside_is_followed() {
    let mut cluster = Cluster::new(3);
    cluster.receive(9, 1, 2, append(LogId::ZERO, 0, entry(2, 1, &voters(&[1, 9])))).unwrap();
    assert_eq!((cluster.raft(1).leader(), cluster.raft(1).last()), (Some(NodeId(9)), id(2, 1)));
    assert_eq!(cluster.raft(1).membership(), &voters(&[1, 9]));
}

/// The same: "A server also grants its vote to a candidate that is not part of the server's latest configuration (if the
/// candidate has a sufficiently up-to-date log and a current term)."
///
/// Mutation: 606-votes-for-members-only
#[test]
fn a_candidate_from_outside_gets_a_vote() {
    let mut cluster = follower(3);
    cluster.now = cluster.now.plus(3_000_000);
    let question = Body::PreVote { id: RequestId::default(), last: id(2, 6) };
    cluster.receive(9, 1, 2, question).unwrap();
    cluster.receive(9, 1, 3, vote(id(2, 6))).unwrap();
    let answers = replies(&mut cluster);
    assert!(matches!(answers[0].body, Body::PreVoteReply { granted: true, .. }), "{answers:?}");
    assert!(matches!(answers[1].body, Body::VoteReply { granted: true, .. }), "{answers:?}");
    cluster.receive(8, 1, 4, vote(id(2, 4))).unwrap();
    assert!(matches!(replies(&mut cluster)[0].body, Body::VoteReply { granted: false, .. }));
}

// ---- 4.2.1, catching up new servers ----

/// diss. 4.2.1: "The leader replicates log entries to it, but it is not yet counted towards majorities for voting or commitment
/// purposes": for commitment.
///
/// Mutation: 609-learners-count
#[test]
fn learners_get_the_log_and_commit_nothing() {
    let mut cluster = with_learners();
    let before = cluster.raft(1).commit();
    cluster.propose(1, 7, b"x").unwrap();
    cluster.deliver_unless(only(&[1, 4, 5]));
    assert_eq!(cluster.raft(5).last(), cluster.raft(1).last());
    assert_eq!(cluster.raft(1).commit(), before, "one of three voters");
}

/// The same: "for voting".
///
/// Mutation: 610-learners-asked
#[test]
fn learners_are_not_asked_for_votes() {
    let mut cluster = with_learners();
    cluster.now = cluster.now.plus(5_000_000);
    cluster.fire(2);
    let asked = on_wire(&cluster, |body| matches!(body, Body::PreVote { .. }));
    assert_eq!(asked, [(2, 1), (2, 3)]);
    cluster.deliver_unless(|_, _, message| is_vote(&message.body));
    assert_eq!(role(&cluster, 2), RoleKind::Candidate);
    let now = term(&cluster, 2);
    for learner in [4, 5] {
        cluster.receive(learner, 2, now, voted(true)).unwrap();
    }
    assert_eq!(role(&cluster, 2), RoleKind::Candidate, "nor does what they say count");
}

/// The same: "non-voting members" campaign for nothing.
///
/// Mutation: 611-learner-campaigns
#[test]
fn a_learner_does_not_campaign() {
    let mut cluster = with_learners();
    let now = term(&cluster, 4);
    cluster.run_unless(20_000_000, |from, to, _| from.0 == 4 || to.0 == 4);
    assert_eq!((role(&cluster, 4), term(&cluster, 4)), (RoleKind::Follower, now));
}

/// Node 4 is to become a voter of three others'; nobody has heard from it.
fn joining() -> Cluster {
    let mut cluster = led(3);
    cluster.change(1, 1, change(&[ChangeOp::Join(NodeId(4))])).unwrap();
    cluster.deliver();
    assert_eq!(cluster.raft(1).membership().joining(), [NodeId(4)]);
    cluster
}

fn promoted(cluster: &Cluster) -> bool {
    cluster.raft(1).membership().voters().contains(&NodeId(4))
}

/// diss. 4.2.1: "If the last round lasts less than an election timeout, then the leader adds the new server to the cluster,
/// under the assumption that there are not enough unreplicated entries to create a significant availability gap."
///
/// Mutation: 612-slow-round-promotes
#[test]
fn a_learner_joins_after_a_round_that_was_short_enough() {
    let mut cluster = joining();
    let now = term(&cluster, 1);
    cluster.receive(4, 1, now, appended(1)).unwrap();
    assert!(!promoted(&cluster), "a round begins");
    cluster.now = cluster.now.plus(1_500_000);
    cluster.receive(4, 1, now, appended(2)).unwrap();
    assert!(!promoted(&cluster), "it took longer than an election timeout");
    cluster.now = cluster.now.plus(100_000);
    cluster.receive(4, 1, now, Body::HeartbeatReply { round: 1, asleep: false }).unwrap();
    assert!(promoted(&cluster));
}

/// diss. 4.2.1: "Each round replicates all the log entries present in the leader's log at the start of the round to the new
/// server's log."
///
/// Mutation: 613-round-ends-early
#[test]
fn a_round_ends_with_all_that_was_there_at_its_start() {
    let mut cluster = joining();
    let now = term(&cluster, 1);
    for token in 2..=4 {
        cluster.propose(1, token, b"x").unwrap();
    }
    cluster.deliver();
    let last = index_of_last(&cluster, 1).0;
    cluster.receive(4, 1, now, appended(1)).unwrap();
    cluster.receive(4, 1, now, appended(last - 1)).unwrap();
    assert!(!promoted(&cluster), "one is missing");
    cluster.receive(4, 1, now, appended(last)).unwrap();
    assert!(promoted(&cluster));
}

// ---- 4.2.2, removing the leader ----

/// diss. 4.2.2: "a leader that is removed from the configuration steps down once the Cnew entry is committed", and not before.
///
/// Mutation: 614-removed-leader-stays
#[test]
fn a_removed_leader_steps_down_when_that_is_committed() {
    let mut cluster = led(3);
    cluster.change(1, 1, change(&[ChangeOp::Remove(NodeId(1))])).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
    cluster.deliver_unless(only(&[1, 2]));
    assert_eq!(role(&cluster, 1), RoleKind::Leader, "it is still needed");
    cluster.run_unless(500_000, |_, _, message| message.body == Body::TimeoutNow);
    assert_eq!(
        (role(&cluster, 1), cluster.raft(1).commit()),
        (RoleKind::Follower, index_of_last(&cluster, 1))
    );
}

/// diss. 4.2.2: "a leader can manage a cluster that does not include itself; it replicates log entries but does not count
/// itself in majorities."
///
/// Mutation: 615-removed-leader-counts-itself
#[test]
fn a_removed_leader_does_not_count_itself() {
    let mut cluster = led(4);
    cluster.change(1, 1, change(&[ChangeOp::Remove(NodeId(1))])).unwrap();
    let index = index_of_last(&cluster, 1);
    cluster.deliver_unless(only(&[1, 3]));
    assert!(cluster.raft(1).commit() < index, "one of nodes 2 to 4");
    cluster.run_unless(500_000, only(&[1, 3, 4]));
    assert!(cluster.raft(1).commit() >= index);
}

/// §6, diss. 4.2.2: "at this point … one of the servers in Cnew will be elected": the leader has one of them begin, so that
/// nobody waits for a timeout.
///
/// Mutation: 616-removed-leader-tells-nobody
#[test]
fn a_removed_leader_leaves_somebody_in_charge() {
    let mut cluster = led(3);
    cluster.change(1, 1, change(&[ChangeOp::Remove(NodeId(1))])).unwrap();
    cluster.deliver();
    let leaders: Vec<u64> = (2..=3).filter(|id| role(&cluster, *id) == RoleKind::Leader).collect();
    assert_eq!(leaders.len(), 1, "without a moment's delay");
}

/// diss. 4.2.2: "a server that is not part of its own latest configuration should still start new elections, as it might still be
/// needed until the Cnew entry is committed (as in Figure 4.6)." Here the other one lacks the entry, and so can't be elected.
///
/// Mutation: 619-leaving-server-gives-up
#[test]
fn a_server_that_is_to_leave_is_needed_until_that_is_committed() {
    let mut cluster = led(2);
    cluster.change(1, 1, change(&[ChangeOp::Remove(NodeId(1))])).unwrap();
    cluster.wire.clear();
    cluster.restart(1);
    cluster.run(30_000_000);
    assert_eq!((cluster.raft(2).membership(), role(&cluster, 2)), (&voters(&[2]), RoleKind::Leader));
    // And it is not a moment longer.
    let (last, now) = (term(&cluster, 1), cluster.now);
    assert_eq!(role(&cluster, 1), RoleKind::Follower);
    cluster.now = now.plus(10_000_000);
    cluster.fire(1);
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Follower, last));
}

/// diss. 4.2.2: "It does not count its own vote in elections unless it is part of its latest configuration."
///
/// Mutation: 620-leaving-server-counts-its-vote
#[test]
fn a_server_that_is_to_leave_does_not_count_its_own_vote() {
    let mut cluster = impatient(4);
    cluster.elect(1);
    cluster.change(1, 1, change(&[ChangeOp::Remove(NodeId(1))])).unwrap();
    cluster.wire.clear();
    cluster.restart(1);
    cluster.fire(1);
    assert_eq!(
        (role(&cluster, 1), on_wire(&cluster, is_vote)),
        (RoleKind::Candidate, vec![(1, 2), (1, 3), (1, 4)])
    );
    let now = term(&cluster, 1);
    cluster.receive(2, 1, now, voted(true)).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Candidate, "one of nodes 2 to 4");
    cluster.receive(4, 1, now, voted(true)).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
}

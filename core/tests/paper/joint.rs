//! §6; diss. 4.3: arbitrary changes, by joint consensus.

use quorate_core::{
    Body, ChangeOp, HardState, Membership, MembershipChange, MembershipParts, NodeId, Outcome, RoleKind, Run,
    Term, Transition,
};

use crate::{common::*, support::*};

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// From nodes 1 to 3, to nodes 1, 4 and 5.
fn swap() -> MembershipChange {
    let ops = [ChangeOp::Remove, ChangeOp::Remove, ChangeOp::AddVoter, ChangeOp::AddVoter];
    let ops = ops.into_iter().zip([2, 3, 4, 5]).map(|(op, id)| op(NodeId(id)));
    MembershipChange::new(ops.collect())
}

/// Node 1 leads three nodes; two more wait.
fn before() -> Cluster {
    let mut cluster = led(3);
    for id in [4, 5] {
        cluster.start_as(id, Disk::default(), Membership::of_voters(ids(&[1, 2, 3])));
    }
    cluster
}

/// Five nodes that are all in the middle of the change: it is in their logs, committed by none; nobody leads.
fn amidst() -> Cluster {
    let parts =
        MembershipParts { voters: ids(&[1, 4, 5]), outgoing: ids(&[1, 2, 3]), ..MembershipParts::default() };
    let joint = Membership::try_from(parts).unwrap();
    let mut cluster = impatient(5);
    for id in 1..=5 {
        let hard_state = HardState { term: Term(1), vote: None };
        let log = vec![Run::membership(Term(1), i(1), &joint)];
        cluster.start(id, Disk { hard_state, log, ..Disk::default() });
    }
    cluster
}

/// Node 1 leads them, in term 2.
fn led_amidst() -> Cluster {
    let mut cluster = amidst();
    cluster.fire(1);
    for voter in [2, 4] {
        cluster.receive(voter, 1, 2, voted(true)).unwrap();
    }
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
    cluster
}

/// diss. 4.3: "Log entries are replicated to all servers in both configurations."
///
/// Mutation: 701-joint-leader-sends-to-new-only
#[test]
fn entries_go_to_the_servers_of_both() {
    let mut cluster = led_amidst();
    let appends = on_wire(&cluster, is_append);
    assert_eq!(appends, [(1, 2), (1, 3), (1, 4), (1, 5)]);
    cluster.wire.clear();
    // Also from the leader that begins the change.
    let mut cluster = before();
    cluster.change(1, 1, swap()).unwrap();
    assert_eq!(on_wire(&cluster, is_append), [(1, 2), (1, 3), (1, 4), (1, 5)]);
}

/// diss. 4.3: "Any server from either configuration may serve as leader."
///
/// Mutation: 702-outgoing-cannot-lead
#[test]
fn a_server_of_either_may_lead() {
    for leader in 1..=5 {
        let mut cluster = amidst();
        cluster.now = cluster.now.plus(3_000_000);
        cluster.fire(leader);
        cluster.deliver_unless(|_, _, message| is_append(&message.body));
        assert_eq!(role(&cluster, leader), RoleKind::Leader, "node {leader}");
    }
}

/// diss. 4.3: "Agreement (for elections …) requires majorities from both the old and new configurations."
///
/// Mutation: 703-elected-by-the-new-alone
#[test]
fn an_election_takes_both_majorities() {
    for (of_one, of_the_other) in [([4, 5], 2), ([4, 5], 3), ([2, 3], 4), ([2, 3], 5)] {
        let mut cluster = amidst();
        cluster.fire(1);
        for voter in of_one {
            cluster.receive(voter, 1, 2, voted(true)).unwrap();
            assert_eq!(role(&cluster, 1), RoleKind::Candidate);
        }
        cluster.receive(of_the_other, 1, 2, voted(true)).unwrap();
        assert_eq!(role(&cluster, 1), RoleKind::Leader);
    }
}

/// diss. 4.3: "Agreement (for … entry commitment) requires majorities from both the old and new configurations."
///
/// Mutation: 704-committed-by-the-new-alone
#[test]
fn a_commit_takes_both_majorities() {
    for (of_one, of_the_other) in [([4, 5], 2), ([2, 3], 4)] {
        let mut cluster = led_amidst();
        for peer in of_one {
            cluster.receive(peer, 1, 2, appended(2)).unwrap();
            assert_eq!(cluster.raft(1).commit(), i(0));
        }
        cluster.receive(of_the_other, 1, 2, appended(2)).unwrap();
        assert_eq!(cluster.raft(1).commit(), i(2));
    }
}

/// diss. 4.3: "Once Cold,new has been committed, neither Cold nor Cnew can make decisions without approval of the other … It is
/// now safe for a leader to create a log entry describing Cnew and replicate it to the cluster."
///
/// Mutation: 705-joint-never-left
#[test]
fn the_new_membership_follows_the_joint_one() {
    let mut cluster = before();
    cluster.change(1, 1, swap()).unwrap();
    assert!(cluster.raft(1).membership().is_joint());
    cluster.run(1_000_000);
    let membership = cluster.raft(1).membership().clone();
    assert_eq!((membership.voters(), membership.is_joint()), (&ids(&[1, 4, 5])[..], false));
    let index = cluster.raft(1).status().membership_index;
    assert_eq!(outcome(&mut cluster, 1, 1), Some(Outcome::Changed { index }), "when that is committed");
    for id in [1, 4, 5] {
        assert_eq!((cluster.raft(id).membership(), cluster.raft(id).commit()), (&membership, index));
    }
}

/// The same: not before it has been committed.
///
/// Mutation: 608-settled-before-committed
#[test]
fn a_joint_membership_is_not_left_before_it_is_committed() {
    let mut cluster = before();
    let now = term(&cluster, 1);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.change(1, 2, swap()).unwrap();
    let index = index_of_last(&cluster, 1);
    cluster.wire.clear();
    for peer in [2, 4] {
        cluster.receive(peer, 1, now, appended(index.0 - 1)).unwrap();
    }
    assert_eq!((cluster.raft(1).commit(), index_of_last(&cluster, 1)), (index.prev(), index));
    for peer in [2, 4] {
        cluster.receive(peer, 1, now, appended(index.0)).unwrap();
    }
    assert_eq!((cluster.raft(1).commit(), index_of_last(&cluster, 1)), (index, index.next()));
}

/// The same, where the caller wants to say when: it may be served by a joint membership as long as he likes.
///
/// Mutation: 706-held-joint-left
#[test]
fn a_joint_membership_that_is_held_is_left_when_that_is_asked_for() {
    let mut cluster = before();
    let change = MembershipChange { transition: Transition::Explicit, ..swap() };
    cluster.change(1, 1, change).unwrap();
    cluster.run(1_000_000);
    assert!(cluster.raft(1).membership().is_joint());
    assert!(matches!(outcome(&mut cluster, 1, 1), Some(Outcome::Changed { .. })));
    cluster.change(1, 2, MembershipChange::leave()).unwrap();
    cluster.run(1_000_000);
    assert!(!cluster.raft(1).membership().is_joint());
}

/// §6: "If the leader crashes, a new leader may be chosen under either Cold or Cold,new, depending on whether the winning
/// candidate has received Cold,new": whoever it is brings the change to its end.
///
/// Mutation: 707-next-leader-does-not-leave
#[test]
fn the_next_leader_brings_a_change_to_its_end() {
    let mut cluster = led_amidst();
    cluster.run(1_000_000);
    assert_eq!(cluster.raft(1).membership().voters(), ids(&[1, 4, 5]));
    assert!(!cluster.raft(1).membership().is_joint());
    assert_eq!(cluster.raft(4).commit(), index_of_last(&cluster, 1));
}

/// §6: "in the case of the leader not being part of the new configuration … the leader steps down (returns to follower state)
/// once it has committed the Cnew log entry": it led the joint one to its end.
///
/// Mutation: 614-removed-leader-stays
#[test]
fn a_leader_of_the_old_alone_steps_down_at_the_end() {
    let mut cluster = amidst();
    cluster.fire(2);
    cluster.deliver_unless(|_, _, message| message.body == Body::TimeoutNow);
    assert_eq!(terms_led(&mut cluster, 2), [2]);
    assert_eq!(
        (role(&cluster, 2), cluster.raft(2).commit()),
        (RoleKind::Follower, index_of_last(&cluster, 2))
    );
    assert!(!cluster.raft(2).membership().is_joint());
}

/// diss. 4.3: "Agreement … requires majorities from both the old and new configurations": the agreement that nobody else leads, too,
/// on which a read rests (6.4).
///
/// Mutation: 704-committed-by-the-new-alone
#[test]
fn a_read_takes_both_majorities() {
    let mut cluster = before();
    let change = MembershipChange { transition: Transition::Explicit, ..swap() };
    cluster.change(1, 1, change).unwrap();
    cluster.run(1_000_000);
    cluster.wire.clear();
    let now = term(&cluster, 1);
    cluster.step(1, quorate_core::Input::read(quorate_core::Token(9))).unwrap();
    let round = |message: &quorate_core::Message| match message.body {
        Body::Heartbeat { round, .. } => round,
        _ => 0,
    };
    let round = cluster.wire.iter().map(|(_, _, message)| round(message)).max().unwrap();
    for peer in [4, 5] {
        cluster.receive(peer, 1, now, Body::HeartbeatReply { round, asleep: false }).unwrap();
        assert_eq!(outcome(&mut cluster, 1, 9), None);
    }
    cluster.receive(2, 1, now, Body::HeartbeatReply { round, asleep: false }).unwrap();
    assert!(matches!(outcome(&mut cluster, 1, 9), Some(Outcome::Read { .. })));
}

//! What the protocol offers beyond the paper's core: snapshots, other memberships, transfer, leases, as a driver sees it.

mod common;

use common::*;
use quorate_core::{
    ChangeError, ChangeOp, Input, Membership, MembershipChange, Mode, NodeId, Outcome, ReadKind, Rejected,
    RoleKind, Term, Token, Transition,
};

fn change(ops: &[ChangeOp]) -> MembershipChange {
    MembershipChange::new(ops.to_vec())
}

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// A cluster of three, led by node 1, with some commands in it.
fn three() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for n in 0..10 {
        cluster.propose(1, n, &[n as u8]).unwrap();
    }
    cluster.deliver();
    cluster
}

fn outcome(cluster: &mut Cluster, id: u64, token: u64) -> Option<Outcome> {
    let outcomes: Vec<Outcome> =
        cluster.node(id).outcomes.iter().filter(|(t, _)| t.0 == token).map(|(_, o)| *o).collect();
    assert!(outcomes.len() <= 1, "{token} was resolved twice: {outcomes:?}");
    outcomes.first().copied()
}

// ---- snapshots ----

#[test]
fn a_follower_that_lags_behind_the_log_gets_a_snapshot() {
    let mut cluster = three();
    let lost = |from: NodeId, to: NodeId, _: &_| from.0 == 3 || to.0 == 3;
    for n in 10..20 {
        cluster.propose(1, n, &[n as u8]).unwrap();
    }
    cluster.run_unless(500_000, lost);
    cluster.compact(1, 2);
    let base = cluster.raft(1).status().base.index;
    assert_eq!(base.0, 19);
    cluster.run(3_000_000);
    let (one, three) = (cluster.raft(1).status(), cluster.raft(3).status());
    assert_eq!((three.last, three.commit, three.applied), (one.last, one.commit, one.applied));
    assert_eq!(three.snapshot.index.0, 21);
    assert!(one.peers.iter().all(|peer| peer.mode == Mode::Replicate), "{:?}", one.peers);
    assert_eq!(cluster.nodes[&3].applied, cluster.nodes[&1].applied);
    // And goes on from there, also after a restart.
    cluster.propose(1, 99, b"z").unwrap();
    cluster.run(1_000_000);
    cluster.restart(3);
    cluster.run(3_000_000);
    assert_eq!(cluster.nodes[&3].applied, cluster.nodes[&1].applied);
}

#[test]
fn a_snapshot_that_fails_is_sent_again() {
    let mut cluster = three();
    cluster.hold_snapshots = true;
    cluster.run_unless(500_000, |_, to, _| to.0 == 3);
    cluster.propose(1, 50, b"x").unwrap();
    cluster.run_unless(500_000, |_, to, _| to.0 == 3);
    cluster.compact(1, 0);
    for _ in 0..2 {
        cluster.run(1_000_000);
        assert_eq!(cluster.node(1).sending.len(), 1, "once, and not again before the end is told");
        cluster.send_snapshots(1, false);
    }
    cluster.run(1_000_000);
    cluster.send_snapshots(1, true);
    cluster.run(1_000_000);
    assert_eq!(cluster.raft(3).last(), cluster.raft(1).last());
}

// ---- membership ----

#[test]
fn a_cluster_grows_from_one_to_five_and_shrinks_again() {
    let mut cluster = Cluster::new(1);
    cluster.elect(1);
    for id in 2..=5 {
        cluster.start_as(id, Disk::default(), Membership::of_voters([NodeId(1)]));
        cluster.change(1, id, change(&[ChangeOp::Join(NodeId(id))])).unwrap();
        cluster.run(3_000_000);
        assert!(matches!(outcome(&mut cluster, 1, id), Some(Outcome::Changed { .. })), "{id}");
        assert_eq!(cluster.raft(1).membership().voters().len() as u64, id, "promoted by itself");
    }
    for id in 1..=5 {
        assert_eq!(cluster.raft(id).membership().voters(), ids(&[1, 2, 3, 4, 5]));
    }
    // The leader and another leave, in one request; the others go on without waiting for a timeout.
    let before = cluster.now;
    cluster.change(1, 77, change(&[ChangeOp::Remove(NodeId(1)), ChangeOp::Remove(NodeId(2))])).unwrap();
    cluster.deliver();
    assert!(matches!(outcome(&mut cluster, 1, 77), Some(Outcome::Changed { .. })));
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
    assert_eq!(cluster.now, before);
    let leader = cluster.leader().unwrap();
    assert!(leader > 2);
    cluster.run(10_000_000);
    assert_eq!(cluster.leader(), Some(leader), "those who have left disturb nobody");
    assert_eq!(cluster.raft(leader).membership().voters(), ids(&[3, 4, 5]));
    assert_eq!(
        cluster.change(leader, 78, change(&[ChangeOp::AddVoter(NodeId(2))])),
        Err(Rejected::Change(ChangeError::IdUsed { id: NodeId(2), next: NodeId(6) }))
    );
}

#[test]
fn who_is_removed_hears_of_it_even_if_the_news_is_lost_once() {
    let mut cluster = three();
    cluster.change(1, 70, change(&[ChangeOp::Remove(NodeId(3))])).unwrap();
    // Node 2 is slow to make it durable, and node 3 doesn't hear of it at first.
    cluster.slow_disks.push(2);
    cluster.deliver_unless(|_, to, m| to.0 == 3 && matches!(m.body, quorate_core::Body::Append { .. }));
    cluster.run(500_000);
    assert!(!cluster.raft(3).membership().is_voter(NodeId(3)), "it was sent again");
    cluster.slow_disks.clear();
    cluster.persist_all(2);
    cluster.run(500_000);
    assert!(matches!(outcome(&mut cluster, 1, 70), Some(Outcome::Changed { .. })));
    // Even at a later term it can't depose the leader now.
    let term = cluster.raft(1).term();
    let late =
        cluster.receive(3, 1, term.0 + 9, quorate_core::Body::HeartbeatReply { round: 1, asleep: false });
    assert_eq!((late, cluster.raft(1).term()), (Err(Rejected::NotMember { from: NodeId(3) }), term));
}

#[test]
fn a_leader_with_uncommitted_entries_can_be_removed() {
    let mut cluster = three();
    cluster.change(1, 70, change(&[ChangeOp::Remove(NodeId(1))])).unwrap();
    // More comes behind it, and is not committed when the change is.
    for n in 71..75 {
        cluster.propose(1, n, b"late").unwrap();
    }
    let late = cluster.raft(1).last().index;
    cluster.slow_disks.extend([2, 3]);
    cluster.deliver();
    cluster.persist_one(2);
    cluster.persist_one(3);
    cluster.deliver();
    assert_eq!(cluster.raft(1).role(), RoleKind::Follower);
    assert!(cluster.raft(1).commit() < late);
    assert_eq!(outcome(&mut cluster, 1, 72), Some(Outcome::Unknown));
    cluster.slow_disks.clear();
    cluster.persist_all(2);
    cluster.persist_all(3);
    cluster.run(5_000_000);
    let leader = cluster.leader().unwrap();
    assert!(cluster.raft(leader).commit() >= late);
}

#[test]
fn an_explicit_joint_change_is_left_on_request() {
    let mut cluster = three();
    let held = MembershipChange { ops: vec![ChangeOp::Remove(NodeId(3))], transition: Transition::Explicit };
    cluster.change(1, 60, held).unwrap();
    cluster.run(2_000_000);
    assert!(cluster.raft(2).membership().is_joint());
    assert!(matches!(outcome(&mut cluster, 1, 60), Some(Outcome::Changed { .. })));
    cluster.change(1, 61, MembershipChange::leave()).unwrap();
    cluster.run(2_000_000);
    assert_eq!(cluster.raft(2).membership().voters(), ids(&[1, 2]));
}

#[test]
fn an_uncommitted_membership_is_rolled_back_with_its_entry() {
    let mut cluster = three();
    let before = cluster.raft(1).membership().clone();
    cluster.change(1, 60, change(&[ChangeOp::AddLearner(NodeId(4))])).unwrap();
    assert_eq!(
        cluster.change(1, 61, change(&[ChangeOp::AddLearner(NodeId(5))])),
        Err(Rejected::Change(ChangeError::Pending { index: cluster.raft(1).last().index }))
    );
    cluster.wire.clear();
    assert_ne!(*cluster.raft(1).membership(), before);
    cluster.run_unless(3_000_000, |from, to, _| from.0 == 1 || to.0 == 1);
    cluster.run(3_000_000);
    assert_eq!(*cluster.raft(1).membership(), before);
    assert_eq!(outcome(&mut cluster, 1, 60), Some(Outcome::Unknown));
}

// ---- transfer ----

#[test]
fn leadership_is_handed_over_at_once_and_without_a_gap_in_the_log() {
    let mut cluster = three();
    let before = cluster.now;
    cluster.step(1, Input::TransferLeadership { token: Token(80), to: Some(NodeId(3)) }).unwrap();
    assert_eq!(cluster.propose(1, 81, b"x"), Err(Rejected::Transferring { to: NodeId(3) }));
    cluster.deliver();
    assert_eq!((cluster.leader(), cluster.now), (Some(3), before));
    assert_eq!(outcome(&mut cluster, 1, 80), Some(Outcome::Transferred { to: NodeId(3) }));
}

#[test]
fn a_transfer_to_a_dead_node_is_given_up_in_time() {
    let mut cluster = three();
    cluster.propose(1, 79, b"x").unwrap();
    cluster.step(1, Input::TransferLeadership { token: Token(80), to: Some(NodeId(3)) }).unwrap();
    cluster.run_unless(1_100_000, |from, to, _| from.0 == 3 || to.0 == 3);
    assert!(matches!(outcome(&mut cluster, 1, 80), Some(Outcome::Refused { leader: Some(NodeId(1)) })));
    cluster.propose(1, 81, b"y").unwrap();
    assert_eq!(
        cluster.step(1, Input::TransferLeadership { token: Token(82), to: Some(NodeId(9)) }),
        Err(Rejected::NoSuchVoter)
    );
}

#[test]
fn leadership_goes_to_somebody_who_answers() {
    for dead in [2, 3] {
        let mut cluster = three();
        cluster.run_unless(1_500_000, |from, to, _| from.0 == dead || to.0 == dead);
        cluster.step(1, Input::TransferLeadership { token: Token(80), to: None }).unwrap();
        cluster.deliver_unless(|from, to, _| from.0 == dead || to.0 == dead);
        assert_eq!(cluster.leader(), Some(5 - dead));
    }
}

// ---- reads and leases ----

fn leased(id: u64) -> Cluster {
    let mut cluster = Cluster::with(3, |config| config.lease_reads = true);
    cluster.elect(id);
    cluster.run(300_000);
    cluster
}

fn lease_read(cluster: &mut Cluster, id: u64, token: u64) -> Option<Outcome> {
    cluster.step(id, Input::Read { token: Token(token), kind: ReadKind::Lease }).unwrap();
    outcome(cluster, id, token)
}

#[test]
fn a_lease_saves_the_round_until_it_ends() {
    let mut cluster = leased(1);
    assert!(cluster.wire.is_empty());
    assert!(matches!(lease_read(&mut cluster, 1, 1), Some(Outcome::Read { .. })));
    assert!(cluster.wire.is_empty(), "nobody was asked");
    // A paused leader goes on: it must ask.
    cluster.now = cluster.now.plus(900_000);
    assert_eq!(lease_read(&mut cluster, 1, 2), None);
    cluster.deliver();
    assert!(matches!(outcome(&mut cluster, 1, 2), Some(Outcome::Read { .. })));
}

#[test]
fn there_is_no_lease_once_another_was_told_to_campaign() {
    let mut cluster = leased(1);
    cluster.step(1, Input::TransferLeadership { token: Token(9), to: Some(NodeId(2)) }).unwrap();
    cluster.wire.clear();
    assert_eq!(lease_read(&mut cluster, 1, 1), None);
    assert_eq!(cluster.raft(1).status().lease_until, None);
    cluster.run_unless(1_050_000, |_, _, m| matches!(m.body, quorate_core::Body::TimeoutNow));
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    assert_eq!(cluster.raft(1).status().lease_until, None, "not in this term any more");
}

#[test]
fn under_leases_a_restarted_node_keeps_its_vote_and_nobody_forgets_or_campaigns() {
    let mut cluster = leased(1);
    assert_eq!(cluster.step(2, Input::ForgetLeader), Err(Rejected::Leased));
    assert_eq!(cluster.step(2, Input::Campaign), Err(Rejected::Leased));
    cluster.restart(3);
    let (term, last) = (cluster.raft(1).term().0, cluster.raft(1).last());
    cluster.receive(2, 3, term + 1, vote(last)).unwrap();
    assert_eq!(cluster.raft(3).term(), Term(term), "it may have promised to be silent");
    cluster.now = cluster.now.plus(1_000_000);
    cluster.receive(2, 3, term + 1, vote(last)).unwrap();
    assert_eq!(cluster.raft(3).hard_state().vote, Some(NodeId(2)));
}

#[test]
fn a_read_at_an_index_asks_nobody() {
    let mut cluster = three();
    cluster.run(300_000);
    let last = cluster.raft(2).last().index;
    cluster.step(2, Input::Read { token: Token(1), kind: ReadKind::AtLeast(last) }).unwrap();
    assert_eq!(outcome(&mut cluster, 2, 1), Some(Outcome::Read { index: last }));
    cluster.step(2, Input::Read { token: Token(2), kind: ReadKind::AtLeast(last.next()) }).unwrap();
    cluster.step(2, Input::Read { token: Token(3), kind: ReadKind::AtLeast(last) }).unwrap();
    assert_eq!(outcome(&mut cluster, 2, 2), None);
    assert!(outcome(&mut cluster, 2, 3).is_some(), "not held up by the one before");
    cluster.propose(1, 50, b"x").unwrap();
    cluster.deliver();
    assert!(outcome(&mut cluster, 2, 2).is_some());
}

// ---- the rest ----

#[test]
fn a_proposal_for_another_term_is_refused() {
    let mut cluster = three();
    let term = cluster.raft(1).term();
    let mut proposal = quorate_core::Proposal::one(Token(50), b"x");
    proposal.term = term.next();
    assert_eq!(cluster.step(1, Input::Propose(proposal.clone())), Err(Rejected::WrongTerm { term }));
    proposal.term = Some(term);
    cluster.step(1, Input::Propose(proposal)).unwrap();
}

#[test]
fn proposals_that_arrive_together_leave_in_one_append() {
    let mut cluster = three();
    let now = cluster.now;
    for n in 50..58 {
        cluster.node(1).raft.step(now, Input::Propose(quorate_core::Proposal::one(Token(n), b"x"))).unwrap();
    }
    cluster.settle(1);
    let appends = cluster.wire.iter().filter(|(_, _, m)| matches!(m.body, quorate_core::Body::Append { .. }));
    assert_eq!(appends.count(), 2, "one to each");
}

#[test]
fn a_favourite_campaigns_first_and_a_dead_one_holds_nobody_up() {
    for seed in 0..20 {
        let dead = |is: bool| move |from: NodeId, to: NodeId, _: &_| is && (from.0 == 3 || to.0 == 3);
        for is_dead in [false, true] {
            let mut cluster =
                Cluster::with(3, |config| config.priority = if config.id.0 == 3 { 255 } else { 0 });
            // Other seeds, other timeouts.
            for _ in 0..seed {
                cluster.restart(1);
                cluster.restart(3);
            }
            cluster.run_unless(2_000_000, dead(is_dead));
            assert_eq!(cluster.leader(), (!is_dead).then_some(3));
            // Two attempts at most are at the same time; each costs no more than usual.
            cluster.run_unless(6_000_000, dead(is_dead));
            assert!(cluster.leader().is_some());
        }
    }
}

#[test]
fn what_was_under_way_to_a_lost_peer_is_sent_again_at_once() {
    let mut cluster = three();
    cluster.propose(1, 50, b"x").unwrap();
    cluster.deliver_unless(|_, to, _| to.0 == 2);
    cluster.step(1, Input::Unreachable { peer: NodeId(2) }).unwrap();
    cluster.deliver();
    assert_eq!(cluster.raft(2).last(), cluster.raft(1).last());
}

//! Whole clusters in one thread: they elect, replicate, lose nodes and go on.

mod common;

use common::*;
use quorate_core::{Input, Outcome, Rejected, RoleKind, Token};

#[test]
fn three_nodes_elect_replicate_and_apply_everywhere() {
    let mut cluster = Cluster::new(3);
    cluster.run(5_000_000);
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, 1, b"a").unwrap();
    cluster.propose(leader, 2, b"b").unwrap();
    cluster.deliver();
    assert_eq!(cluster.node(leader).done, [Token(1), Token(2)]);
    for id in 1..=3 {
        assert_eq!(cluster.node(id).applied, [b"a", b"b"], "node {id}");
    }
}

#[test]
fn a_single_node_is_leader_once_its_vote_is_durable() {
    let mut cluster = Cluster::new(1);
    cluster.slow_disks = vec![1];
    cluster.fire(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.persist_one(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    cluster.propose(1, 1, b"x").unwrap();
    assert!(cluster.node(1).applied.is_empty());
    cluster.persist_all(1);
    assert_eq!(cluster.node(1).applied, [b"x"]);
    assert_eq!(cluster.raft(1).deadline(), None, "alone and idle it sleeps for ever");
}

#[test]
fn a_new_leader_takes_over_what_was_committed_and_the_old_one_learns() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 1, b"kept").unwrap();
    cluster.deliver();
    // Node 1 is cut off, and goes on proposing.
    cluster.propose(1, 2, b"lost").unwrap();
    cluster.wire.clear();
    cluster.run_unless(10_000_000, |from, to, _| from.0 == 1 || to.0 == 1);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, 1);
    assert_ne!(cluster.raft(1).role(), RoleKind::Leader, "check-quorum: it has stepped down");
    assert_eq!(cluster.node(1).outcomes, [(Token(2), Outcome::Unknown)]);
    cluster.propose(leader, 3, b"new").unwrap();
    cluster.run(5_000_000);
    for id in 1..=3 {
        assert_eq!(cluster.node(id).applied, [&b"kept"[..], b"new"], "node {id}");
    }
}

#[test]
fn everything_durable_survives_a_restart_of_all() {
    let mut cluster = Cluster::new(3);
    cluster.elect(2);
    for n in 0..100 {
        cluster.propose(2, n, &[n as u8; 100]).unwrap();
    }
    cluster.deliver();
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.wire.clear();
    cluster.run(10_000_000);
    for id in 1..=3 {
        assert_eq!(cluster.node(id).applied.len(), 100, "node {id}");
    }
}

#[test]
fn a_follower_far_behind_is_fed_from_storage() {
    let mut cluster = Cluster::with(3, |config| {
        config.max_cached_bytes = 1000;
        config.max_append_bytes = 300;
        config.max_inflight_messages = 3;
        config.max_applying_bytes = 200;
    });
    cluster.elect(1);
    for n in 0..200 {
        cluster.propose(1, n, &[n as u8; 100]).unwrap();
        cluster.deliver_unless(|from, to, _| from.0 == 3 || to.0 == 3);
    }
    assert!(cluster.raft(1).status().cached_bytes <= 1000);
    assert_eq!(cluster.node(2).applied.len(), 200);
    cluster.run(2_000_000);
    assert_eq!(cluster.node(3).applied.len(), 200);
}

#[test]
fn reads_are_linearizable_from_leader_and_follower() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 1, b"a").unwrap();
    cluster.deliver();
    let index = cluster.raft(1).commit();
    for id in 1..=3 {
        cluster.step(id, Input::read(Token(10 + id))).unwrap();
    }
    assert!(cluster.node(1).outcomes.is_empty(), "not before a quorum has answered");
    cluster.deliver();
    for id in 1..=3 {
        assert_eq!(cluster.node(id).outcomes, [(Token(10 + id), Outcome::Read { index })], "node {id}");
    }
}

#[test]
fn a_read_ends_when_its_leader_does() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.step(1, Input::read(Token(1))).unwrap();
    cluster.wire.clear();
    cluster.run_unless(5_000_000, |from, to, _| from.0 == 1 || to.0 == 1);
    assert_eq!(cluster.node(1).outcomes, [(Token(1), Outcome::Refused { leader: None })]);
    let refused = cluster.step(1, Input::read(Token(2)));
    assert!(matches!(refused, Err(Rejected::NoLeader { .. })));
}

#[test]
fn acknowledgements_leave_while_appends_keep_coming() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.slow_disks = vec![2, 3];
    let before = cluster.raft(1).commit();
    // Each append arrives before the one before it is durable.
    cluster.propose(1, 0, b"x").unwrap();
    cluster.deliver();
    for n in 1..10 {
        cluster.propose(1, n, b"x").unwrap();
        cluster.deliver();
        cluster.persist_one(2);
        cluster.deliver();
        assert_eq!(cluster.raft(1).commit(), before.plus(n), "what is durable is acknowledged");
    }
}

#[test]
fn a_leader_whose_own_disk_stalls_refuses_more() {
    let mut cluster = Cluster::with(3, |config| config.max_unpersisted_bytes = 1000);
    cluster.elect(1);
    cluster.slow_disks = vec![1];
    let mut refused = None;
    for n in 0..100 {
        refused = cluster.propose(1, n, &[0; 100]).err();
        // The others commit without its disk.
        cluster.deliver();
        if refused.is_some() {
            break;
        }
    }
    assert!(matches!(refused, Some(Rejected::Overloaded { .. })), "{refused:?}");
    assert!(cluster.raft(1).unpersisted_bytes() <= 1000);
    cluster.persist_all(1);
    cluster.propose(1, 200, b"again").unwrap();
}

#[test]
fn a_state_machine_that_is_stuck_pushes_back() {
    let mut cluster = Cluster::with(3, |config| {
        config.max_applying_bytes = 500;
        config.max_uncommitted_bytes = 2000;
    });
    cluster.elect(1);
    cluster.stuck_machines = vec![1];
    let refused = (0..1000).find_map(|n| {
        let refused = cluster.propose(1, n, &[0; 100]).err();
        cluster.deliver();
        refused
    });
    assert!(matches!(refused, Some(Rejected::Overloaded { .. })), "{refused:?}");
    assert!(cluster.raft(1).status().pending < 50);
}

#[test]
fn a_slow_follower_is_not_sent_the_same_again_for_every_read() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.slow_disks = vec![3];
    cluster.propose(1, 1, &[0; 1000]).unwrap();
    cluster.deliver();
    let mut sent = 0;
    for n in 0..500 {
        cluster.now = cluster.now.plus(100);
        cluster.step(1, Input::read(Token(1000 + n))).unwrap();
        let appends = |m: &quorate_core::Message| matches!(m.body, quorate_core::Body::Append { .. });
        while !cluster.wire.is_empty() {
            sent += cluster.wire.iter().filter(|(_, to, m)| to.0 == 3 && appends(m)).count();
            let batch = cluster.wire.len();
            for _ in 0..batch {
                let (from, to, message) = cluster.wire.pop_front().unwrap();
                let _refused = cluster.step(to.0, Input::Receive { from, message });
            }
        }
    }
    assert_eq!(cluster.node(1).outcomes.len(), 500, "every read has its round");
    assert!(sent <= 1, "{sent} appends to a follower in half a heartbeat interval");
}

#[test]
fn an_election_waits_for_a_disk_that_is_still_at_the_last_term() {
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    cluster.slow_disks = vec![1];
    for _ in 0..50 {
        cluster.fire(1);
    }
    assert_eq!(cluster.node(1).pending.len(), 1, "one write, not one for each timeout");
    cluster.persist_all(1);
    cluster.fire(1);
    assert_eq!(cluster.node(1).pending.len(), 1);
}

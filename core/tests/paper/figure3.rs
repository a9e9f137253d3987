//! Figure 3: the five properties that hold at all times, each where it is in most danger.

use quorate_core::{Few, LogId, RoleKind};

use crate::{common::*, support::*};

/// Election Safety: "at most one leader can be elected in a given term. §5.2": two that campaign at the same time, and one
/// that both ask.
///
/// Mutation: 205-vote-ignores-voted-for
#[test]
fn election_safety() {
    let mut cluster = impatient(3);
    cluster.fire(1);
    cluster.now = cluster.now.plus(2_000_000);
    cluster.fire(3);
    assert_eq!((term(&cluster, 1), term(&cluster, 3)), (1, 1));
    cluster.deliver_unless(|from, to, _| from.0 != 2 && to.0 != 2);
    let led: Vec<u64> = [1, 2, 3].into_iter().flat_map(|id| terms_led(&mut cluster, id)).collect();
    assert_eq!(led, [1], "one of them, in term 1");
}

/// Leader Append-Only: "a leader never overwrites or deletes entries in its log; it only appends new entries. §5.3":
/// whatever comes in, in its term.
///
/// Mutation: 318-leader-yields-in-its-term
#[test]
fn leader_append_only() {
    let mut cluster = impatient(3);
    start_with(&mut cluster, 1, 4, &[(1, 2), (4, 3)]);
    cluster.fire(1);
    cluster.receive(2, 1, 5, voted(true)).unwrap();
    let terms = terms_of(&cluster, 1);
    for said in [
        append(id(1, 2), 0, Few::one(run(5, 3, 1))),
        append(LogId::ZERO, 0, Few::one(run(2, 1, 9))),
        heartbeat(1, 1),
    ] {
        let _refused = cluster.receive(3, 1, 5, said);
        assert_eq!((role(&cluster, 1), terms_of(&cluster, 1)), (RoleKind::Leader, terms.clone()));
    }
}

/// Log Matching: "if two logs contain an entry with the same index and term, then the logs are identical in all entries up
/// through the given index. §5.3": the logs of Figure 7, at every moment while they are brought in line.
///
/// Mutation: 301-prev-term-not-checked
#[test]
fn log_matching() {
    let mut cluster = figure_7();
    cluster.elect(1);
    for _ in 0..40 {
        cluster.run(50_000);
        let logs: Vec<Vec<u64>> = (1..=7).map(|id| terms_of(&cluster, id)).collect();
        for (one, other) in logs.iter().flat_map(|one| logs.iter().map(move |other| (one, other))) {
            let shared = one.iter().zip(other).rposition(|(one, other)| one == other);
            let end = shared.map_or(0, |at| at + 1);
            assert_eq!(one[..end], other[..end]);
        }
    }
}

/// Leader Completeness: "if a log entry is committed in a given term, then that entry will be present in the logs of the
/// leaders for all higher-numbered terms. §5.4": whoever else campaigns.
///
/// Mutation: 404-no-up-to-date-check
#[test]
fn leader_completeness() {
    let mut cluster = impatient(5);
    cluster.elect(1);
    cluster.propose(1, 1, b"kept").unwrap();
    cluster.deliver_unless(only(&[1, 2, 3]));
    let committed = cluster.raft(1).commit();
    assert_eq!(committed, i(2));
    let entry = id(cluster.raft(1).term_at(committed).unwrap().0, committed.0);
    // Node 1 is gone; node 4 lacks the entry and tries first, again and again.
    cluster.wire.clear();
    let gone = |from: quorate_core::NodeId, to: quorate_core::NodeId, _: &_| from.0 == 1 || to.0 == 1;
    for campaigner in [4, 4, 5, 4, 2, 4, 5, 3] {
        cluster.now = cluster.now.plus(5_000_000);
        cluster.fire(campaigner);
        cluster.deliver_unless(gone);
        for id in 2..=5 {
            if role(&cluster, id) == RoleKind::Leader {
                assert_eq!(cluster.raft(id).term_at(committed), Some(entry.term), "node {id}");
            }
        }
    }
}

/// State Machine Safety: "if a server has applied a log entry at a given index to its state machine, no other server will ever
/// apply a different log entry for the same index. §5.4.3": a follower with entries of a leader that is no more.
///
/// Mutation: 307-commit-beyond-verified
#[test]
fn state_machine_safety() {
    let mut cluster = impatient(3);
    // Node 3 has three entries that nobody else has, of a leadership that came to nothing.
    start_with(&mut cluster, 3, 2, &[(1, 1), (2, 3)]);
    start_with(&mut cluster, 1, 2, &[(1, 1)]);
    start_with(&mut cluster, 2, 2, &[(1, 1)]);
    cluster.now = cluster.now.plus(3_000_000);
    cluster.fire(1);
    cluster.deliver_unless(only(&[1, 2]));
    for token in 1..=3_u8 {
        cluster.propose(1, token.into(), &[100 + token]).unwrap();
        cluster.deliver_unless(only(&[1, 2]));
    }
    // All it hears is the beginning, and how much is committed.
    let now = term(&cluster, 1);
    cluster.receive(1, 3, now, append(id(1, 1), 5, Few::new())).unwrap();
    cluster.wire.clear();
    cluster.run(2_000_000);
    assert_eq!(cluster.node(1).applied, [vec![1], vec![101], vec![102], vec![103]]);
    for id in 2..=3 {
        assert_eq!(cluster.nodes[&id].applied, cluster.nodes[&1].applied, "node {id}");
    }
}

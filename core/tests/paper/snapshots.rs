//! §7: log compaction; Figure 13, InstallSnapshot, as far as it isn't about bytes.

use quorate_core::{
    Body, ChangeOp, Few, LogId, Membership, MembershipChange, Mode, NodeId, Rejected, RoleKind, Snapshot,
};

use crate::{common::*, support::*};

fn voters(ids: &[u64]) -> Membership {
    Membership::of_voters(ids.iter().copied().map(NodeId))
}

fn install(last: LogId, membership: Membership) -> Body {
    Body::InstallSnapshot { snapshot: Box::new(Snapshot { last, membership }) }
}

/// Node 1 leads with a log of eight entries, of which it holds the last two only; node 3 has the first.
fn compacted() -> Cluster {
    let mut cluster = led(3);
    for token in 1..=7 {
        cluster.propose(1, token, &[token as u8]).unwrap();
    }
    cluster.run_unless(300_000, |_, to, _| to.0 == 3);
    cluster.compact(1, 2);
    assert_eq!(cluster.raft(1).status().base.index, i(6));
    cluster
}

// ---- taking one ----

/// §7: "each server takes snapshots independently, covering just the committed entries in its log": no more than what its state
/// machine has applied.
///
/// Mutation: 510-compacts-unapplied
#[test]
fn a_snapshot_covers_no_more_than_what_is_applied() {
    let mut cluster = follower(3);
    let refused = cluster.step(1, quorate_core::Input::Compact { snapshot: i(4), keep: 0 });
    assert!(matches!(refused, Err(Rejected::BadSnapshot { .. })), "{refused:?}");
    cluster.compact(1, 0);
    assert_eq!((cluster.raft(1).status().base, cluster.raft(1).status().snapshot), (id(2, 3), id(2, 3)));
}

/// §7: "Once a server completes writing a snapshot, it may delete all log entries up through the last included index": and
/// nothing after it.
///
/// Mutation: 509-nothing-deleted
#[test]
fn what_a_snapshot_includes_may_be_deleted() {
    let mut cluster = follower(3);
    cluster.compact(1, 0);
    let disk = cluster.node(1).disk.clone();
    let first = disk.log.first().map(quorate_core::Run::first);
    assert_eq!((first, disk.last(), disk.base_id()), (Some(i(4)), id(2, 5), id(2, 3)));
    assert_eq!((cluster.raft(1).term_at(i(2)), cluster.raft(1).term_at(i(5)).map(|t| t.0)), (None, Some(2)));
}

/// §7: "These are preserved to support the AppendEntries consistency check for the first log entry following the snapshot,
/// since that entry needs a previous log index and term."
///
/// Mutation: 511-base-forgotten
#[test]
fn the_entry_after_a_snapshot_is_checked_against_it() {
    let mut cluster = follower(3);
    cluster.compact(1, 0);
    assert_eq!(cluster.raft(1).status().base, id(2, 3));
    let entry = || Few::one(run(3, 4, 1));
    assert!(cluster.receive(3, 1, 3, append(id(1, 3), 3, entry())).is_err(), "that was committed in term 2");
    cluster.receive(3, 1, 3, append(id(2, 3), 3, entry())).unwrap();
    assert_eq!((replies(&mut cluster)[0].body.clone(), cluster.raft(1).last()), (appended(4), id(3, 4)));
}

/// §7: "the snapshot also includes the latest configuration in the log as of last included index": not a later one.
///
/// Mutation: 508-present-membership
#[test]
fn a_snapshot_has_the_membership_of_its_time() {
    let mut cluster = led(3);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver();
    cluster.change(1, 2, MembershipChange::new(vec![ChangeOp::AddVoter(NodeId(4))])).unwrap();
    assert_eq!(cluster.raft(1).membership().voters().len(), 4);
    cluster.wire.clear();
    cluster.compact(1, 0);
    cluster.run_unless(2_000_000, only(&[1, 4]));
    let disk = cluster.node(1).disk.clone();
    assert_eq!(disk.base.map(|base| base.membership.voters().len()), Some(3));
    // It is what a follower gets, too.
    start_with(&mut cluster, 2, 0, &[]);
    cluster.elect(1);
    cluster.run(2_000_000);
    let sent = cluster.node(2).disk.base.clone().unwrap();
    assert_eq!((sent.last.index, sent.membership.voters().len()), (i(2), 3));
}

// ---- sending one ----

/// §7: "The leader must occasionally send snapshots to followers that lag behind. This happens when the leader has already
/// discarded the next log entry that it needs to send to a follower."
///
/// Mutation: 507-no-snapshot-sent
#[test]
fn a_follower_that_lags_behind_the_log_gets_a_snapshot() {
    let mut cluster = compacted();
    cluster.run(2_000_000);
    assert_eq!(cluster.raft(3).status().snapshot, id(term(&cluster, 1), 8));
    assert_eq!(cluster.raft(3).last(), cluster.raft(1).last());
    assert_eq!(cluster.nodes[&3].applied, cluster.nodes[&1].applied);
    assert_eq!(progress(&cluster, 1, 3).mode, Mode::Replicate, "and appends again");
}

/// The same: entries that the leader still has are sent as they are, not in a snapshot.
///
/// Mutation: 512-snapshot-for-everyone
#[test]
fn a_follower_that_lags_within_the_log_gets_entries() {
    let mut cluster = led(3);
    for token in 1..=7 {
        cluster.propose(1, token, b"x").unwrap();
    }
    cluster.run_unless(300_000, |_, to, _| to.0 == 3);
    cluster.compact(1, 7);
    assert_eq!(cluster.raft(1).status().base.index, i(1));
    cluster.run(2_000_000);
    assert_eq!(
        (cluster.raft(3).last(), cluster.raft(3).status().snapshot),
        (cluster.raft(1).last(), LogId::ZERO)
    );
}

// ---- installing one ----

/// Figure 13: "1. Reply immediately if term < currentTerm."
///
/// Mutation: 103-stale-request-handled
#[test]
fn a_snapshot_of_a_stale_term_is_not_installed() {
    let mut cluster = follower(3);
    cluster.receive(3, 1, 1, install(id(1, 9), voters(&[1, 3]))).unwrap();
    assert_eq!((cluster.raft(1).last(), cluster.raft(1).leader()), (id(2, 5), Some(NodeId(2))));
    assert_eq!(replies(&mut cluster)[0].term.0, 2);
}

/// Figure 13: "5. … discard any existing or partial snapshot with a smaller index": an old one changes nothing here, either.
///
/// Mutation: 501-old-snapshot-installed
#[test]
fn a_snapshot_of_what_is_committed_is_not_installed() {
    let mut cluster = follower(5);
    cluster.compact(1, 0);
    cluster.receive(2, 1, 2, install(id(2, 3), voters(&[1, 2, 3]))).unwrap();
    assert_eq!((cluster.raft(1).status().snapshot, cluster.raft(1).last()), (id(2, 5), id(2, 5)));
    assert_eq!((cluster.raft(1).commit(), replies(&mut cluster)[0].body.clone()), (i(5), appended(3)));
}

/// Figure 13: "6. If existing log entry has same index and term as snapshot's last included entry, retain log entries following
/// it and reply."
///
/// Mutation: 502-matching-suffix-dropped
#[test]
fn entries_after_a_snapshot_are_retained_if_it_matches() {
    let mut cluster = follower(1);
    cluster.receive(2, 1, 2, install(id(2, 3), voters(&[1, 2, 3]))).unwrap();
    assert_eq!((cluster.raft(1).last(), cluster.node(1).disk.last()), (id(2, 5), id(2, 5)));
    assert_eq!((cluster.raft(1).commit(), replies(&mut cluster)[0].body.clone()), (i(3), appended(3)));
    assert_eq!(
        cluster.node(1).applied,
        [[1], [2], [3]],
        "those before are committed then, and applied as they are"
    );
}

/// Figure 13: "7. Discard the entire log": where there is another entry, or none.
///
/// Mutation: 503-log-survives
#[test]
fn the_entire_log_is_discarded_if_it_does_not_match() {
    for last in [id(3, 4), id(2, 9)] {
        let mut cluster = follower(1);
        cluster.receive(2, 1, 3, install(last, voters(&[1, 2, 3]))).unwrap();
        assert_eq!((cluster.raft(1).last(), cluster.raft(1).commit()), (last, last.index));
        let disk = cluster.node(1).disk.clone();
        assert_eq!((disk.log.len(), disk.base_id()), (0, last));
        cluster.receive(2, 1, 3, append(last, 0, Few::one(run(3, last.index.0 + 1, 1)))).unwrap();
        assert_eq!(cluster.raft(1).last().index, last.index.next());
    }
}

/// Figure 13: "8. Reset state machine using snapshot contents": once the log that begins there is durable.
///
/// Mutation: 504-not-restored
#[test]
fn the_state_machine_is_reset_to_the_snapshot() {
    let mut cluster = compacted();
    cluster.slow_disks = vec![3];
    cluster.run(1_000_000);
    assert_eq!(cluster.nodes[&3].applied.len(), 0, "not before that is durable");
    cluster.persist_all(3);
    assert_eq!(cluster.nodes[&3].applied, cluster.nodes[&1].applied);
    assert_eq!(cluster.raft(3).status().applied, i(8));
}

/// Figure 13: "8. … (and load snapshot's cluster configuration)."
///
/// Mutation: 505-membership-not-loaded
#[test]
fn the_snapshots_membership_is_in_force() {
    let mut cluster = follower(1);
    cluster.receive(2, 1, 3, install(id(3, 9), voters(&[1, 2, 4, 5, 6]))).unwrap();
    assert_eq!(cluster.raft(1).membership(), &voters(&[1, 2, 4, 5, 6]));
    cluster.restart(1);
    assert_eq!(cluster.raft(1).membership(), &voters(&[1, 2, 4, 5, 6]), "after a restart, too");
    cluster.wire.clear();
    cluster.fire(1);
    assert_eq!(role(&cluster, 1), RoleKind::PreCandidate);
    let asked = on_wire(&cluster, |body| matches!(body, Body::PreVote { .. }));
    assert_eq!(asked, [(1, 2), (1, 4), (1, 5), (1, 6)]);
}

/// Figure 13, with Figure 2's "(Updated on stable storage before responding to RPCs)".
///
/// Mutation: 418-acknowledged-before-durable
#[test]
fn a_snapshot_is_acknowledged_when_it_is_durable() {
    let mut cluster = follower(1);
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 2, install(id(2, 9), voters(&[1, 2, 3]))).unwrap();
    assert!(cluster.wire.is_empty());
    cluster.persist_all(1);
    assert_eq!(replies(&mut cluster)[0].body, appended(9));
}

//! diss. 6.4.1: reads from a lease, without a word to anybody, as long as clocks keep within their bound.
//!
//! An election timeout is 1 s here, and clocks drift by 100 ms within it.

use core::time::Duration;

use quorate_core::{Body, Input, Instant, NodeId, Outcome, ReadKind, RoleKind, Token};

use crate::{common::*, support::*};

fn leased(size: u64) -> Cluster {
    led_with(size, |config| config.lease_reads = true)
}

fn read(cluster: &mut Cluster, token: u64) -> Option<Outcome> {
    cluster.step(1, Input::Read { token: Token(token), kind: ReadKind::Lease }).unwrap();
    outcome(cluster, 1, token)
}

fn lease_until(cluster: &Cluster) -> Option<Instant> {
    cluster.raft(1).status().lease_until
}

/// diss. 6.4.1: "While the leader held its lease, it would service read-only queries locally without communication."
///
/// Mutation: 911-no-lease
#[test]
fn a_leader_with_a_lease_asks_nobody() {
    let mut cluster = leased(3);
    let index = cluster.raft(1).commit();
    assert_eq!(read(&mut cluster, 1), Some(Outcome::Read { index }));
    assert!(cluster.wire.is_empty());
}

/// diss. 6.4.1: "Once the leader's heartbeats were acknowledged by a majority of the cluster, it would extend its lease to start
/// + electionTimeout / clock drift bound": start is when they were sent.
///
/// Mutation: 912-lease-from-the-answer
#[test]
fn a_lease_begins_when_its_heartbeats_are_sent() {
    let mut cluster = leased(3);
    cluster.fire(1);
    let sent = cluster.now;
    cluster.now = sent.plus(50_000);
    cluster.deliver();
    assert_eq!(lease_until(&cluster), Some(sent.plus(900_000)));
}

/// The same: "/ clock drift bound"; "The lease approach assumes a bound on clock drift across servers."
///
/// Mutation: 913-drift-ignored
#[test]
fn a_lease_is_shorter_by_the_drift() {
    let mut cluster = led_with(3, |config| {
        config.lease_reads = true;
        config.max_clock_drift = Duration::from_millis(400);
    });
    cluster.fire(1);
    let sent = cluster.now;
    cluster.deliver();
    assert_eq!(lease_until(&cluster), Some(sent.plus(600_000)));
}

/// The same: "acknowledged by a majority".
///
/// Mutation: 905-one-answer-confirms
#[test]
fn a_lease_takes_answers_from_a_majority() {
    let mut cluster = leased(5);
    let before = lease_until(&cluster);
    cluster.fire(1);
    cluster.deliver_unless(only(&[1, 2]));
    assert_eq!(lease_until(&cluster), before, "two of five");
    cluster.fire(1);
    cluster.deliver_unless(only(&[1, 2, 3]));
    assert!(lease_until(&cluster) > before);
}

/// The same: when it is over, it is over: then a round is needed.
///
/// Mutation: 917-lease-never-ends
#[test]
fn a_lease_ends() {
    let mut cluster = leased(3);
    let end = lease_until(&cluster).unwrap();
    cluster.now = Instant(end.0 - 1);
    assert!(read(&mut cluster, 1).is_some());
    cluster.now = end;
    assert_eq!(read(&mut cluster, 2), None);
    cluster.deliver();
    assert!(outcome(&mut cluster, 1, 2).is_some(), "a round confirms it");
}

/// diss. 6.4, step 1, holds for leases, too.
///
/// Mutation: 916-lease-before-first-commit
#[test]
fn no_lease_before_the_terms_first_commit() {
    let mut cluster = Cluster::with(3, |config| config.lease_reads = true);
    cluster.now = cluster.now.plus(3_000_000);
    cluster.fire(1);
    cluster.deliver_unless(|_, _, message| is_append(&message.body));
    assert_eq!((role(&cluster, 1), lease_until(&cluster).is_some()), (RoleKind::Leader, true));
    assert_eq!(read(&mut cluster, 1), None);
}

/// diss. 6.4.1: a leader "would need to expire its lease before transferring leadership": and for the rest of its term, for what
/// was said can't be unsaid.
///
/// Mutation: 914-lease-while-handing-over
#[test]
fn who_hands_over_has_no_lease_any_more() {
    let mut cluster = leased(3);
    cluster.step(1, Input::TransferLeadership { token: Token(1), to: Some(NodeId(2)) }).unwrap();
    assert_eq!(on_wire(&cluster, |body| *body == Body::TimeoutNow), [(1, 2)]);
    assert_eq!(lease_until(&cluster), None);
    cluster.step(1, Input::AbortTransfer).unwrap();
    cluster.wire.clear();
    cluster.fire(1);
    cluster.deliver();
    assert_eq!((role(&cluster, 1), lease_until(&cluster)), (RoleKind::Leader, None));
}

/// The lease rests on voters that keep their votes back for an election timeout after they have heard the leader: "followers
/// shouldn't time out before then". One that has restarted doesn't know when that was.
///
/// Mutation: 915-restarted-voter-votes
#[test]
fn a_restarted_voter_keeps_its_vote_back() {
    let mut cluster = leased(3);
    let now = term(&cluster, 1);
    cluster.restart(2);
    let last = cluster.raft(1).last();
    cluster.receive(3, 2, now + 1, vote(last)).unwrap();
    assert_eq!((cluster.wire.len(), term(&cluster, 2)), (0, now));
    cluster.now = cluster.now.plus(1_000_000);
    cluster.receive(3, 2, now + 1, vote(last)).unwrap();
    assert!(matches!(replies(&mut cluster)[0].body, Body::VoteReply { granted: true, .. }));
}

/// "The lease approach assumes a bound on clock drift": a clock that was set back says nothing about how much time has passed.
///
/// Mutation: 918-lease-by-a-clock-set-back
#[test]
fn a_clock_that_goes_back_ends_a_lease() {
    let mut cluster = leased(3);
    assert!(lease_until(&cluster).is_some());
    let earlier = Instant(cluster.now.0 - 1_000);
    cluster.node(1).raft.step(earlier, Input::Tick).unwrap();
    assert_eq!(lease_until(&cluster), None);
}

//! §5.3: log replication; Figure 2, AppendEntries and Leaders; diss. 10.2, pipelining.

use quorate_core::{Batch, Body, Few, Input, LogId, Mode, Proposal, Token};

use crate::{common::*, support::*};

/// Node 1, new in term 5, with a log of which nobody knows yet what the others share.
fn new_leader(parts: &[(u64, u64)]) -> Cluster {
    let mut cluster = impatient(3);
    start_with(&mut cluster, 1, 4, parts);
    cluster.fire(1);
    assert_eq!(term(&cluster, 1), 5);
    cluster.wire.clear();
    cluster.receive(2, 1, 5, voted(true)).unwrap();
    cluster
}

// ---- the receiver ----

/// §5.3: "If the follower does not find an entry in its log with the same index and term, then it refuses the new entries";
/// Figure 2: "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm."
///
/// Mutation: 301-prev-term-not-checked
#[test]
fn entries_after_an_unknown_one_are_refused() {
    for prev in [id(4, 9), id(3, 4), id(1, 4)] {
        let mut cluster = Cluster::new(3);
        start_with(&mut cluster, 1, 2, &[(1, 2), (2, 3)]);
        let entry = Few::one(run(4, prev.index.0 + 1, 1));
        cluster.receive(3, 1, 4, append(prev, 0, entry)).unwrap();
        assert!(matches!(replies(&mut cluster)[0].body, Body::Conflict { .. }), "{prev}");
        assert_eq!(cluster.raft(1).last(), id(2, 5), "nothing was taken");
    }
}

/// §5.3: "when rejecting an AppendEntries request, the follower can include the term of the conflicting entry and the first
/// index it stores for that term … the leader can decrement nextIndex to bypass all of the conflicting entries in that
/// term." Here with the last that both could have.
///
/// Mutation: 302-hint-ignores-terms
#[test]
fn a_refusal_skips_a_whole_term() {
    let mut cluster = Cluster::new(3);
    start_with(&mut cluster, 1, 3, &[(1, 2), (2, 3)]);
    for (prev, common) in [
        // Too far ahead: the end of the log.
        (id(4, 9), id(2, 5)),
        // Another term there, a later one: the log as far as it might agree.
        (id(3, 4), id(2, 4)),
        // An earlier one: none of term 2 can be common.
        (id(1, 4), id(1, 2)),
    ] {
        cluster.receive(3, 1, 4, append(prev, 0, Few::one(run(4, prev.index.0 + 1, 1)))).unwrap();
        let answer = replies(&mut cluster).pop().unwrap().body;
        assert_eq!(answer, Body::Conflict { prev: prev.index, hint: common });
    }
}

/// Figure 2, AppendEntries: "If an existing entry conflicts with a new one (same index but different terms), delete the
/// existing entry and all that follow it."
///
/// Mutation: 305-conflict-kept
#[test]
fn a_conflict_removes_the_entry_and_all_that_follow() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 5)))).unwrap();
    cluster.receive(3, 1, 2, append(id(1, 2), 0, Few::one(run(2, 3, 1)))).unwrap();
    assert_eq!((cluster.raft(1).last(), cluster.node(1).disk.last()), (id(2, 3), id(2, 3)));
}

/// The same, "if": without a conflict nothing is deleted. An append that comes late must not remove what came after it.
///
/// Mutation: 304-old-append-truncates
#[test]
fn only_a_conflict_truncates() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 5)))).unwrap();
    cluster.wire.clear();
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 2)))).unwrap();
    assert_eq!((cluster.raft(1).last(), cluster.node(1).disk.last()), (id(1, 5), id(1, 5)));
    assert_eq!(replies(&mut cluster)[0].body, appended(2), "only what it verified");
}

/// §5.5: "Raft RPCs are idempotent": who crashes after it has done what an RPC asks, and before it has answered, does it again.
///
/// Mutation: 304-old-append-truncates
#[test]
fn a_repeated_append_changes_nothing() {
    let mut cluster = Cluster::new(3);
    let first = || append(LogId::ZERO, 0, Few::one(run(1, 1, 2)));
    cluster.receive(2, 1, 1, first()).unwrap();
    cluster.receive(2, 1, 1, append(id(1, 2), 1, Few::one(run(1, 3, 2)))).unwrap();
    cluster.restart(1);
    cluster.wire.clear();
    cluster.receive(2, 1, 1, first()).unwrap();
    assert_eq!((cluster.raft(1).last(), replies(&mut cluster)[0].body.clone()), (id(1, 4), appended(2)));
}

/// Figure 2, AppendEntries: "Append any new entries not already in the log": all of them, of whatever term.
///
/// Mutation: 306-only-the-first-run
#[test]
fn what_is_new_is_appended() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 3, append(LogId::ZERO, 0, Few::one(run(1, 1, 3)))).unwrap();
    let entries = Few::from(vec![run(1, 2, 3), run(2, 5, 1), run(3, 6, 2)]);
    cluster.receive(2, 1, 3, append(id(1, 1), 0, entries)).unwrap();
    assert_eq!(terms_of(&cluster, 1), [1, 1, 1, 1, 2, 3, 3]);
    assert_eq!(cluster.node(1).disk.last(), id(3, 7));
}

/// Figure 2, AppendEntries: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)":
/// no further than the entries that this append has verified.
///
/// Mutation: 307-commit-beyond-verified
#[test]
fn a_follower_commits_no_more_than_it_has_verified() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 5)))).unwrap();
    // Of these five, leader 3 has the first two.
    cluster.receive(3, 1, 2, append(id(1, 2), 5, Few::new())).unwrap();
    assert_eq!(cluster.raft(1).commit(), i(2));
}

/// The same: nor further than the leader has.
///
/// Mutation: 308-commits-all-it-has
#[test]
fn a_follower_commits_no_more_than_its_leader() {
    let mut cluster = follower(3);
    assert_eq!(cluster.raft(1).commit(), i(3));
    cluster.receive(2, 1, 2, append(id(2, 5), 4, Few::one(run(2, 6, 1)))).unwrap();
    assert_eq!(cluster.raft(1).commit(), i(4));
}

// ---- the leader ----

/// §5.3: "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel to each of
/// the other servers"; Figure 2, Leaders: "If last log index ≥ nextIndex for a follower: send AppendEntries RPC with log
/// entries starting at nextIndex."
///
/// Mutation: 309-proposals-not-sent
#[test]
fn a_command_is_appended_and_sent_to_all() {
    let mut cluster = led(5);
    let (now, before) = (term(&cluster, 1), cluster.raft(1).last());
    cluster.propose(1, 1, b"x").unwrap();
    assert_eq!(cluster.raft(1).last(), id(now, before.index.0 + 1));
    assert_eq!(on_wire(&cluster, is_append), [(1, 2), (1, 3), (1, 4), (1, 5)]);
    let body = bodies_to(&mut cluster, 4).remove(0);
    assert!(matches!(body, Body::Append { prev, .. } if prev == before));
    assert_eq!(entries_of(&body), [(now, before.index.0 + 1)]);
}

/// Figure 2, Leaders: "If command received from client: append entry to local log, respond after entry applied to state
/// machine."
///
/// Mutation: 113-applied-before-committed
#[test]
fn a_command_is_answered_when_it_is_applied() {
    let mut cluster = led(3);
    cluster.propose(1, 7, b"x").unwrap();
    assert!(cluster.node(1).done.is_empty() && cluster.node(1).applied.is_empty());
    cluster.deliver();
    assert_eq!((&cluster.nodes[&1].done[..], cluster.nodes[&1].applied.len()), (&[Token(7)][..], 1));
}

/// Figure 2, Leaders: "If successful: update nextIndex and matchIndex for follower."
///
/// Mutation: 310-match-not-updated
#[test]
fn an_acknowledgement_moves_match_and_next() {
    let mut cluster = new_leader(&[(4, 5)]);
    cluster.receive(3, 1, 5, appended(5)).unwrap();
    let three = progress(&cluster, 1, 3);
    assert_eq!((three.match_index, three.mode), (i(5), Mode::Replicate));
    cluster.receive(3, 1, 5, appended(6)).unwrap();
    assert_eq!((progress(&cluster, 1, 3).match_index, progress(&cluster, 1, 3).next_index), (i(6), i(7)));
}

/// Figure 2, Leaders: "If AppendEntries fails because of log inconsistency: decrement nextIndex and retry."
///
/// Mutation: 303-no-backing-off
#[test]
fn a_refused_leader_goes_back_and_tries_again() {
    let mut cluster = new_leader(&[(1, 2), (2, 1), (4, 2)]);
    let probe = bodies_to(&mut cluster, 2).into_iter().find(is_append).unwrap();
    assert!(matches!(probe, Body::Append { prev, .. } if prev == id(4, 5)));
    cluster.receive(2, 1, 5, Body::Conflict { prev: i(5), hint: id(3, 5) }).unwrap();
    let probe = bodies_to(&mut cluster, 2).remove(0);
    assert!(matches!(probe, Body::Append { prev, .. } if prev == id(2, 3)), "{probe:?}");
    cluster.receive(2, 1, 5, Body::Conflict { prev: i(3), hint: id(1, 2) }).unwrap();
    let probe = bodies_to(&mut cluster, 2).remove(0);
    assert!(matches!(probe, Body::Append { prev, .. } if prev == id(1, 2)), "{probe:?}");
    assert_eq!(entries_of(&probe), [(2, 3), (4, 4), (4, 5), (5, 6)]);
}

/// §5.3, Figure 7: "A follower may be missing entries that are present on the leader, it may have extra entries that are not
/// present on the leader, or both": a new leader's log is what all end up with.
///
/// Mutation: 303-no-backing-off
#[test]
fn every_log_of_figure_7_is_brought_in_line() {
    let mut cluster = figure_7();
    cluster.elect(1);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.run(3_000_000);
    let expected = cluster.raft(1).last();
    for id in 1..=7 {
        assert_eq!(
            (cluster.raft(id).last(), cluster.node(id).disk.last()),
            (expected, expected),
            "node {id}"
        );
        assert_eq!(terms_of(&cluster, id), terms_of(&cluster, 1), "node {id}");
    }
}

/// §5.3: "the leader retries AppendEntries RPCs indefinitely (even after it has responded to the client) until all followers
/// eventually store all log entries."
///
/// Mutation: 315-lost-appends-forgotten
#[test]
fn what_gets_lost_is_sent_again() {
    let mut cluster = led(3);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver_unless(|_, to, message| to.0 == 3 && is_append(&message.body));
    assert_eq!(cluster.node(1).done, [Token(1)]);
    assert!(cluster.raft(3).last() < cluster.raft(1).last());
    cluster.run(1_000_000);
    assert_eq!(cluster.raft(3).last(), cluster.raft(1).last());
}

/// §5.3: "A log entry is committed once the leader that created the entry has replicated it on a majority of the servers";
/// §2: "A minority of slow servers need not impact overall system performance."
///
/// Mutation: 314-needs-everyone
#[test]
fn a_majority_commits_without_the_slow() {
    let mut cluster = led(5);
    let before = cluster.raft(1).commit();
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver_unless(only(&[1, 2]));
    assert_eq!(cluster.raft(1).commit(), before, "two of five");
    cluster.wire.clear();
    cluster.run_unless(500_000, only(&[1, 2, 4]));
    assert_eq!(cluster.raft(1).commit(), before.next(), "three of five");
}

/// The same: half of the servers are no majority.
///
/// Mutation: 208-half-is-a-quorum
#[test]
fn half_of_the_servers_commit_nothing() {
    let mut cluster = led(4);
    let before = cluster.raft(1).commit();
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver_unless(only(&[1, 2]));
    assert_eq!(cluster.raft(1).commit(), before);
}

/// §5.3: "The leader keeps track of the highest index it knows to be committed, and it includes that index in future
/// AppendEntries RPCs (including heartbeats) so that the other servers eventually find out."
///
/// Mutation: 316-append-says-nothing-of-commit
#[test]
fn appends_tell_what_is_committed() {
    let mut cluster = led(3);
    let commit = cluster.raft(1).commit();
    cluster.propose(1, 1, b"x").unwrap();
    for body in bodies_to(&mut cluster, 2) {
        assert!(matches!(body, Body::Append { commit: told, .. } if told == commit), "{body:?}");
    }
}

/// The same: "(including heartbeats)".
///
/// Mutation: 317-heartbeat-says-nothing-of-commit
#[test]
fn heartbeats_tell_what_is_committed() {
    let mut cluster = led(3);
    cluster.propose(1, 1, b"x").unwrap();
    let commits = |_, _, message: &quorate_core::Message| matches!(message.body, Body::Commit { .. });
    cluster.deliver_unless(commits);
    assert!(cluster.raft(2).commit() < cluster.raft(1).commit());
    cluster.run_unless(150_000, commits);
    assert_eq!(cluster.raft(2).commit(), cluster.raft(1).commit());
}

/// diss. 10.2.2: the leader "treats nextIndex for each follower as optimistic": appends follow each other without waiting.
///
/// Mutation: 319-no-pipelining
#[test]
fn appends_are_pipelined() {
    let mut cluster = led(3);
    let end = index_of_last(&cluster, 1).0;
    for token in 1..=3 {
        cluster.propose(1, token, b"x").unwrap();
    }
    let sent: Vec<_> =
        bodies_to(&mut cluster, 2).iter().flat_map(entries_of).map(|(_, index)| index).collect();
    assert_eq!(sent, [end + 1, end + 2, end + 3]);
}

/// diss. 10.2.2, batching: what is proposed before the leader is asked what to do travels in one append.
///
/// Mutation: 309-proposals-not-sent
#[test]
fn what_is_proposed_together_travels_together() {
    let mut cluster = led(3);
    let end = index_of_last(&cluster, 1).0;
    let now = cluster.now;
    for token in 1..=3 {
        let batch = Proposal::new(Token(token), Batch::one(b"x"));
        cluster.node(1).raft.step(now, Input::Propose(batch)).unwrap();
    }
    cluster.settle(1);
    let appends: Vec<Body> = bodies_to(&mut cluster, 2).into_iter().filter(is_append).collect();
    assert_eq!(appends.len(), 1);
    assert_eq!(entries_of(&appends[0]).last().map(|(_, index)| *index), Some(end + 3));
}

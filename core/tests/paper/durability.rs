//! Persist before send: Figure 2, "Persistent state on all servers"; diss. 3.8, 10.2.1.

use quorate_core::{Action, Body, Few, HardState, Input, LogId, Message, NodeId, RoleKind, Term, Token};

use crate::{common::*, support::*};

/// Figure 2, State: "(Updated on stable storage before responding to RPCs)"; diss. 3.8: "each server persists its current
/// term and vote; this is necessary to prevent the server from voting twice in the same term".
///
/// Mutation: 411-vote-reply-before-durable
#[test]
fn nothing_is_said_before_term_and_vote_are_durable() {
    let mut cluster = Cluster::new(3);
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 3, vote(LogId::ZERO)).unwrap();
    assert!(cluster.wire.is_empty(), "the vote is not durable yet");
    cluster.persist_all(1);
    assert_eq!(replies(&mut cluster)[0].body, voted(true));
}

/// Node 1 campaigns; its last three entries and its vote are two writes under way.
fn unsure_candidate() -> Cluster {
    let mut cluster = impatient(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::new())).unwrap();
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 3)))).unwrap();
    cluster.fire(1);
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Candidate, 2));
    cluster
}

/// The same for RequestVote: it claims term and vote, and the log up to its end. Let it go early, and a candidate that loses
/// the tail of its log in a crash could be elected by a grant that was for a longer one.
///
/// Mutation: 412-vote-request-before-durable
#[test]
fn a_candidate_asks_for_votes_when_its_own_is_durable_and_its_log() {
    let mut cluster = unsure_candidate();
    assert_eq!(on_wire(&cluster, is_vote), []);
    cluster.persist_one(1);
    assert_eq!(on_wire(&cluster, is_vote), [], "the entries are durable, the vote is not");
    cluster.persist_one(1);
    assert_eq!(on_wire(&cluster, is_vote), [(1, 2), (1, 3)]);
}

/// §5.2: "votes for itself": with a vote that is durable, like anybody else's.
///
/// Mutation: 413-own-vote-at-once
#[test]
fn the_own_vote_counts_when_it_is_durable() {
    let mut cluster = unsure_candidate();
    cluster.persist_one(1);
    cluster.receive(2, 1, 2, voted(true)).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Candidate, "one of three, and its own doesn't count yet");
    cluster.persist_all(1);
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
}

/// §5.2: a candidate "returns to follower state": requests for votes that are still held back then never leave. The log that
/// they speak of may be gone.
///
/// Mutation: 414-candidacy-outlives
#[test]
fn a_candidacy_that_is_over_asks_for_no_votes() {
    let mut cluster = unsure_candidate();
    cluster.receive(3, 1, 2, append(id(1, 1), 0, Few::one(run(2, 2, 1)))).unwrap();
    cluster.persist_all(1);
    assert_eq!(cluster.raft(1).last(), id(2, 2), "its old entries are gone");
    assert_eq!(on_wire(&cluster, is_vote), []);
}

/// diss. 3.8: "Each server also persists new log entries before they are counted towards the entries' commitment."
///
/// Mutation: 418-acknowledged-before-durable
#[test]
fn entries_are_acknowledged_when_they_are_durable() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::new())).unwrap();
    cluster.wire.clear();
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 3)))).unwrap();
    // Nor do those that it has already, to a duplicate.
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 2)))).unwrap();
    assert_eq!(on_wire(&cluster, |body| matches!(body, Body::Appended { .. })), []);
    cluster.persist_all(1);
    assert_eq!(replies(&mut cluster).pop().unwrap().body, appended(3));
}

/// The same: an acknowledgement is bound to the write of the entries that it speaks of, not to their indexes: when the write of what
/// was there before completes, it stays where it is.
///
/// Mutation: 415-segments-survive-truncation
#[test]
fn an_acknowledgement_waits_for_its_own_entries_not_for_their_predecessors() {
    let mut cluster = Cluster::new(3);
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 2, append(LogId::ZERO, 0, Few::one(run(2, 1, 8)))).unwrap();
    cluster.receive(3, 1, 3, heartbeat(0, 1)).unwrap();
    cluster.receive(3, 1, 3, append(id(2, 4), 0, Few::one(run(3, 5, 4)))).unwrap();
    let acks = |cluster: &Cluster| {
        let bodies = cluster.wire.iter().filter_map(|(_, to, message)| match message.body {
            Body::Appended { up_to } => Some((to.0, up_to.0)),
            _ => None,
        });
        bodies.collect::<Vec<_>>()
    };
    cluster.persist_one(1);
    cluster.persist_one(1);
    // Those writes have made 1 to 4 durable, which both leaders' logs have, and term 3; 5 to 8 were of term 2.
    assert!(acks(&cluster).iter().all(|(to, up_to)| *to == 3 && *up_to <= 4), "{:?}", acks(&cluster));
    cluster.persist_one(1);
    assert_eq!(acks(&cluster).last(), Some(&(3, 8)));
    // A duplicate acknowledges no more than what it verified.
    cluster.wire.clear();
    cluster.receive(3, 1, 3, append(id(2, 3), 0, Few::new())).unwrap();
    assert_eq!(acks(&cluster), [(3, 3)]);
}

/// diss. 10.2.1: the leader writes to its disk while it replicates, and counts itself when its own disk is done.
///
/// Mutation: 416-leader-counts-itself-at-once
#[test]
fn a_leader_counts_itself_when_its_log_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let before = cluster.raft(1).commit();
    cluster.slow_disks = vec![1, 2];
    cluster.propose(1, 1, b"x").unwrap();
    assert_eq!(on_wire(&cluster, |body| matches!(body, Body::Append { .. })), [(1, 2), (1, 3)], "at once");
    cluster.deliver();
    assert_eq!(cluster.raft(1).commit(), before, "durable on node 3 alone");
    cluster.persist_all(1);
    assert_eq!(cluster.raft(1).commit(), before.plus(1));
    assert_eq!(cluster.node(1).done, [Token(1)]);
}

/// Figure 2, "Persistent state": term, truncation and entries of one RPC are durable together or not at all, so no crash falls
/// between them.
///
/// Mutation: 417-two-writes
#[test]
fn what_belongs_together_is_one_write() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 5)))).unwrap();
    let now = cluster.now;
    let message = Message { term: Term(4), body: append(id(1, 2), 0, Few::one(run(4, 3, 2))) };
    let raft = &mut cluster.node(1).raft;
    raft.step(now, Input::Receive { from: NodeId(3), message }).unwrap();
    let writes: Vec<_> = raft.drain().filter(|action| matches!(action, Action::Write(_))).collect();
    let [Action::Write(write)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(write.hard_state, Some(HardState { term: Term(4), vote: None }));
    assert_eq!((write.truncate, write.entries.as_slice()), (Some(i(3)), &[run(4, 3, 2)][..]));
}

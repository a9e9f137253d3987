//! §8; diss. 6.4: linearizable reads without a log entry. The steps are those of 6.4.

use quorate_core::{Body, EntryKind, Input, Message, NodeId, Outcome, RoleKind, Run, Token};

use crate::{common::*, support::*};

fn read(cluster: &mut Cluster, id: u64, token: u64) {
    cluster.step(id, Input::read(Token(token))).unwrap();
}

fn round_of(message: &Message) -> u64 {
    match message.body {
        Body::Heartbeat { round, .. } => round,
        _ => 0,
    }
}

/// §8: "Raft handles this by having each leader commit a blank no-op entry into the log at the start of its term."
///
/// Mutation: 902-no-noop
#[test]
fn a_term_begins_with_a_blank_entry() {
    let mut cluster = impatient(3);
    start_with(&mut cluster, 1, 1, &[(1, 2)]);
    cluster.fire(1);
    cluster.receive(2, 1, 2, voted(true)).unwrap();
    assert_eq!(cluster.raft(1).last(), id(2, 3));
    let disk = cluster.node(1).disk.clone();
    let last = disk.log.iter().flat_map(Run::entries).last().unwrap();
    assert_eq!((last.kind, last.payload.len()), (EntryKind::Noop, 0));
}

/// diss. 6.4: "1. If the leader has not yet marked an entry from its current term committed, it waits until it has done so."
///
/// Mutation: 901-read-before-first-commit
#[test]
fn a_read_waits_for_the_terms_first_commit() {
    let mut cluster = Cluster::new(3);
    let lose_appends = |_, _, message: &Message| is_append(&message.body);
    cluster.now = cluster.now.plus(3_000_000);
    cluster.fire(1);
    cluster.deliver_unless(lose_appends);
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
    read(&mut cluster, 1, 1);
    cluster.run_unless(250_000, lose_appends);
    assert_eq!(outcome(&mut cluster, 1, 1), None, "nothing of this term is committed");
    cluster.run(500_000);
    let index = cluster.raft(1).commit();
    assert_eq!(outcome(&mut cluster, 1, 1), Some(Outcome::Read { index }));
}

/// diss. 6.4: "2. The leader saves its current commit index in a local variable readIndex. This will be used as a lower bound
/// for the version of the state that the query operates against."
///
/// Mutation: 903-read-index-zero
#[test]
fn a_read_sees_what_was_committed_when_it_came() {
    let mut cluster = led(3);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver();
    let index = cluster.raft(1).commit();
    read(&mut cluster, 1, 2);
    cluster.propose(1, 3, b"y").unwrap();
    cluster.deliver();
    assert_eq!(outcome(&mut cluster, 1, 2), Some(Outcome::Read { index }));
}

/// diss. 6.4: "3. The leader needs to make sure it has not been superseded by a newer leader of which it is unaware. It issues
/// a new round of heartbeats": what it sent before the read came proves nothing.
///
/// Mutation: 904-read-without-a-round-of-its-own
#[test]
fn a_read_takes_a_round_that_begins_after_it() {
    let mut cluster = led(3);
    cluster.fire(1);
    let under_way = cluster.wire.iter().map(|(_, _, message)| round_of(message)).max().unwrap();
    assert!(under_way > 0);
    read(&mut cluster, 1, 2);
    cluster.deliver_unless(|_, _, message| round_of(message) > under_way);
    assert_eq!(outcome(&mut cluster, 1, 2), None, "only the older round was answered, the next was lost");
    cluster.run(500_000);
    assert!(outcome(&mut cluster, 1, 2).is_some());
}

/// The same; §8: "a leader must check whether it has been deposed before processing a read-only request (its information may be
/// stale if a more recent leader has been elected)."
///
/// Mutation: 904-read-without-a-round-of-its-own
#[test]
fn a_leader_that_was_deposed_serves_no_read() {
    let mut cluster = led(3);
    cluster.now = cluster.now.plus(2_000_000);
    // Node 1 was paused, and nobody reaches it.
    cluster.fire(2);
    cluster.deliver_unless(only(&[2, 3]));
    assert_eq!((role(&cluster, 1), role(&cluster, 2)), (RoleKind::Leader, RoleKind::Leader));
    read(&mut cluster, 1, 7);
    assert_eq!(outcome(&mut cluster, 1, 7), None);
    cluster.deliver();
    assert_eq!(outcome(&mut cluster, 1, 7), Some(Outcome::Refused { leader: None }));
}

/// diss. 6.4: "… and waits for their acknowledgments from a majority of the cluster."
///
/// Mutation: 905-one-answer-confirms
#[test]
fn a_read_takes_answers_from_a_majority() {
    let mut cluster = led(5);
    let now = term(&cluster, 1);
    read(&mut cluster, 1, 1);
    let round = cluster.wire.iter().map(|(_, _, message)| round_of(message)).max().unwrap();
    cluster.receive(2, 1, now, Body::HeartbeatReply { round, asleep: false }).unwrap();
    cluster.receive(2, 1, now, Body::HeartbeatReply { round, asleep: false }).unwrap();
    assert_eq!(outcome(&mut cluster, 1, 1), None, "two of five");
    cluster.receive(5, 1, now, Body::HeartbeatReply { round, asleep: false }).unwrap();
    assert!(outcome(&mut cluster, 1, 1).is_some());
}

/// diss. 6.4: "4. The leader waits for its state machine to advance at least as far as the readIndex."
///
/// Mutation: 906-read-before-applied
#[test]
fn a_read_waits_for_the_state_machine() {
    let mut cluster = led(3);
    cluster.slow_disks = vec![1];
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver();
    assert_eq!(cluster.raft(1).commit(), i(2), "durable on the other two");
    read(&mut cluster, 1, 2);
    cluster.deliver();
    assert!(cluster.node(1).applied.is_empty());
    assert_eq!(outcome(&mut cluster, 1, 2), None);
    cluster.persist_all(1);
    assert_eq!(cluster.node(1).applied, [b"x"]);
    assert_eq!(outcome(&mut cluster, 1, 2), Some(Outcome::Read { index: i(2) }));
}

/// diss. 6.4: "the leader can use a single round of heartbeats for any number of read-only queries that it has accumulated."
///
/// Mutation: 907-a-round-for-each-read
#[test]
fn many_reads_share_a_round() {
    let mut cluster = led(5);
    for token in 1..=50 {
        read(&mut cluster, 1, token);
    }
    assert_eq!(cluster.wire.len(), 4, "one round, to four others");
    let first = cluster.wire.iter().map(|(_, _, message)| round_of(message)).max().unwrap();
    let rounds = std::cell::Cell::new(first);
    cluster.deliver_unless(|_, _, message| {
        rounds.set(rounds.get().max(round_of(message)));
        false
    });
    assert_eq!(cluster.node(1).outcomes.len(), 50);
    assert_eq!(rounds.get(), first + 1, "and one for all that came meanwhile");
}

/// diss. 6.4: "the follower could issue a request to the leader that just asks for a current readIndex (the leader would execute
/// steps 1–3 above); the follower would then execute steps 4 and 5 on its own state machine."
///
/// Mutation: 908-follower-reads-its-own-commit
#[test]
fn a_follower_asks_the_leader_and_waits_for_its_own_state_machine() {
    let mut cluster = led(3);
    cluster.propose(1, 1, b"x").unwrap();
    let commits = |_, _, message: &Message| matches!(message.body, Body::Commit { .. });
    cluster.deliver_unless(commits);
    assert_eq!((cluster.raft(1).commit(), cluster.raft(2).commit()), (i(2), i(1)));
    read(&mut cluster, 2, 7);
    assert_eq!(on_wire(&cluster, |body| matches!(body, Body::ReadIndex { .. })), [(2, 1)]);
    // It hears of the index before it hears of the commit.
    let told =
        |_, to: NodeId, message: &Message| to.0 == 2 && round_of(message) > 0 || commits(to, to, message);
    cluster.deliver_unless(told);
    assert_eq!(outcome(&mut cluster, 2, 7), None);
    cluster.run(500_000);
    assert_eq!(outcome(&mut cluster, 2, 7), Some(Outcome::Read { index: i(2) }));
    assert_eq!(cluster.node(2).applied, [b"x"]);
}

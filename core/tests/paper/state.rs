//! Figure 2, State: the log, commitIndex, lastApplied, nextIndex, matchIndex.

use quorate_core::{EntryKind, Few, LogId, Mode, Run};

use crate::{common::*, support::*};

/// Figure 2, State: "log entries; each entry contains command for state machine, and term when entry was received by leader
/// (first index is 1)."
///
/// Mutation: 110-entries-of-the-term-before
#[test]
fn entries_are_numbered_from_1_and_of_the_term_in_which_the_leader_got_them() {
    let mut cluster = led(3);
    let first = term(&cluster, 1);
    assert_eq!(terms_of(&cluster, 1), [first]);
    cluster.propose(1, 1, b"a").unwrap();
    cluster.deliver();
    cluster.elect(2);
    let second = term(&cluster, 2);
    cluster.propose(2, 2, b"b").unwrap();
    cluster.deliver();
    assert!(second > first);
    assert_eq!(terms_of(&cluster, 3), [first, first, second, second]);
    let disk = cluster.node(3).disk.clone();
    let commands = disk.log.iter().flat_map(Run::entries).filter(|entry| entry.kind == EntryKind::Command);
    let commands: Vec<_> = commands.map(|entry| (entry.id, entry.payload.to_vec())).collect();
    assert_eq!(commands, [(id(first, 2), b"a".to_vec()), (id(second, 4), b"b".to_vec())]);
}

/// Figure 2, State: "commitIndex: index of highest log entry known to be committed (initialized to 0, increases
/// monotonically)": volatile, and never lower.
///
/// Mutation: 111-commit-goes-back
#[test]
fn the_commit_index_begins_at_0_and_never_goes_back() {
    let mut cluster = follower(3);
    assert_eq!(cluster.raft(1).commit(), i(3));
    cluster.receive(2, 1, 2, heartbeat(1, 2)).unwrap();
    cluster.receive(2, 1, 2, append(id(2, 2), 2, Few::one(run(2, 3, 1)))).unwrap();
    assert_eq!(cluster.raft(1).commit(), i(3));
    cluster.restart(1);
    assert_eq!((cluster.raft(1).commit(), cluster.raft(1).last()), (i(0), id(2, 5)));
}

/// Figure 2, State: "lastApplied: index of highest log entry applied to state machine (initialized to 0, increases
/// monotonically)"; §5.3: "it applies the entry to its local state machine (in log order)": each once.
///
/// Mutation: 112-applied-twice
#[test]
fn entries_are_applied_in_order_and_once() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.raft(1).status().applied, i(0));
    cluster.receive(2, 1, 2, append(LogId::ZERO, 3, Few::one(run(2, 1, 5)))).unwrap();
    cluster.receive(2, 1, 2, heartbeat(2, 1)).unwrap();
    cluster.receive(2, 1, 2, heartbeat(5, 2)).unwrap();
    assert_eq!(cluster.node(1).applied, [[1], [2], [3], [4], [5]]);
    assert_eq!(cluster.raft(1).status().applied, i(5));
}

/// Figure 2, All Servers: "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to state machine":
/// that far, and no further.
///
/// Mutation: 113-applied-before-committed
#[test]
fn what_is_committed_is_applied_and_nothing_else() {
    let mut cluster = follower(1);
    assert_eq!(cluster.node(1).applied, [[1]]);
    cluster.receive(2, 1, 2, heartbeat(4, 1)).unwrap();
    assert_eq!(cluster.node(1).applied.len(), 4);
}

/// Figure 2, State: "nextIndex\[\]: for each server, index of the next log entry to send to that server (initialized to
/// leader last log index + 1)."
///
/// Mutation: 114-next-from-the-beginning
#[test]
fn a_new_leader_sends_from_its_end_on() {
    let mut cluster = impatient(3);
    start_with(&mut cluster, 1, 3, &[(1, 2), (3, 3)]);
    cluster.fire(1);
    cluster.receive(2, 1, 4, voted(true)).unwrap();
    for peer in [2, 3] {
        assert_eq!(
            (progress(&cluster, 1, peer).next_index, progress(&cluster, 1, peer).mode),
            (i(6), Mode::Probe)
        );
    }
}

/// Figure 2, State: "matchIndex\[\]: for each server, index of highest log entry known to be replicated on server
/// (initialized to 0, increases monotonically)": a new leader takes nothing for granted.
///
/// Mutation: 115-match-assumed
#[test]
fn a_new_leader_knows_nothing_of_the_others() {
    let mut cluster = impatient(3);
    start_with(&mut cluster, 1, 3, &[(1, 2), (3, 3)]);
    cluster.fire(1);
    cluster.receive(2, 1, 4, voted(true)).unwrap();
    assert_eq!((progress(&cluster, 1, 2).match_index, progress(&cluster, 1, 3).match_index), (i(0), i(0)));
}

/// The same: "increases monotonically": an acknowledgement that comes late says nothing new.
///
/// Mutation: 116-match-goes-back
#[test]
fn what_a_server_is_known_to_have_never_shrinks() {
    let mut cluster = led(3);
    for token in 1..=3 {
        cluster.propose(1, token, b"x").unwrap();
    }
    cluster.deliver();
    let (now, last) = (term(&cluster, 1), index_of_last(&cluster, 1));
    assert_eq!(progress(&cluster, 1, 2).match_index, last);
    cluster.receive(2, 1, now, appended(last.0 - 2)).unwrap();
    assert_eq!(progress(&cluster, 1, 2).match_index, last);
}

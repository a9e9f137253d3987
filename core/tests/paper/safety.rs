//! §5.4: who may be elected, and what counts as committed.

use quorate_core::{Body, Few, LogId, RoleKind};

use crate::{common::*, support::*};

/// Does a node whose log ends at (2, 5) vote for one that ends at `last`?
fn votes_for(last: LogId) -> Body {
    let mut cluster = Cluster::new(3);
    start_with(&mut cluster, 1, 2, &[(1, 2), (2, 3)]);
    cluster.receive(3, 1, 9, vote(last)).unwrap();
    replies(&mut cluster).remove(0).body
}

/// §5.4.1: "If the logs have last entries with different terms, then the log with the later term is more up-to-date."
///
/// Mutation: 402-length-only
#[test]
fn the_later_last_term_is_more_up_to_date() {
    assert_eq!(votes_for(id(3, 1)), voted(true));
    assert_eq!(votes_for(id(1, 99)), voted(false));
}

/// §5.4.1: "If the logs end with the same term, then whichever log is longer is more up-to-date."
///
/// Mutation: 403-last-term-only
#[test]
fn of_the_same_last_term_the_longer_log_is_more_up_to_date() {
    assert_eq!(votes_for(id(2, 6)), voted(true));
    assert_eq!(votes_for(id(2, 4)), voted(false));
}

/// §5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate": an equal one will do
/// (Figure 2: "at least as up-to-date").
///
/// Mutation: 404-no-up-to-date-check
#[test]
fn a_voter_denies_its_vote_to_a_log_that_lacks_something() {
    assert_eq!(votes_for(id(2, 5)), voted(true));
    for last in [id(2, 4), id(1, 5), LogId::ZERO] {
        assert_eq!(votes_for(last), voted(false), "{last}");
    }
}

/// §5.4.1: "the RPC includes information about the candidate's log."
///
/// Mutation: 405-vote-hides-the-log
#[test]
fn a_candidate_says_how_far_its_log_goes() {
    let mut cluster = impatient(3);
    start_with(&mut cluster, 1, 2, &[(1, 2), (2, 3)]);
    cluster.fire(1);
    let asked = bodies_to(&mut cluster, 2);
    assert!(matches!(asked[0], Body::Vote { last, .. } if last == id(2, 5)), "{asked:?}");
}

/// §5.4.2: "Raft never commits log entries from previous terms by counting replicas. Only log entries from the leader's
/// current term are committed by counting replicas; once an entry from the current term has been committed in this way, then
/// all prior entries are committed indirectly": Figure 8, and Figure 2's "log\[N\].term == currentTerm".
///
/// Mutation: 401-earlier-term-by-counting
#[test]
fn an_earlier_terms_entry_is_not_committed_by_counting() {
    let mut cluster = impatient(5);
    start_with(&mut cluster, 1, 3, &[(1, 1), (2, 1)]);
    cluster.fire(1);
    let now = term(&cluster, 1);
    for voter in [2, 3] {
        cluster.receive(voter, 1, now, voted(true)).unwrap();
    }
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
    // The entry of term 2 reaches a majority.
    for peer in [2, 3] {
        cluster.receive(peer, 1, now, appended(2)).unwrap();
    }
    assert_eq!(cluster.raft(1).commit(), i(0), "counted, but not committed");
    for peer in [2, 3] {
        cluster.receive(peer, 1, now, appended(3)).unwrap();
    }
    assert_eq!(cluster.raft(1).commit(), i(3), "with an entry of its own term, all before it");
}

/// §5.3: "The leader never overwrites or deletes entries in its own log; it only appends."
///
/// Mutation: 318-leader-yields-in-its-term
#[test]
fn a_leader_refuses_appends_in_its_own_term() {
    let mut cluster = led(3);
    cluster.propose(1, 1, b"x").unwrap();
    let (now, last) = (term(&cluster, 1), cluster.raft(1).last());
    let forged = append(id(now, 1), 0, Few::one(run(now, 2, 3)));
    assert!(cluster.receive(2, 1, now, forged).is_err());
    assert_eq!((cluster.raft(1).last(), role(&cluster, 1)), (last, RoleKind::Leader));
}

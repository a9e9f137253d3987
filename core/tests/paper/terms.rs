//! §5.1: terms, and Figure 2's rules about them.

use quorate_core::{Body, Few, HardState, LogId, NodeId, RoleKind, Term};

use crate::{common::*, support::*};

/// §5.1: "If one server's current term is smaller than the other's, then it updates its current term to the larger value."
///
/// Mutation: 101-later-term-not-taken
#[test]
fn a_smaller_term_is_updated() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 7, append(id(0, 0), 0, Few::new())).unwrap();
    assert_eq!(cluster.raft(1).term(), Term(7));
    assert_eq!(cluster.node(1).disk.hard_state, HardState { term: Term(7), vote: None }, "durably");
}

/// §5.1: "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state."
///
/// Mutation: 102-only-followers-take-a-later-term
#[test]
fn an_outdated_leader_or_candidate_reverts_to_follower() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    cluster.receive(2, 1, now + 1, Body::HeartbeatReply { round: 0, asleep: false }).unwrap();
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Follower, now + 1));
    let mut cluster = candidate(3);
    cluster.receive(2, 1, 5, voted(false)).unwrap();
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Follower, 5));
}

/// Figure 2, All Servers: "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to
/// follower": with every kind of message that is about its author's term.
///
/// Mutation: 102-only-followers-take-a-later-term
#[test]
fn every_request_and_response_of_a_later_term_makes_a_follower() {
    let requests = [append(LogId::ZERO, 0, Few::new()), heartbeat(0, 1), Body::Commit { commit: i(0) }];
    let responses = [
        voted(true),
        voted(false),
        appended(0),
        Body::Conflict { prev: i(0), hint: LogId::ZERO },
        Body::HeartbeatReply { round: 1, asleep: false },
    ];
    for body in requests.into_iter().chain(responses) {
        let mut cluster = candidate(5);
        cluster.receive(2, 1, 4, body.clone()).unwrap();
        assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Follower, 4), "{body:?}");
    }
}

/// §5.1: "If a server receives a request with a stale term number, it rejects the request"; Figure 2, AppendEntries: "Reply
/// false if term < currentTerm."
///
/// Mutation: 103-stale-request-handled
#[test]
fn an_append_of_a_stale_term_is_rejected() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 7, append(LogId::ZERO, 0, Few::new())).unwrap();
    cluster.wire.clear();
    cluster.receive(3, 1, 6, append(LogId::ZERO, 1, Few::one(run(6, 1, 1)))).unwrap();
    assert_eq!((cluster.raft(1).last(), cluster.raft(1).commit()), (LogId::ZERO, i(0)));
    assert_eq!(cluster.raft(1).leader(), Some(NodeId(2)));
}

/// Figure 2, AppendEntries: "term: currentTerm, for leader to update itself." A node that is stuck at a later term would
/// never be led again otherwise.
///
/// Mutation: 104-stale-leader-unanswered
#[test]
fn a_stale_leader_hears_of_the_later_term() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 7, append(LogId::ZERO, 0, Few::new())).unwrap();
    for stale in [append(LogId::ZERO, 0, Few::new()), heartbeat(0, 3)] {
        cluster.wire.clear();
        cluster.receive(3, 1, 6, stale).unwrap();
        assert_eq!(replies(&mut cluster)[0].term, Term(7));
    }
}

/// Figure 2, RequestVote: "Reply false if term < currentTerm", with "currentTerm, for candidate to update itself."
///
/// Mutation: 105-stale-vote-granted
#[test]
fn a_vote_of_a_stale_term_is_refused_with_the_own() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 7, append(LogId::ZERO, 0, Few::new())).unwrap();
    cluster.wire.clear();
    cluster.receive(3, 1, 6, vote(id(6, 9))).unwrap();
    let answers = replies(&mut cluster);
    assert_eq!((answers[0].term, &answers[0].body), (Term(7), &voted(false)));
    assert_eq!(cluster.raft(1).hard_state().vote, None);
}

/// Figure 2, State: "currentTerm: latest term server has seen (initialized to 0 on first boot, increases monotonically)."
///
/// Mutation: 106-term-goes-back
#[test]
fn the_term_begins_at_0_and_never_goes_back() {
    let mut cluster = Cluster::new(3);
    assert_eq!(term(&cluster, 1), 0);
    let mut highest = 0;
    for later in [3, 1, 5, 2, 4, 5] {
        cluster.receive(2, 1, later, append(LogId::ZERO, 0, Few::new())).unwrap();
        highest = highest.max(later);
        assert_eq!(term(&cluster, 1), highest);
    }
}

/// Figure 2, State: "votedFor: candidateId that received vote in current term (or null if none)."
///
/// Mutation: 107-vote-kept-in-a-new-term
#[test]
fn a_new_term_begins_without_a_vote() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 3, vote(LogId::ZERO)).unwrap();
    assert_eq!(cluster.raft(1).hard_state(), HardState { term: Term(3), vote: Some(NodeId(2)) });
    cluster.receive(3, 1, 4, append(LogId::ZERO, 0, Few::new())).unwrap();
    assert_eq!(cluster.raft(1).hard_state(), HardState { term: Term(4), vote: None });
    assert_eq!(cluster.node(1).disk.hard_state, HardState { term: Term(4), vote: None });
}

/// §5.2: "When servers start up, they begin as followers": also who led before.
///
/// Mutation: 108-starts-as-candidate
#[test]
fn servers_start_as_followers() {
    let mut cluster = led(3);
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
    cluster.restart(1);
    assert_eq!((role(&cluster, 1), cluster.raft(1).leader()), (RoleKind::Follower, None));
    assert_eq!(role(&Cluster::new(3), 2), RoleKind::Follower);
}

/// Figure 2, "Persistent state on all servers": currentTerm and votedFor are as they were after a restart.
///
/// Mutation: 109-hard-state-forgotten
#[test]
fn term_and_vote_survive_a_restart() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 3, vote(LogId::ZERO)).unwrap();
    cluster.restart(1);
    assert_eq!(cluster.raft(1).hard_state(), HardState { term: Term(3), vote: Some(NodeId(2)) });
}

//! §5.2: leader election; Figure 2, Candidates; diss. 9.6, the question before it.

use quorate_core::{Body, Few, HardState, LogId, NodeId, Reason, RoleKind, Term};

use crate::{common::*, support::*};

/// §5.2: "To begin an election, a follower increments its current term and transitions to candidate state"; Figure 2,
/// Candidates: "Increment currentTerm."
///
/// Mutation: 201-campaigns-in-the-same-term
#[test]
fn an_election_begins_with_a_new_term() {
    let mut cluster = impatient(5);
    cluster.receive(2, 1, 7, append(LogId::ZERO, 0, Few::new())).unwrap();
    cluster.fire(1);
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Candidate, 8));
}

/// §5.2: "It then votes for itself"; Figure 2, Candidates: "Vote for self": durably, and for nobody else in that term.
///
/// Mutation: 202-no-vote-for-itself
#[test]
fn a_candidate_votes_for_itself() {
    let mut cluster = candidate(5);
    assert_eq!(cluster.node(1).disk.hard_state, HardState { term: Term(1), vote: Some(NodeId(1)) });
    cluster.receive(2, 1, 1, vote(id(1, 9))).unwrap();
    assert_eq!(replies(&mut cluster)[0].body, voted(false));
}

/// Figure 2, Candidates: "Reset election timer."
///
/// Mutation: 203-candidate-timer-not-reset
#[test]
fn a_candidate_gives_the_others_time_to_answer() {
    let cluster = candidate(5);
    let (at, reason) = cluster.raft(1).deadline().unwrap();
    assert_eq!(reason, Reason::Election);
    assert!((1_000_000..2_000_000).contains(&at.since(cluster.now)), "{at:?}");
}

/// §5.2: "and issues RequestVote RPCs in parallel to each of the other servers in the cluster."
///
/// Mutation: 204-asks-not-all
#[test]
fn a_candidate_asks_all_others() {
    let mut cluster = impatient(5);
    cluster.fire(1);
    assert_eq!(on_wire(&cluster, is_vote), [(1, 2), (1, 3), (1, 4), (1, 5)]);
}

/// §5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis"; Figure 2,
/// RequestVote: "If votedFor is null or candidateId …, grant vote."
///
/// Mutation: 205-vote-ignores-voted-for
#[test]
fn one_vote_a_term_first_come_first_served_also_after_a_restart() {
    let mut cluster = Cluster::new(3);
    let vote = || vote(id(1, 1));
    cluster.receive(2, 1, 3, vote()).unwrap();
    cluster.receive(3, 1, 3, vote()).unwrap();
    cluster.restart(1);
    cluster.receive(3, 1, 3, vote()).unwrap();
    let granted: Vec<Body> = replies(&mut cluster).into_iter().map(|message| message.body).collect();
    assert_eq!(granted, [voted(true), voted(false), voted(false)]);
}

/// Figure 2, RequestVote: "… or candidateId": who asks again, for its answer was lost, is told the same again.
///
/// Mutation: 206-repeated-request-refused
#[test]
fn a_vote_is_said_again_to_whom_it_was_given() {
    let mut cluster = Cluster::new(3);
    for _ in 0..2 {
        cluster.receive(2, 1, 3, vote(id(1, 1))).unwrap();
        assert_eq!(replies(&mut cluster)[0].body, voted(true));
        cluster.restart(1);
    }
}

/// §5.2: "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the same
/// term." One that says yes twice is one.
///
/// Mutation: 207-votes-counted-twice
#[test]
fn a_majority_of_different_servers_elects() {
    let mut cluster = candidate(5);
    for _ in 0..3 {
        cluster.receive(2, 1, 1, voted(true)).unwrap();
        assert_eq!(role(&cluster, 1), RoleKind::Candidate, "two of five");
    }
    cluster.receive(3, 1, 1, voted(true)).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
}

/// Figure 2, Candidates: "If votes received from majority of servers: become leader": half of them is none.
///
/// Mutation: 208-half-is-a-quorum
#[test]
fn half_of_the_servers_elect_nobody() {
    let mut cluster = candidate(4);
    cluster.receive(2, 1, 1, voted(true)).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Candidate, "two of four");
    cluster.receive(4, 1, 1, voted(true)).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Leader);
}

/// §5.2: "… for the same term": a vote of an earlier election does not count in this one.
///
/// Mutation: 103-stale-request-handled
#[test]
fn a_vote_of_an_earlier_term_elects_nobody() {
    let mut cluster = candidate(3);
    cluster.fire(1);
    assert_eq!(term(&cluster, 1), 2);
    cluster.receive(2, 1, 1, voted(true)).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Candidate);
}

/// §5.2: "Once a candidate wins an election, it becomes leader. It then sends heartbeat messages to all of the other
/// servers"; Figure 2, Leaders: "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server."
///
/// Mutation: 209-leader-silent-at-first
#[test]
fn a_new_leader_says_so_at_once() {
    let mut cluster = candidate(3);
    cluster.receive(2, 1, 1, voted(true)).unwrap();
    assert_eq!(on_wire(&cluster, |body| matches!(body, Body::Heartbeat { .. })), [(1, 2), (1, 3)]);
}

/// Figure 2, Leaders: "repeat during idle periods to prevent election timeouts."
///
/// Mutation: 210-heartbeats-too-rare
#[test]
fn an_idle_leader_stays_in_office() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    cluster.run(20_000_000);
    assert_eq!((role(&cluster, 1), term(&cluster, 2), term(&cluster, 3)), (RoleKind::Leader, now, now));
    assert!(
        !cluster
            .node(2)
            .events
            .iter()
            .any(|event| { matches!(event, quorate_core::Event::Role { role: RoleKind::PreCandidate, .. }) })
    );
}

/// §5.2: "If the leader's term … is at least as large as the candidate's current term, then the candidate recognizes the
/// leader as legitimate and returns to follower state."
///
/// Mutation: 211-candidate-ignores-leader
#[test]
fn a_candidate_recognises_the_leader_of_its_term() {
    for said in [heartbeat(0, 1), append(LogId::ZERO, 0, Few::one(run(1, 1, 1)))] {
        let mut cluster = candidate(3);
        cluster.receive(2, 1, 1, said).unwrap();
        assert_eq!((role(&cluster, 1), cluster.raft(1).leader()), (RoleKind::Follower, Some(NodeId(2))));
    }
}

/// §5.2: "If the term in the RPC is smaller than the candidate's current term, then the candidate rejects the RPC and
/// continues in candidate state."
///
/// Mutation: 103-stale-request-handled
#[test]
fn a_candidate_does_not_give_way_to_a_leader_of_the_past() {
    let mut cluster = candidate(3);
    cluster.fire(1);
    cluster.wire.clear();
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::new())).unwrap();
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Candidate, 2));
    assert_eq!(replies(&mut cluster)[0].term, Term(2));
}

/// §5.2: "… each candidate will time out and start a new election by incrementing its term and initiating another round of
/// RequestVote RPCs."
///
/// Mutation: 212-candidate-waits-for-ever
#[test]
fn a_split_vote_is_followed_by_another_election() {
    let mut cluster = candidate(3);
    cluster.fire(1);
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Candidate, 2));
    assert_eq!(on_wire(&cluster, is_vote), [(1, 2), (1, 3)]);
}

/// §5.2: "Raft uses randomized election timeouts": from one to two of the configured; "each candidate restarts its
/// randomized election timeout at the start of an election."
///
/// Mutation: 213-timeout-not-random
#[test]
fn election_timeouts_are_random_and_drawn_anew() {
    let mut cluster = impatient(3);
    let mut timeouts = Vec::new();
    for _ in 0..20 {
        let before = cluster.now;
        cluster.fire(1);
        timeouts.push(cluster.now.since(before));
    }
    assert!(timeouts.iter().all(|us| (1_000_000..2_000_000).contains(us)), "{timeouts:?}");
    let second = timeouts[1];
    assert!(timeouts[1..].iter().any(|us| us.abs_diff(second) > 100_000), "{timeouts:?}");
}

/// diss. 9.6: "a server that has been partitioned from the cluster is likely to cause a disruption when it regains
/// connectivity": not if it asks before it campaigns.
///
/// Mutation: 219-no-pre-vote
#[test]
fn a_node_that_returns_disturbs_nobody() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    cluster.run_unless(30_000_000, |from, to, _| from.0 == 3 || to.0 == 3);
    assert_eq!((role(&cluster, 3), term(&cluster, 3)), (RoleKind::PreCandidate, now));
    cluster.run(10_000_000);
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Leader, now));
    assert_eq!(cluster.raft(3).leader(), Some(NodeId(1)));
}

/// diss. 9.6: "a candidate only increments its term if it first learns from a majority of the cluster that they would be
/// willing to grant the candidate their votes."
///
/// Mutation: 221-pre-vote-without-a-majority
#[test]
fn a_pre_candidate_needs_a_majority_that_is_willing() {
    let mut cluster = Cluster::new(5);
    cluster.fire(1);
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::PreCandidate, 0));
    let question = bodies_to(&mut cluster, 2);
    let Body::PreVote { id, .. } = question[0] else { panic!("{question:?}") };
    cluster.receive(2, 1, 0, Body::PreVoteReply { id, granted: true }).unwrap();
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::PreCandidate, 0), "two of five");
    cluster.receive(3, 1, 0, Body::PreVoteReply { id, granted: true }).unwrap();
    assert_eq!((role(&cluster, 1), term(&cluster, 1)), (RoleKind::Candidate, 1));
}

/// diss. 9.6: "(if the candidate's log is sufficiently up-to-date, …)".
///
/// Mutation: 220-pre-vote-for-any-log
#[test]
fn nobody_is_willing_to_elect_a_log_that_lacks_something() {
    let mut cluster = follower(3);
    cluster.now = cluster.now.plus(3_000_000);
    for (last, granted) in [(id(2, 4), false), (id(1, 9), false), (id(2, 5), true)] {
        let question = Body::PreVote { id: quorate_core::RequestId::default(), last };
        cluster.receive(3, 1, 2, question).unwrap();
        let answer = replies(&mut cluster).remove(0).body;
        assert!(
            matches!(answer, Body::PreVoteReply { granted: said, .. } if said == granted),
            "{last}: {answer:?}"
        );
    }
}

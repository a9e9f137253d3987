//! Sentences of the Raft paper and the dissertation, each with a test that fails where the core disobeys.

mod common;

use common::*;
use quorate_core::{Action, Body, Few, HardState, Input, LogId, Message, NodeId, RoleKind, Term, Token};

/// The messages of one kind that lie on the wire: sender, receiver.
fn on_wire(cluster: &Cluster, kind: impl Fn(&Body) -> bool) -> Vec<(u64, u64)> {
    cluster.wire.iter().filter(|(_, _, m)| kind(&m.body)).map(|(from, to, _)| (from.0, to.0)).collect()
}

fn replies(cluster: &mut Cluster) -> Vec<Message> {
    cluster.wire.drain(..).map(|(_, _, message)| message).collect()
}

fn append(prev: LogId, commit: u64, entries: Few<quorate_core::Run>) -> Body {
    Body::Append { prev, commit: i(commit), entries }
}

// ---- §5.1, terms ----

/// §5.1: "If one server's current term is smaller than the other's, then it updates its current term to the larger value."
#[test]
fn a_smaller_term_is_updated() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 7, append(id(0, 0), 0, Few::new())).unwrap();
    assert_eq!(cluster.raft(1).term(), Term(7));
    assert_eq!(cluster.node(1).disk.hard_state, HardState { term: Term(7), vote: None }, "durably");
}

/// §5.1: "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state."
#[test]
fn an_outdated_leader_or_candidate_reverts_to_follower() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.raft(1).term().0;
    cluster.receive(2, 1, term + 1, Body::HeartbeatReply { round: 0 }).unwrap();
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term().0), (RoleKind::Follower, term + 1));
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    cluster.fire(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.receive(2, 1, 5, voted(false)).unwrap();
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (RoleKind::Follower, Term(5)));
}

/// §5.1: "If a server receives a request with a stale term number, it rejects the request." It answers a member
/// with its own term, or a node that is stuck at a later one would never be led again.
#[test]
fn a_request_of_a_stale_term_is_rejected_with_the_own() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 7, append(id(0, 0), 0, Few::new())).unwrap();
    cluster.wire.clear();
    cluster.receive(3, 1, 6, append(id(0, 0), 1, Few::one(run(6, 1, 1)))).unwrap();
    assert_eq!(cluster.raft(1).last(), LogId::ZERO);
    cluster.receive(3, 1, 6, vote(id(6, 9))).unwrap();
    let answers = replies(&mut cluster);
    assert_eq!(answers.iter().map(|m| m.term).collect::<Vec<_>>(), [Term(7), Term(7)]);
    assert_eq!(answers[1].body, voted(false));
}

// ---- §5.2, elections ----

/// §5.2: "To begin an election, a follower increments its current term and transitions to candidate state. It then votes
/// for itself and issues RequestVote RPCs in parallel to each of the other servers in the cluster."
#[test]
fn an_election_begins_with_a_new_term_an_own_vote_and_requests_to_all() {
    let mut cluster = Cluster::with(5, |config| config.pre_vote = false);
    cluster.fire(1);
    assert_eq!(cluster.node(1).disk.hard_state, HardState { term: Term(1), vote: Some(NodeId(1)) });
    let asked = on_wire(&cluster, |body| matches!(body, Body::Vote { .. }));
    assert_eq!(asked, [(1, 2), (1, 3), (1, 4), (1, 5)]);
}

/// §5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis."
#[test]
fn one_vote_a_term_first_come_first_served_also_after_a_restart() {
    let mut cluster = Cluster::new(3);
    let vote = || vote(id(1, 1));
    cluster.receive(2, 1, 3, vote()).unwrap();
    cluster.receive(3, 1, 3, vote()).unwrap();
    cluster.receive(2, 1, 3, vote()).unwrap();
    cluster.restart(1);
    cluster.receive(3, 1, 3, vote()).unwrap();
    let granted: Vec<Body> = replies(&mut cluster).into_iter().map(|message| message.body).collect();
    let reply = |granted| voted(granted);
    assert_eq!(granted, [reply(true), reply(false), reply(true), reply(false)]);
}

/// §5.2: "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the same
/// term." One that says yes twice is one.
#[test]
fn a_majority_of_different_servers_elects() {
    let mut cluster = Cluster::with(5, |config| config.pre_vote = false);
    cluster.fire(1);
    for _ in 0..3 {
        cluster.receive(2, 1, 1, voted(true)).unwrap();
        assert_eq!(cluster.raft(1).role(), RoleKind::Candidate, "two of five");
    }
    cluster.receive(3, 1, 1, voted(true)).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
}

/// §5.2: "Once a candidate wins an election, it becomes leader. It then sends heartbeat messages to all of the other servers."
#[test]
fn a_new_leader_says_so_at_once() {
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    cluster.fire(1);
    cluster.wire.clear();
    cluster.receive(2, 1, 1, voted(true)).unwrap();
    let told = on_wire(&cluster, |body| matches!(body, Body::Heartbeat { .. }));
    assert_eq!(told, [(1, 2), (1, 3)]);
}

/// §5.2: "If the leader's term is at least as large as the candidate's current term, then the candidate recognizes the
/// leader as legitimate and returns to follower state."
#[test]
fn a_candidate_recognises_the_leader_of_its_term() {
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    cluster.fire(1);
    cluster.receive(2, 1, 1, Body::Heartbeat { commit: i(0), round: 1 }).unwrap();
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).leader()), (RoleKind::Follower, Some(NodeId(2))));
}

/// §5.2: "Raft uses randomized election timeouts": from one to two of the configured, and another one each time.
#[test]
fn election_timeouts_are_random_and_drawn_anew() {
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    let mut timeouts = Vec::new();
    for _ in 0..20 {
        let before = cluster.now;
        cluster.fire(1);
        timeouts.push(cluster.now.since(before));
    }
    assert!(timeouts.iter().all(|us| (1_000_000..2_000_000).contains(us)), "{timeouts:?}");
    let first = timeouts[0];
    assert!(timeouts.iter().any(|us| us.abs_diff(first) > 100_000), "{timeouts:?}");
}

/// diss. 9.6: a node asks before it campaigns, and a node that was cut off disturbs nobody when it returns.
#[test]
fn a_node_that_returns_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.raft(1).term();
    cluster.run_unless(30_000_000, |from, to, _| from.0 == 3 || to.0 == 3);
    assert_eq!(cluster.raft(3).role(), RoleKind::PreCandidate);
    cluster.run(10_000_000);
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (RoleKind::Leader, term));
    assert_eq!(cluster.raft(3).leader(), Some(NodeId(1)));
}

/// diss. 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of hearing from a current
/// leader, it does not update its term or grant its vote."
#[test]
fn who_hears_a_leader_does_not_help_to_depose_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.raft(1).term();
    cluster.receive(3, 2, term.0 + 5, vote(id(term.0, 99))).unwrap();
    assert_eq!(cluster.raft(2).term(), term);
    assert!(cluster.wire.is_empty(), "nor does it answer");
    // Nor would it, if asked first.
    let question = Body::PreVote { id: quorate_core::RequestId::default(), last: id(term.0, 99) };
    cluster.receive(3, 2, term.0, question).unwrap();
    assert!(matches!(replies(&mut cluster)[0].body, Body::PreVoteReply { granted: false, .. }));
    // A silent leader is another matter.
    cluster.now = cluster.now.plus(1_000_000);
    cluster.receive(3, 2, term.0 + 5, vote(id(term.0, 99))).unwrap();
    assert!(matches!(replies(&mut cluster)[0].body, Body::VoteReply { granted: true, .. }));
}

/// diss. 6.2: "a leader in Raft steps down if an election timeout elapses without a successful round of heartbeats to a
/// majority of its cluster."
#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.run_unless(2_100_000, |from, to, _| from.0 == 1 || to.0 == 1);
    assert_ne!(cluster.raft(1).role(), RoleKind::Leader);
}

// ---- §5.3, replication ----

/// §5.3: "If the follower does not find an entry in its log with the same index and term, then it refuses the new entries."
/// Here with the last that both could have: a whole term is skipped at a time.
#[test]
fn entries_after_an_unknown_one_are_refused_with_a_hint() {
    let mut cluster = Cluster::new(3);
    let log = Few::from(vec![run(1, 1, 2), run(2, 3, 3)]);
    cluster.receive(2, 1, 2, append(LogId::ZERO, 0, log)).unwrap();
    cluster.wire.clear();
    let hint = |cluster: &mut Cluster| match replies(cluster).pop().unwrap().body {
        Body::Conflict { hint, .. } => hint,
        other => panic!("{other:?}"),
    };
    // Too far ahead: the end of the log.
    cluster.receive(3, 1, 4, append(id(4, 9), 0, Few::one(run(4, 10, 1)))).unwrap();
    assert_eq!(hint(&mut cluster), id(2, 5));
    // Another term there, a later one: the log as far as it might agree.
    cluster.receive(3, 1, 4, append(id(3, 4), 0, Few::one(run(4, 5, 1)))).unwrap();
    assert_eq!(hint(&mut cluster), id(2, 4));
    // An earlier one: none of term 2 can be common.
    cluster.receive(3, 1, 4, append(id(1, 4), 0, Few::one(run(4, 5, 1)))).unwrap();
    assert_eq!(hint(&mut cluster), id(1, 2));
    assert_eq!(cluster.raft(1).last(), id(2, 5), "nothing was taken");
}

/// Figure 7: a new leader's log is what all end up with, whatever they had.
#[test]
fn every_log_of_figure_7_is_brought_in_line() {
    let leader: &[(u64, u64)] = &[(1, 3), (4, 2), (5, 2), (6, 3)];
    let followers: [&[(u64, u64)]; 6] = [
        &[(1, 3), (4, 2), (5, 2), (6, 2)],
        &[(1, 3), (4, 1)],
        &[(1, 3), (4, 2), (5, 2), (6, 4)],
        &[(1, 3), (4, 2), (5, 2), (6, 3), (7, 2)],
        &[(1, 3), (4, 4)],
        &[(1, 3), (2, 3), (3, 5)],
    ];
    let log = |parts: &[(u64, u64)]| {
        let mut next = 1;
        let runs = parts.iter().map(|(term, count)| {
            next += count;
            run(*term, next - count, *count)
        });
        runs.collect::<Vec<_>>()
    };
    let mut cluster = Cluster::new(7);
    for (at, parts) in std::iter::once(&leader).chain(&followers).enumerate() {
        let hard_state = HardState { term: Term(7), vote: None };
        cluster.start(at as u64 + 1, Disk { hard_state, log: log(parts), ..Disk::default() });
    }
    cluster.elect(1);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.run(3_000_000);
    let expected = cluster.raft(1).last();
    for id in 1..=7 {
        assert_eq!(cluster.raft(id).last(), expected, "node {id}");
        assert_eq!(cluster.node(id).disk.last(), expected, "node {id}");
        for index in 1..=expected.index.0 {
            assert_eq!(
                cluster.raft(id).term_at(i(index)),
                cluster.raft(1).term_at(i(index)),
                "{id}: {index}"
            );
        }
    }
}

/// Figure 2: "If an existing entry conflicts with a new one, delete the existing entry and all that follow it", and only
/// then: an append that comes late must not remove what came after it.
#[test]
fn only_a_conflict_truncates() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 5)))).unwrap();
    cluster.wire.clear();
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 2)))).unwrap();
    assert_eq!(cluster.raft(1).last(), id(1, 5));
    assert_eq!(replies(&mut cluster)[0].body, Body::Appended { up_to: i(2) }, "only what it verified");
    cluster.receive(3, 1, 2, append(id(1, 2), 0, Few::one(run(2, 3, 1)))).unwrap();
    assert_eq!((cluster.raft(1).last(), cluster.node(1).disk.last()), (id(2, 3), id(2, 3)));
}

/// Figure 2: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)."
#[test]
fn a_follower_commits_no_more_than_it_has_verified() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 5)))).unwrap();
    // Of these five, leader 3 has the first two.
    cluster.receive(3, 1, 2, append(id(1, 2), 5, Few::new())).unwrap();
    assert_eq!(cluster.raft(1).commit(), i(2));
}

/// §5.3: "The leader never overwrites or deletes entries in its own log; it only appends."
#[test]
fn a_leader_refuses_appends_in_its_own_term() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let (term, last) = (cluster.raft(1).term().0, cluster.raft(1).last());
    let forged = append(LogId::ZERO, 0, Few::one(run(term, 1, 3)));
    assert!(cluster.receive(2, 1, term, forged).is_err());
    assert_eq!(cluster.raft(1).last(), last);
}

// ---- §5.4, safety ----

/// §5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate": by the later last
/// term; in the same term, by the longer log.
#[test]
fn the_more_up_to_date_log_decides_a_vote() {
    for (last, granted) in [
        (id(2, 5), true),
        (id(2, 6), true),
        (id(3, 1), true),
        (id(2, 4), false),
        (id(1, 99), false),
        (LogId::ZERO, false),
    ] {
        let mut cluster = Cluster::new(3);
        let log = Few::from(vec![run(1, 1, 2), run(2, 3, 3)]);
        cluster.receive(2, 1, 2, append(LogId::ZERO, 0, log)).unwrap();
        cluster.wire.clear();
        cluster.now = cluster.now.plus(3_000_000);
        cluster.receive(3, 1, 9, vote(last)).unwrap();
        assert_eq!(replies(&mut cluster)[0].body, voted(granted), "{last}");
    }
}

/// §5.4.2: "Raft never commits log entries from previous terms by counting replicas. Only log entries from the leader's
/// current term are committed by counting replicas": Figure 8.
#[test]
fn an_earlier_terms_entry_is_not_committed_by_counting() {
    let mut cluster = Cluster::with(5, |config| config.pre_vote = false);
    let hard_state = HardState { term: Term(3), vote: None };
    cluster.start(1, Disk { hard_state, log: vec![run(1, 1, 1), run(2, 2, 1)], ..Disk::default() });
    cluster.fire(1);
    let term = cluster.raft(1).term().0;
    for voter in [2, 3] {
        cluster.receive(voter, 1, term, voted(true)).unwrap();
    }
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    // The entry of term 2 reaches a majority.
    for (peer, prev) in [(2, 2), (3, 2)] {
        cluster.receive(peer, 1, term, Body::Appended { up_to: i(prev) }).unwrap();
    }
    assert_eq!(cluster.raft(1).commit(), i(0), "counted, but not committed");
    for peer in [2, 3] {
        cluster.receive(peer, 1, term, Body::Appended { up_to: i(3) }).unwrap();
    }
    assert_eq!(cluster.raft(1).commit(), i(3), "with an entry of its own term, all before it");
}

// ---- persist before send: diss. 3.8, 10.2.1 ----

/// diss. 3.8: "each server must persist its current term and vote before responding to RPCs": nothing leaves before.
#[test]
fn nothing_is_said_before_term_and_vote_are_durable() {
    let mut cluster = Cluster::new(3);
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 3, vote(LogId::ZERO)).unwrap();
    assert!(cluster.wire.is_empty(), "the vote is not durable yet");
    cluster.persist_all(1);
    assert_eq!(replies(&mut cluster)[0].body, voted(true));
}

/// A RequestVote claims term, vote and log.
#[test]
fn a_candidate_asks_for_votes_when_its_own_is_durable_and_its_log() {
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::new())).unwrap();
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 3)))).unwrap();
    cluster.fire(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    let asked = |cluster: &Cluster| on_wire(cluster, |body| matches!(body, Body::Vote { .. })).len();
    cluster.persist_one(1);
    assert_eq!(asked(&cluster), 0, "the entries are durable, the vote is not");
    // One other vote isn't a majority of three while the own doesn't count.
    let term = cluster.raft(1).term().0;
    cluster.receive(2, 1, term, voted(true)).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate);
    cluster.persist_all(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
}

/// Requests for votes that are still held back when the candidacy ends never leave: their log may be gone by then.
#[test]
fn a_candidacy_that_is_over_asks_for_no_votes() {
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::new())).unwrap();
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 1, append(LogId::ZERO, 0, Few::one(run(1, 1, 3)))).unwrap();
    cluster.fire(1);
    let term = cluster.raft(1).term().0;
    cluster.receive(3, 1, term, append(id(1, 1), 0, Few::one(run(term, 2, 1)))).unwrap();
    cluster.persist_all(1);
    assert_eq!(cluster.raft(1).last(), id(term, 2), "its old entries are gone");
    assert_eq!(on_wire(&cluster, |body| matches!(body, Body::Vote { .. })), []);
}

/// An acknowledgement is bound to the write of the entries that it speaks of, not to their indexes: when the write of what
/// was there before completes, it stays where it is.
#[test]
fn an_acknowledgement_waits_for_its_own_entries_not_for_their_predecessors() {
    let mut cluster = Cluster::new(3);
    cluster.slow_disks = vec![1];
    cluster.receive(2, 1, 2, append(LogId::ZERO, 0, Few::one(run(2, 1, 8)))).unwrap();
    cluster.receive(3, 1, 3, append(id(2, 4), 0, Few::one(run(3, 5, 4)))).unwrap();
    let acks = |cluster: &Cluster| {
        let bodies = cluster.wire.iter().filter_map(|(_, to, message)| match message.body {
            Body::Appended { up_to } => Some((to.0, up_to.0)),
            _ => None,
        });
        bodies.collect::<Vec<_>>()
    };
    cluster.persist_one(1);
    // The first write has made 1 to 4 durable, which both leaders' logs have; 5 to 8 were of term 2.
    assert!(acks(&cluster).iter().all(|(to, up_to)| *to == 3 && *up_to <= 4), "{:?}", acks(&cluster));
    cluster.persist_one(1);
    assert_eq!(acks(&cluster).last(), Some(&(3, 8)));
    // A duplicate acknowledges no more than what it verified.
    cluster.wire.clear();
    cluster.receive(3, 1, 3, append(id(2, 3), 0, Few::new())).unwrap();
    assert_eq!(acks(&cluster), [(3, 3)]);
}

/// diss. 10.2.1: the leader writes and sends at once, and counts itself when its own disk is done.
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

/// Terms, votes, truncations and entries that belong together are one write.
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

// ---- §8, clients ----

/// §8: "it needs to commit a blank no-op entry into the log at the start of its term", and reads wait for that; diss.
/// 6.4: "the leader must check whether it has been deposed before processing a read-only request".
#[test]
fn a_read_waits_for_the_terms_first_commit_and_for_a_round_of_its_own() {
    let mut cluster = Cluster::new(3);
    let lose_appends = |_, _, message: &Message| matches!(message.body, Body::Append { .. });
    cluster.now = cluster.now.plus(3_000_000);
    cluster.fire(1);
    cluster.deliver_unless(lose_appends);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    cluster.step(1, Input::read(Token(1))).unwrap();
    cluster.deliver_unless(lose_appends);
    cluster.run_unless(150_000, lose_appends);
    assert!(cluster.node(1).outcomes.is_empty(), "nothing of this term is committed");
    cluster.run(500_000);
    assert_eq!(cluster.node(1).outcomes.len(), 1);
    // A round that was under way before a read came proves nothing about it.
    cluster.fire(1);
    let round_of = |message: &Message| match message.body {
        Body::Heartbeat { round, .. } => round,
        _ => 0,
    };
    let under_way = cluster.wire.iter().map(|(_, _, message)| round_of(message)).max().unwrap();
    cluster.step(1, Input::read(Token(2))).unwrap();
    cluster.deliver_unless(|_, _, message| round_of(message) > under_way);
    assert_eq!(cluster.node(1).outcomes.len(), 1, "only the older round was answered, the next was lost");
    cluster.run(500_000);
    assert_eq!(cluster.node(1).outcomes.len(), 2);
}

//! Messages that no correct node sends: refused or ignored, and nothing has changed.

mod common;

use common::*;
use quorate_core::{
    Body, Few, Input, LogId, Message, NodeId, Proposal, Rejected, RequestId, RoleKind, Run, Status, Term,
    Token,
};

const MAX: u64 = u64::MAX;

/// Node 1 follows node 2 with five entries, three of them committed.
fn follower() -> Cluster {
    let mut cluster = Cluster::new(3);
    let body = Body::Append { prev: LogId::ZERO, commit: i(3), entries: Few::one(run(2, 1, 5)) };
    cluster.receive(2, 1, 2, body).unwrap();
    cluster.wire.clear();
    cluster
}

fn leader() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver();
    cluster
}

/// What follows is refused, or answered, but changes nothing.
fn unchanged(cluster: &mut Cluster, from: u64, term: u64, body: Body) {
    let before = cluster.raft(1).status();
    let what = format!("{body:?} in term {term} from {from}");
    let _refused_or_not = cluster.receive(from, 1, term, body);
    let after: Status = cluster.raft(1).status();
    assert_eq!(after, before, "{what}");
}

fn append(prev: LogId, commit: u64, entries: Vec<Run>) -> Body {
    Body::Append { prev, commit: i(commit), entries: Few::from(entries) }
}

#[test]
fn absurd_terms_and_indexes() {
    for mut cluster in [follower(), leader()] {
        for term in [0, 1 << 63, MAX] {
            unchanged(&mut cluster, 2, term, voted(true));
            unchanged(&mut cluster, 2, term, append(LogId::ZERO, 0, vec![]));
            unchanged(&mut cluster, 2, term, vote(id(5, 5)));
        }
        let term = cluster.raft(1).term().0;
        for index in [1 << 63, MAX] {
            unchanged(&mut cluster, 2, term, Body::Appended { up_to: i(index) });
            unchanged(&mut cluster, 2, term, Body::Heartbeat { commit: i(index), round: 1 });
            unchanged(&mut cluster, 2, term, append(id(1, index), 0, vec![]));
        }
        // Names that can't be: half of them zero, or of a later term than their author's.
        for last in [id(0, 5), id(5, 0), id(term + 1, 5)] {
            unchanged(&mut cluster, 2, term, vote(last));
            unchanged(&mut cluster, 2, term, append(last, 0, vec![]));
        }
    }
}

#[test]
fn the_last_term_of_all_is_not_overflown() {
    let mut cluster = Cluster::with(3, |config| config.pre_vote = false);
    let last = (1 << 63) - 1;
    cluster.receive(2, 1, last, Body::Heartbeat { commit: i(0), round: 1 }).unwrap();
    cluster.fire(1);
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).role()), (Term(last), RoleKind::Follower));
}

#[test]
fn a_commit_beyond_the_log() {
    let mut cluster = follower();
    unchanged(&mut cluster, 2, 2, Body::Heartbeat { commit: i(6), round: 9 });
    unchanged(&mut cluster, 2, 2, Body::Commit { commit: i(6) });
    // Not even the term is believed of who says so.
    unchanged(&mut cluster, 3, 9, Body::Heartbeat { commit: i(6), round: 9 });
    assert!(cluster.wire.is_empty());
}

#[test]
fn a_conflict_at_or_below_the_commit_index() {
    let mut cluster = follower();
    for term in [2, 9] {
        unchanged(&mut cluster, 2, term, append(id(2, 2), 3, vec![run(1, 3, 1)]));
        unchanged(&mut cluster, 3, 9, append(id(2, 1), 3, vec![run(9, 2, 1)]));
        unchanged(&mut cluster, 3, 9, append(id(1, 3), 3, vec![]));
        unchanged(&mut cluster, 3, 9, append(LogId::ZERO, 0, vec![run(1, 1, 1)]));
    }
}

#[test]
fn entries_with_a_gap_or_out_of_order() {
    let mut cluster = follower();
    for entries in [
        vec![run(2, 7, 1)],
        vec![run(2, 6, 1), run(2, 8, 1)],
        vec![run(2, 6, 2), run(1, 8, 1)],
        vec![run(3, 6, 1)],
        vec![run(2, 6, 1), run(2, 6, 1)],
    ] {
        let refused = cluster.receive(2, 1, 2, append(id(2, 5), 3, entries.clone()));
        assert!(matches!(refused, Err(Rejected::Malformed(_))), "{entries:?}: {refused:?}");
        unchanged(&mut cluster, 2, 2, append(id(2, 5), 3, entries));
    }
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_does_not_move_commit() {
    let mut cluster = leader();
    let term = cluster.raft(1).term().0;
    cluster.wire.clear();
    // Appended, durable here, and lost on the way.
    cluster.propose(1, 2, b"y").unwrap();
    let last = cluster.raft(1).last().index.0;
    for up_to in [last + 1, last + 1000, (1 << 63) - 1] {
        unchanged(&mut cluster, 2, term, Body::Appended { up_to: i(up_to) });
    }
    unchanged(&mut cluster, 2, term, Body::Conflict { prev: i(last + 5), hint: id(term, last) });
    unchanged(&mut cluster, 2, term, Body::Conflict { prev: i(last - 1), hint: id(term, last) });
    unchanged(&mut cluster, 2, term, Body::HeartbeatReply { round: 1_000_000 });
    // After all of that, the truth still counts.
    cluster.deliver();
    assert_eq!(cluster.raft(1).commit(), i(last));
}

#[test]
fn two_leaders_in_a_term() {
    let mut cluster = follower();
    unchanged(&mut cluster, 3, 2, append(id(2, 5), 3, vec![run(2, 6, 1)]));
    unchanged(&mut cluster, 3, 2, Body::Heartbeat { commit: i(3), round: 1 });
    let mut cluster = leader();
    let term = cluster.raft(1).term().0;
    unchanged(&mut cluster, 3, term, Body::Heartbeat { commit: i(1), round: 1 });
    unchanged(&mut cluster, 3, term, Body::Commit { commit: i(1) });
}

#[test]
fn answers_from_strangers_and_messages_from_oneself() {
    for mut cluster in [follower(), leader()] {
        let term = cluster.raft(1).term().0;
        for body in [
            voted(true),
            Body::PreVoteReply { id: RequestId::default(), granted: true },
            Body::Appended { up_to: i(1) },
            Body::Conflict { prev: i(1), hint: LogId::ZERO },
            Body::HeartbeatReply { round: 1 },
            Body::ReadIndexReply { id: RequestId::default(), index: Some(i(1)) },
            Body::ReadIndex { id: RequestId::default() },
            Body::TimeoutNow,
        ] {
            for term in [term, term + 3] {
                let refused = cluster.receive(9, 1, term, body.clone());
                assert_eq!(refused, Err(Rejected::NotMember { from: NodeId(9) }));
                unchanged(&mut cluster, 9, term, body.clone());
            }
        }
        for from in [0, 1] {
            unchanged(&mut cluster, from, term + 1, append(LogId::ZERO, 0, vec![]));
            unchanged(&mut cluster, from, term + 1, vote(id(1, 1)));
        }
    }
}

#[test]
fn a_vote_from_a_stranger_cannot_depose_a_healthy_leader() {
    let mut cluster = leader();
    let term = cluster.raft(1).term().0;
    unchanged(&mut cluster, 9, term + 5, vote(id(term, 1000)));
    assert!(cluster.wire.is_empty());
}

#[test]
fn an_old_answer_to_another_life_is_not_taken_for_one_to_this() {
    let mut cluster = Cluster::new(3);
    cluster.now = cluster.now.plus(3_000_000);
    cluster.fire(1);
    let question = cluster.wire.iter().find_map(|(_, _, message)| match message.body {
        Body::PreVote { id, .. } => Some(id),
        _ => None,
    });
    cluster.restart(1);
    cluster.wire.clear();
    cluster.fire(1);
    assert_eq!(cluster.raft(1).role(), RoleKind::PreCandidate);
    for from in [2, 3] {
        let body = Body::PreVoteReply { id: question.unwrap(), granted: true };
        unchanged(&mut cluster, from, 0, body);
    }
    assert_eq!(cluster.raft(1).role(), RoleKind::PreCandidate, "those were answers to an earlier question");
}

#[test]
fn a_receipt_of_another_life_or_out_of_turn() {
    let mut cluster = Cluster::new(1);
    cluster.slow_disks = vec![1];
    cluster.fire(1);
    let old = cluster.node(1).pending.pop_front().unwrap().into_receipt();
    cluster.restart(1);
    cluster.fire(1);
    let now = cluster.now;
    assert_eq!(cluster.node(1).raft.step(now, Input::Persisted(old)), Err(Rejected::StaleReceipt));
    assert_eq!(cluster.raft(1).role(), RoleKind::Candidate, "its vote is not durable");
    cluster.persist_one(1);
    cluster.propose(1, 1, b"a").unwrap();
    cluster.propose(1, 2, b"b").unwrap();
    let last = cluster.node(1).pending.pop_back().unwrap();
    let refused = cluster.node(1).raft.step(now, Input::Persisted(last.into_receipt()));
    assert_eq!(refused, Err(Rejected::StaleReceipt), "a hole before it");
}

#[test]
fn after_a_storage_failure_nothing_is_said() {
    let mut cluster = leader();
    cluster.slow_disks = vec![1];
    cluster.propose(1, 7, b"z").unwrap();
    cluster.step(1, Input::read(Token(8))).unwrap();
    cluster.wire.clear();
    cluster.step(1, Input::StorageFailed).unwrap();
    let mut open: Vec<u64> = cluster.node(1).outcomes.iter().map(|(token, _)| token.0).collect();
    open.sort_unstable();
    assert_eq!(open, [7, 8]);
    let receipt = cluster.node(1).pending.pop_front().unwrap().into_receipt();
    let term = cluster.raft(1).term().0;
    let message = Message { term: Term(term), body: Body::Appended { up_to: i(3) } };
    for input in [
        Input::Persisted(receipt),
        Input::Receive { from: NodeId(2), message },
        Input::Tick,
        Input::Propose(Proposal::one(Token(9), b"no")),
        Input::read(Token(10)),
    ] {
        assert_eq!(cluster.step(1, input), Err(Rejected::Stopped));
    }
    assert!(cluster.wire.is_empty());
    assert_eq!(cluster.raft(1).deadline(), None);
}

#[test]
fn a_clock_that_goes_back_is_held_and_counted() {
    let mut cluster = leader();
    let role = cluster.raft(1).role();
    let now = cluster.now;
    cluster.node(1).raft.step(quorate_core::Instant(0), Input::Tick).unwrap();
    assert_eq!(cluster.raft(1).status().clock_regressions, 1);
    assert_eq!(cluster.raft(1).role(), role);
    assert!(cluster.raft(1).deadline().unwrap().0 >= now, "deadlines are as before");
}

#[test]
fn only_answers_keep_a_leader_in_office() {
    let mut cluster = leader();
    let (term, started) = (cluster.raft(1).term().0, cluster.now);
    let deaf = |cluster: &Cluster| cluster.raft(1).role() != RoleKind::Leader;
    while !deaf(&cluster) && cluster.now.since(started) < 10_000_000 {
        // Somebody who doesn't hear the leader asks around, and an answer that can't be is refused.
        let question = Body::PreVote { id: RequestId::default(), last: id(term, 1) };
        cluster.receive(2, 1, term, question).unwrap();
        assert!(cluster.receive(2, 1, term, Body::HeartbeatReply { round: 1 << 40 }).is_err());
        cluster.wire.clear();
        cluster.now = cluster.now.plus(50_000);
        cluster.step(1, Input::Tick).unwrap();
    }
    assert!(deaf(&cluster), "nobody has answered it for ten seconds");
}

#[test]
fn an_entry_where_a_snapshot_ends_must_be_the_snapshots() {
    let membership = quorate_core::Membership::of_voters([1, 2, 3].map(NodeId));
    let mut recovered = quorate_core::Recovered::fresh(quorate_core::Incarnation(1), membership.clone());
    recovered.snapshot = Some(quorate_core::Snapshot { last: id(5, 10), membership });
    (recovered.base, recovered.last, recovered.hard_state.term) = (id(5, 10), i(10), Term(5));
    let config = quorate_core::Config::new(NodeId(1));
    let mut raft = quorate_core::Raft::new(config, recovered, quorate_core::Instant(0)).unwrap();
    let mut receive = |body| {
        let message = Message { term: Term(6), body };
        raft.step(quorate_core::Instant(0), Input::Receive { from: NodeId(2), message })
    };
    let refused = receive(append(id(1, 9 - 1), 0, vec![run(1, 9, 3)]));
    assert_eq!(refused, Err(Rejected::Unexpected { from: NodeId(2) }));
    receive(append(id(5, 8), 0, vec![run(5, 9, 3)])).unwrap();
    assert_eq!(raft.last(), id(5, 11));
}

#[test]
fn an_entry_of_term_0_is_malformed() {
    let mut cluster = follower();
    unchanged(&mut cluster, 2, 2, append(LogId::ZERO, 0, vec![Run::noop(Term(0), i(1))]));
}

#[test]
fn what_could_not_be_sent_in_one_frame_cannot_be_configured() {
    for (field, set) in [
        (
            "max_append_bytes",
            (|config, n| config.max_append_bytes = n) as fn(&mut quorate_core::Config, usize),
        ),
        ("max_uncommitted_bytes", |config, n| config.max_uncommitted_bytes = n),
    ] {
        let mut config = quorate_core::Config::new(NodeId(1));
        set(&mut config, 32 << 20);
        assert_eq!(config.validate(), Ok(()));
        set(&mut config, (32 << 20) + 1);
        assert_eq!(config.validate().unwrap_err().field, field);
    }
}

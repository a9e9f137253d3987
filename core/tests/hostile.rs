//! Messages that no correct node sends: refused or ignored, and nothing has changed.

mod common;

use common::*;
use quorate_core::{
    Body, ChangeOp, Few, Input, LogId, Membership, MembershipChange, MembershipError, Message, Mode, NodeId,
    Outcome, Proposal, Rejected, RequestId, RoleKind, Run, SendId, Snapshot, Status, Term, Token, wire,
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

/// What follows is refused, or answered, but changes nothing: nothing at all if it is refused.
fn unchanged(cluster: &mut Cluster, from: u64, term: u64, body: Body) {
    let message = Message { term: Term(term), body };
    let _refused_or_not = no_change(cluster, Input::Receive { from: NodeId(from), message });
}

/// It is refused, and changes nothing.
fn refused(cluster: &mut Cluster, from: u64, term: u64, body: Body) {
    let message = Message { term: Term(term), body };
    let what = format!("{message:?} from {from}");
    assert!(no_change(cluster, Input::Receive { from: NodeId(from), message }).is_err(), "{what}");
}

fn no_change(cluster: &mut Cluster, input: Input) -> Result<(), Rejected> {
    let what = format!("{input:?}");
    let before = (cluster.raft(1).status(), format!("{:?}", cluster.raft(1)));
    let (durable, writes) = (format!("{:?}", cluster.node(1).disk), cluster.node(1).pending.len());
    let result = cluster.step(1, input);
    let after: Status = cluster.raft(1).status();
    assert_eq!(after, before.0, "{what}");
    assert_eq!(format!("{:?}", cluster.node(1).disk), durable, "{what}");
    assert_eq!(cluster.node(1).pending.len(), writes, "{what}");
    if result.is_err() {
        assert_eq!(format!("{:?}", cluster.raft(1)), before.1, "{what}");
    }
    result
}

/// One message of each kind, such as somebody might send in `term` to a node with a log of five entries.
fn every_kind(term: u64) -> Vec<Body> {
    let id_of = RequestId::default();
    vec![
        Body::PreVote { id: id_of, last: id(1, 9) },
        Body::PreVoteReply { id: id_of, granted: true },
        vote(id(term, 9)),
        voted(true),
        append(LogId::ZERO, 1, vec![run(term, 1, 9)]),
        Body::Appended { up_to: i(1) },
        Body::Conflict { prev: i(1), hint: LogId::ZERO },
        Body::Heartbeat { commit: i(1), round: 1, quiesce: false },
        Body::HeartbeatReply { round: 1, asleep: false },
        Body::Commit { commit: i(1) },
        Body::ReadIndex { id: id_of },
        Body::ReadIndexReply { id: id_of, index: Some(i(1)) },
        Body::TimeoutNow,
        install(id(term, 9)),
    ]
}

fn install(last: LogId) -> Body {
    let membership = Membership::of_voters([1, 2, 3].map(NodeId));
    Body::InstallSnapshot { snapshot: Box::new(Snapshot { last, membership }) }
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
            unchanged(&mut cluster, 2, term, Body::Heartbeat { commit: i(index), round: 1, quiesce: false });
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
    cluster.receive(2, 1, last, Body::Heartbeat { commit: i(0), round: 1, quiesce: false }).unwrap();
    cluster.fire(1);
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).role()), (Term(last), RoleKind::Follower));
}

#[test]
fn a_commit_beyond_the_log() {
    let mut cluster = follower();
    unchanged(&mut cluster, 2, 2, Body::Heartbeat { commit: i(6), round: 9, quiesce: false });
    unchanged(&mut cluster, 2, 2, Body::Commit { commit: i(6) });
    // Not even the term is believed of who says so.
    unchanged(&mut cluster, 3, 9, Body::Heartbeat { commit: i(6), round: 9, quiesce: false });
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
    unchanged(&mut cluster, 2, term, Body::HeartbeatReply { round: 1_000_000, asleep: false });
    // After all of that, the truth still counts.
    cluster.deliver();
    assert_eq!(cluster.raft(1).commit(), i(last));
}

#[test]
fn two_leaders_in_a_term() {
    let mut cluster = follower();
    unchanged(&mut cluster, 3, 2, append(id(2, 5), 3, vec![run(2, 6, 1)]));
    unchanged(&mut cluster, 3, 2, Body::Heartbeat { commit: i(3), round: 1, quiesce: false });
    let mut cluster = leader();
    let term = cluster.raft(1).term().0;
    unchanged(&mut cluster, 3, term, Body::Heartbeat { commit: i(1), round: 1, quiesce: false });
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
            Body::HeartbeatReply { round: 1, asleep: false },
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
        assert!(cluster.receive(2, 1, term, Body::HeartbeatReply { round: 1 << 40, asleep: false }).is_err());
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
    for (field, most, set) in [
        (
            "max_append_bytes",
            8 << 20,
            (|config, n| config.max_append_bytes = n) as fn(&mut quorate_core::Config, usize),
        ),
        ("max_uncommitted_bytes", 32 << 20, |config, n| config.max_uncommitted_bytes = n),
    ] {
        let mut config = quorate_core::Config::new(NodeId(1));
        set(&mut config, most);
        assert_eq!(config.validate(), Ok(()));
        set(&mut config, most + 1);
        assert_eq!(config.validate().unwrap_err().field, field);
    }
}

#[test]
fn messages_of_every_kind_from_oneself_and_from_nobody() {
    for mut cluster in [follower(), leader()] {
        let now = cluster.raft(1).term().0;
        for body in [now, now + 1].into_iter().flat_map(every_kind) {
            for (from, term) in [(0, now), (1, now), (0, now + 1), (1, now + 1)] {
                refused(&mut cluster, from, term, body.clone());
            }
        }
        assert!(cluster.wire.is_empty());
    }
}

#[test]
fn messages_of_every_kind_of_an_earlier_term() {
    for mut cluster in [follower(), leader()] {
        // An election passes, so that there is an earlier term in which things were said.
        let now = cluster.raft(1).term().0 + 1;
        cluster.receive(2, 1, now, append(LogId::ZERO, 0, vec![])).unwrap();
        let early = |body: &Body| matches!(body, Body::PreVote { .. } | Body::PreVoteReply { .. });
        for body in every_kind(now - 1).into_iter().filter(|body| !early(body)) {
            for from in [2, 3, 9] {
                cluster.wire.clear();
                unchanged(&mut cluster, from, now - 1, body.clone());
                let told = |message: &Message| message.term == Term(now);
                assert!(cluster.wire.iter().all(|(_, _, message)| told(message)), "{body:?}");
            }
        }
    }
}

#[test]
fn a_node_that_was_removed_is_not_heard() {
    let mut cluster = leader();
    let remove = MembershipChange::new(vec![ChangeOp::Remove(NodeId(3))]);
    cluster.change(1, 50, remove).unwrap();
    cluster.deliver();
    let now = cluster.raft(1).term().0;
    // Answers of it count no more, in whatever term; requests are those of a stranger.
    for term in [now, now + 1] {
        for body in every_kind(term) {
            let asks = matches!(body, Body::PreVote { .. } | Body::Vote { .. });
            let leads = matches!(
                body,
                Body::Append { .. }
                    | Body::Heartbeat { .. }
                    | Body::Commit { .. }
                    | Body::InstallSnapshot { .. }
            );
            if asks {
                unchanged(&mut cluster, 3, term, body);
            } else if !leads || term == now {
                refused(&mut cluster, 3, term, body);
            }
        }
    }
}

#[test]
fn a_node_of_a_future_membership_is_answered_and_not_counted() {
    let mut cluster = follower();
    for body in every_kind(2) {
        let answers = matches!(
            body,
            Body::PreVoteReply { .. }
                | Body::VoteReply { .. }
                | Body::Appended { .. }
                | Body::Conflict { .. }
                | Body::HeartbeatReply { .. }
                | Body::ReadIndex { .. }
                | Body::ReadIndexReply { .. }
                | Body::TimeoutNow
        );
        if answers {
            for term in [2, 7] {
                refused(&mut cluster, 4, term, body.clone());
            }
        }
    }
    // What it says is committed is not believed on its word.
    let commit = id(2, 5);
    unchanged(&mut cluster, 4, 2, Body::Vote { last: id(2, 9), commit, transfer: false });
    // But it may campaign, and lead: this node may be the one that lags.
    cluster.now = cluster.now.plus(5_000_000);
    cluster.receive(4, 1, 3, Body::Vote { last: id(2, 9), commit, transfer: false }).unwrap();
    assert_eq!((cluster.raft(1).hard_state().vote, cluster.raft(1).commit()), (Some(NodeId(4)), i(3)));
}

#[test]
fn an_order_to_campaign_from_who_does_not_lead() {
    let mut cluster = follower();
    refused(&mut cluster, 3, 2, Body::TimeoutNow);
    refused(&mut cluster, 9, 2, Body::TimeoutNow);
    refused(&mut cluster, 9, 8, Body::TimeoutNow);
    unchanged(&mut cluster, 2, 1, Body::TimeoutNow);
    assert!(cluster.wire.iter().all(|(_, _, message)| !matches!(message.body, Body::Vote { .. })));
    let mut cluster = leader();
    let now = cluster.raft(1).term().0;
    refused(&mut cluster, 2, now, Body::TimeoutNow);
}

#[test]
fn votes_that_speak_of_commits_that_cannot_be() {
    let mut cluster = follower();
    let before = |commit| Body::Vote { last: id(2, 9), commit, transfer: false };
    for commit in [id(2, 10), id(3, 9), id(0, 4), id(2, MAX)] {
        refused(&mut cluster, 2, 2, before(commit));
    }
    // Entries that this log does not have: no news about those that it has.
    for commit in [id(2, 9), id(1, 5), id(1, 4), LogId::ZERO, id(2, 2)] {
        unchanged(&mut cluster, 3, 2, before(commit));
        unchanged(&mut cluster, 3, 2, Body::VoteReply { granted: true, commit });
    }
    for commit in [id(3, 5), id(0, 5), id(2, 0), id(2, MAX)] {
        refused(&mut cluster, 3, 2, Body::VoteReply { granted: true, commit });
    }
    // A leader decides itself what is committed.
    let mut cluster = leader();
    cluster.propose(1, 2, b"y").unwrap();
    cluster.wire.clear();
    let (now, commit) = (cluster.raft(1).term().0, cluster.raft(1).last());
    assert!(cluster.raft(1).commit() < commit.index);
    unchanged(&mut cluster, 2, now, Body::VoteReply { granted: true, commit });
    unchanged(&mut cluster, 2, now, Body::Vote { last: commit, commit, transfer: false });
}

#[test]
fn snapshots_that_cannot_be() {
    let mut cluster = follower();
    for last in [LogId::ZERO, id(2, 0), id(0, 7), id(2, MAX), id(2, 1 << 63), id(3, 7)] {
        refused(&mut cluster, 2, 2, install(last));
    }
    // The last one that there can be is another matter: after it there is nothing, and no panic.
    let last = id(2, (1 << 63) - 1);
    cluster.receive(2, 1, 2, install(last)).unwrap();
    assert_eq!(cluster.raft(1).last(), last);
    refused(&mut cluster, 2, 2, append(last, 0, vec![run(2, 1 << 63, 1)]));
    cluster.run(20_000_000);
    assert_ne!(cluster.raft(1).role(), RoleKind::Leader, "it has no room for a first entry");
}

#[test]
fn a_snapshot_that_conflicts_with_what_is_committed() {
    let mut cluster = follower();
    for term in [2, 9] {
        refused(&mut cluster, 2, term, install(id(1, 3)));
        refused(&mut cluster, 2, term, install(id(1, 2)));
        // Terms never decrease along a log.
        refused(&mut cluster, 2, term, install(id(1, 9)));
        if term == 9 {
            refused(&mut cluster, 3, term, install(id(9, 3)));
        }
    }
    // A leader installs nothing.
    let mut cluster = leader();
    let now = cluster.raft(1).term().0;
    refused(&mut cluster, 2, now, install(id(now, 9)));
}

#[test]
fn a_snapshot_whose_learner_is_a_voter_too() {
    let parts = quorate_core::MembershipParts {
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        learners: vec![NodeId(4)],
        ..Default::default()
    };
    let membership = Membership::try_from(parts).unwrap();
    let snapshot = Box::new(Snapshot { last: id(2, 7), membership });
    let message = Message { term: Term(2), body: Body::InstallSnapshot { snapshot } };
    let mut bytes = wire::encode(&message).to_bytes().to_vec();
    assert_eq!(wire::decode(&bytes).unwrap(), message);
    // Field 4, one byte of ids: the learner.
    let at = bytes.windows(3).position(|three| three == [0x22, 1, 4]).unwrap();
    bytes[at + 2] = 3;
    let error = wire::decode(&bytes).unwrap_err();
    assert!(
        matches!(error, wire::DecodeError::Membership(MembershipError::VoterAndLearner(NodeId(3)))),
        "{error:?}"
    );
}

/// Node 1 leads, and has a snapshot under way to node 3, which lacks what the log no longer has.
fn sending() -> Cluster {
    let mut cluster = leader();
    cluster.hold_snapshots = true;
    for token in 10..15 {
        cluster.propose(1, token, b"z").unwrap();
    }
    cluster.run_unless(300_000, |_, to, _| to.0 == 3);
    cluster.compact(1, 0);
    cluster.run(400_000);
    let mode = cluster.raft(1).progress().map(|peer| peer.mode).collect::<Vec<_>>();
    assert_eq!((mode, cluster.node(1).sending.len()), (vec![Mode::Replicate, Mode::Snapshot], 1));
    cluster.wire.clear();
    cluster
}

#[test]
fn bogus_answers_of_who_is_getting_a_snapshot() {
    let mut cluster = sending();
    let now = cluster.raft(1).term().0;
    let (last, commit) = (cluster.raft(1).last().index.0, cluster.raft(1).commit());
    // Something that it was never sent, and that node 2 has not acknowledged.
    cluster.propose(1, 20, b"new").unwrap();
    cluster.wire.clear();
    for up_to in [last + 1, last + 2, last + 1000, (1 << 63) - 1] {
        refused(&mut cluster, 3, now, Body::Appended { up_to: i(up_to) });
        refused(&mut cluster, 3, now, Body::Conflict { prev: i(up_to), hint: LogId::ZERO });
    }
    refused(&mut cluster, 3, now, Body::Conflict { prev: i(1), hint: id(now, 2) });
    unchanged(&mut cluster, 3, now, Body::Conflict { prev: i(last), hint: LogId::ZERO });
    assert_eq!(cluster.raft(1).commit(), commit, "not advanced");
    // Nor stopped: node 2 answers, and node 3 gets its snapshot and what follows.
    cluster.run(1_000_000);
    assert_eq!(cluster.raft(1).commit(), i(last + 1));
    cluster.send_snapshots(1, true);
    cluster.run(2_000_000);
    assert_eq!(cluster.raft(3).last(), cluster.raft(1).last());
    assert_eq!(cluster.nodes[&3].applied, cluster.nodes[&1].applied);
}

#[test]
fn the_end_of_a_snapshot_that_nobody_sends() {
    for mut cluster in [follower(), leader(), sending()] {
        for arrived in [true, false] {
            for id in [0, 999, MAX] {
                let said = no_change(
                    &mut cluster,
                    Input::SnapshotSent {
                        id: SendId(RequestId { number: id, ..RequestId::default() }),
                        arrived,
                    },
                );
                assert_eq!(said, Err(Rejected::StaleSend));
            }
        }
    }
    // Twice is once too often.
    let mut cluster = sending();
    let id = cluster.node(1).sending[0].id;
    cluster.step(1, Input::SnapshotSent { id, arrived: false }).unwrap();
    assert_eq!(no_change(&mut cluster, Input::SnapshotSent { id, arrived: true }), Err(Rejected::StaleSend));
}

#[test]
fn compaction_of_what_is_not_applied_or_is_gone_already() {
    let mut cluster = follower();
    for (index, keep) in [(0, 0), (0, MAX), (4, 0), (4, 9), (5, 0), (6, 0), (1 << 63, 0), (MAX, MAX)] {
        let said = no_change(&mut cluster, Input::Compact { snapshot: i(index), keep });
        assert!(matches!(said, Err(Rejected::BadSnapshot { .. })), "{index}: {said:?}");
    }
    cluster.compact(1, 1);
    for index in [0, 1, 2] {
        let said = no_change(&mut cluster, Input::Compact { snapshot: i(index), keep: 0 });
        assert!(matches!(said, Err(Rejected::BadSnapshot { .. })), "{index}: {said:?}");
    }
    // More kept than there is: nothing is removed.
    let base = cluster.raft(1).status().base;
    cluster.step(1, Input::Compact { snapshot: i(3), keep: MAX }).unwrap();
    assert_eq!(cluster.raft(1).status().base, base);
}

#[test]
fn questions_and_answers_about_reads_without_a_name() {
    let mut cluster = follower();
    cluster.step(1, Input::read(Token(5))).unwrap();
    let asked = cluster.wire.iter().find_map(|(_, _, message)| match message.body {
        Body::ReadIndex { id } => Some(id),
        _ => None,
    });
    let asked = asked.unwrap();
    for other in [RequestId::default(), RequestId { number: asked.number + 1, ..asked }] {
        for index in [None, Some(i(0)), Some(i(3)), Some(i((1 << 63) - 1))] {
            unchanged(&mut cluster, 2, 2, Body::ReadIndexReply { id: other, index });
        }
    }
    // Nor does the right answer count from another one.
    unchanged(&mut cluster, 3, 2, Body::ReadIndexReply { id: asked, index: Some(i(1)) });
    refused(&mut cluster, 2, 2, Body::ReadIndexReply { id: asked, index: Some(i(MAX)) });
    assert_eq!(cluster.node(1).outcomes, []);
    cluster.receive(2, 1, 2, Body::ReadIndexReply { id: asked, index: Some(i(3)) }).unwrap();
    assert_eq!(cluster.node(1).outcomes, [(Token(5), Outcome::Read { index: i(3) })]);
    // A leader answers a question without a name under no name.
    let mut cluster = leader();
    let now = cluster.raft(1).term().0;
    cluster.receive(2, 1, now, Body::ReadIndex { id: RequestId::default() }).unwrap();
    let before = cluster.raft(1).status().commit;
    let answered = std::cell::Cell::new(None);
    cluster.deliver_unless(|_, to, message| {
        if let (2, Body::ReadIndexReply { id, index }) = (to.0, &message.body) {
            answered.set(Some((*id, *index)));
        }
        false
    });
    assert_eq!(answered.get(), Some((RequestId::default(), Some(before))));
}

#[test]
fn orders_that_make_no_sense() {
    let mut cluster = follower();
    for input in [
        Input::Applied { up_to: i(4) },
        Input::Applied { up_to: i(2) },
        Input::Applied { up_to: i(MAX) },
        Input::TransferLeadership { token: Token(1), to: Some(NodeId(2)) },
        Input::ChangeMembership { token: Token(2), change: MembershipChange::leave() },
    ] {
        assert!(no_change(&mut cluster, input).is_err());
    }
    no_change(&mut cluster, Input::AbortTransfer).unwrap();
    no_change(&mut cluster, Input::Unreachable { peer: NodeId(MAX) }).unwrap();
    let mut cluster = leader();
    for input in [
        Input::TransferLeadership { token: Token(1), to: Some(NodeId(1)) },
        Input::TransferLeadership { token: Token(1), to: Some(NodeId(MAX)) },
        Input::ChangeMembership { token: Token(2), change: MembershipChange::leave() },
        Input::ChangeMembership {
            token: Token(3),
            change: MembershipChange::new([1, 2, 3].map(|id| ChangeOp::Remove(NodeId(id))).to_vec()),
        },
        Input::ChangeMembership {
            token: Token(4),
            change: MembershipChange::new(vec![ChangeOp::AddVoter(NodeId(MAX))]),
        },
    ] {
        assert!(no_change(&mut cluster, input).is_err());
    }
    no_change(&mut cluster, Input::AbortTransfer).unwrap();
    no_change(&mut cluster, Input::Unreachable { peer: NodeId(0) }).unwrap();
}

//! Groups that sleep: what lets them, what wakes them, and what must do neither.

mod common;

use std::time::Duration;

use common::*;
use quorate_core::{
    Body, ChangeOp, Config, Index, Input, MembershipChange, Message, NodeId, Proposal, ReadKind, Rejected,
    RequestId, RoleKind, Term, Token,
};

/// Three nodes that sleep, led by node 1.
fn asleep() -> Cluster {
    sleep(Cluster::with(3, |config| config.quiesce_after = config.election_timeout))
}

fn asleep_with_leases() -> Cluster {
    sleep(Cluster::with(3, |config| {
        config.quiesce_after = config.election_timeout;
        config.lease_reads = true;
    }))
}

fn sleep(mut cluster: Cluster) -> Cluster {
    cluster.elect(1);
    cluster.propose(1, 0, b"x").unwrap();
    cluster.run(1_500_000);
    assert_eq!(sleepers(&cluster), [1, 2, 3]);
    assert!(cluster.wire.is_empty());
    cluster
}

type Waker = (&'static str, Box<dyn Fn(&Cluster) -> Input>);

fn sleepers(cluster: &Cluster) -> Vec<u64> {
    (1..=3).filter(|id| cluster.raft(*id).is_asleep()).collect()
}

fn quiesce(cluster: &Cluster, round: u64) -> Body {
    Body::Heartbeat { commit: cluster.raft(1).commit(), round, quiesce: true }
}

fn words(cluster: &Cluster, from: u64, quiesces: bool) -> usize {
    let word = |m: &Message| matches!(m.body, Body::Heartbeat { quiesce, .. } if quiesce == quiesces);
    cluster.wire.iter().filter(|(f, _, m)| f.0 == from && word(m)).count()
}

#[test]
fn who_sleeps_waits_for_nothing_and_says_nothing() {
    let mut cluster = asleep();
    cluster.now = cluster.now.plus(3_600_000_000);
    for id in 1..=3 {
        assert_eq!(cluster.raft(id).deadline(), None);
        cluster.step(id, Input::Tick).unwrap();
        cluster.step(id, Input::CancelRead { token: Token(9) }).unwrap();
        cluster.step(id, Input::AbortTransfer).unwrap();
    }
    // Nor does what is under way in its own process wake it.
    cluster.compact(1, 0);
    cluster.step(1, Input::Read { token: Token(8), kind: ReadKind::AtLeast(Index(99)) }).unwrap();
    assert!(cluster.wire.is_empty());
    assert_eq!(sleepers(&cluster), [1, 2, 3]);
}

/// Each of these wakes a leader, which says so to everyone at once; and it has its quorum to find anew.
#[test]
fn what_wakes_a_leader() {
    let pre_vote =
        |cluster: &Cluster| Body::PreVote { id: RequestId::default(), last: cluster.raft(1).last() };
    let receive = |from: u64, term: Term, body: Body| Input::Receive {
        from: NodeId(from),
        message: Message { term, body },
    };
    let wakers: Vec<Waker> = vec![
        ("proposal", Box::new(|_| Input::Propose(Proposal::one(Token(5), b"y")))),
        ("read", Box::new(|_| Input::read(Token(5)))),
        ("lease read", Box::new(|_| Input::Read { token: Token(5), kind: ReadKind::Lease })),
        (
            "change",
            Box::new(|_| Input::ChangeMembership {
                token: Token(5),
                change: MembershipChange::new(vec![ChangeOp::AddLearner(NodeId(4))]),
            }),
        ),
        ("transfer", Box::new(|_| Input::TransferLeadership { token: Token(5), to: None })),
        ("peer that is back", Box::new(|_| Input::Reachable { peer: NodeId(2) })),
        ("pre-vote", Box::new(move |c| receive(3, c.raft(1).term(), pre_vote(c)))),
        ("vote", Box::new(move |c| receive(3, c.raft(1).term().next().unwrap(), vote(c.raft(1).last())))),
        (
            "question",
            Box::new(move |c| receive(2, c.raft(1).term(), Body::ReadIndex { id: RequestId::default() })),
        ),
    ];
    for (name, input) in wakers {
        let mut cluster = asleep();
        cluster.now = cluster.now.plus(60_000_000);
        let input = input(&cluster);
        cluster.step(1, input).unwrap();
        assert_eq!(sleepers(&cluster), [2, 3], "{name}");
        assert_eq!(words(&cluster, 1, false), 2 + usize::from(name == "change"), "{name}");
        assert_eq!(cluster.raft(1).role(), RoleKind::Leader, "{name}");
        cluster.step(1, Input::Tick).unwrap();
        assert_eq!(cluster.raft(1).role(), RoleKind::Leader, "{name}: it was to be given time");
        if name != "transfer" {
            cluster.run(1);
            assert_eq!(sleepers(&cluster), [0_u64; 0], "{name}");
        }
    }
}

/// A leader that was woken, and hears from nobody, steps down as any other does.
#[test]
fn a_leader_that_wakes_alone_gives_up_after_an_election_timeout() {
    let mut cluster = asleep();
    cluster.now = cluster.now.plus(60_000_000);
    cluster.step(1, Input::read(Token(5))).unwrap();
    cluster.run_unless(900_000, |_, _, _| true);
    assert_eq!(cluster.raft(1).role(), RoleKind::Leader);
    cluster.run_unless(200_000, |_, _, _| true);
    assert_ne!(cluster.raft(1).role(), RoleKind::Leader);
}

#[test]
fn what_is_refused_wakes_nobody() {
    let mut cluster = asleep();
    let bound = Config::new(NodeId(1)).max_uncommitted_bytes;
    let big = vec![0; bound + 1];
    let term = cluster.raft(1).term();
    let all = |cluster: &Cluster| [1, 2, 3].map(|id| cluster.raft(id).status());
    let before = all(&cluster);
    assert!(matches!(cluster.propose(1, 5, &big), Err(Rejected::TooBig { .. })));
    assert!(matches!(cluster.propose(2, 5, b"y"), Err(Rejected::NotLeader { .. })));
    assert_eq!(
        cluster.step(1, Input::TransferLeadership { token: Token(5), to: Some(NodeId(9)) }),
        Err(Rejected::NoSuchVoter)
    );
    assert!(
        cluster
            .step(1, Input::ChangeMembership { token: Token(5), change: MembershipChange::leave() })
            .is_err()
    );
    assert!(matches!(cluster.step(2, Input::StepDown), Err(Rejected::NotLeader { .. })));
    // From nobody, and what no correct node says.
    let question = Body::ReadIndex { id: RequestId::default() };
    assert_eq!(cluster.receive(9, 1, term.0, question), Err(Rejected::NotMember { from: NodeId(9) }));
    assert!(cluster.receive(3, 2, term.0, quiesce(&cluster, 99)).is_err(), "another leads");
    assert!(cluster.receive(1, 2, term.0, Body::Commit { commit: Index(99) }).is_err());
    assert!(cluster.receive(2, 1, term.0, Body::HeartbeatReply { round: 1 << 40, asleep: true }).is_err());
    assert_eq!(before, all(&cluster));
    assert!(cluster.wire.is_empty());
}

/// Late answers, and questions of who is no member.
#[test]
fn what_is_taken_and_wakes_nobody() {
    let mut cluster = asleep();
    let (term, last) = (cluster.raft(1).term().0, cluster.raft(1).last());
    for body in [
        Body::Appended { up_to: last.index },
        Body::HeartbeatReply { round: 1, asleep: false },
        Body::HeartbeatReply { round: 1, asleep: true },
        Body::PreVoteReply { id: RequestId::default(), granted: true },
        voted(true),
    ] {
        cluster.receive(2, 1, term, body).unwrap();
    }
    for to in 1..=3 {
        cluster.receive(9, to, term, Body::PreVote { id: RequestId::default(), last }).unwrap();
        cluster.receive(9, to, term + 5, vote(last)).unwrap();
        assert_eq!(cluster.raft(to).term().0, term, "who is no member deposes nobody");
        cluster.step(to, Input::Unreachable { peer: NodeId(9) }).unwrap();
        cluster.step(to, Input::Reachable { peer: NodeId(9) }).unwrap();
    }
    // One peer less leaves a quorum; and a follower needs but its leader.
    cluster.step(1, Input::Unreachable { peer: NodeId(3) }).unwrap();
    cluster.step(2, Input::Unreachable { peer: NodeId(3) }).unwrap();
    assert_eq!(sleepers(&cluster), [1, 2, 3]);
    cluster.step(1, Input::Unreachable { peer: NodeId(2) }).unwrap();
    assert_eq!(sleepers(&cluster), [2, 3], "but none less does");
}

#[test]
fn what_wakes_a_follower() {
    let term = |c: &Cluster| c.raft(1).term();
    let wakers: Vec<Waker> = vec![
        ("leader lost", Box::new(|_| Input::Unreachable { peer: NodeId(1) })),
        ("leader forgotten", Box::new(|_| Input::ForgetLeader)),
        ("read", Box::new(|_| Input::read(Token(5)))),
        ("campaign", Box::new(|_| Input::Campaign)),
        (
            "commit",
            Box::new(move |c| Input::Receive {
                from: NodeId(1),
                message: Message { term: term(c), body: Body::Commit { commit: Index(0) } },
            }),
        ),
        (
            "pre-vote",
            Box::new(move |c| Input::Receive {
                from: NodeId(3),
                message: Message {
                    term: term(c),
                    body: Body::PreVote { id: RequestId::default(), last: c.raft(3).last() },
                },
            }),
        ),
    ];
    for (name, input) in wakers {
        let mut cluster = asleep();
        cluster.now = cluster.now.plus(60_000_000);
        let input = input(&cluster);
        cluster.step(2, input).unwrap();
        assert_eq!(sleepers(&cluster), [1, 3], "{name}");
        let due = cluster.raft(2).deadline().unwrap().0.since(cluster.now);
        assert!((100_000..=2_000_000).contains(&due), "{name}: {due}");
    }
}

/// The first request wakes it, and the leader has its time to be heard. Then the log alone counts, however lately the leader spoke.
#[test]
fn who_was_woken_by_a_candidate_judges_the_next_by_the_log() {
    let mut cluster = asleep();
    let (term, last) = (cluster.raft(1).term().0, cluster.raft(1).last());
    cluster.receive(3, 2, term + 1, vote(last)).unwrap();
    assert_eq!((cluster.raft(2).term().0, sleepers(&cluster)), (term, vec![1, 3]));
    cluster.receive(3, 2, term + 2, vote(id(last.term.0, last.index.0 - 1))).unwrap();
    assert_eq!((cluster.raft(2).term().0, cluster.raft(2).hard_state().vote), (term + 2, None));
    cluster.receive(3, 2, term + 3, vote(last)).unwrap();
    assert_eq!(cluster.raft(2).hard_state().vote, Some(NodeId(3)));
    // The leader is heard in time.
    let mut cluster = asleep();
    cluster.receive(3, 2, term + 1, vote(last)).unwrap();
    cluster.receive(3, 1, term + 1, vote(last)).unwrap();
    cluster.deliver();
    cluster.receive(3, 2, term + 2, vote(last)).unwrap();
    assert_eq!((cluster.leader(), cluster.raft(2).term().0), (Some(1), term));
}

/// Only the newest round, of the leader that is followed, about the log that is here, and durable.
#[test]
fn forged_and_old_words_of_sleep() {
    let mut cluster = Cluster::with(3, |config| config.quiesce_after = config.election_timeout);
    cluster.elect(1);
    cluster.run(300_000);
    let (term, last) = (cluster.raft(1).term().0, cluster.raft(1).last());
    let says = |cluster: &mut Cluster, commit: u64, round: u64| {
        let _refused_or_not =
            cluster.receive(1, 2, term, Body::Heartbeat { commit: i(commit), round, quiesce: true });
        let answers = std::mem::take(&mut cluster.wire);
        let sleeps =
            answers.iter().any(|(_, _, m)| matches!(m.body, Body::HeartbeatReply { asleep: true, .. }));
        assert_eq!(sleeps, cluster.raft(2).is_asleep());
        sleeps
    };
    assert!(!says(&mut cluster, last.index.0, 1), "an old round");
    assert!(!says(&mut cluster, last.index.0 - 1, 50), "another log");
    assert!(!says(&mut cluster, last.index.0, 50), "it was that already");
    cluster.step(2, Input::Unreachable { peer: NodeId(1) }).unwrap();
    assert!(!says(&mut cluster, last.index.0, 51), "who is lost wakes nobody");
    cluster.step(2, Input::Reachable { peer: NodeId(1) }).unwrap();
    assert!(says(&mut cluster, last.index.0, 52));
    assert!(says(&mut cluster, last.index.0, 52), "said twice");
    assert!(says(&mut cluster, last.index.0, 53), "and once more");
    assert!(!says(&mut cluster, last.index.0, 52), "an old one wakes, if anything");
    // What is not durable here is not all there is.
    let mut cluster = Cluster::with(3, |config| config.quiesce_after = config.election_timeout);
    cluster.elect(1);
    cluster.slow_disks.push(2);
    cluster.propose(1, 5, b"y").unwrap();
    cluster.deliver();
    let last = cluster.raft(2).last();
    assert!(cluster.raft(2).durable() < last.index);
    assert!(!says(&mut cluster, last.index.0, 90));
}

#[test]
fn there_is_no_lease_from_the_first_word_of_sleep_until_it_is_over() {
    let mut cluster = asleep_with_leases();
    assert_eq!(cluster.raft(1).status().lease_until, None);
    assert!(cluster.step(2, Input::Campaign).is_ok(), "no lease rests on who sleeps");
    let mut cluster = asleep_with_leases();
    cluster.step(1, Input::read(Token(5))).unwrap();
    assert_eq!(cluster.raft(1).status().lease_until, None, "no answer yet");
    cluster.deliver();
    assert!(cluster.raft(1).status().lease_until.is_some());
    assert_eq!(cluster.step(2, Input::Campaign), Err(Rejected::Leased));
}

/// Nobody says that all sleep but who has all: each of these keeps a leader awake.
#[test]
fn what_keeps_a_leader_awake() {
    let new = || {
        let mut cluster = Cluster::with(3, |config| config.quiesce_after = config.election_timeout);
        cluster.elect(1);
        cluster.deliver();
        cluster
    };
    // An entry that somebody lacks, who isn't known to be gone.
    let mut cluster = new();
    cluster.propose(1, 5, b"y").unwrap();
    cluster.run_unless(3_000_000, |_, to, _| to.0 == 3);
    assert!(!sleepers(&cluster).contains(&1));
    cluster.step(1, Input::Unreachable { peer: NodeId(3) }).unwrap();
    cluster.run_unless(3_000_000, |from, to, _| from.0 == 3 || to.0 == 3);
    assert_eq!(sleepers(&cluster), [1, 2]);
    // A learner that is to become a voter.
    let mut cluster = new();
    cluster.change(1, 5, MembershipChange::new(vec![ChangeOp::Join(NodeId(4))])).unwrap();
    cluster.run_unless(3_000_000, |from, to, _| from.0 == 4 || to.0 == 4);
    cluster.step(1, Input::Unreachable { peer: NodeId(4) }).unwrap();
    cluster.run_unless(3_000_000, |from, to, _| from.0 == 4 || to.0 == 4);
    assert!(!sleepers(&cluster).contains(&1));
    // Reads, one after the other.
    let mut cluster = new();
    for n in 0..30 {
        cluster.run(100_000);
        cluster.step(1, Input::read(Token(100 + n))).unwrap();
    }
    assert_eq!(sleepers(&cluster), [0_u64; 0]);
}

#[test]
fn a_leader_that_steps_down_is_the_last_to_ask() {
    for quiesces in [false, true] {
        let mut cluster = if quiesces { asleep() } else { Cluster::new(3) };
        if !quiesces {
            cluster.elect(1);
            cluster.deliver();
        }
        cluster.step(1, Input::StepDown).unwrap();
        assert_eq!((cluster.raft(1).role(), cluster.raft(1).leader()), (RoleKind::Follower, None));
        let due = cluster.raft(1).deadline().unwrap().0.since(cluster.now);
        assert!((2_000_000..=3_000_000).contains(&due), "{due}");
        assert_eq!(cluster.step(1, Input::StepDown), Err(Rejected::NotLeader { leader: None }));
        cluster.run(6_000_000);
        assert!(cluster.leader().is_some_and(|leader| leader != 1));
    }
}

#[test]
fn a_group_sleeps_by_a_setting_that_makes_sense() {
    let mut config = Config::new(NodeId(1));
    for (after, fits) in [(0, true), (999, false), (1000, true), (u64::MAX / 1000, true)] {
        config.quiesce_after = Duration::from_millis(after);
        assert_eq!(config.validate().is_ok(), fits, "{after} ms");
    }
}

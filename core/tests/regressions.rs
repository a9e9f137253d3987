//! What was found by reading the core with fresh eyes: each of these went wrong once.

mod common;

use common::{Cluster, Disk};
use quorate_core::*;

/// Two nodes, leases; leader 2 removes itself; 1 persists that, crashes, restarts, and elects itself within 2's lease.
#[test]
fn a_lone_voter_that_restarts_respects_the_lease() {
    let mut c = Cluster::with(2, |c| c.lease_reads = true);
    c.elect(2);
    c.run(300_000);
    let change = MembershipChange::new(vec![ChangeOp::Remove(NodeId(2))]);
    c.change(2, 1, change).unwrap();
    // 1 has the entry, durably; its answers get lost
    c.deliver_unless(|from, _, _| from.0 == 1);
    assert_eq!(c.raft(1).membership().voters(), &[NodeId(1)]);
    c.restart(1);
    c.wire.clear();
    // 10 ms later
    c.now = c.now.plus(10_000);
    c.step(1, Input::Tick).unwrap();
    c.wire.clear();
    let _ = c.propose(1, 7, b"new");
    c.step(2, Input::Read { token: Token(9), kind: ReadKind::Lease }).unwrap();
    let read = c.nodes[&2].outcomes.clone();
    let both = c.nodes[&1].done.contains(&Token(7))
        && read.iter().any(|(t, o)| *t == Token(9) && matches!(o, Outcome::Read { .. }));
    assert!(!both, "a stale lease read");
}

/// A grant that waits for its fsync is replaced by the refusal of an older vote of the same candidate.
#[test]
fn a_parked_grant_survives_a_late_vote() {
    let mut c = Cluster::new(3);
    c.run(10);
    c.slow_disks.push(2);
    let body = |_t| Body::Vote { last: LogId::ZERO, commit: LogId::ZERO, transfer: false };
    c.receive(1, 2, 5, body(5)).unwrap();
    c.receive(1, 2, 4, body(4)).unwrap();
    c.persist_all(2);
    assert!(c.wire.iter().any(|(_, _, m)| matches!(m.body, Body::VoteReply { granted: true, .. })));
}

/// Stuck at a later term, with a leader that is not in the old membership.
#[test]
fn a_node_at_a_later_term_is_led_by_a_leader_it_does_not_know() {
    let mut c = Cluster::with(3, |c| c.pre_vote = false);
    c.elect(1);
    c.run(300_000);
    let cut = |f: NodeId, t: NodeId, _: &Message| f.0 == 3 || t.0 == 3;
    c.run_unless(20_000_000, cut);
    let leader = c
        .nodes
        .iter()
        .find(|(id, n)| **id != 3 && n.raft.role() == RoleKind::Leader)
        .map(|(id, _)| *id)
        .unwrap();
    for id in [4, 5] {
        c.start_as(id, Disk::default(), Membership::of_voters([NodeId(1), NodeId(2)]));
        c.change(leader, 50 + id, MembershipChange::new(vec![ChangeOp::Join(NodeId(id))])).unwrap();
        c.run_unless(3_000_000, cut);
    }
    let ops = vec![ChangeOp::Remove(NodeId(1)), ChangeOp::Remove(NodeId(2))];
    c.change(leader, 60, MembershipChange::new(ops)).unwrap();
    c.run_unless(3_000_000, cut);
    c.nodes.remove(&1);
    c.nodes.remove(&2);
    c.run_unless(1_000_000, cut);
    c.wire.clear();
    c.run(60_000_000);
    assert_eq!(c.raft(3).last(), c.raft(4).last());
}

/// Reads at an index fill the queue without end.
#[test]
fn reads_at_an_index_are_bounded_too() {
    let mut raft = Raft::new(
        Config::new(NodeId(1)),
        Recovered::fresh(Incarnation(1), Membership::of_voters([NodeId(1), NodeId(2)])),
        Instant(0),
    )
    .unwrap();
    let refused = (0..100_000).any(|n| {
        raft.step(Instant(0), Input::Read { token: Token(n), kind: ReadKind::AtLeast(Index(0)) }).is_err()
    });
    assert!(refused, "{} actions", raft.drain().count());
}

/// Hopeless reads hold up all others for ever.
#[test]
fn hopeless_reads_hold_up_the_others() {
    let mut c = Cluster::new(1);
    c.elect(1);
    for n in 0..8192 {
        let _ = c.step(1, Input::Read { token: Token(n), kind: ReadKind::AtLeast(Index(1 << 40)) });
    }
    c.run(1_000_000);
    assert_eq!(c.step(1, Input::read(Token(9000))), Ok(()));
    let another = || Input::Read { token: Token(9001), kind: ReadKind::AtLeast(Index(1 << 40)) };
    assert!(c.step(1, another()).is_err(), "they are bounded");
    c.step(1, Input::CancelRead { token: Token(5) }).unwrap();
    assert_eq!(c.node(1).outcomes.last(), Some(&(Token(5), Outcome::Refused { leader: None })));
    c.step(1, another()).unwrap();
    let absurd = Input::Read { token: Token(9002), kind: ReadKind::AtLeast(Index(u64::MAX)) };
    assert_eq!(c.step(1, absurd), Err(Rejected::Exhausted));
}

/// An append that its own decoder refuses.
#[test]
fn an_append_of_many_small_runs_fits_a_frame() {
    let mut config = Config::new(NodeId(1));
    config.max_append_bytes = 8 << 20;
    config.validate().unwrap();
    let term = Term((1 << 63) - 1);
    let one = Run::commands(term, Index(1), &[b""]).unwrap();
    let n = config.max_append_bytes / one.bytes();
    let entries: Few<Run> =
        (0..n as u64).map(|k| Run::commands(term, Index(k + 1), &[b""]).unwrap()).collect();
    let m = Message { term, body: Body::Append { prev: LogId::ZERO, commit: Index(0), entries } };
    let len = wire::encode(&m).len();
    assert!(len <= wire::MAX_FRAME, "{len} > {}", wire::MAX_FRAME);
}

/// Node id u64::MAX.
#[test]
fn the_largest_node_id() {
    let m = Membership::of_voters([NodeId(u64::MAX)]);
    assert_eq!(Membership::decode(&m.encode()), Ok(m));
}

/// One poll a step: nothing is ever sent.
#[test]
fn one_poll_a_step_is_enough() {
    let mut c = Cluster::new(3);
    c.elect(1);
    c.run(300_000);
    let now = c.now;
    let mut sent = 0;
    for n in 0..5_000_u64 {
        let raft = &mut c.node(1).raft;
        if raft.step(now, Input::Propose(Proposal::one(Token(n), b"x"))).is_err() {
            continue;
        }
        match raft.poll() {
            Some(Action::Send { .. }) => sent += 1,
            Some(Action::Write(w)) => {
                raft.step(now, Input::Persisted(w.into_receipt())).unwrap();
            }
            _ => {}
        }
    }
    assert!(sent > 0);
}

/// An answer of the life before is taken for damage.
#[test]
fn an_answer_to_another_life_is_stale() {
    let mut c = Cluster::new(1);
    c.elect(1);
    for n in 1..20 {
        c.propose(1, n, &[n as u8]).unwrap();
    }
    let disk = c.nodes[&1].disk.clone();
    let now = c.now;
    let mut old = None;
    for life in 0..2 {
        let mut d = disk.clone();
        d.incarnation += life;
        let mut r = d.recover(Membership::of_voters([NodeId(1)]));
        // the state machine kept more the second time
        r.applied = Index(if life == 0 { 3 } else { 10 });
        r.terms = r.terms.clone();
        let mut raft = Raft::new(Config::new(NodeId(1)), r, now).unwrap();
        let mut writes = std::collections::VecDeque::new();
        raft.step(now, Input::Tick).unwrap();
        let mut load = None;
        loop {
            match raft.poll() {
                Some(Action::Write(w)) => writes.push_back(w),
                Some(Action::Load(l)) => load = Some(l),
                Some(_) => {}
                None => match writes.pop_front() {
                    Some(w) => raft.step(now, Input::Persisted(w.into_receipt())).unwrap(),
                    None => break,
                },
            }
        }
        match old.take() {
            None => old = load.map(|l: Load| (l.id, d.load(&l))),
            Some((id, result)) => {
                let answer = raft.step(now, Input::Loaded { id, result });
                assert_ne!(answer, Err(Rejected::BadLoad));
            }
        }
    }
}

/// A late TimeoutNow makes a node that has been removed depose a healthy leader.
#[test]
fn a_late_order_to_campaign_does_not_let_a_removed_node_depose() {
    let mut c = Cluster::new(3);
    c.elect(1);
    c.run(300_000);
    c.step(1, Input::TransferLeadership { token: Token(1), to: Some(NodeId(3)) }).unwrap();
    let late = c.wire.iter().find(|(_, _, m)| matches!(m.body, Body::TimeoutNow)).cloned().unwrap();
    c.wire.clear();
    c.step(1, Input::AbortTransfer).unwrap();
    c.change(1, 2, MembershipChange::new(vec![ChangeOp::Remove(NodeId(3))])).unwrap();
    c.deliver_unless(|_, to, _| to.0 == 3);
    let term = c.raft(1).term();
    c.run_unless(300_000, |_, to, _| to.0 == 3);
    c.step(3, Input::Receive { from: late.0, message: late.2 }).unwrap();
    c.deliver();
    assert_eq!((c.raft(1).role(), c.raft(1).term()), (RoleKind::Leader, term));
}

/// A leader hands out its last committed entries only after it has read them back: what they took of the bound is free again.
#[test]
fn what_was_read_back_and_handed_out_is_uncommitted_no_more() {
    let mut c = Cluster::with(1, |c| {
        c.max_cached_bytes = 1;
        c.max_uncommitted_bytes = 64;
    });
    c.elect(1);
    c.run(1000);
    c.slow_disks.push(1);
    c.propose(1, 7, &[b'x'; 50]).unwrap();
    c.persist_all(1);
    c.run(1000);
    assert!(c.nodes[&1].done.contains(&Token(7)), "committed and handed out");
    assert_eq!(c.raft(1).status().uncommitted_bytes, 0);
    c.propose(1, 8, &[b'y'; 50]).unwrap();
}

//! diss. 3.10: leadership transfer; 4.2.3: the permission that comes with it.

use quorate_core::{Body, ChangeOp, Input, MembershipChange, NodeId, Outcome, Rejected, RoleKind, Token};

use crate::{common::*, support::*};

fn transfer(cluster: &mut Cluster, to: u64) -> Result<(), Rejected> {
    cluster.step(1, Input::TransferLeadership { token: Token(100), to: Some(NodeId(to)) })
}

/// Node 1 hands over to node 2, which lacks an entry.
fn waiting() -> Cluster {
    let mut cluster = led(3);
    cluster.propose(1, 1, b"x").unwrap();
    cluster.deliver_unless(|_, to, _| to.0 == 2);
    transfer(&mut cluster, 2).unwrap();
    cluster
}

const fn is_timeout_now(body: &Body) -> bool {
    matches!(body, Body::TimeoutNow)
}

/// diss. 3.10: "1. The prior leader stops accepting new client requests."
///
/// Mutation: 801-proposals-while-transferring
#[test]
fn a_leader_that_hands_over_takes_no_requests() {
    let mut cluster = waiting();
    assert_eq!(cluster.propose(1, 2, b"y"), Err(Rejected::Transferring { to: NodeId(2) }));
}

/// diss. 3.10: "2. The prior leader fully updates the target server's log to match its own, using the normal log replication
/// mechanism."
///
/// Mutation: 802-told-too-early
#[test]
fn the_target_is_brought_up_to_date_first() {
    let mut cluster = waiting();
    assert_eq!(on_wire(&cluster, is_timeout_now), []);
    cluster.run_unless(500_000, |_, _, message| is_timeout_now(&message.body));
    assert_eq!(cluster.raft(2).last(), cluster.raft(1).last());
    let (now, last) = (term(&cluster, 1), index_of_last(&cluster, 1).0);
    cluster.receive(2, 1, now, appended(last)).unwrap();
    cluster.receive(2, 1, now, Body::HeartbeatReply { round: 1, asleep: false }).unwrap();
    assert_eq!(on_wire(&cluster, is_timeout_now), [(1, 2)]);
}

/// diss. 3.10: "3. … This request has the same effect as the target server's election timer firing: the target server starts a
/// new election (incrementing its term and becoming a candidate)": it asks nobody whether that would disturb.
///
/// Mutation: 803-asks-first
#[test]
fn the_target_campaigns_at_once() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    cluster.receive(1, 2, now, Body::TimeoutNow).unwrap();
    assert_eq!((role(&cluster, 2), term(&cluster, 2)), (RoleKind::Candidate, now + 1));
    assert_eq!(on_wire(&cluster, is_vote), [(2, 1), (2, 3)]);
}

/// diss. 4.2.3: "RequestVote messages should be processed by other servers even when they believe a current cluster leader
/// exists. Those RequestVote requests can include a special flag to indicate this behavior"; 3.10: "Its next message to the
/// prior leader will include its new term number, causing the prior leader to step down."
///
/// Mutation: 804-no-permission
#[test]
fn the_target_is_elected_although_all_hear_the_leader() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    transfer(&mut cluster, 2).unwrap();
    cluster.deliver();
    assert_eq!((role(&cluster, 2), term(&cluster, 2)), (RoleKind::Leader, now + 1));
    assert_eq!((role(&cluster, 1), cluster.raft(1).leader()), (RoleKind::Follower, Some(NodeId(2))));
    assert_eq!(outcome(&mut cluster, 1, 100), Some(Outcome::Transferred { to: NodeId(2) }));
}

/// diss. 3.10: "If leadership transfer does not complete after about an election timeout, the prior leader aborts the transfer
/// and resumes accepting client requests."
///
/// Mutation: 805-transfer-never-aborted
#[test]
fn a_transfer_is_given_up_after_an_election_timeout() {
    let mut cluster = waiting();
    let now = term(&cluster, 1);
    cluster.now = cluster.now.plus(900_000);
    cluster.receive(3, 1, now, Body::HeartbeatReply { round: 0, asleep: false }).unwrap();
    cluster.step(1, Input::Tick).unwrap();
    assert!(cluster.propose(1, 2, b"y").is_err());
    cluster.now = cluster.now.plus(100_000);
    cluster.step(1, Input::Tick).unwrap();
    assert_eq!(outcome(&mut cluster, 1, 100), Some(Outcome::Refused { leader: Some(NodeId(1)) }));
    cluster.propose(1, 3, b"z").unwrap();
}

/// The same: the target must be one that may lead, which a learner may not (4.2.1).
///
/// Mutation: 806-transfer-to-a-learner
#[test]
fn leadership_goes_to_voters_only() {
    let mut cluster = led(3);
    cluster.change(1, 1, MembershipChange::new(vec![ChangeOp::AddLearner(NodeId(4))])).unwrap();
    cluster.deliver();
    for nobody in [1, 4, 9] {
        assert_eq!(transfer(&mut cluster, nobody), Err(Rejected::NoSuchVoter), "{nobody}");
    }
    transfer(&mut cluster, 3).unwrap();
}

//! Who may end a leadership, and who may not: diss. 4.2.3, 6.2.

use quorate_core::{Body, ChangeOp, MembershipChange, NodeId, RequestId, RoleKind};

use crate::{common::*, support::*};

/// diss. 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of hearing from a current
/// leader, it does not update its term or grant its vote."
///
/// Mutation: 617-no-stickiness
#[test]
fn who_hears_a_leader_does_not_help_to_depose_it() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    for node in [1, 2] {
        cluster.receive(3, node, now + 5, vote(id(now, 99))).unwrap();
        assert_eq!(term(&cluster, node), now);
        assert!(cluster.wire.is_empty(), "nor does it answer");
    }
    // A silent leader is another matter.
    cluster.now = cluster.now.plus(1_000_000);
    cluster.receive(3, 2, now + 5, vote(id(now, 99))).unwrap();
    assert!(matches!(replies(&mut cluster)[0].body, Body::VoteReply { granted: true, .. }));
}

/// diss. 9.6: "… and the voters have not received heartbeats from a valid leader for at least a baseline election timeout."
///
/// Mutation: 618-pre-vote-beside-a-leader
#[test]
fn who_hears_a_leader_encourages_nobody() {
    let mut cluster = led(3);
    let now = term(&cluster, 1);
    let ask = |cluster: &mut Cluster, node| {
        let question = Body::PreVote { id: RequestId::default(), last: id(now, 99) };
        cluster.receive(3, node, now, question).unwrap();
        matches!(replies(cluster)[0].body, Body::PreVoteReply { granted: true, .. })
    };
    assert!(!ask(&mut cluster, 1) && !ask(&mut cluster, 2));
    cluster.now = cluster.now.plus(1_000_000);
    assert!(ask(&mut cluster, 2));
}

/// diss. 4.2.3: "if a leader is able to get heartbeats to its cluster, then it will not be deposed by larger term numbers":
/// not even by a server that was removed, doesn't know, and campaigns for ever.
///
/// Mutation: 617-no-stickiness
#[test]
fn a_removed_server_disrupts_nobody() {
    let mut cluster = impatient(3);
    cluster.elect(1);
    let now = term(&cluster, 1);
    cluster.change(1, 1, MembershipChange::new(vec![ChangeOp::Remove(NodeId(3))])).unwrap();
    cluster.deliver_unless(|_, to, _| to.0 == 3);
    assert_eq!(cluster.raft(2).membership().members(), [NodeId(1), NodeId(2)]);
    cluster.run(20_000_000);
    assert!(term(&cluster, 3) > now, "it has campaigned");
    assert_eq!((role(&cluster, 1), term(&cluster, 1), term(&cluster, 2)), (RoleKind::Leader, now, now));
}

/// diss. 6.2: "a leader in Raft steps down if an election timeout elapses without a successful round of heartbeats to a
/// majority of its cluster."
///
/// Mutation: 811-no-check-quorum
#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut cluster = led(5);
    cluster.run_unless(5_000_000, |from, to, _| from.0 > 3 || to.0 > 3);
    assert_eq!(role(&cluster, 1), RoleKind::Leader, "with three of five it stays");
    cluster.run_unless(2_100_000, |from, to, _| from.0 > 2 || to.0 > 2);
    assert_ne!(role(&cluster, 1), RoleKind::Leader);
}

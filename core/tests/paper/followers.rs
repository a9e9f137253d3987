//! Figure 2, Followers: they answer, and campaign when nobody keeps them from it (§5.2).

use quorate_core::{Body, Few, LogId, RoleKind};

use crate::{common::*, support::*};

/// When node 1 will lose patience, in µs from now.
fn patience(cluster: &Cluster) -> u64 {
    cluster.raft(1).deadline().unwrap().0.since(cluster.now)
}

/// Figure 2, Followers: "Respond to RPCs from candidates and leaders."
///
/// Mutation: 218-heartbeat-unanswered
#[test]
fn a_follower_answers_candidates_and_leaders() {
    let mut cluster = follower(3);
    let answer = |cluster: &mut Cluster, term, body| {
        cluster.receive(2, 1, term, body).unwrap();
        replies(cluster).pop().map(|message| message.body)
    };
    assert_eq!(
        answer(&mut cluster, 2, heartbeat(3, 9)),
        Some(Body::HeartbeatReply { round: 9, asleep: false })
    );
    assert_eq!(answer(&mut cluster, 2, append(id(2, 5), 3, Few::one(run(2, 6, 2)))), Some(appended(7)));
    cluster.now = cluster.now.plus(3_000_000);
    let commit = id(2, 3);
    assert_eq!(answer(&mut cluster, 3, vote(id(2, 7))), Some(Body::VoteReply { granted: true, commit }));
}

/// Figure 2, Followers: "If election timeout elapses without receiving AppendEntries RPC from current leader or granting
/// vote to candidate: convert to candidate."
///
/// Mutation: 214-follower-waits-for-ever
#[test]
fn a_follower_that_hears_nothing_becomes_a_candidate() {
    let mut cluster = impatient(3);
    let left = patience(&cluster);
    assert!((1_000_000..2_000_000).contains(&left));
    cluster.now = cluster.now.plus(left - 1);
    cluster.step(1, quorate_core::Input::Tick).unwrap();
    assert_eq!(role(&cluster, 1), RoleKind::Follower);
    cluster.fire(1);
    assert_eq!(role(&cluster, 1), RoleKind::Candidate);
}

/// §5.2: "A server remains in follower state as long as it receives valid RPCs from a leader or candidate."
///
/// Mutation: 215-leader-does-not-postpone
#[test]
fn word_from_the_leader_postpones_a_candidacy() {
    for said in [heartbeat(3, 1), append(id(2, 5), 3, Few::new()), Body::Commit { commit: i(3) }] {
        let mut cluster = follower(3);
        cluster.now = cluster.now.plus(900_000);
        let before = patience(&cluster);
        cluster.receive(2, 1, 2, said.clone()).unwrap();
        assert_eq!(patience(&cluster), before + 900_000, "{said:?}");
    }
}

/// The same, for the first word of a leader that was not known.
///
/// Mutation: 222-new-leader-does-not-postpone
#[test]
fn the_first_word_from_a_leader_postpones_a_candidacy() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, vote(LogId::ZERO)).unwrap();
    let before = patience(&cluster);
    cluster.now = cluster.now.plus(500_000);
    cluster.receive(2, 1, 1, heartbeat(0, 1)).unwrap();
    assert_eq!(patience(&cluster), before);
}

/// "… or granting vote to candidate."
///
/// Mutation: 216-grant-does-not-postpone
#[test]
fn granting_a_vote_postpones_a_candidacy() {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 1, vote(LogId::ZERO)).unwrap();
    cluster.now = cluster.now.plus(500_000);
    let before = patience(&cluster);
    // Said again, for the answer was lost.
    cluster.receive(2, 1, 1, vote(LogId::ZERO)).unwrap();
    assert_eq!(patience(&cluster), before + 500_000);
}

/// The same: what isn't from the current leader, or isn't granted, postpones nothing: else a node that can't win could keep
/// from it those who can.
///
/// Mutation: 217-any-request-postpones
#[test]
fn refusing_a_vote_postpones_nothing() {
    let mut cluster = follower(3);
    cluster.now = cluster.now.plus(500_000);
    let before = patience(&cluster);
    cluster.receive(3, 1, 2, vote(id(2, 1))).unwrap();
    cluster.receive(3, 1, 1, append(LogId::ZERO, 0, Few::new())).unwrap();
    assert_eq!(patience(&cluster), before);
}

/// The same: nor does a later term alone. Else somebody who campaigns again and again, and can't be elected, would keep from it the one
/// who could be.
///
/// Mutation: 223-later-term-postpones
#[test]
fn a_later_term_alone_postpones_nothing() {
    let mut cluster = follower(3);
    cluster.now = cluster.now.plus(1_000_000);
    let before = patience(&cluster);
    cluster.receive(3, 1, 3, vote(id(2, 1))).unwrap();
    assert_eq!((term(&cluster, 1), patience(&cluster)), (3, before));
}

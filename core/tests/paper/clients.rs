//! §8: clients; §5.6: what the clocks must allow.

use core::time::Duration;

use quorate_core::{Config, NodeId, Outcome, Rejected, RoleKind, Token};

use crate::{common::*, support::*};

/// §8: "If the client's first choice is not the leader, that server will reject the client's request and supply information
/// about the most recent leader it has heard from."
///
/// Mutation: 921-no-hint
#[test]
fn a_follower_rejects_a_request_and_names_the_leader() {
    let mut cluster = led(3);
    let refused = cluster.propose(2, 1, b"x");
    assert_eq!(refused, Err(Rejected::NotLeader { leader: Some(NodeId(1)) }));
}

/// diss. 6.2: "They must discard this information when starting a new election or when the term changes": followers, who leads.
///
/// Mutation: 924-leader-remembered
#[test]
fn who_led_before_is_not_named() {
    let mut cluster = led(3);
    let later = term(&cluster, 2) + 1;
    cluster.receive(3, 2, later, voted(false)).unwrap();
    assert_eq!(cluster.propose(2, 1, b"x"), Err(Rejected::NotLeader { leader: None }));
    let mut cluster = led(3);
    cluster.fire(3);
    assert_eq!(role(&cluster, 3), RoleKind::PreCandidate);
    assert_eq!(cluster.propose(3, 1, b"x"), Err(Rejected::NotLeader { leader: None }));
}

/// §8: "if the leader crashes after committing the log entry but before responding to the client, the client will retry":
/// so it must know that the outcome is unknown.
///
/// Mutation: 922-unknown-called-refused
#[test]
fn what_was_appended_when_leadership_was_lost_has_no_known_outcome() {
    let mut cluster = led(3);
    cluster.propose(1, 7, b"x").unwrap();
    let later = term(&cluster, 1) + 1;
    cluster.receive(2, 1, later, heartbeat(0, 1)).unwrap();
    assert_eq!(cluster.node(1).outcomes, [(Token(7), Outcome::Unknown)]);
}

/// §5.6: "broadcastTime ≪ electionTimeout": who hears a heartbeat only once in an election timeout would campaign all the
/// time.
///
/// Mutation: 923-heartbeat-as-long-as-a-timeout
#[test]
fn the_election_timeout_leaves_room_for_heartbeats() {
    let mut config = Config::new(NodeId(1));
    config.heartbeat_interval = config.election_timeout / 2;
    assert_eq!(config.validate(), Ok(()));
    config.heartbeat_interval += Duration::from_millis(1);
    assert!(config.validate().is_err());
}

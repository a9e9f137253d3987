//! What sessions promise (X1).

use bytes::Bytes;
use proptest::prelude::*;
use quorate_core::StateMachine as _;

use crate::workload::{
    AHEAD, Answer, Client, Replicated as _, Request, SessionOracle, Sessions, State,
    counter::{Counters, add, total},
    replica,
    testing::entry,
};

fn sessions(limit: u32) -> Sessions<Counters> {
    Sessions::new(Counters::default(), limit)
}

fn request(session: u64, sequence: u64, acknowledged: u64, n: u64) -> Bytes {
    Request::Command { session, sequence, acknowledged, command: add(0, n) }.encode()
}

/// The total that was answered with.
fn done(answer: Answer) -> u64 {
    let Answer::Done(reply) = answer else { panic!("{answer:?}") };
    total(&reply).unwrap()
}

#[test]
fn a_retry_is_answered_as_before_and_applied_once() {
    let mut machine = sessions(4);
    assert_eq!(machine.apply(&entry(3, &Request::Open.encode())), Answer::Opened(3));
    let mut at = |index, sequence, n| done(machine.apply(&entry(index, &request(3, sequence, 0, n))));
    assert_eq!(at(4, 1, 5), 5);
    assert_eq!(at(5, 1, 5), 5);
    assert_eq!(at(6, 3, 1), 6, "out of their order");
    assert_eq!(at(7, 2, 1), 7);
    assert_eq!(at(8, 3, 1), 6);
    assert_eq!(*machine.machine().object(0), 7);
}

#[test]
fn what_is_acknowledged_is_forgotten_and_never_applied_again() {
    let mut machine = sessions(4);
    machine.apply(&entry(1, &Request::Open.encode()));
    machine.apply(&entry(2, &request(1, 1, 0, 5)));
    assert_eq!(done(machine.apply(&entry(3, &request(1, 2, 1, 1)))), 6);
    assert_eq!(machine.apply(&entry(4, &request(1, 1, 0, 5))), Answer::Forgotten);
    // Its own answer can't have been acknowledged before it was sent.
    assert_eq!(machine.apply(&entry(5, &request(1, 3, 3, 5))), Answer::Forgotten);
    assert_eq!(machine.apply(&entry(6, &request(1, 4 + AHEAD, 3, 5))), Answer::TooFarAhead);
    assert_eq!(done(machine.apply(&entry(7, &request(1, 3 + AHEAD, 3, 5)))), 11);
    assert_eq!(machine.apply(&entry(8, b"?")), Answer::Malformed);
}

#[test]
fn the_session_that_no_entry_has_named_for_longest_expires() {
    let mut machine = sessions(2);
    for index in [1, 2] {
        machine.apply(&entry(index, &Request::Open.encode()));
    }
    machine.apply(&entry(3, &request(1, 1, 0, 5)));
    machine.apply(&entry(4, &Request::Open.encode()));
    assert_eq!(machine.open(), 2);
    assert_eq!(machine.apply(&entry(5, &request(2, 1, 0, 5))), Answer::UnknownSession);
    assert_eq!(machine.apply(&entry(6, &request(99, 1, 0, 5))), Answer::UnknownSession);
    assert_eq!(done(machine.apply(&entry(7, &request(1, 1, 0, 5)))), 5);
}

#[test]
fn a_restored_replica_still_knows_what_was_applied() {
    let mut one = sessions(4);
    one.apply(&entry(1, &Request::Open.encode()));
    one.apply(&entry(2, &request(1, 1, 0, 5)));
    let mut other = Sessions::<Counters>::restored(&one.snapshot()).unwrap();
    assert_eq!(one.digest(), other.digest());
    assert_eq!(done(other.apply(&entry(3, &request(1, 1, 0, 5)))), 5);
}

/// What a snapshot without its table would be: the digest shows it at once, and the oracle at the next retry.
#[test]
fn a_snapshot_without_the_table_is_noticed() {
    let mut one = sessions(4);
    one.apply(&entry(1, &Request::Open.encode()));
    one.apply(&entry(2, &request(1, 1, 0, 5)));
    let machine = Counters::restored(&one.machine().snapshot()).unwrap();
    let mut mutant = Sessions::new(machine, 4);
    assert_ne!(one.digest(), mutant.digest());
    let mut oracle = SessionOracle::new(replica(Counters::default()), 4);
    oracle.expect(&entry(1, &Request::Open.encode()));
    oracle.expect(&entry(2, &request(1, 1, 0, 5)));
    let retry = entry(3, &request(1, 1, 0, 5));
    let expected = oracle.expect(&retry);
    assert_ne!(mutant.apply(&retry), expected);
    assert_eq!(one.apply(&retry), expected);
}

#[test]
fn a_client_sends_again_what_waits() {
    let mut machine = sessions(4);
    let mut client = Client::default();
    assert_eq!(client.send(add(0, 1)), None);
    client.opened(1);
    machine.apply(&entry(1, &Request::Open.encode()));
    let (first, lost) = client.send(add(0, 1)).unwrap();
    let (second, sent) = client.send(add(0, 2)).unwrap();
    let answer = machine.apply(&entry(2, &sent));
    client.answered(second, &answer);
    assert_eq!(client.waiting().collect::<Vec<_>>(), [first]);
    machine.apply(&entry(3, &lost));
    let answer = machine.apply(&entry(4, &client.again(first).unwrap()));
    client.answered(first, &answer);
    assert_eq!((done(answer), *machine.machine().object(0)), (3, 3));
    let (third, sent) = client.send(add(0, 0)).unwrap();
    let Some(Request::Command { sequence: 3, acknowledged: 2, .. }) = Request::decode(&sent) else {
        panic!("{sent:?}")
    };
    client.answered(third, &Answer::UnknownSession);
    assert_eq!(client.session(), None);
}

#[test]
fn a_client_waits_rather_than_get_too_far_ahead() {
    let mut client = Client::default();
    client.opened(1);
    let sent = std::iter::from_fn(|| client.send(add(0, 1))).count();
    assert_eq!(sent as u64, AHEAD);
}

#[test]
fn garbage_is_no_snapshot() {
    let mut one = sessions(4);
    for index in 1..=3 {
        one.apply(&entry(index, &Request::Open.encode()));
        one.apply(&entry(10 + index, &request(index, index, 0, 5)));
    }
    let good = one.snapshot().bytes().to_vec();
    for len in 0..good.len() {
        let restored = Sessions::<Counters>::restored(&State::new(good[..len].to_vec()));
        // Cut where an object ends, it is a whole snapshot, of another state.
        assert!(restored.is_err() || restored.unwrap().digest() != one.digest(), "cut to {len}");
    }
    let error = Sessions::<Counters>::restored(&State::new(&b"\x09"[..])).unwrap_err();
    assert!(error.contains("version 9") && error.contains("knows 1"), "{error}");
    let error = Sessions::<Counters>::restored(&State::new(&b"\x01garbage"[..])).unwrap_err();
    assert!(error.contains("table of sessions"), "{error}");
}

proptest! {
    /// Any log is answered as the oracle has it, by a replica that restarts from its snapshot now and then, too.
    #[test]
    fn sessions_are_as_the_oracle_has_it(
        limit in 1_u32..4,
        log in prop::collection::vec((0_u8..8, 0_u64..12, 0_u64..6, 0_u64..4), 1..80),
    ) {
        let mut one = replica(sessions(limit));
        let mut other = replica(sessions(limit));
        let mut oracle = SessionOracle::new(replica(Counters::default()), limit);
        for (index, (kind, session, sequence, acknowledged)) in (1..).zip(log) {
            let payload = match kind {
                0 => Request::Open.encode(),
                _ => request(session, sequence, acknowledged, index),
            };
            let entry = entry(index, &payload);
            let expected = Bytes::from(oracle.expect(&entry));
            prop_assert_eq!(&one.apply(&entry), &expected);
            prop_assert_eq!(&other.apply(&entry), &expected);
            if kind == 1 {
                let snapshot = other.snapshot();
                other = replica(sessions(1));
                other.restore(&snapshot).unwrap();
            }
            prop_assert_eq!(one.digest(), other.digest());
        }
        prop_assert_eq!(oracle.machine().read(b"\x01\x00"), one.read(b"\x01\x00"));
    }
}

//! The machine, case by case.

use std::time::Duration;

use super::*;
use crate::sessions::{LimitsError, SessionsError, SnapshotError};

const REGISTER: Command = Command::Register { time: 0 };

fn registered(session: u64) -> Reply {
    Reply::Registered { session: SessionId(session), outstanding: 4 }
}

#[test]
fn a_retry_is_answered_as_before_and_applied_once() {
    let mut machine = sessions(small());
    assert_eq!(machine.apply(&entry(3, REGISTER)), registered(3));
    assert_eq!(machine.apply(&entry(4, apply(3, 1, 0, "a"))), applied("a#1"));
    assert_eq!(machine.apply(&entry(5, apply(3, 1, 0, "a"))), applied("a#1"));
    assert_eq!(machine.apply(&entry(6, apply(3, 3, 0, "c"))), applied("c#2"), "out of their order");
    assert_eq!(machine.apply(&entry(7, apply(3, 2, 0, "b"))), applied("b#3"));
    assert_eq!(machine.apply(&entry(8, apply(3, 3, 1, "c"))), applied("c#2"));
    assert_eq!(machine.apply(&entry(9, apply(3, 1, 1, "a"))), Reply::Stale);
    assert_eq!(machine.apply(&entry(10, apply(4, 1, 0, "a"))), Reply::UnknownSession);
    assert_eq!(machine.apply(&entry(11, Bytes::from_static(b"\x01\x09"))), Reply::Malformed);
    assert_eq!(machine.machine().0, ["a", "c", "b"]);
}

#[test]
fn what_is_kept_for_a_session_is_bounded_in_replies_and_in_bytes() {
    let mut machine = sessions(Limits { reply_bytes: 6, ..small() });
    machine.apply(&entry(1, REGISTER));
    assert_eq!(machine.apply(&entry(2, apply(1, 5, 0, "far"))), Reply::TooFarAhead);
    assert_eq!(machine.apply(&entry(3, apply(1, 1, 0, "a"))), applied("a#1"));
    assert_eq!(machine.apply(&entry(4, apply(1, 3, 0, "long"))), applied("long#2"), "one more than fits");
    assert_eq!(machine.apply(&entry(5, apply(1, 2, 0, "b"))), Reply::Full);
    assert_eq!(machine.apply(&entry(6, apply(1, 3, 0, "long"))), applied("long#2"), "a retry needs no room");
    // The refused one was not applied, and is when there is room.
    assert_eq!(machine.apply(&entry(7, apply(1, 4, 1, "d"))), Reply::Full);
    assert_eq!(machine.apply(&entry(8, apply(1, 2, 1, "b"))), applied("b#3"), "the first always fits");
    assert_eq!(machine.apply(&entry(9, apply(1, 4, 2, "d"))), Reply::Full, "long is kept");
    assert_eq!(machine.apply(&entry(10, apply(1, 7, 3, "far"))), applied("far#4"));
    assert_eq!(machine.apply(&entry(11, apply(1, 3, 3, "long"))), Reply::Stale, "the client has it");
    assert_eq!(machine.apply(&entry(12, apply(1, 8, 3, "far"))), Reply::TooFarAhead);
}

#[test]
fn the_session_that_was_not_named_for_longest_goes_first() {
    let mut machine = sessions(small());
    for index in [1, 2, 3] {
        machine.apply(&entry(index, REGISTER));
    }
    machine.apply(&entry(4, apply(1, 1, 0, "used")));
    // Refused commands are a use too: their client is alive.
    machine.apply(&entry(5, apply(2, 99, 0, "far")));
    machine.apply(&entry(6, REGISTER));
    assert_eq!(machine.open(), 3);
    assert_eq!(machine.apply(&entry(7, apply(3, 1, 0, "x"))), Reply::UnknownSession);
    assert_eq!(machine.apply(&entry(8, apply(1, 1, 0, "used"))), applied("used#1"));
    assert_eq!(machine.apply(&entry(9, apply(2, 1, 0, "y"))), applied("y#2"));
    assert_eq!(machine.apply(&entry(10, Command::Expire { session: SessionId(6), time: 0 })), Reply::Expired);
    assert_eq!(machine.open(), 2);
    let fewer = Limits { sessions: 1, ..small() };
    assert_eq!(machine.apply(&entry(11, Command::Configure(fewer))), Reply::Configured);
    assert_eq!((machine.open(), machine.limits()), (1, &fewer));
    assert_eq!(machine.apply(&entry(12, apply(2, 1, 0, "y"))), applied("y#2"));
}

#[test]
fn idle_sessions_end_by_the_time_that_commands_say() {
    let idle = Some(Duration::from_millis(100));
    let mut machine = sessions(Limits { idle, ..small() });
    // Nobody has said the time when these two begin: it begins when somebody does.
    machine.apply(&entry(1, REGISTER));
    machine.apply(&entry(2, REGISTER));
    let mut at = |index, time, session| {
        let session = SessionId(session);
        let (seq, command) = (index, Bytes::from_static(b"x"));
        let apply = Command::Apply { session, seq, acknowledged: index - 1, time, command };
        machine.apply(&entry(index, apply)) != Reply::UnknownSession
    };
    assert!(at(3, 5_000, 1));
    assert!(at(4, 5_080, 1), "this one is used");
    assert!(at(5, 4_000, 1), "a clock that is behind makes nobody younger");
    assert!(at(6, 5_100, 2), "not longer than it may be");
    assert!(at(7, 5_180, 1));
    assert!(!at(8, 5_201, 2), "now longer");
    assert!(!at(9, 9_000, 1), "nobody is spared, not even who says it");
    assert_eq!(machine.open(), 0);
}

/// Mutant 22: the table is missing from the snapshot.
#[test]
fn a_snapshot_has_the_table_and_the_rest() {
    let mut machine = sessions(small());
    for (index, command) in
        [REGISTER, REGISTER, apply(1, 1, 0, "a"), apply(1, 3, 0, "c"), apply(2, 1, 0, "b")]
            .into_iter()
            .enumerate()
    {
        machine.apply(&entry(index as u64 + 1, command));
    }
    let mut replica = replica(&machine);
    assert_eq!((replica.state_hash(), replica.limits()), (machine.state_hash(), &small()));
    assert_eq!(replica.machine(), machine.machine());
    for machine in [&mut machine, &mut replica] {
        assert_eq!(machine.apply(&entry(6, apply(1, 3, 0, "c"))), applied("c#2"));
        assert_eq!(machine.apply(&entry(7, apply(2, 1, 0, "b"))), applied("b#3"));
        assert_eq!(machine.apply(&entry(8, apply(1, 2, 0, "d"))), applied("d#4"));
    }
    assert_eq!(replica.state_hash(), machine.state_hash());
}

#[test]
fn the_hash_tells_tables_apart() {
    let mut machine = sessions(small());
    let mut seen = vec![machine.state_hash()];
    let commands = [
        REGISTER,
        REGISTER,
        apply(1, 1, 0, "a"),
        apply(1, 1, 0, "a"),
        apply(1, 1, 1, "a"),
        apply(2, 1, 0, "b"),
        Command::Expire { session: SessionId(1), time: 0 },
        Command::Expire { session: SessionId(2), time: 7 },
        Command::Configure(Limits { sessions: 2, ..small() }),
    ];
    for (index, command) in commands.into_iter().enumerate() {
        machine.apply(&entry(index as u64 + 1, command));
        assert!(!seen.contains(&machine.state_hash()), "after entry {}", index + 1);
        seen.push(machine.state_hash());
    }
    // Nothing is left of the sessions that ended but the time and the limits.
    let mut other = Sessions::new(machine.machine().clone(), small()).unwrap();
    other.apply(&entry(1, Command::Expire { session: SessionId(9), time: 7 }));
    other.apply(&entry(2, Command::Configure(Limits { sessions: 2, ..small() })));
    assert_eq!(other.state_hash(), machine.state_hash());
}

#[test]
fn damaged_snapshots_are_refused_and_named() {
    let mut machine = sessions(small());
    machine.apply(&entry(1, REGISTER));
    machine.apply(&entry(2, apply(1, 1, 0, "a")));
    let mut bytes = Vec::new();
    machine.freeze().unwrap().write(&mut bytes).unwrap();
    let restore = |bytes: &[u8]| {
        let error = sessions(small()).restore(&mut &bytes[..]).unwrap_err();
        error.downcast::<SnapshotError>().map(|error| *error)
    };
    let table = bytes.len() - "a".len();
    for len in 0..table {
        assert_eq!(restore(&bytes[..len]).unwrap(), SnapshotError::Short, "{len} bytes");
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(restore(&with(0, b'Q')).unwrap(), SnapshotError::Foreign);
    assert_eq!(restore(&with(4, 2)).unwrap(), SnapshotError::Version(2));
    // No sessions at all: those are no limits.
    let error = sessions(small()).restore(&mut &with(5, 0)[..]).unwrap_err();
    assert!(error.downcast_ref::<LimitsError>().is_some(), "{error}");
    let count = 4 + 1 + 24 + 8;
    assert!(matches!(restore(&with(count, 9)).unwrap(), SnapshotError::Damaged(_)));
    let used = count + 4 + 8;
    assert!(matches!(restore(&with(used, 0)).unwrap(), SnapshotError::Damaged(_)));
    let seq = used + 8 * 3 + 4;
    assert!(matches!(restore(&with(seq, 0)).unwrap(), SnapshotError::Damaged(_)));
    // A length that is a lie takes no memory.
    assert_eq!(restore(&with(seq + 8 + 3, 0xFF)).unwrap(), SnapshotError::Short);
}

/// Says that what it holds is durable, up to there.
struct Durable(u64);

impl StateMachine for Durable {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        Bytes::new()
    }

    fn applied(&self) -> LogId {
        LogId::new(Term(u64::from(self.0 > 0)), Index(self.0))
    }

    fn flush(&mut self) -> Result<(), StateError> {
        self.0 += 1;
        Ok(())
    }
}

#[test]
fn a_machine_with_storage_of_its_own_is_refused_as_soon_as_it_shows() {
    let error = SessionsError::Durable { applied: LogId::new(Term(1), Index(7)) };
    assert_eq!(Sessions::new(Durable(7), small()).err(), Some(error));
    let mut machine = Sessions::new(Durable(0), small()).unwrap();
    let error = machine.flush().unwrap_err();
    assert!(error.to_string().contains("(applied up to 1@T1)"), "{error}");
    let limits = Limits { outstanding: 0, ..small() };
    assert!(matches!(Sessions::new(Tally::default(), limits), Err(SessionsError::Limits(_))));
}

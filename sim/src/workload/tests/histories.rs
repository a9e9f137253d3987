//! Histories made by hand, each held against both judges; and long ones.

use bytes::Bytes;
use quorate_core::Entry;

use crate::workload::{
    Anomaly, Bounds, Completed, History, Machines, Object, Op, Opinion, Random, Service, Witness,
    counter::{Counter, Counters, add},
    list::{List, Lists, append},
    machines, query,
    register::{Change, Register, Registers},
    search,
    testing::entry,
    witness,
};

fn number(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

/// A command from `invoked` until `returned`, in effect at `index`.
fn wrote(op: Bytes, invoked: u64, returned: u64, index: u64, reply: u64) -> Completed {
    let (returned, reply) = (Some(returned), Some(number(reply)));
    Completed { client: 0, op, write: true, invoked, returned, index: Some(index), reply }
}

fn read(invoked: u64, returned: u64, index: u64, reply: u64) -> Completed {
    Completed { write: false, ..wrote(query(0), invoked, returned, index, reply) }
}

/// A command of which nobody has heard.
fn unknown(op: Bytes, invoked: u64, index: Option<u64>) -> Completed {
    Completed { returned: None, reply: None, index, ..wrote(op, invoked, 0, 0, 0) }
}

fn write(value: u64) -> Bytes {
    Change::Write { value }.encode(0)
}

fn log(commands: &[Bytes]) -> Vec<Entry> {
    (1..).zip(commands).map(|(index, command)| entry(index, command)).collect()
}

fn registers() -> Machines {
    machines(Registers::default)
}

fn impossible<O: Object>(history: &[Completed]) -> Option<usize> {
    match search::<O>(history, &Bounds::default()) {
        Opinion::Linearizable { undecided: 0, .. } => None,
        Opinion::Impossible { op, key: 0, what } => {
            assert!(what.contains("fits nowhere"), "{what}");
            Some(op)
        }
        opinion => panic!("{opinion:?}"),
    }
}

#[test]
fn a_good_history_is_good() {
    let log = log(&[write(1), write(2)]);
    let history = [
        wrote(write(1), 0, 10, 1, 0),
        wrote(write(2), 5, 20, 2, 1),
        read(6, 12, 1, 1),
        read(13, 30, 2, 2),
        read(21, 22, 2, 2),
    ];
    assert_eq!(witness(&history, &log, &registers()), Ok(()));
    assert_eq!(impossible::<Register>(&history), None);
}

#[test]
fn a_stale_read_is_caught() {
    let log = log(&[write(1), write(2)]);
    let history = [wrote(write(1), 0, 10, 1, 0), wrote(write(2), 11, 20, 2, 1), read(21, 22, 1, 1)];
    let anomaly = witness(&history, &log, &registers());
    assert_eq!(anomaly, Err(Anomaly::Order { index: 1, floor: 2, write: false }));
    assert_eq!(impossible::<Register>(&history), Some(2));
    // As of the newest entry, with the old answer.
    let history = [history[0].clone(), history[1].clone(), read(21, 22, 2, 1)];
    assert!(matches!(witness(&history, &log, &registers()), Err(Anomaly::Read { index: 2, .. })));
}

#[test]
fn reads_that_go_back_are_caught() {
    let log = log(&[write(1)]);
    let history = [wrote(write(1), 0, 50, 1, 0), read(1, 10, 1, 1), read(11, 20, 0, 0)];
    let anomaly = witness(&history, &log, &registers());
    assert_eq!(anomaly, Err(Anomaly::Order { index: 0, floor: 1, write: false }));
    assert_eq!(impossible::<Register>(&history), Some(2));
}

#[test]
fn a_lost_write_is_caught() {
    // It was acknowledged at 1, where another is now.
    let log = log(&[write(2)]);
    let history = [wrote(write(1), 0, 10, 1, 0), wrote(write(2), 11, 20, 1, 0), read(21, 22, 1, 2)];
    assert_eq!(witness(&history, &log, &registers()), Err(Anomaly::Lost { index: Some(1) }));
    assert_eq!(impossible::<Register>(&history), Some(1));
    let nowhere = [Completed { index: None, ..history[0].clone() }];
    assert_eq!(witness(&nowhere, &log, &registers()), Err(Anomaly::Lost { index: None }));
    let beyond = [Completed { index: Some(2), ..history[0].clone() }];
    assert_eq!(witness(&beyond, &log, &registers()), Err(Anomaly::Lost { index: Some(2) }));
}

#[test]
fn a_double_application_is_caught() {
    let history = [wrote(add(0, 5), 0, 10, 1, 5), read(11, 20, 2, 10)];
    // The log has it once, and then something for another key.
    let once = log(&[add(0, 5), add(1, 1)]);
    let anomaly = witness(&history, &once, &machines(Counters::default));
    assert!(matches!(anomaly, Err(Anomaly::Read { index: 2, .. })), "{anomaly:?}");
    assert_eq!(impossible::<Counter>(&history), Some(1));
    let history = [wrote(append(0, 7), 0, 10, 1, 1), wrote(append(0, 8), 11, 20, 2, 3)];
    let once = log(&[append(0, 7), append(0, 8)]);
    let anomaly = witness(&history, &once, &machines(Lists::default));
    assert_eq!(anomaly, Err(Anomaly::Reply { index: 2, found: number(3), expected: number(2) }));
    assert_eq!(impossible::<List>(&history), Some(1));
}

#[test]
fn what_nobody_has_heard_of_may_have_happened_late_or_never() {
    let (happened, never) = (unknown(write(1), 0, Some(1)), unknown(write(1), 0, None));
    let seen = [happened.clone(), read(5, 6, 0, 0), read(7, 8, 1, 1)];
    assert_eq!(witness(&seen, &log(&[write(1)]), &registers()), Ok(()));
    assert_eq!(impossible::<Register>(&seen), None);
    let unseen = [never.clone(), read(5, 6, 0, 0), read(7, 8, 0, 0)];
    assert_eq!(witness(&unseen, &[], &registers()), Ok(()));
    assert_eq!(impossible::<Register>(&unseen), None);
    // Seen, though it never was.
    let seen = [never.clone(), read(5, 6, 0, 1)];
    assert!(matches!(witness(&seen, &[], &registers()), Err(Anomaly::Read { index: 0, .. })));
    assert_eq!(impossible::<Register>(&seen), Some(1));
    let bounds = Bounds { effects_are_known: false, ..Bounds::default() };
    let opinion = search::<Register>(&seen, &bounds);
    assert_eq!(opinion, Opinion::Linearizable { objects: 1, undecided: 0 });
    // Seen, and then not.
    let back = [happened, read(5, 6, 1, 1), read(7, 8, 0, 0)];
    assert!(matches!(witness(&back, &log(&[write(1)]), &registers()), Err(Anomaly::Order { .. })));
    assert_eq!(impossible::<Register>(&back), Some(2));
}

#[test]
fn a_write_that_jumps_the_queue_is_caught() {
    // Answered right by the log, whose order is not that of time. Blind adds of 0 can be put in any order: only the
    // witness, who holds the log to be the order, minds.
    let log = log(&[add(0, 0), add(0, 0)]);
    let history = [wrote(add(0, 0), 0, 10, 2, 0), wrote(add(0, 0), 11, 20, 1, 0)];
    let anomaly = witness(&history, &log, &machines(Counters::default));
    assert_eq!(anomaly, Err(Anomaly::Order { index: 1, floor: 2, write: true }));
    assert_eq!(impossible::<Counter>(&history), None);
}

#[test]
fn a_write_that_was_seen_before_it_began_is_caught() {
    let log = log(&[write(1), write(2)]);
    let history = [read(0, 5, 2, 2), wrote(write(2), 6, 10, 2, 1)];
    let anomaly = witness(&history, &log, &registers());
    assert_eq!(anomaly, Err(Anomaly::Order { index: 2, floor: 2, write: true }));
    assert_eq!(impossible::<Register>(&history), Some(0));
}

#[test]
fn it_is_left_open_which_of_two_unknown_was_seen() {
    // Either may have made the 1 that is seen first; but only one of them can make the other 1 of a 2.
    let write_one = unknown(write(1), 0, Some(5));
    let set_one = unknown(Change::CompareAndSet { expected: 0, value: 1 }.encode(0), 0, Some(1));
    let heard =
        [read(2, 3, 1, 1), wrote(write(0), 4, 5, 2, 1), wrote(write(2), 6, 7, 3, 0), read(8, 9, 5, 1)];
    for unknown in [[&write_one, &set_one], [&set_one, &write_one]] {
        let history: Vec<Completed> = unknown.into_iter().chain(&heard).cloned().collect();
        assert_eq!(impossible::<Register>(&history), None);
        assert!(impossible::<Register>(&history[1..]).is_some(), "one of them alone is not enough");
    }
}

#[test]
fn objects_beyond_a_bound_are_counted_and_no_more() {
    let history: Vec<Completed> = (0..9).map(|i| unknown(write(i), i, Some(i + 1))).collect();
    let undecided = Opinion::Linearizable { objects: 0, undecided: 1 };
    let few = Bounds { unknown: 8, ..Bounds::default() };
    assert_eq!(search::<Register>(&history, &few), undecided);
    let reads: Vec<Completed> = (0..200).map(|i| read(i, 300, 0, 0)).collect();
    let all_open = Bounds { operations: 199, ..Bounds::default() };
    assert_eq!(search::<Register>(&reads, &all_open), undecided);
    assert_eq!(
        search::<Register>(&reads, &Bounds::default()),
        undecided,
        "more are open than there are slots"
    );
    let hundred = Opinion::Linearizable { objects: 1, undecided: 0 };
    assert_eq!(search::<Register>(&reads[..100], &Bounds::default()), hundred);
    let short = Bounds { steps: 1_000, ..Bounds::default() };
    assert_eq!(search::<Register>(&reads[..100], &short), undecided);
    let adds: Vec<Completed> = (1..=20).map(|i| wrote(add(0, 0), i, 100, i, 0)).collect();
    assert_eq!(search::<Counter>(&adds, &Bounds::default()), undecided, "any of them, in any order");
}

/// A history as clients of a correct cluster have it: each operation takes effect at a moment of its own between beginning
/// and end; some are never heard of.
fn play(service: &Service, seed: u64, count: u64, unknown: f64) -> (Vec<Completed>, Vec<Entry>) {
    let mut rng = Random::new(seed);
    let (mut history, mut log) = (History::default(), Vec::new());
    let mut machine = (service.plain)();
    let mut free = [0_u64; 10];
    let mut effects = Vec::new();
    for _ in 0..count {
        let client = rng.below(10) as usize;
        let invoked = free[client] + rng.between(1, 50);
        let effect = invoked + rng.below(60);
        let returned = effect + rng.below(60);
        free[client] = returned;
        effects.push((effect, invoked, returned, client, service.workload.next(client, &mut rng)));
    }
    effects.sort_by_key(|effect| effect.0);
    for (_, invoked, returned, client, op) in effects {
        let (bytes, write) = match op {
            Op::Write(bytes) => (bytes, true),
            Op::Read(bytes) => (bytes, false),
        };
        let reply = if write {
            log.push(entry(log.len() as u64 + 1, &bytes));
            machine.apply(&log[log.len() - 1])
        } else {
            machine.read(&bytes)
        };
        let op = history.invoke(client, bytes, write, invoked);
        history.effect(op, log.len() as u64);
        if !rng.chance(unknown) {
            history.returned(op, reply, returned);
        }
    }
    (history.completed().to_vec(), log)
}

#[test]
fn long_good_histories_are_good_and_a_changed_answer_is_not() {
    for name in Service::NAMES {
        let service = Service::named(name).unwrap();
        for seed in 0..5 {
            let (mut history, log) = play(&service, seed, 4_000, 0.01);
            assert_eq!(witness(&history, &log, &service.plain), Ok(()), "{name}");
            let Some(search) = service.search else { continue };
            let opinion = search(&history, &Bounds::default());
            assert_eq!(opinion, Opinion::Linearizable { objects: 5, undecided: 0 }, "{name}");
            let place = 2_000 + history[2_000..].iter().position(|op| op.reply.is_some()).unwrap();
            let mut changed = history[place].reply.clone().unwrap().to_vec();
            changed[5] ^= 0x10;
            history[place].reply = Some(changed.into());
            assert!(witness(&history, &log, &service.plain).is_err(), "{name}");
            let opinion = search(&history, &Bounds::default());
            assert!(matches!(opinion, Opinion::Impossible { .. }), "{name}: {opinion:?}");
        }
    }
}

#[test]
fn a_small_window_checks_what_it_can_and_counts_the_rest() {
    let mut witness = Witness::new(&machines(Counters::default), 4);
    for index in 1..=10 {
        witness.commit(&entry(index, &add(0, 1))).unwrap();
    }
    let gap = witness.commit(&entry(12, &add(0, 1)));
    assert_eq!(gap, Err(Anomaly::Gap { expected: 11, found: 12 }));
    witness.invoke(1);
    assert_eq!(witness.wrote(1, 10, &number(10)), Ok(()));
    assert_eq!(witness.check_reply(7, &number(7)), Ok(()));
    assert!(matches!(witness.check_reply(7, &number(8)), Err(Anomaly::Reply { index: 7, .. })));
    assert_eq!(witness.unchecked(), 0);
    assert_eq!(witness.check_reply(6, &number(99)), Ok(()), "out of the window");
    assert_eq!(witness.check_read(5, &query(0), &number(99)), Ok(()), "out of the window");
    assert_eq!(witness.unchecked(), 2);
    // At either end at once, and between when the tail comes by.
    assert_eq!(witness.check_read(6, &query(0), &number(6)), Ok(()));
    assert!(matches!(witness.check_read(6, &query(0), &number(7)), Err(Anomaly::Read { index: 6, .. })));
    assert!(matches!(witness.check_read(10, &query(0), &number(7)), Err(Anomaly::Read { index: 10, .. })));
    assert_eq!(witness.check_read(8, &query(0), &number(8)), Ok(()));
    assert_eq!(witness.check_read(9, &query(0), &number(8)), Ok(()));
    assert_eq!(witness.commit(&entry(11, &add(0, 1))), Ok(()));
    assert!(matches!(witness.finish(), Err(Anomaly::Read { index: 9, .. })));
    assert_eq!(witness.finish(), Ok(()));
    // So many queries that the tail must come for them.
    for _ in 0..4 {
        assert_eq!(witness.check_read(10, &query(0), &number(10)), Ok(()));
    }
    assert_eq!(witness.check_read(10, &query(0), &number(10)), Ok(()));
    assert_eq!(witness.reference().read(&query(0)), number(11));
}

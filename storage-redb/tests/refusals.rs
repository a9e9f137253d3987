//! What is refused, and how that is told.

mod common;

use std::{fs, os::unix::fs::FileExt, thread};

use common::{IDENTITY, on_disk::OnDisk, publish, voters, write};
use quorate_core::{
    GroupId, HardState, Incarnation, Index, Load, LoadId, Loaded, LogId, LogReader, NodeId, Rebase, Run,
    Snapshot, Store, Term,
};
use quorate_storage_redb::{Error, Identity, Inspection, Misfit, Options, RedbStore};

const GROUP: GroupId = GroupId(0);

fn bootstrapped() -> (tempfile::TempDir, RedbStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::create(dir.path().join("node"), IDENTITY, &[(GROUP, voters(&[1, 2, 3]))]).unwrap();
    (dir, store)
}

#[test]
fn a_second_bootstrap_of_the_same_directory_is_refused() {
    let (dir, mut store) = bootstrapped();
    let node = dir.path().join("node");
    let other = Identity { cluster: 9, node: NodeId(9) };
    let incarnation = store.recover(GROUP).unwrap().incarnation;
    let mut first = write(GROUP, incarnation, 1);
    first.entries.push(Run::noop(Term(1), Index(1)));
    store.commit(&[first]).unwrap();
    for _ in 0..2 {
        // In use, and then closed.
        let error = RedbStore::create(&node, other, &[]).unwrap_err();
        assert!(
            matches!(&error, Error::AlreadyBootstrapped { identity: Some(found), .. } if *found == IDENTITY)
        );
        assert!(error.to_string().contains("already holds a store (node 3 of cluster 5eed"), "{error}");
    }
    store.close().unwrap();
    assert!(matches!(RedbStore::create(&node, other, &[]), Err(Error::AlreadyBootstrapped { .. })));
    assert_eq!(RedbStore::open(&node, IDENTITY).unwrap().recover(GROUP).unwrap().last, Index(1));
}

#[test]
fn a_bootstrap_that_was_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("quorate.store.new"), vec![7; 100_000]).unwrap();
    assert_eq!(RedbStore::identity_in(dir.path()).unwrap(), None);
    assert!(matches!(RedbStore::open(dir.path(), IDENTITY), Err(Error::Missing { .. })));
    drop(RedbStore::create(dir.path(), IDENTITY, &[]).unwrap());
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() == 2 && names.iter().all(|name| name == "quorate.store" || name == "quorate.lock"));
    assert_eq!(RedbStore::open(dir.path(), IDENTITY).unwrap().groups().unwrap(), []);
}

#[test]
fn two_bootstraps_at_once_make_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let results: Vec<_> = thread::scope(|scope| {
        let create = |node| {
            let path = dir.path();
            let identity = Identity { cluster: 1, node: NodeId(node) };
            scope.spawn(move || RedbStore::create(path, identity, &[]).map(|store| store.identity()))
        };
        let threads: Vec<_> = (1..5).map(create).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let made: Vec<Identity> = results.iter().filter_map(|result| result.as_ref().ok().copied()).collect();
    assert_eq!(made.len(), 1, "{results:?}");
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Ok(_) | Err(Error::InUse | Error::AlreadyBootstrapped { .. })))
    );
    drop(RedbStore::open(dir.path(), made[0]).unwrap());
}

#[test]
fn a_store_of_another_cluster_or_node_is_refused_and_left_alone() {
    let (dir, store) = bootstrapped();
    let node = dir.path().join("node");
    store.close().unwrap();
    let before = fs::read(node.join("quorate.store")).unwrap();
    let error = RedbStore::open(&node, Identity { cluster: 1, ..IDENTITY }).unwrap_err();
    assert!(matches!(error, Error::WrongCluster { expected: 1, found } if found == IDENTITY.cluster));
    assert!(error.to_string().contains("00000000000000000000000000000001"), "{error}");
    let error = RedbStore::open(&node, Identity { node: NodeId(4), ..IDENTITY }).unwrap_err();
    assert!(matches!(error, Error::WrongNode { expected: NodeId(4), found: NodeId(3) }), "{error}");
    assert_eq!(fs::read(node.join("quorate.store")).unwrap(), before);
    assert_eq!(RedbStore::identity_in(&node).unwrap(), Some(IDENTITY));
}

#[test]
fn an_unknown_version_is_refused_with_those_that_are_known() {
    let (dir, store) = bootstrapped();
    let node = dir.path().join("node");
    store.close().unwrap();
    let file = fs::OpenOptions::new().write(true).open(node.join("quorate.store")).unwrap();
    file.write_all_at(&4_u32.to_le_bytes(), 16).unwrap();
    for error in [RedbStore::open(&node, IDENTITY).unwrap_err(), RedbStore::identity_in(&node).unwrap_err()] {
        assert!(matches!(error, Error::UnknownVersion { found: 4, .. }));
        assert_eq!(error.to_string(), "unknown version 4 of the store's file; this release knows 1 to 3");
    }
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(RedbStore::open(dir.path(), IDENTITY), Err(Error::Missing { .. })));
    assert!(matches!(RedbStore::open(dir.path().join("nowhere"), IDENTITY), Err(Error::Missing { .. })));
    let path = dir.path().join("quorate.store");
    // A file has its name once it is whole: what is not there of it was lost.
    for content in [&b""[..], b"short", &[0; 50_000], &[0x42; 50_000]] {
        fs::write(&path, content).unwrap();
        for error in [
            RedbStore::open(dir.path(), IDENTITY).unwrap_err(),
            RedbStore::identity_in(dir.path()).unwrap_err(),
            Inspection::of(dir.path()).unwrap_err(),
        ] {
            assert!(
                matches!(error, Error::Damaged(_)) && error.to_string().contains("join under a new id"),
                "{error}"
            );
        }
    }
    // Nor does anything of that make room for a bootstrap.
    assert!(matches!(RedbStore::create(dir.path(), IDENTITY, &[]), Err(Error::AlreadyBootstrapped { .. })));
}

#[test]
fn a_store_is_opened_once_at_a_time() {
    let (dir, store) = bootstrapped();
    let node = dir.path().join("node");
    let error = RedbStore::open(&node, IDENTITY).unwrap_err();
    assert!(matches!(error, Error::InUse), "{error}");
    assert_eq!(RedbStore::identity_in(&node).unwrap(), Some(IDENTITY));
    // A reader does not keep it open.
    let reader = store.reader();
    drop(store);
    let reopened = RedbStore::open(&node, IDENTITY).unwrap();
    assert!(matches!(RedbStore::open(&node, IDENTITY), Err(Error::InUse)));
    let load = Load { id: LoadId::default(), first: Index(1), last: Index(1), max_bytes: 1 };
    assert!(matches!(reader.load(GROUP, &load), Err(Error::Closed)));
    drop(reopened);
}

#[test]
fn groups_are_known_or_not() {
    let (_dir, mut store) = bootstrapped();
    assert!(matches!(store.recover(GroupId(5)), Err(Error::UnknownGroup(GroupId(5)))));
    assert!(matches!(store.create(GROUP, &voters(&[1])), Err(Error::GroupExists(GROUP))));
    // Neither has done any harm.
    store.create(GroupId(5), &voters(&[1])).unwrap();
    assert_eq!(store.recover(GroupId(5)).unwrap().base_membership, voters(&[1]));
    let twice = [(GROUP, voters(&[1])), (GroupId(1), voters(&[1])), (GROUP, voters(&[1]))];
    let error = RedbStore::create_on(Options::default(), OnDisk::new(), IDENTITY, &twice).unwrap_err();
    assert!(matches!(error, Error::GroupExists(GROUP)), "{error}");
}

/// A store with entries 1 to 3 of term 2 and a vote for node 1 in it, in incarnation 1, whose next write is 2.
fn with_log() -> (RedbStore, Incarnation) {
    let groups = [(GROUP, voters(&[1, 2, 3]))];
    let mut store = RedbStore::create_on(Options::default(), OnDisk::new(), IDENTITY, &groups).unwrap();
    let incarnation = store.recover(GROUP).unwrap().incarnation;
    let mut first = write(GROUP, incarnation, 1);
    first.entries.push(Run::commands(Term(2), Index(1), &[b"a", b"b", b"c"]).unwrap());
    first.hard_state = Some(HardState { term: Term(2), vote: Some(NodeId(1)) });
    store.commit(&[first]).unwrap();
    publish(&store, GROUP, &at(LogId::new(Term(2), Index(2))));
    (store, incarnation)
}

type Make = Box<dyn Fn(Incarnation) -> (quorate_core::Write, Misfit)>;

fn at(last: LogId) -> Snapshot {
    Snapshot { last, membership: voters(&[1, 2, 3]) }
}

/// A new beginning that doesn't fit.
fn rebased(kind: fn(Snapshot) -> Rebase, term: u64, index: u64) -> Make {
    let found = LogId::new(Term(term), Index(index));
    Box::new(move |inc| {
        let mut rebased = write(GROUP, inc, 2);
        rebased.rebase = Some(Box::new(kind(at(found))));
        (rebased, Misfit::Base { base: LogId::ZERO, found })
    })
}

/// A new beginning for which there is no snapshot.
fn unreplaced(kind: fn(Snapshot) -> Rebase, term: u64, index: u64) -> Make {
    let found = LogId::new(Term(term), Index(index));
    Box::new(move |inc| {
        let mut rebased = write(GROUP, inc, 2);
        rebased.rebase = Some(Box::new(kind(at(found))));
        (rebased, Misfit::NoSnapshot(found))
    })
}

#[test]
fn writes_that_do_not_fit_are_refused_and_stop_the_store() {
    let run = |term, first| Run::noop(Term(term), Index(first));
    let last = LogId::new(Term(2), Index(3));
    let promised = HardState { term: Term(2), vote: Some(NodeId(1)) };
    let cases: Vec<Make> = vec![
        Box::new(|inc| (write(GROUP, inc, 3), Misfit::Order { expected: quorate_core::WriteSeq(2) })),
        Box::new(|inc| (write(GROUP, inc, 1), Misfit::Order { expected: quorate_core::WriteSeq(2) })),
        Box::new(|inc| {
            let found = Incarnation(inc.0 - 1);
            (write(GROUP, found, 2), Misfit::Incarnation { current: inc, found })
        }),
        Box::new(move |inc| {
            let mut gap = write(GROUP, inc, 2);
            gap.entries.push(run(2, 5));
            (gap, Misfit::Gap { last, found: LogId::new(Term(2), Index(5)) })
        }),
        Box::new(move |inc| {
            let mut again = write(GROUP, inc, 2);
            again.entries.push(run(2, 3));
            (again, Misfit::Gap { last, found: LogId::new(Term(2), Index(3)) })
        }),
        Box::new(move |inc| {
            let mut older = write(GROUP, inc, 2);
            older.truncate = Some(Index(3));
            older.entries.push(run(1, 3));
            let last = LogId::new(Term(2), Index(2));
            (older, Misfit::Gap { last, found: LogId::new(Term(1), Index(3)) })
        }),
        Box::new(|inc| {
            let mut below = write(GROUP, inc, 2);
            below.truncate = Some(Index(0));
            (below, Misfit::BelowBase { at: Index(0), base: LogId::ZERO })
        }),
        // One term only, or one index only, is another entry; and it can't begin where it has begun.
        rebased(Rebase::Compact, 1, 2),
        rebased(Rebase::Compact, 2, 4),
        rebased(Rebase::Compact, 0, 0),
        rebased(Rebase::Install, 2, 0),
        // Nothing replaces what would be gone: there is a snapshot at entry 2 only, and none that could be installed.
        unreplaced(Rebase::Compact, 2, 3),
        unreplaced(Rebase::Install, 2, 3),
        unreplaced(Rebase::Install, 1, 2),
        Box::new(|inc| {
            let mut below = write(GROUP, inc, 2);
            let base = LogId::new(Term(2), Index(2));
            below.rebase = Some(Box::new(Rebase::Compact(at(base))));
            below.truncate = Some(Index(2));
            (below, Misfit::BelowBase { at: Index(2), base })
        }),
        Box::new(move |inc| {
            let mut back = write(GROUP, inc, 2);
            back.hard_state = Some(HardState { term: Term(1), vote: None });
            (back, Misfit::HardState { current: promised })
        }),
        Box::new(move |inc| {
            let mut other = write(GROUP, inc, 2);
            other.hard_state = Some(HardState { term: Term(2), vote: Some(NodeId(2)) });
            (other, Misfit::HardState { current: promised })
        }),
    ];
    for make in cases {
        let (mut store, incarnation) = with_log();
        let (misfit, expected) = make(incarnation);
        let error = store.commit(&[misfit]).unwrap_err();
        assert!(
            matches!(error, Error::BadWrite { why, .. } if why == expected),
            "{error}; expected {expected}"
        );
        // It is undone, and the store goes on.
        assert_eq!(RedbStore::refused(&error), Some(GROUP));
        store.commit(&[write(GROUP, incarnation, 2)]).unwrap();
    }
    let groups = [(GROUP, voters(&[1]))];
    let mut store = RedbStore::create_on(Options::default(), OnDisk::new(), IDENTITY, &groups).unwrap();
    let error = store.commit(&[write(GROUP, Incarnation(0), 1)]).unwrap_err();
    assert!(matches!(error, Error::BadWrite { why: Misfit::NotRecovered, .. }), "{error}");
}

#[test]
fn a_refused_write_leaves_nothing_of_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let groups = [(GROUP, voters(&[1]))];
    let mut store = RedbStore::create(dir.path(), IDENTITY, &groups).unwrap();
    let incarnation = store.recover(GROUP).unwrap().incarnation;
    let mut good = write(GROUP, incarnation, 1);
    good.entries.push(Run::noop(Term(1), Index(1)));
    assert!(store.commit(&[good, write(GROUP, incarnation, 7)]).is_err());
    drop(store);
    assert_eq!(RedbStore::open(dir.path(), IDENTITY).unwrap().recover(GROUP).unwrap().last, Index(0));
}

#[test]
fn a_reader_sees_what_was_committed_while_the_writer_goes_on() {
    let (_dir, mut store) = bootstrapped();
    let incarnation = store.recover(GROUP).unwrap().incarnation;
    let reader = store.reader();
    let load = |first: u64, last: u64, max_bytes| {
        let load = Load { id: LoadId::default(), first: Index(first), last: Index(last), max_bytes };
        match reader.load(GROUP, &load).unwrap() {
            Loaded::Entries(runs) => runs.iter().map(|run| (run.first().0, run.last().0)).collect::<Vec<_>>(),
            Loaded::Compacted => panic!("nothing is compacted"),
        }
    };
    let mut append = |seq: u64, truncate: Option<u64>, first: u64, count: usize| {
        let mut next = write(GROUP, incarnation, seq);
        next.truncate = truncate.map(Index);
        next.entries.push(Run::commands(Term(seq), Index(first), &vec![[7; 95]; count]).unwrap());
        store.commit(&[next]).unwrap();
    };
    append(1, None, 1, 10);
    append(2, None, 11, 10);
    assert_eq!(load(1, 20, 1 << 20), [(1, 10), (11, 20)]);
    assert_eq!(load(4, 13, 1 << 20), [(4, 10), (11, 13)]);
    assert_eq!(load(4, 13, 250), [(4, 5)]);
    assert_eq!(load(4, 13, 0), [(4, 4)]);
    assert_eq!(load(20, 20, 1), [(20, 20)]);
    // Asked for before a truncation, read after it: not there any more.
    append(3, Some(8), 8, 1);
    assert_eq!(load(9, 20, 1 << 20), []);
    assert_eq!(load(6, 20, 1 << 20), [(6, 7), (8, 8)]);
    let zero = Load { id: LoadId::default(), first: Index(0), last: Index(3), max_bytes: 9 };
    assert_eq!(reader.load(GROUP, &zero).unwrap(), Loaded::Compacted);
    assert!(matches!(reader.load(GroupId(8), &zero), Err(Error::UnknownGroup(_))));

    let beside = reader.clone();
    thread::scope(|scope| {
        let reads = scope.spawn(move || {
            let (mut seen, mut loads) = (0, 0);
            while seen < 208 {
                let all =
                    Load { id: LoadId::default(), first: Index(1), last: Index(1000), max_bytes: 1 << 20 };
                let Loaded::Entries(runs) = beside.load(GROUP, &all).unwrap() else { panic!("compacted") };
                let last = runs.last().unwrap().last().0;
                assert!(last >= seen && (last == 8 || last % 2 == 0), "all of a commit or nothing: {last}");
                seen = last;
                loads += 1;
            }
            loads
        });
        for n in 0..100 {
            append(4 + n, None, 9 + 2 * n, 2);
        }
        assert!(reads.join().unwrap() > 1);
    });
}

/// A load that was asked for before the log began later, and read after it.
#[test]
fn a_reader_is_told_what_is_compacted() {
    let (_dir, mut store) = bootstrapped();
    let incarnation = store.recover(GROUP).unwrap().incarnation;
    let reader = store.reader();
    let load = |first: u64, last: u64| {
        let load = Load { id: LoadId::default(), first: Index(first), last: Index(last), max_bytes: 1 << 20 };
        match reader.load(GROUP, &load).unwrap() {
            Loaded::Entries(runs) => Some(runs.iter().map(|run| (run.first().0, run.last().0)).collect()),
            Loaded::Compacted => None,
        }
    };
    let mut first = write(GROUP, incarnation, 1);
    first.entries.push(Run::commands(Term(1), Index(1), &vec![[7; 95]; 10]).unwrap());
    let mut second = write(GROUP, incarnation, 2);
    second.rebase = Some(Box::new(Rebase::Compact(at(LogId::new(Term(1), Index(4))))));
    second.entries.push(Run::commands(Term(2), Index(11), &[b"a", b"b"]).unwrap());
    store.commit(&[first]).unwrap();
    publish(&store, GROUP, &at(LogId::new(Term(1), Index(5))));
    store.commit(&[second]).unwrap();
    assert_eq!(load(4, 12), None);
    assert_eq!(load(5, 12), Some(vec![(5, 10), (11, 12)]));
    assert_eq!(load(12, 12), Some(vec![(12, 12)]));

    // A snapshot takes the place of a log that was longer.
    let mut third = write(GROUP, incarnation, 3);
    publish(&store, GROUP, &at(LogId::new(Term(3), Index(8))));
    third.rebase = Some(Box::new(Rebase::Install(at(LogId::new(Term(3), Index(8))))));
    store.commit(&[third]).unwrap();
    assert_eq!(load(8, 12), None);
    assert_eq!(load(9, 12), Some(vec![]));
    let recovered = store.recover(GROUP).unwrap();
    assert_eq!((recovered.base, recovered.last), (LogId::new(Term(3), Index(8)), Index(8)));
    assert_eq!((recovered.snapshot, recovered.applied), (Some(at(recovered.base)), Index(8)));
    assert_eq!(recovered.terms, []);
}

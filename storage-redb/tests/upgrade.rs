//! Stores of earlier releases are opened and brought up to this one's format; those of later ones are refused.

mod common;

use std::{fs, os::unix::fs::FileExt, path::Path};

use common::{IDENTITY, voters, write};
use quorate_core::{
    EntryKind, GroupId, HardState, Index, Load, LoadId, Loaded, LogId, LogReader, NodeId, Rebase, Run,
    Snapshot, SnapshotWriter, Snapshots, Store, Term, TermStart,
};
use quorate_storage_redb::{Error, Inspection, RedbStore};

const FILE: &str = "quorate.store";

/// A store that version 1 wrote: two groups, one of them with two terms, a vote and a membership.
fn version_1(dir: &Path) {
    fs::copy("tests/fixtures/v1/quorate.store", dir.join(FILE)).unwrap();
}

fn format(dir: &Path) -> u32 {
    let file = fs::read(dir.join(FILE)).unwrap();
    u32::from_le_bytes(file[16..20].try_into().unwrap())
}

#[test]
fn a_store_of_version_1_is_opened_and_becomes_one_of_version_3() {
    let dir = tempfile::tempdir().unwrap();
    version_1(dir.path());
    assert_eq!(format(dir.path()), 1);
    assert_eq!(RedbStore::identity_in(dir.path()).unwrap(), Some(IDENTITY));
    assert_eq!(Inspection::of(dir.path()).unwrap().format, 1, "looking changes nothing");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nor does it leave anything");
    for life in 2..4 {
        let mut store = RedbStore::open(dir.path(), IDENTITY).unwrap();
        assert_eq!(store.groups().unwrap(), [GroupId(0), GroupId(7)]);
        let found = store.recover(GroupId(0)).unwrap();
        assert_eq!(found.incarnation.0, life);
        assert_eq!(found.hard_state, HardState { term: Term(4), vote: Some(NodeId(2)) });
        let starts =
            [(1, 3), (4, 4)].map(|(first, term)| TermStart { first: Index(first), term: Term(term) });
        assert_eq!(found.terms, starts);
        assert_eq!((found.base, found.last, found.snapshot), (LogId::ZERO, Index(5), None));
        assert_eq!(found.memberships, [(Index(4), voters(&[1, 3]))]);
        let load = Load { id: LoadId::default(), first: Index(1), last: Index(5), max_bytes: 1000 };
        let Ok(Loaded::Entries(runs)) = store.reader().load(GroupId(0), &load) else { panic!("it is there") };
        let commands: Vec<Vec<u8>> = runs
            .iter()
            .flat_map(Run::entries)
            .filter(|entry| entry.kind == EntryKind::Command)
            .map(|entry| entry.payload.to_vec())
            .collect();
        assert_eq!(commands, [b"one".as_slice(), b"two", b"", b"five"]);
        assert_eq!(format(dir.path()), 3);
        store.close().unwrap();
    }
}

/// A store that version 2 wrote: the same, and a snapshot at 2, after which the log begins.
fn version_2(dir: &Path) {
    for file in fs::read_dir("tests/fixtures/v2").unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_store_of_version_2_is_opened_and_becomes_one_of_version_3_in_which_a_removed_group_is_never_taken_again()
{
    let dir = tempfile::tempdir().unwrap();
    version_2(dir.path());
    assert_eq!(format(dir.path()), 2);
    let inspection = Inspection::of(dir.path()).unwrap();
    assert!(inspection.is_sound() && inspection.removed.is_empty(), "{inspection:?}");
    assert_eq!((inspection.format, format(dir.path())), (2, 2), "looking changes nothing");
    let mut store = RedbStore::open(dir.path(), IDENTITY).unwrap();
    assert_eq!(format(dir.path()), 3, "before anything is written that version 2 does not know");
    assert_eq!(store.groups().unwrap(), [GroupId(0), GroupId(7)]);
    let found = store.recover(GroupId(0)).unwrap();
    assert_eq!(found.hard_state, HardState { term: Term(4), vote: Some(NodeId(2)) });
    let at = LogId::new(Term(3), Index(2));
    assert_eq!((found.base, found.last), (at, Index(5)));
    assert_eq!(found.snapshot, Some(Snapshot { last: at, membership: voters(&[1, 2, 3]) }));
    store.remove(GroupId(0)).unwrap();
    store.close().unwrap();
    let inspection = Inspection::of(dir.path()).unwrap();
    assert!(inspection.is_sound(), "{inspection:?}");
    assert_eq!((inspection.format, inspection.removed), (3, vec![GroupId(0)]));
    let mut store = RedbStore::open(dir.path(), IDENTITY).unwrap();
    let error = store.create(GroupId(0), &voters(&[1])).unwrap_err();
    assert!(matches!(error, Error::GroupRemoved(GroupId(0))), "{error}");
    assert_eq!(store.groups().unwrap(), [GroupId(7)]);
}

#[test]
fn a_store_of_version_1_that_was_opened_by_mistake_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    version_1(dir.path());
    let other = quorate_storage_redb::Identity { node: NodeId(9), ..IDENTITY };
    assert!(matches!(RedbStore::open(dir.path(), other), Err(Error::WrongNode { .. })));
    assert_eq!(format(dir.path()), 1);
}

/// Nothing of the kind was ever written by version 1, but its format could have said it: a log that begins after an entry, while
/// the snapshot that goes with it is nobody knows where.
#[test]
fn a_store_of_version_1_whose_log_rests_on_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let group = GroupId(0);
    let mut store = RedbStore::create(dir.path(), IDENTITY, &[(group, voters(&[1]))]).unwrap();
    let incarnation = store.recover(group).unwrap().incarnation;
    let at = Snapshot { last: LogId::new(Term(1), Index(9)), membership: voters(&[1]) };
    store.snapshots().take(group, &at).unwrap().publish().unwrap();
    let mut install = write(group, incarnation, 1);
    install.hard_state = Some(HardState { term: Term(1), vote: None });
    install.rebase = Some(Box::new(Rebase::Install(at)));
    store.commit(&[install]).unwrap();
    store.close().unwrap();
    let mut page = b"quorate store\r\n\x1a".to_vec();
    page.extend_from_slice(&1_u32.to_le_bytes());
    page.extend_from_slice(&IDENTITY.cluster.to_le_bytes());
    page.extend_from_slice(&IDENTITY.node.0.to_le_bytes());
    page.extend_from_slice(&crc32c::crc32c(&page).to_le_bytes());
    fs::OpenOptions::new().write(true).open(dir.path().join(FILE)).unwrap().write_all_at(&page, 0).unwrap();
    let error = RedbStore::open(dir.path(), IDENTITY).unwrap_err().to_string();
    assert!(error.contains("begins after 9@T1, but there is no snapshot"), "{error}");
    assert_eq!(format(dir.path()), 1);
}

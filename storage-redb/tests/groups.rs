//! Groups come and go: what the suite for any store does not look at, for it is of files, of looking from outside, and of the watermark.

mod common;

use std::{fs, path::Path};

use common::{IDENTITY, contents::Files, on_disk::OnDisk, publish, voters, write};
use quorate_core::{
    GroupId, HardState, Index, LogId, Membership, Rebase, Run, Snapshot, SnapshotInfo, SnapshotWriter,
    Snapshots, Store, Term,
};
use quorate_runtime_tokio::conformance::Disk;
use quorate_storage_redb::{Error, Identity, Inspection, Options, RedbStore};

fn ids(count: u64) -> Vec<(GroupId, Membership)> {
    (0..count).map(|id| (GroupId(id), voters(&[1, 3]))).collect()
}

fn snapshot(term: u64, index: u64) -> Snapshot {
    Snapshot { last: LogId::new(Term(term), Index(index)), membership: voters(&[1, 3]) }
}

/// Three entries, a snapshot at 2 after which the log begins, and a transfer of one at 9 that was cut short.
fn fill(store: &mut RedbStore, group: GroupId) {
    let incarnation = store.recover(group).unwrap().incarnation;
    let mut first = write(group, incarnation, 1);
    first.hard_state = Some(HardState { term: Term(1), vote: None });
    first.entries.push(Run::commands(Term(1), Index(1), &[b"one", b"two", b"thr"]).unwrap());
    store.commit(&[first]).unwrap();
    publish(store, group, &snapshot(1, 2));
    let mut second = write(group, incarnation, 2);
    second.rebase = Some(Box::new(Rebase::Compact(snapshot(1, 2))));
    store.commit(&[second]).unwrap();
    let info = SnapshotInfo { snapshot: snapshot(1, 9), bytes: 200_000, checksum: 1 };
    let mut received = store.snapshots().receive(group, &info).unwrap();
    received.write(&[1; 100_000]).unwrap();
    received.sync().unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("quorate.")).collect();
    names.sort();
    names
}

#[test]
fn the_files_of_a_group_go_with_it_at_once_or_when_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RedbStore::create(dir.path(), IDENTITY, &ids(2)).unwrap();
    (0..2).for_each(|id| fill(&mut store, GroupId(id)));
    let taking = store.snapshots().take(GroupId(0), &snapshot(1, 3)).unwrap();
    let mine = |id: u64| {
        names(dir.path()).into_iter().filter(|name| name.starts_with(&format!("{id}-"))).collect::<Vec<_>>()
    };
    let whole = mine(0);
    assert_eq!(
        whole,
        ["0-0000000000000002-1.snapshot", "0-0000000000000003-1.taking", "0-0000000000000009-1.receiving"]
    );
    let kept: Vec<Vec<u8>> = whole.iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect();
    store.remove(GroupId(0)).unwrap();
    assert_eq!((mine(0), mine(1).len()), (vec![], 2));
    drop(taking);
    store.close().unwrap();
    // As if they had not gone before the process did; and one of a group that is not known, which is not ours to remove.
    for (name, bytes) in whole.iter().zip(&kept) {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::write(dir.path().join("9-0000000000000002-1.snapshot"), &kept[0]).unwrap();
    let inspection = Inspection::of(dir.path()).unwrap();
    assert_eq!(inspection.removed, [GroupId(0)]);
    // That of the stranger alone is a problem.
    let of_stranger = |problem: &String| problem.contains("9-0000000000000002-1");
    assert!(!inspection.problems.is_empty() && inspection.problems.iter().all(of_stranger), "{inspection:?}");
    assert_eq!(inspection.groups.iter().map(|it| it.group).collect::<Vec<_>>(), [GroupId(1)]);
    let store = RedbStore::open(dir.path(), IDENTITY).unwrap();
    assert_eq!((mine(0), mine(1).len(), mine(9).len()), (vec![], 2, 1));
    assert_eq!(store.removed().collect::<Vec<_>>(), [GroupId(0)]);
}

#[test]
fn groups_that_are_created_at_once_are_all_there_or_none() {
    let mut store = RedbStore::create_on(Options::default(), OnDisk::new(), IDENTITY, &ids(2)).unwrap();
    store.remove(GroupId(1)).unwrap();
    let mut many = |groups: &[u64]| {
        let groups: Vec<_> = groups.iter().map(|id| (GroupId(*id), voters(&[1]))).collect();
        let error = store.create_many(&groups).unwrap_err();
        assert_eq!(store.groups().unwrap(), [GroupId(0)], "{error}");
        error
    };
    assert!(matches!(many(&[5, 0, 6]), Error::GroupExists(GroupId(0))));
    assert!(matches!(many(&[5, 1, 6]), Error::GroupRemoved(GroupId(1))));
    assert!(matches!(many(&[5, 6, 5]), Error::GroupExists(GroupId(5))));
    store.create_many(&[(GroupId(5), voters(&[1])), (GroupId(6), voters(&[1]))]).unwrap();
    assert_eq!(store.groups().unwrap(), [0, 5, 6].map(GroupId));
}

#[test]
fn many_groups_are_cut_loose_at_once_and_those_that_were_removed_stay_so() {
    const COUNT: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let mut store = RedbStore::create(dir.path(), IDENTITY, &ids(COUNT)).unwrap();
    fill(&mut store, GroupId(7));
    store.remove(GroupId(3)).unwrap();
    store.close().unwrap();
    let done =
        RedbStore::force_single(dir.path(), 77, |forced| forced.group.0.to_le_bytes().to_vec()).unwrap();
    let expected: Vec<GroupId> = (0..COUNT).filter(|id| *id != 3).map(GroupId).collect();
    assert_eq!(done.iter().map(|forced| forced.group).collect::<Vec<_>>(), expected);
    let identity = Identity { cluster: 77, ..IDENTITY };
    let mut store = RedbStore::open(dir.path(), identity).unwrap();
    let recovered = store.recover_many(&expected).unwrap();
    for (forced, found) in done.iter().zip(recovered) {
        let alone = found.memberships.last().map(|(_, membership)| membership.voters().to_vec());
        assert_eq!(alone, Some(vec![IDENTITY.node]));
        assert_eq!(found.last, forced.record_at.index);
    }
    assert!(matches!(store.create(GroupId(3), &voters(&[3])), Err(Error::GroupRemoved(_))));
    store.close().unwrap();
    let inspection = Inspection::of(dir.path()).unwrap();
    assert!(inspection.is_sound(), "{:?}", inspection.problems);
    assert_eq!((inspection.groups.len(), inspection.removed), (expected.len(), vec![GroupId(3)]));
}

/// The database falls back to the commit before the newest: a removal that was acknowledged is missed, as any other commit is.
#[test]
fn a_removal_that_is_lost_is_noticed() {
    let disk = Disk::new();
    let mut store =
        RedbStore::create_on(Options::default(), OnDisk(disk.clone()), IDENTITY, &ids(3)).unwrap();
    store.recover_many(&[0, 1, 2].map(GroupId)).unwrap();
    store.settle().unwrap();
    let before = Files::of_disk(&disk);
    store.remove(GroupId(1)).unwrap();
    store.settle().unwrap();
    drop(store);
    // The front pages as they are, the database as it was.
    let mut files = Files::of_disk(&disk);
    let (now, old) = (files.0.get_mut("quorate.store").unwrap(), &before.0["quorate.store"]);
    let front = 16 << 10;
    now.truncate(front);
    now.extend_from_slice(&old[front..]);
    let error = RedbStore::open_on(Options::default(), OnDisk(files.disk()), IDENTITY).unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error}");
    assert!(error.to_string().contains("; group 1 was removed. This node"), "{error}");
}

/// Loads and errors of commits say what has become of the group.
#[test]
fn a_group_that_was_removed_is_told_from_one_that_never_was() {
    use quorate_core::{Load, LoadId, LogReader};
    let mut store = RedbStore::create_on(Options::default(), OnDisk::new(), IDENTITY, &ids(2)).unwrap();
    let incarnation = store.recover(GroupId(1)).unwrap().incarnation;
    store.remove(GroupId(1)).unwrap();
    let load = Load { id: LoadId::default(), first: Index(1), last: Index(1), max_bytes: 1 };
    for (group, removed) in [(GroupId(1), true), (GroupId(2), false)] {
        let errors = [
            store.commit(&[write(group, incarnation, 1)]).unwrap_err(),
            store.recover(group).unwrap_err(),
            store.recover_many(&[GroupId(0), group]).unwrap_err(),
            store.remove(group).unwrap_err(),
            store.reader().load(group, &load).unwrap_err(),
        ];
        for error in errors {
            let told = if removed {
                matches!(error, Error::GroupRemoved(found) if found == group)
            } else {
                matches!(error, Error::UnknownGroup(found) if found == group)
            };
            assert!(told && RedbStore::refused(&error) == Some(group), "{error}");
        }
    }
    store.recover(GroupId(0)).unwrap();
}

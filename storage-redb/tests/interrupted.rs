//! What is done to a store offline is interrupted, at every I/O and with every kind of what a crash leaves, and done again.

mod common;

use std::path::Path;

use common::{IDENTITY, contents::Files, on_disk::OnDisk, publish, voters, write};
use quorate_core::{
    GroupId, HardState, Index, LogId, Membership, NodeId, Rebase, Recovered, Run, Snapshot, SnapshotReader,
    Snapshots, Store, Term,
};
use quorate_runtime_tokio::conformance::{Disk, Left, Rng, Trace};
use quorate_storage_redb::{
    ArchiveHeader, ArchiveReader, ArchiveWriter, Error, Identity, Options, RedbStore,
};

const GROUPS: [GroupId; 2] = [GroupId(0), GroupId(7)];

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn everyone() -> Membership {
    voters(&[1, 2, 3])
}

/// Calls `check` with all that may be left, and how many steps were done.
fn each_crash(trace: &Trace, mut check: impl FnMut(Disk, usize)) -> usize {
    let (mut replay, mut rng) = (trace.replay(), Rng::new(7));
    let mut images = 0;
    loop {
        let kinds = [Left::Nothing, Left::All, Left::Newest(1), Left::Some(30), Left::Some(70)];
        for left in &kinds[..if replay.has_pending() { 5 } else { 1 }] {
            images += 1;
            check(replay.image(*left, &mut rng), replay.done());
        }
        if replay.step(&mut rng).is_none() {
            return images;
        }
    }
}

fn open(disk: &Disk, identity: Identity) -> Result<RedbStore, Error> {
    RedbStore::open_on(Options::default(), OnDisk(disk.clone()), identity)
}

/// A store with two groups, of four entries each, and a snapshot at the third that the log rests on.
fn node() -> Disk {
    let disk = Disk::new();
    let groups = GROUPS.map(|group| (group, everyone()));
    let mut store =
        RedbStore::create_on(Options::default(), OnDisk(disk.clone()), IDENTITY, &groups).unwrap();
    for group in GROUPS {
        let incarnation = store.recover(group).unwrap().incarnation;
        let mut first = write(group, incarnation, 1);
        first.hard_state = Some(HardState { term: Term(2), vote: Some(NodeId(1)) });
        first.entries.push(Run::commands(Term(2), Index(1), &[b"x"; 4]).unwrap());
        store.commit(&[first]).unwrap();
        let at = Snapshot { last: id(2, 3), membership: everyone() };
        publish(&store, group, &at);
        let mut second = write(group, incarnation, 2);
        second.rebase = Some(Box::new(Rebase::Compact(at)));
        store.commit(&[second]).unwrap();
    }
    store.close().unwrap();
    disk
}

/// Whose it is.
fn owner(disk: &Disk) -> Identity {
    for cluster in [IDENTITY.cluster, 77, 78] {
        let identity = Identity { cluster, ..IDENTITY };
        match open(disk, identity) {
            Ok(_) => return identity,
            Err(Error::WrongCluster { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is nobody's")
}

fn is_alone(recovered: &Recovered) -> bool {
    recovered.memberships.last().is_some_and(|(_, membership)| membership.voters() == [IDENTITY.node])
}

#[test]
fn a_node_that_is_cut_loose_belongs_to_the_old_cluster_as_it_was_or_to_the_new_one() {
    let whole = node();
    whole.record();
    RedbStore::force_single_on(OnDisk(whole.clone()), IDENTITY, 77, |_| b"why".to_vec()).unwrap();
    whole.freeze();
    let images = each_crash(&whole.take_trace(), |disk, step| {
        let identity = owner(&disk);
        let mut store = open(&disk, identity).unwrap();
        let found = GROUPS.map(|group| store.recover(group).unwrap());
        if identity == IDENTITY {
            // Its log says nothing of what the new one is.
            assert!(found.iter().all(|found| found.last == Index(4)), "step {step}: {found:?}");
        }
        store.close().unwrap();
        // Again, under another name if the first one is taken.
        let again = if identity == IDENTITY { 77 } else { 78 };
        let done = RedbStore::force_single_on(OnDisk(disk.clone()), identity, again, |_| b"why".to_vec());
        let done = done.unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(done.len(), 2);
        let mut store = open(&disk, Identity { cluster: again, ..IDENTITY }).unwrap();
        for (group, done) in GROUPS.into_iter().zip(done) {
            let recovered = store.recover(group).unwrap();
            assert!(is_alone(&recovered), "step {step}: {recovered:?}");
            assert_eq!((recovered.base, recovered.last), (id(2, 3), done.record_at.index));
            assert_eq!(recovered.snapshot.map(|snapshot| snapshot.last), Some(id(2, 3)));
            assert!(recovered.hard_state.term >= done.record_at.term);
        }
    });
    assert!(images > 40, "{images}");
}

fn backup(path: &Path) {
    let snapshot = Snapshot { last: id(2, 8), membership: everyone() };
    let header = ArchiveHeader { identity: IDENTITY, group: GROUPS[0], snapshot };
    let mut writer = ArchiveWriter::new(std::fs::File::create(path).unwrap(), &header).unwrap();
    writer.write(&[9; 100_000]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_restore_that_was_cut_short_makes_a_store_or_none_and_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup");
    backup(&path);
    let mut archive = ArchiveReader::open(&path).unwrap();
    let identity = Identity { cluster: 77, ..IDENTITY };
    let mut restore = |disk: &Disk| {
        RedbStore::restore_on(OnDisk(disk.clone()), identity, GROUPS[0], voters(&[3]), &mut archive)
    };
    let whole = Disk::new();
    whole.record();
    restore(&whole).unwrap().close().unwrap();
    whole.freeze();
    let mut made = 0;
    let images = each_crash(&whole.take_trace(), |disk, step| {
        let mut store = match open(&disk, identity) {
            Ok(store) => {
                made += 1;
                store
            }
            Err(Error::Missing { .. }) => {
                restore(&disk).unwrap_or_else(|error| panic!("step {step}: {error}, {disk:?}"))
            }
            Err(error) => panic!("step {step}: {error}"),
        };
        let recovered = store.recover(GROUPS[0]).unwrap();
        assert_eq!(
            (recovered.base, recovered.last, recovered.base_membership),
            (id(2, 8), Index(8), voters(&[3]))
        );
        let mut reader = store.snapshots().open(GROUPS[0], id(2, 8)).unwrap().unwrap();
        let mut out = vec![0; 100_001];
        assert_eq!(reader.read_at(0, &mut out).unwrap(), 100_000);
        drop((reader, store));
        let left: Vec<String> = Files::of_disk(&disk).0.into_keys().collect();
        assert_eq!(left, ["0-0000000000000008-2.snapshot", "quorate.store"], "step {step}");
    });
    assert!(images > 60 && made > 5 && made < images, "{made} of {images}");
}

/// A store of an earlier version is brought up to this one's.
#[test]
fn an_upgrade_that_was_cut_short_is_done_again() {
    for fixture in ["tests/fixtures/v1", "tests/fixtures/v2"] {
        let disk = Files::of_dir(Path::new(fixture)).disk();
        disk.record();
        open(&disk, IDENTITY).unwrap().close().unwrap();
        disk.freeze();
        let images = each_crash(&disk.take_trace(), |disk, step| {
            let mut store = open(&disk, IDENTITY).unwrap_or_else(|error| panic!("step {step}: {error}"));
            let recovered = store.recover(GroupId(0)).unwrap();
            assert_eq!((recovered.hard_state.term, recovered.last), (Term(4), Index(5)), "step {step}");
            store.close().unwrap();
            let version = &Files::of_disk(&disk).0["quorate.store"][16..20];
            assert_eq!(version, 3_u32.to_le_bytes());
        });
        assert!(images > 3, "{images}");
    }
}

//! What is done to a store while no node runs on it: looking at it, making one from a backup, and cutting one loose from a
//! cluster that is lost.

mod common;

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use common::{IDENTITY, hooked::Hooked, on_disk::OnDisk, voters, write};
use quorate_core::{
    EntryKind, GroupId, HardState, Index, Load, LoadId, Loaded, LogId, LogReader, Membership, NodeId, Rebase,
    Run, Snapshot, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots, Store, Term,
};
use quorate_storage_redb::{
    ArchiveHeader, ArchiveReader, ArchiveWriter, Error, Identity, Inspection, Inspector, Options, RedbStore,
};

const GROUP: GroupId = GroupId(0);
const NEW: Identity = Identity { cluster: 0xBEEF, node: NodeId(1) };

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// Ids up to 7 were used.
fn everyone() -> Membership {
    voters(&[1, 2, 3, 7])
}

/// What a state machine might write: more than a block of the archive.
fn state(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// A node with ten entries, a snapshot at the eighth, and a log that begins after the sixth.
fn node(dir: &Path) -> RedbStore {
    let mut store = RedbStore::create(dir, IDENTITY, &[(GROUP, everyone())]).unwrap();
    let incarnation = store.recover(GROUP).unwrap().incarnation;
    let mut first = write(GROUP, incarnation, 1);
    first.hard_state = Some(HardState { term: Term(2), vote: Some(NodeId(3)) });
    let commands: Vec<Vec<u8>> = (1..=10).map(|n| format!("command {n}").into_bytes()).collect();
    first.entries.push(Run::commands(Term(2), Index(1), &commands).unwrap());
    store.commit(&[first]).unwrap();
    publish(&store, 8, &state(200_000));
    let mut second = write(GROUP, incarnation, 2);
    second.rebase = Some(Box::new(Rebase::Compact(Snapshot { last: id(2, 6), membership: everyone() })));
    store.commit(&[second]).unwrap();
    store
}

fn publish(store: &RedbStore, index: u64, bytes: &[u8]) -> SnapshotInfo {
    let snapshot = Snapshot { last: id(2, index), membership: everyone() };
    let mut writer = store.snapshots().take(GROUP, &snapshot).unwrap();
    bytes.chunks(5_000).for_each(|chunk| writer.write(chunk).unwrap());
    writer.publish().unwrap()
}

fn read(reader: &mut impl SnapshotReader<Error = Error>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(reader.info().bytes).unwrap()];
    assert_eq!(reader.read_at(0, &mut bytes)?, bytes.len());
    Ok(bytes)
}

fn backup(path: &Path, bytes: &[u8]) -> ArchiveHeader {
    let header = ArchiveHeader {
        identity: IDENTITY,
        group: GROUP,
        snapshot: Snapshot { last: id(2, 8), membership: everyone() },
    };
    let mut writer = ArchiveWriter::new(fs::File::create(path).unwrap(), &header).unwrap();
    bytes.chunks(7_001).for_each(|chunk| writer.write(chunk).unwrap());
    let (file, info) = writer.finish().unwrap();
    assert_eq!(file.metadata().unwrap().len(), ArchiveWriter::archive_len(&header, bytes.len() as u64));
    assert_eq!((info.bytes, info.checksum), (bytes.len() as u64, crc32c::crc32c(bytes)));
    header
}

#[test]
fn an_archive_is_read_back_at_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup");
    for len in [0, 1, 65_535, 65_536, 65_537, 200_000] {
        let bytes = state(len);
        let header = backup(&path, &bytes);
        let mut archive = ArchiveReader::open(&path).unwrap();
        assert_eq!(*archive.header(), header);
        assert_eq!(archive.verify().unwrap().bytes, len as u64);
        for at in [0, 1, len / 2, len.saturating_sub(1), len, len + 1] {
            let mut out = vec![0; 70_000];
            let read = archive.read_at(at as u64, &mut out).unwrap();
            let rest = bytes.get(at..).unwrap_or_default();
            assert_eq!(out[..read], rest[..rest.len().min(70_000)], "{len} bytes at {at}");
        }
    }
}

/// Every byte of an archive changed, and every length it may be cut to.
#[test]
fn whatever_is_changed_in_an_archive_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup");
    backup(&path, &state(150));
    let whole = fs::read(&path).unwrap();
    let verdict = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        ArchiveReader::open(&path).and_then(|mut archive| archive.verify())
    };
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        let error = verdict(&changed).unwrap_err();
        assert!(
            matches!(error, Error::BadSnapshot { .. } | Error::UnknownVersion { .. }),
            "byte {at}: {error}"
        );
        let error = verdict(&whole[..at]).unwrap_err();
        assert!(matches!(error, Error::BadSnapshot { .. }), "cut to {at}: {error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(verdict(&longer).is_err());
    // Blocks of one archive in another, or in another order.
    let (one, other) = (state(140_000), state(140_001));
    backup(&path, &one);
    let a = fs::read(&path).unwrap();
    let front = a.len() - 140_000 - 3 * 8 - 20;
    let mut swapped = a.clone();
    let (first, second) = (front..front + 65_544, front + 65_544..front + 2 * 65_544);
    swapped[first.clone()].copy_from_slice(&a[second.clone()]);
    swapped[second].copy_from_slice(&a[first]);
    assert!(verdict(&swapped).is_err());
    backup(&path, &other);
    let mut mixed = a.clone();
    mixed[front..front + 65_544].copy_from_slice(&fs::read(&path).unwrap()[front..front + 65_544]);
    assert!(verdict(&a).is_ok() && one[..65_536] == other[..65_536]);
    // The same bytes at the same place; but nobody knows what follows in the other one.
    let header = ArchiveHeader { identity: NEW, ..backup(&path, &one) };
    let mut foreign = ArchiveWriter::new(Vec::new(), &header).unwrap();
    foreign.write(&one).unwrap();
    let (foreign, _) = foreign.finish().unwrap();
    mixed[front..front + 65_544].copy_from_slice(&foreign[front..front + 65_544]);
    assert!(verdict(&mixed).is_err());
    // Something between the last block and the end.
    let mut padded = a.clone();
    padded.splice(a.len() - 20..a.len() - 20, [0; 8]);
    assert!(verdict(&padded).is_err());
}

/// What is staged of a transfer is torn, or rots, before it goes on: it goes on before that.
#[test]
fn a_transfer_goes_on_before_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = node(dir.path());
    let bytes = state(300_000);
    let snapshot = Snapshot { last: id(2, 30), membership: everyone() };
    let info = SnapshotInfo { snapshot, bytes: 300_000, checksum: crc32c::crc32c(&bytes) };
    let mut writer = store.snapshots().receive(GROUP, &info).unwrap();
    writer.write(&bytes[..290_000]).unwrap();
    writer.sync().unwrap();
    drop(writer);
    let file = dir.path().join("0-000000000000001e-2.receiving");
    fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(b"x", 150_000).unwrap();
    let mut writer = store.snapshots().receive(GROUP, &info).unwrap();
    assert_eq!(writer.staged(), 2 * 65_536);
    writer.write(&bytes[2 * 65_536..]).unwrap();
    assert_eq!(writer.publish().unwrap(), info);
    let mut reader = store.snapshots().open(GROUP, id(2, 30)).unwrap().unwrap();
    assert!(read(&mut reader).unwrap() == bytes);
}

#[test]
fn a_new_cluster_is_made_from_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (path, home) = (dir.path().join("backup"), dir.path().join("new"));
    let bytes = state(200_000);
    backup(&path, &bytes);
    let mut archive = ArchiveReader::open(&path).unwrap();
    let membership = voters(&[1, 5]);
    let mut store = RedbStore::restore(&home, NEW, GROUP, membership.clone(), &mut archive).unwrap();
    for _ in 0..2 {
        let recovered = store.recover(GROUP).unwrap();
        assert_eq!((recovered.base, recovered.last), (id(2, 8), Index(8)));
        assert_eq!(recovered.base_membership, membership);
        assert_eq!(recovered.snapshot, Some(Snapshot { last: id(2, 8), membership: membership.clone() }));
        assert_eq!((recovered.applied, recovered.hard_state.term), (Index(8), Term(2)));
        let mut reader = store.snapshots().open(GROUP, id(2, 8)).unwrap().unwrap();
        assert!(read(&mut reader).unwrap() == bytes);
        // It goes on from there.
        let mut more = write(GROUP, recovered.incarnation, 1);
        more.hard_state = Some(HardState { term: Term(3), vote: Some(NodeId(1)) });
        store.commit(&[more]).unwrap();
        store.close().unwrap();
        store = RedbStore::open(&home, NEW).unwrap();
        let mut truncating = write(GROUP, store.recover(GROUP).unwrap().incarnation, 1);
        truncating.truncate = Some(Index(9));
        store.commit(&[truncating]).unwrap();
        store.close().unwrap();
        // Back to where it was for the second look.
        fs::remove_dir_all(&home).unwrap();
        store = RedbStore::restore(&home, NEW, GROUP, membership.clone(), &mut archive).unwrap();
    }
}

#[test]
fn a_backup_that_can_not_be_used_makes_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let (path, home) = (dir.path().join("backup"), dir.path().join("new"));
    backup(&path, &state(200_000));
    let mut archive = ArchiveReader::open(&path).unwrap();
    let restore = |archive: &mut ArchiveReader, identity| {
        RedbStore::restore(&home, identity, GROUP, voters(&[1]), archive).map(drop)
    };
    let error = restore(&mut archive, IDENTITY).unwrap_err();
    assert!(matches!(error, Error::SameCluster(cluster) if cluster == IDENTITY.cluster), "{error}");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"x", 100_000).unwrap();
    let error = restore(&mut archive, NEW).unwrap_err();
    assert!(matches!(error, Error::BadSnapshot { .. }), "{error}");
    assert_eq!(RedbStore::identity_in(&home).unwrap(), None);
    backup(&path, &state(200_000));
    let mut archive = ArchiveReader::open(&path).unwrap();
    restore(&mut archive, NEW).unwrap();
    let error = restore(&mut archive, NEW).unwrap_err();
    assert!(matches!(error, Error::AlreadyBootstrapped { identity: Some(NEW), .. }), "{error}");
}

#[test]
fn a_node_is_cut_loose_from_a_cluster_that_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    node(home).close().unwrap();
    let after = Identity { cluster: 77, node: IDENTITY.node };
    let error = RedbStore::force_single(home, IDENTITY.cluster, |_| Vec::new()).unwrap_err();
    assert!(matches!(error, Error::SameCluster(_)), "{error}");
    let record = |forced: &quorate_storage_redb::Forced| {
        format!("cut loose after {}", forced.last_before).into_bytes()
    };
    let [forced] = RedbStore::force_single(home, 77, record).unwrap().try_into().unwrap();
    assert_eq!((forced.before, forced.after), (IDENTITY, after));
    assert_eq!(forced.membership_before, everyone());
    assert_eq!(
        (forced.last_before, forced.membership_at, forced.record_at),
        (id(2, 10), id(3, 11), id(3, 12))
    );

    assert!(matches!(RedbStore::open(home, IDENTITY), Err(Error::WrongCluster { .. })));
    let mut store = RedbStore::open(home, after).unwrap();
    let recovered = store.recover(GROUP).unwrap();
    assert_eq!(recovered.hard_state, HardState { term: Term(3), vote: Some(NodeId(3)) });
    assert_eq!(recovered.last, Index(12));
    // The snapshot is of the old cluster, and is still its own.
    assert_eq!(recovered.snapshot.map(|snapshot| snapshot.last), Some(id(2, 8)));
    let [(at, membership)] = recovered.memberships.try_into().unwrap();
    assert_eq!((at, membership.voters(), membership.next_id()), (Index(11), &[NodeId(3)][..], NodeId(8)));
    let load = Load { id: LoadId::default(), first: Index(12), last: Index(12), max_bytes: 100 };
    let Ok(Loaded::Entries(runs)) = store.reader().load(GROUP, &load) else { panic!("it is there") };
    let entry = runs.iter().flat_map(Run::entries).next().unwrap();
    assert_eq!((entry.kind, &*entry.payload), (EntryKind::Command, b"cut loose after 10@T2".as_slice()));
    store.close().unwrap();
    assert_eq!(Inspection::of(home).unwrap().formerly, Some(IDENTITY.cluster));
    // And again, as if it had been interrupted the first time.
    let [again] = RedbStore::force_single(home, 78, record).unwrap().try_into().unwrap();
    assert_eq!((again.last_before, again.membership_at), (id(3, 12), id(4, 13)));
    let mut store = RedbStore::open(home, Identity { cluster: 78, ..after }).unwrap();
    assert_eq!(store.recover(GROUP).unwrap().snapshot.map(|snapshot| snapshot.last), Some(id(2, 8)));
}

/// It knows of a few of the clusters that it was of, and its snapshots are of one of them.
#[test]
fn a_node_is_not_cut_loose_so_often_that_it_forgets_whose_its_snapshots_are() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path()).close().unwrap();
    let force = |cluster| RedbStore::force_single(dir.path(), cluster, |_| Vec::new()).map(drop);
    for cluster in 101..=108 {
        force(cluster).unwrap();
        // Nor back to a cluster whose nodes remember otherwise.
        for used in [IDENTITY.cluster, 101, cluster] {
            assert!(matches!(force(used), Err(Error::SameCluster(id)) if id == used));
        }
    }
    let error = force(109).unwrap_err();
    assert!(
        matches!(error, Error::BadSnapshot { .. }) && error.to_string().contains("let it take another"),
        "{error}"
    );
    let mut store = RedbStore::open(dir.path(), Identity { cluster: 108, ..IDENTITY }).unwrap();
    assert_eq!(store.recover(GROUP).unwrap().snapshot.map(|snapshot| snapshot.last), Some(id(2, 8)));
    let snapshot = Snapshot { last: id(2, 10), membership: everyone() };
    store.snapshots().take(GROUP, &snapshot).unwrap().publish().unwrap();
    store.close().unwrap();
    let one = quorate_storage_redb::Options::default().keep_snapshots(1);
    RedbStore::open_with(one, dir.path(), Identity { cluster: 108, ..IDENTITY }).unwrap().close().unwrap();
    force(109).unwrap();
    let mut store = RedbStore::open(dir.path(), Identity { cluster: 109, ..IDENTITY }).unwrap();
    assert_eq!(store.recover(GROUP).unwrap().snapshot.map(|snapshot| snapshot.last), Some(id(2, 10)));
}

#[test]
fn snapshots_whose_store_is_gone_are_not_bootstrapped_over() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path()).close().unwrap();
    fs::remove_file(dir.path().join("quorate.store")).unwrap();
    let error = RedbStore::create(dir.path(), IDENTITY, &[]).unwrap_err();
    assert!(matches!(error, Error::SnapshotsAlone { .. }), "{error}");
    assert!(dir.path().join("0-0000000000000008-2.snapshot").exists());
    // With a bootstrap's beginning beside them they are what it has left.
    fs::write(dir.path().join("quorate.store.new"), b"").unwrap();
    drop(RedbStore::create(dir.path(), IDENTITY, &[]).unwrap());
    assert!(!dir.path().join("0-0000000000000008-2.snapshot").exists());
}

fn killed() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = node(&dir.path().join("live"));
    // As a kill leaves it: copied while it is open.
    let copy = dir.path().join("killed");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(dir.path().join("live")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    drop(store);
    (dir, copy)
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_store_is_looked_at_and_left_as_it_is() {
    let (_dir, killed) = killed();
    let before = contents(&killed);
    let found = Inspection::of(&killed).unwrap();
    assert!(contents(&killed) == before);
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.identity, found.formerly, found.format), (IDENTITY, None, 3));
    assert_eq!(found.newest_commit, 4);
    let [group] = &found.groups[..] else { panic!("one group") };
    assert_eq!((group.base, group.last, group.entries), (id(2, 6), id(2, 10), 4));
    assert_eq!(group.hard_state, HardState { term: Term(2), vote: Some(NodeId(3)) });
    assert_eq!(*group.membership(), everyone());
    assert!(group.log_bytes > 40);
    let [snapshot] = &group.snapshots[..] else { panic!("one snapshot") };
    assert_eq!((snapshot.last, snapshot.published), (id(2, 8), true));
    assert_eq!(snapshot.info.as_ref().unwrap().bytes, 200_000);
    assert!(snapshot.file_bytes > 200_000);

    let inspector = Inspector::open(&killed).unwrap();
    assert!(matches!(Inspection::of(&killed), Err(Error::InUse)));
    assert!(matches!(RedbStore::open(&killed, IDENTITY), Err(Error::InUse)));
    let mut archive = inspector.snapshot(GROUP, id(2, 8)).unwrap().unwrap();
    assert!(read(&mut archive).unwrap() == state(200_000));
    let load = Load { id: LoadId::default(), first: Index(7), last: Index(10), max_bytes: 1000 };
    assert!(matches!(inspector.reader().unwrap().load(GROUP, &load), Ok(Loaded::Entries(_))));
    drop(inspector);
    drop(RedbStore::open(&killed, IDENTITY).unwrap());
    assert!(matches!(Inspection::of(killed.join("nowhere")), Err(Error::Missing { .. })));
}

#[test]
fn damage_is_told_with_file_group_and_index_and_what_to_do() {
    let (_dir, killed) = killed();
    let name = "0-0000000000000008-2.snapshot";
    let file = fs::OpenOptions::new().write(true).open(killed.join(name)).unwrap();
    file.write_all_at(b"x", 70_000).unwrap();
    let found = Inspection::of(&killed).unwrap();
    assert!(!found.is_sound());
    let problem = found.groups[0].snapshots[0].problem.as_ref().unwrap();
    assert!(problem.contains(name), "{problem}");
    // Noticed when it is read, before any of it is used.
    let mut store = RedbStore::open(&killed, IDENTITY).unwrap();
    let last = store.recover(GROUP).unwrap().snapshot.unwrap().last;
    let mut reader = store.snapshots().open(GROUP, last).unwrap().unwrap();
    let error = read(&mut reader).unwrap_err().to_string();
    for part in [name, "group 0", "index 8", "join under a new id"] {
        assert!(error.contains(part), "{error}");
    }
    drop(store);
    // Its end gone, it is noticed at once; and without it the log begins in the middle of nowhere.
    file.set_len(70_000).unwrap();
    let error = RedbStore::open(&killed, IDENTITY).unwrap().recover(GROUP).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("index 8"), "{error}");
    fs::remove_file(killed.join(name)).unwrap();
    let error = RedbStore::open(&killed, IDENTITY).unwrap().recover(GROUP).unwrap_err().to_string();
    assert!(
        error.contains("begins after 6@T2, but there is no snapshot") && error.contains("new id"),
        "{error}"
    );
    assert!(Inspection::of(&killed).unwrap().groups[0].problem.is_some());
}

#[test]
fn the_snapshot_of_another_cluster_is_not_taken_for_ones_own() {
    let (_dir, killed) = killed();
    let foreign = tempfile::tempdir().unwrap();
    let other = Identity { cluster: 5, ..IDENTITY };
    let mut store = RedbStore::create(foreign.path(), other, &[(GROUP, everyone())]).unwrap();
    store.recover(GROUP).unwrap();
    publish(&store, 8, &state(10));
    let name = "0-0000000000000008-2.snapshot";
    fs::copy(foreign.path().join(name), killed.join(name)).unwrap();
    let error = RedbStore::open(&killed, IDENTITY).unwrap().recover(GROUP).unwrap_err().to_string();
    assert!(error.contains("it is a snapshot of cluster 00000000000000000000000000000005"), "{error}");
    let found = Inspection::of(&killed).unwrap();
    let problem = found.groups[0].snapshots[0].problem.as_ref().unwrap();
    assert!(
        problem.contains(name) && problem.contains("of cluster 00000000000000000000000000000005"),
        "{problem}"
    );
    assert!(found.groups[0].problem.as_ref().unwrap().contains("there is no snapshot"), "{found:?}");
}

/// A snapshot under another's name is not that one.
#[test]
fn a_snapshot_is_known_by_what_it_holds_and_not_by_its_name_alone() {
    let (_dir, killed) = killed();
    let (right, wrong) = ("0-0000000000000008-2.snapshot", "0-0000000000000009-2.snapshot");
    fs::rename(killed.join(right), killed.join(wrong)).unwrap();
    let error = RedbStore::open(&killed, IDENTITY).unwrap().recover(GROUP).unwrap_err().to_string();
    assert!(error.contains("its name is of another group or entry"), "{error}");
    assert!(!Inspection::of(&killed).unwrap().is_sound());
}

/// Once something has failed, nothing more is done to the file.
#[test]
fn a_store_that_has_stopped_gives_no_space_back() {
    // The database itself could go on.
    let directory = Hooked::new(OnDisk::new(), |doing, name| match (doing, name.ends_with(".taking")) {
        ("sync_data", true) => Err(io::Error::other("a sync that fails")),
        _ => Ok(()),
    });
    let groups = [(GROUP, everyone())];
    let mut store = RedbStore::create_on(Options::default(), directory, IDENTITY, &groups).unwrap();
    let snapshot = Snapshot { last: id(2, 8), membership: everyone() };
    store.snapshots().take(GROUP, &snapshot).unwrap().publish().unwrap_err();
    assert!(matches!(store.reclaim(), Err(Error::Stopped { .. })));
}

/// Replaced snapshots that are still there, as after a crash or with a lower number to keep, go when the store is opened.
#[test]
fn as_many_snapshots_are_kept_as_one_wants() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RedbStore::create_with(
        Options::default().keep_snapshots(3),
        dir.path(),
        IDENTITY,
        &[(GROUP, everyone())],
    )
    .unwrap();
    let mut first = write(GROUP, store.recover(GROUP).unwrap().incarnation, 1);
    first.hard_state = Some(HardState { term: Term(2), vote: None });
    first.entries.push(Run::commands(Term(2), Index(1), &[b"x"; 10]).unwrap());
    store.commit(&[first]).unwrap();
    for index in [2, 4, 6, 8] {
        publish(&store, index, b"state");
    }
    let listed = |store: &RedbStore| -> Vec<u64> {
        let on_disk = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let on_disk = on_disk.filter(|name| name.to_string_lossy().ends_with(".snapshot")).count();
        let listed = store.snapshots().list(GROUP).unwrap();
        assert_eq!(listed.len(), on_disk);
        listed.iter().map(|info| info.snapshot.last.index.0).collect()
    };
    assert_eq!(listed(&store), [4, 6, 8]);
    store.close().unwrap();
    for (keep, expected) in [(4, &[4, 6, 8][..]), (2, &[6, 8]), (0, &[8])] {
        let options = Options::default().keep_snapshots(keep);
        let store = RedbStore::open_with(options, dir.path(), IDENTITY).unwrap();
        assert_eq!(listed(&store), expected);
        store.close().unwrap();
    }
}

/// What can be told of a store is told, though its database can't be read.
#[test]
fn a_store_whose_database_is_damaged_is_looked_at_all_the_same() {
    let (_dir, killed) = killed();
    let name = "0-0000000000000008-2.snapshot";
    fs::OpenOptions::new().write(true).open(killed.join("quorate.store")).unwrap().set_len(20_000).unwrap();
    let found = Inspection::of(&killed).unwrap();
    assert_eq!((found.identity, found.groups.len(), found.problems.len()), (IDENTITY, 0, 1), "{found:?}");
    assert!(found.problems[0].contains("quorate.store is damaged"), "{found:?}");
    fs::OpenOptions::new().write(true).open(killed.join(name)).unwrap().set_len(70_000).unwrap();
    let found = Inspection::of(&killed).unwrap();
    assert!(found.problems.len() == 2 && found.problems[1].contains(name), "{found:?}");
}

#[test]
fn space_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RedbStore::create(dir.path(), IDENTITY, &[(GROUP, voters(&[1]))]).unwrap();
    let incarnation = store.recover(GROUP).unwrap().incarnation;
    let commands = vec![vec![9_u8; 1000]; 60];
    let mut next = 1;
    for seq in 1..=600 {
        let mut made = write(GROUP, incarnation, seq);
        made.entries.push(Run::commands(Term(2), Index(next), &commands).unwrap());
        next += 60;
        store.commit(&[made]).unwrap();
    }
    let file = dir.path().join("quorate.store");
    let full = fs::metadata(&file).unwrap().len();
    publish(&store, next - 1, b"state");
    let mut made = write(GROUP, incarnation, 601);
    let at = Snapshot { last: id(2, next - 1), membership: Membership::of_voters([NodeId(1)]) };
    made.rebase = Some(Box::new(Rebase::Compact(at)));
    store.commit(&[made]).unwrap();
    let reader = store.reader();
    let reclaimed = store.reclaim().unwrap();
    let short = fs::metadata(&file).unwrap().len();
    assert_eq!(reclaimed.after, short);
    assert!(full > 36_000_000 && short < full / 8, "{full} bytes, then {short}");
    // It goes on, and a reader from before too.
    let mut made = write(GROUP, incarnation, 602);
    made.entries.push(Run::commands(Term(2), Index(next), &commands).unwrap());
    store.commit(&[made]).unwrap();
    let load = Load { id: LoadId::default(), first: Index(next), last: Index(next), max_bytes: 1000 };
    assert!(matches!(reader.load(GROUP, &load), Ok(Loaded::Entries(_))));
    store.close().unwrap();
    assert_eq!(RedbStore::open(dir.path(), IDENTITY).unwrap().recover(GROUP).unwrap().last, Index(next + 59));
}

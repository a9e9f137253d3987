//! What happens at the wrong moment: between a look and a lock, while the store is closed, and before the power fails.

mod common;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{IDENTITY, hooked::Hooked, on_disk::OnDisk, publish, voters, write};
use quorate_core::{
    GroupId, HardState, Index, Load, LoadId, LogId, LogReader, Membership, NodeId, Run, Snapshot,
    SnapshotInfo, SnapshotWriter, Snapshots, Store, Term,
};
use quorate_runtime_tokio::conformance::{Disk, Left, Rng};
use quorate_storage_redb::{ArchiveHeader, ArchiveWriter, Error, Identity, Options, RedbStore};

const GROUP: GroupId = GroupId(0);

fn at(term: u64, index: u64) -> Snapshot {
    Snapshot { last: LogId::new(Term(term), Index(index)), membership: voters(&[1, 2, 3]) }
}

fn announced(term: u64, index: u64, bytes: &[u8]) -> SnapshotInfo {
    SnapshotInfo { snapshot: at(term, index), bytes: bytes.len() as u64, checksum: crc32c::crc32c(bytes) }
}

/// A store with one group and an entry in its log.
fn store(disk: &Disk, options: Options) -> RedbStore {
    let groups = [(GROUP, voters(&[1, 2, 3]))];
    let mut store = RedbStore::create_on(options, OnDisk(disk.clone()), IDENTITY, &groups).unwrap();
    let mut first = write(GROUP, store.recover(GROUP).unwrap().incarnation, 1);
    first.hard_state = Some(HardState { term: Term(1), vote: None });
    first.entries.push(Run::commands(Term(1), Index(1), &[vec![7; 100]]).unwrap());
    store.commit(&[first]).unwrap();
    store
}

/// Runs it, and fails if it takes more than half a minute.
fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(run()));
    result.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("{what} does not end"))
}

/// The store becomes another cluster's after it was looked at and before it is locked.
#[test]
fn whose_a_store_is_counts_once_it_is_locked() {
    let disk = Disk::new();
    store(&disk, Options::default()).close().unwrap();
    let other = Disk::new();
    let identity = Identity { cluster: 77, ..IDENTITY };
    RedbStore::create_on(Options::default(), OnDisk(other.clone()), identity, &[]).unwrap().close().unwrap();
    let mut page = vec![0; 4096];
    other.open("quorate.store").unwrap().read_at(0, &mut page).unwrap();
    let there = disk.clone();
    let directory = Hooked::new(OnDisk(disk), move |doing, _| {
        if doing == "lock" {
            there.open("quorate.store")?.write_at(0, &page)?;
        }
        Ok(())
    });
    let error = RedbStore::open_on(Options::default(), directory, IDENTITY).unwrap_err();
    assert!(matches!(error, Error::WrongCluster { found: 77, .. }), "{error}");
}

/// A snapshot can't be begun, and the store is closed at that moment.
#[test]
fn a_store_can_be_closed_while_a_snapshot_fails_to_begin() {
    let disk = Disk::new();
    store(&disk, Options::default()).close().unwrap();
    let held: Arc<Mutex<Option<RedbStore>>> = Arc::default();
    let (closes, closed) = mpsc::channel();
    let closer = Arc::clone(&held);
    let directory = Hooked::new(OnDisk(disk), move |doing, name| {
        if doing == "create" && name.ends_with(".taking") {
            let (closer, closes) = (Arc::clone(&closer), closes.clone());
            thread::spawn(move || {
                drop(closer.lock().unwrap().take());
                closes.send(()).unwrap();
            });
            // It has begun to wait by then.
            thread::sleep(Duration::from_millis(300));
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    });
    let store = RedbStore::open_on(Options::default(), directory, IDENTITY).unwrap();
    let snapshots = store.snapshots();
    *held.lock().unwrap() = Some(store);
    let error = in_time("taking a snapshot", move || snapshots.take(GROUP, &at(1, 1)).map(drop).unwrap_err());
    assert!(matches!(error, Error::SnapshotIo { .. }), "{error}");
    closed.recv_timeout(Duration::from_secs(30)).expect("it is closed");
}

/// The next process has the file once a store is closed, so nobody may be in the middle of reading it then.
#[test]
fn closing_waits_for_those_who_read() {
    for close in [true, false] {
        let disk = Disk::new();
        store(&disk, Options::default()).close().unwrap();
        let slow = Arc::new(AtomicBool::new(false));
        let reading = Arc::new(AtomicBool::new(false));
        let (gate, flag) = (Arc::clone(&slow), Arc::clone(&reading));
        let directory = Hooked::new(OnDisk(disk), move |doing, _| {
            if doing == "read" && gate.swap(false, Ordering::SeqCst) {
                flag.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(300));
                flag.store(false, Ordering::SeqCst);
            }
            Ok(())
        });
        let options = Options::default().cache_bytes(0);
        let store = RedbStore::open_on(options, directory, IDENTITY).unwrap();
        let reader = store.reader();
        slow.store(true, Ordering::SeqCst);
        let load = Load { id: LoadId::default(), first: Index(1), last: Index(1), max_bytes: 100 };
        let other = reader.clone();
        let loading = thread::spawn(move || other.load(GROUP, &load));
        while !reading.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        if close {
            store.close().unwrap();
        } else {
            drop(store);
        }
        assert!(!reading.load(Ordering::SeqCst), "it is closed while it is read");
        loading.join().unwrap().unwrap();
        assert!(matches!(reader.load(GROUP, &load), Err(Error::Closed)));
    }
}

/// What a transfer has synced is there after a power failure, under its name.
#[test]
fn a_transfer_that_was_synced_goes_on_after_a_power_failure() {
    let disk = Disk::new();
    disk.record();
    let store = store(&disk, Options::default());
    let bytes = vec![3; 300_000];
    let info = announced(1, 30, &bytes);
    let mut writer = store.snapshots().receive(GROUP, &info).unwrap();
    writer.write(&bytes[..200_000]).unwrap();
    writer.sync().unwrap();
    disk.freeze();
    drop((writer, store));
    let trace = disk.take_trace();
    let (mut replay, mut rng) = (trace.replay(), Rng::new(1));
    while replay.step(&mut rng).is_some() {}
    let left = replay.image(Left::Nothing, &mut rng);
    let store = RedbStore::open_on(Options::default(), OnDisk(left), IDENTITY).unwrap();
    assert_eq!(store.snapshots().receive(GROUP, &info).unwrap().staged(), 3 * 65_536);
}

/// The directory is another's once the store is closed: a thread that still stages does nothing to it.
#[test]
fn nobody_touches_the_directory_of_a_store_that_is_closed() {
    let disk = Disk::new();
    let store = store(&disk, Options::default());
    let snapshots = store.snapshots();
    let mut taking = snapshots.take(GROUP, &at(1, 1)).unwrap();
    let bytes = vec![5; 100_000];
    let mut receiving = snapshots.receive(GROUP, &announced(1, 30, &bytes)).unwrap();
    receiving.write(&bytes).unwrap();
    store.close().unwrap();
    let before = disk.count();
    let closed = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Closed)), "{result:?}");
    closed(taking.write(&[1; 200_000]));
    closed(receiving.sync());
    closed(receiving.publish().map(drop));
    closed(snapshots.list(GROUP).map(drop));
    closed(snapshots.open(GROUP, at(1, 1).last).map(drop));
    closed(snapshots.take(GROUP, &at(1, 1)).map(drop));
    drop(taking);
    assert_eq!(disk.count(), before);
}

/// What could not be read back is not published.
#[test]
fn a_snapshot_with_an_absurd_membership_is_refused_before_anything_of_it_is_written() {
    let disk = Disk::new();
    let store = store(&disk, Options::default());
    let membership = Membership::of_voters((0..200_000).map(|n| NodeId((1 << 50) + n)));
    let snapshot = Snapshot { membership, ..at(1, 1) };
    let error = store.snapshots().take(GROUP, &snapshot).map(drop).unwrap_err();
    assert!(matches!(error, Error::BadSnapshot { .. }) && error.to_string().contains("too large"), "{error}");
    let header = ArchiveHeader { identity: IDENTITY, group: GROUP, snapshot };
    assert!(ArchiveWriter::new(Vec::new(), &header).is_err());
    // Nor is anything in the way of the next one.
    publish(&store, GROUP, &at(1, 1));
}

/// Whoever was cut off before it knew that it has a snapshot is sent it again, perhaps with other bytes; and a damaged one
/// that was never installed is no reason not to take it again.
#[test]
fn a_snapshot_is_received_again() {
    let disk = Disk::new();
    let mut first = store(&disk, Options::default());
    publish(&first, GROUP, &at(1, 1));
    let receive = |store: &RedbStore, index: u64, bytes: &[u8]| {
        let mut writer = store.snapshots().receive(GROUP, &announced(1, index, bytes)).unwrap();
        writer.write(bytes).unwrap();
        writer.publish().unwrap();
        assert!(store.snapshots().list(GROUP).unwrap().contains(&announced(1, index, bytes)));
    };
    // Of an entry of which one was taken here.
    receive(&first, 1, b"of another release");
    first.recover(GROUP).unwrap();
    receive(&first, 30, b"one");
    receive(&first, 30, b"other");
    first.close().unwrap();
    let name = "0-000000000000001e-1.snapshot";
    disk.flip(name, 20, 1);
    let mut second = RedbStore::open_on(Options::default(), OnDisk(disk.clone()), IDENTITY).unwrap();
    assert_eq!(second.recover(GROUP).unwrap().snapshot, Some(at(1, 1)));
    // Nor is it in the way of one before it.
    drop(second.snapshots().receive(GROUP, &announced(1, 20, b"earlier")).unwrap());
    receive(&second, 30, b"other");
    second.recover(GROUP).unwrap();
}

//! A disk that is full: a real one (a small tmpfs in a mount namespace of its own), filled to the brim at many points of a write.
//! Every I/O of a workload is refused so on a disk in memory, too: `tests/conformance.rs`.

mod common;

use std::{
    env, fs, io,
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use common::{IDENTITY, read_log, voters, write};
use quorate_core::{
    GroupId, HardState, Incarnation, Index, LogId, Run, Snapshot, SnapshotWriter, Snapshots, Store, Term,
};
use quorate_storage_redb::{Error, RedbStore};

const GROUP: GroupId = GroupId(0);
const INSIDE: &str = "QUORATE_TEST_DISK_FULL";

#[test]
fn a_full_disk_stops_the_store_and_nothing_acknowledged_is_lost() {
    if env::var_os(INSIDE).is_some() {
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount"]);
    let may = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !may(Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"])) {
        println!("skipped: this machine allows no mount namespaces");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = unshare
        .arg(env::current_exe().unwrap())
        .args(["--exact", "inside", "--nocapture", "--test-threads=1"])
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.lines().filter(|line| line.starts_with("filled")).collect::<Vec<_>>().join("\n"));
    assert!(said.contains("filled 40 disks"), "{said}");
}

/// Not a test of its own: what is done within the namespace.
#[test]
fn inside() {
    let Some(dir) = env::var_os(INSIDE) else { return };
    let dir = Path::new(&dir);
    let mut acknowledged = 0;
    for round in 0..40_u64 {
        // Another size each time, so that the disk is full at another point of a write.
        let size = format!("size={}k", 900 + 4 * round);
        let mount = |args: &[&str]| {
            assert!(Command::new(args[0]).args(&args[1..]).arg(dir).status().unwrap().success());
        };
        mount(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs"]);
        acknowledged += fill(dir, round);
        mount(&["umount"]);
    }
    println!("\nfilled 40 disks; {acknowledged} commits were acknowledged on them");
}

fn commands(seq: u64, first: u64, round: u64) -> Run {
    let len = 1 + (seq * 7919 + round * 104_729) % 30_000;
    let commands: Vec<Vec<u8>> = (0..1 + seq % 3)
        .map(|n| format!("{seq}.{n};").bytes().cycle().take(len as usize).collect())
        .collect();
    Run::commands(Term(1), Index(first), &commands).unwrap()
}

fn is_full(error: &Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        source = error.source();
    }
    error.to_string().contains("No space left")
}

fn fill(dir: &Path, round: u64) -> u64 {
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 300_000]).unwrap();
    let home = dir.join("store");
    let mut store = RedbStore::create(&home, IDENTITY, &[(GROUP, voters(&[1, 2, 3]))]).unwrap();
    let mut incarnation = store.recover(GROUP).unwrap().incarnation;
    let mut log: Vec<Bytes> = Vec::new();
    let append = |store: &mut RedbStore, log: &mut Vec<Bytes>, incarnation: Incarnation, seq: u64| {
        let mut made = write(GROUP, incarnation, seq);
        if seq == 1 {
            made.hard_state = Some(HardState { term: Term(1), vote: None });
        }
        let run = commands(seq, log.len() as u64 + 1, round);
        made.entries.push(run.clone());
        store.commit(&[made])?;
        log.extend(run.entries().map(|entry| entry.payload));
        Ok::<_, Error>(())
    };
    // A snapshot that doesn't fit does no harm, but to itself.
    append(&mut store, &mut log, incarnation, 1).unwrap();
    let at = Snapshot { last: LogId::new(Term(1), Index(1)), membership: voters(&[1, 2, 3]) };
    let mut snapshot = store.snapshots().take(GROUP, &at).unwrap();
    let error = (0..).find_map(|_| snapshot.write(&[7; 50_000]).err()).unwrap();
    assert!(is_full(&error) && error.to_string().contains("writing a snapshot"), "{error}");
    assert!(snapshot.publish().is_err());
    assert_eq!(store.snapshots().list(GROUP).unwrap(), []);

    let mut seq = 2;
    let error = loop {
        match append(&mut store, &mut log, incarnation, seq) {
            Ok(()) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!(is_full(&error), "round {round}: {error:?}");
    assert!(matches!(append(&mut store, &mut log, incarnation, seq), Err(Error::Stopped { .. })));
    drop(store);
    let acknowledged = seq - 1;
    // Started again on a disk that is still full, it works, or says so again.
    match RedbStore::open(&home, IDENTITY).and_then(|mut store| store.recover(GROUP).map(drop)) {
        Ok(()) => {}
        Err(error) => assert!(is_full(&error), "round {round}: {error:?}"),
    }
    // Room is made.
    fs::remove_file(&ballast).unwrap();
    let mut store = RedbStore::open(&home, IDENTITY).unwrap();
    let recovered = store.recover(GROUP).unwrap();
    let found = read_log(&store, GROUP, Index(0), recovered.last).unwrap();
    let found: Vec<Bytes> = found.into_iter().map(|(_, _, payload)| payload).collect();
    // What was under way may be there, whole.
    let under_way: Vec<Bytes> =
        commands(seq, log.len() as u64 + 1, round).entries().map(|entry| entry.payload).collect();
    let whole = found == log || found == [&log[..], &under_way[..]].concat();
    assert!(whole, "round {round}: {} entries, {} acknowledged", found.len(), log.len());
    log = found;
    incarnation = recovered.incarnation;
    for seq in 1..4 {
        append(&mut store, &mut log, incarnation, seq).unwrap();
    }
    store.close().unwrap();
    acknowledged
}

//! The disk is what it says it is: a suite on one that loses nothing would find nothing.

use std::{collections::BTreeSet, io};

use super::{Disk, DiskFile, Event, Fault, IoKind, Left};
use crate::conformance::Rng;

/// What images of this kind a crash after all of `act` can leave, as the files' names and bytes.
fn images(left: Left, act: impl Fn(&Disk)) -> BTreeSet<Vec<(String, Vec<u8>)>> {
    let disk = Disk::new();
    file(&disk, "old", &[1; 1_500]).sync().unwrap();
    disk.sync().unwrap();
    disk.record();
    act(&disk);
    let trace = disk.take_trace();
    let mut rng = Rng::new(9);
    (0..400)
        .map(|_| {
            let mut replay = trace.replay();
            while replay.step(&mut rng).is_some() {}
            contents(&replay.image(left, &mut rng))
        })
        .collect()
}

fn file(disk: &Disk, name: &str, bytes: &[u8]) -> DiskFile {
    let file = disk.create(name).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

fn contents(disk: &Disk) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        (name, bytes)
    };
    disk.list().unwrap().into_iter().map(read).collect()
}

fn all_kinds() -> [Left; 4] {
    [Left::Nothing, Left::All, Left::Some(50), Left::Newest(1)]
}

/// Of a process that is killed all is there, and yet nothing more is durable than before: not by what another process does later,
/// unless it syncs it.
#[test]
fn what_a_killed_process_has_left_is_lost_if_nobody_syncs_it() {
    let disk = Disk::new();
    disk.create("old").unwrap();
    disk.sync().unwrap();
    disk.record();
    disk.rename("old", "new").unwrap();
    file(&disk, "other", b"bytes");
    disk.freeze();
    let (trace, mut rng) = (disk.take_trace(), Rng::new(1));
    for (syncs, durable) in [(false, &["old"][..]), (true, &["later", "new", "other"])] {
        let mut replay = trace.replay();
        while replay.step(&mut rng).is_some() {}
        let killed = replay.killed();
        assert_eq!(killed.list().unwrap(), ["new", "other"]);
        let mut bytes = [0; 5];
        killed.open("other").unwrap().read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"bytes");
        file(&killed, "later", b"more").sync().unwrap();
        if syncs {
            killed.sync().unwrap();
        }
        let trace = killed.take_trace();
        let mut replay = trace.replay();
        while replay.step(&mut rng).is_some() {}
        let left = replay.image(Left::Nothing, &mut rng);
        assert_eq!(left.list().unwrap(), durable);
        if syncs {
            assert_eq!(left.open("later").unwrap().len().unwrap(), 4);
            assert_eq!(left.open("other").unwrap().len().unwrap(), 0, "its bytes were never synced");
        }
    }
}

#[test]
fn what_is_synced_is_there_whatever_a_crash_leaves() {
    for left in all_kinds() {
        let found = images(left, |disk| {
            let new = file(disk, "new", b"new");
            new.sync().unwrap();
            disk.rename("old", "older").unwrap();
            disk.sync().unwrap();
        });
        let expected = vec![("new".to_owned(), b"new".to_vec()), ("older".to_owned(), vec![1; 1_500])];
        assert_eq!(found, BTreeSet::from([expected]), "{left:?}");
    }
}

#[test]
fn bytes_without_a_sync_may_be_lost_by_the_sector_and_names_without_one_as_a_whole() {
    let write = |disk: &Disk| disk.open("old").unwrap().write_at(0, &[2; 1_500]).unwrap();
    assert_eq!(images(Left::Nothing, write).first().unwrap()[0].1, [1; 1_500]);
    assert_eq!(images(Left::All, write).first().unwrap()[0].1, [2; 1_500]);
    let some = images(Left::Some(50), write);
    assert_eq!(some.len(), 8, "three sectors, in any combination");
    for image in &some {
        let bytes = &image[0].1;
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "none is torn");
    }
    // A file that is synced, but whose name is not.
    let create = |disk: &Disk| file(disk, "new", b"new").sync().unwrap();
    assert!(images(Left::Nothing, create).iter().all(|image| image.len() == 1));
    assert_eq!(images(Left::Some(50), create).len(), 2);
    // And the reverse.
    let name = |disk: &Disk| {
        file(disk, "new", b"new");
        disk.sync().unwrap();
    };
    assert_eq!(images(Left::Nothing, name).first().unwrap()[0], ("new".to_owned(), Vec::new()));
}

#[test]
fn a_rename_is_whole_and_changes_of_one_name_keep_their_order() {
    let replace = |disk: &Disk| {
        file(disk, "new", b"new").sync().unwrap();
        disk.rename("new", "old").unwrap();
        disk.remove("old").unwrap();
    };
    let names = |image: &Vec<(String, Vec<u8>)>| {
        image.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect()
    };
    let found: BTreeSet<Vec<(String, usize)>> = images(Left::Some(50), replace).iter().map(names).collect();
    let (old, new) = (("old".to_owned(), 1_500), ("new".to_owned(), 3));
    let expected = [vec![old.clone()], vec![new, old], vec![("old".to_owned(), 3)], vec![]];
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn what_a_failed_sync_has_lost_no_later_one_brings_back_though_reading_shows_it() {
    let fail = |disk: &Disk| {
        let old = disk.open("old").unwrap();
        old.write_at(0, &[2; 1_500]).unwrap();
        disk.set_fault(Some(Fault { at: disk.count(), for_good: false, kind: io::ErrorKind::Other }));
        assert!(old.sync().is_err());
        assert_eq!(disk.failed().unwrap().kind, IoKind::Sync);
        old.sync().unwrap();
        let mut now = [0; 1_500];
        old.read_at(0, &mut now).unwrap();
        assert_eq!(now, [2; 1_500]);
    };
    assert_eq!(images(Left::Nothing, fail).len(), 8, "any of three sectors");
    assert_eq!(images(Left::All, fail).len(), 1);
}

#[test]
fn lengths_are_kept_and_what_was_cut_off_is_zeros_when_it_comes_back() {
    let found = images(Left::All, |disk| {
        let old = disk.open("old").unwrap();
        old.set_len(1_000).unwrap();
        old.write_at(6_000, &[3; 10]).unwrap();
        old.sync().unwrap();
    });
    let bytes = &found.first().unwrap()[0].1;
    assert_eq!(bytes.len(), 6_010);
    assert!(
        bytes[..1_000].iter().all(|byte| *byte == 1) && bytes[1_000..6_000].iter().all(|byte| *byte == 0)
    );
    // The length or the bytes alone may have got there, and never what is beyond the end.
    let grow = |disk: &Disk| disk.open("old").unwrap().write_at(1_500, &[4; 3_000]).unwrap();
    let lengths: BTreeSet<usize> =
        images(Left::Some(50), grow).iter().map(|image| image[0].1.len()).collect();
    assert_eq!(lengths, BTreeSet::from([1_500, 4_500]));
}

#[test]
fn a_full_disk_refuses_what_needs_space_and_takes_the_rest() {
    let disk = Disk::new();
    let old = file(&disk, "old", &[1; 100]);
    disk.set_room(Some(150));
    let full = old.write_at(90, &[2; 80]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(old.len().unwrap(), 150, "what fits is there");
    assert_eq!(disk.create("new").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(old.set_len(151).is_err());
    old.write_at(0, &[3; 150]).unwrap();
    old.sync().unwrap();
    disk.rename("old", "older").unwrap();
    old.set_len(10).unwrap();
    disk.create("new").unwrap();

    disk.set_room(None);
    disk.set_fault(Some(Fault { at: disk.count(), for_good: true, kind: io::ErrorKind::StorageFull }));
    old.sync().unwrap();
    disk.sync().unwrap();
    old.set_len(5).unwrap();
    assert!(old.write_at(0, &[1]).is_err() && old.set_len(9).is_err() && disk.create("third").is_err());
    disk.set_fault(None);
    disk.create("third").unwrap();
}

#[test]
fn faults_come_once_or_for_good_and_leave_a_part() {
    for for_good in [false, true] {
        let disk = Disk::new();
        let old = file(&disk, "old", &[1; 100]);
        disk.set_fault(Some(Fault { at: disk.count() + 1, for_good, kind: io::ErrorKind::Other }));
        old.write_at(0, &[2; 10]).unwrap();
        assert!(old.write_at(10, &[3; 10]).is_err());
        assert_eq!(old.write_at(20, &[4; 10]).is_err(), for_good);
        let mut bytes = [0; 20];
        old.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes[..15], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!(bytes[15..], [1; 5]);
        assert_eq!(disk.failed().unwrap().name, "old");
    }
    let disk = Disk::new();
    let old = file(&disk, "old", b"here");
    let copy = disk.copy();
    disk.freeze();
    assert!(old.len().is_err() && disk.list().is_err() && disk.open("old").is_err() && disk.sync().is_err());
    assert_eq!(contents(&copy), [("old".to_owned(), b"here".to_vec())]);
    assert_eq!(copy.open("nothing").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(
        copy.open("old").unwrap().read_at(1, &mut [0; 4]).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn a_removed_file_is_there_for_who_has_it_open_and_marks_are_in_their_place() {
    let disk = Disk::new();
    disk.record();
    let old = file(&disk, "old", b"here");
    disk.mark(7);
    disk.remove("old").unwrap();
    let mut bytes = [0; 4];
    old.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"here");
    assert_eq!(disk.used(), 0);
    let trace = disk.take_trace();
    let (mut replay, mut rng) = (trace.replay(), Rng::new(0));
    let events: Vec<Event> = std::iter::from_fn(|| replay.step(&mut rng)).collect();
    let io = Event::Io;
    assert_eq!(events, [io(IoKind::Create), io(IoKind::Write), Event::Mark(7), io(IoKind::Remove)]);
}

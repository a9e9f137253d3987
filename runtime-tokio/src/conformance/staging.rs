//! Snapshots: staged, published, listed, read, resumed and removed.

use quorate_core::{GroupId, Index, LogId, Snapshot, Term};

use super::{
    Disk, Harness, Rng, Setup,
    erased::{AnyWriter, Trouble},
    harness::Maker,
    model::{Model, Shot, Spec, observe, voters},
    subject::{GROUP, Subject},
};

/// What is published is listed, with its length and checksum, and read as it was written: at any offset, in any size, empty or of
/// 6 MiB, before and after the store was reopened. What is staged is not listed before.
///
/// # Panics
/// If not.
pub fn publishes_snapshots(setup: &impl Setup) {
    let mut rng = Rng::new(3);
    for len in [0, 1, 4_096, 70_001, 6 << 20] {
        let mut subject = Subject::new(setup, "a published snapshot");
        subject.append(1, 9);
        let shot = Shot::new(subject.snapshot_at(5), rng.bytes(len));
        let writer = subject.snapshots().take(GROUP, &shot.info.snapshot);
        let mut writer = subject.good("taking a snapshot", writer);
        let mut rest = &shot.bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + rng.below(200_000) as usize).min(rest.len()));
            let written = writer.write(now);
            subject.good("staging", written);
            rest = later;
            let staged = (len - rest.len()) as u64;
            if writer.staged() != staged {
                subject.fail(format!("{} bytes are said to be staged of {staged}", writer.staged()));
            }
            if rng.chance(20) {
                let synced = writer.sync();
                subject.good("syncing what is staged", synced);
            }
        }
        let listed = subject.snapshots().list(GROUP);
        if !subject.good("listing", listed).is_empty() {
            subject.fail("a snapshot is listed that is not published");
        }
        // Commits go on meanwhile.
        subject.append(1, 1);
        subject.finish(writer, &shot);
        for _ in 0..2 {
            read_everywhere(&mut subject, &shot, &mut rng);
            for other in [LogId::new(Term(2), Index(5)), LogId::new(Term(1), Index(4))] {
                let opened = subject.snapshots().open(GROUP, other);
                if subject.good("opening one that is not there", opened).is_some() {
                    subject.fail(format!("there is a snapshot at {other}, but none was taken"));
                }
            }
            subject.reopen();
        }
    }
}

fn read_everywhere(subject: &mut Subject<'_>, shot: &Shot, rng: &mut Rng) {
    let source = subject.snapshots().open(GROUP, shot.last());
    let Some(mut source) = subject.good("opening a snapshot", source) else {
        subject.fail(format!("the snapshot at {} can't be opened", shot.last()))
    };
    let len = shot.bytes.len();
    let mut reads: Vec<(u64, usize)> =
        vec![(0, len), (0, len + 10), (len as u64, 10), (len as u64 + 99, 1), (u64::MAX, 3), (0, 0)];
    reads.extend((0..60).map(|_| (rng.below(len as u64 + 20), rng.below(100_000) as usize)));
    for (offset, wanted) in reads {
        let mut out = vec![0xEE; wanted];
        let read = source.read_at(offset, &mut out);
        let read = subject.good(&format!("reading {wanted} bytes at {offset}"), read);
        let rest = shot.bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let expected = &rest[..rest.len().min(wanted)];
        if read != expected.len() || out[..read] != *expected {
            subject.fail(format!(
                "{read} bytes at {offset} of {len}, {wanted} asked for, {} there",
                expected.len()
            ));
        }
    }
}

/// One snapshot of a group is taken at a time, and one received; another group's, and the other kind, don't matter. One that is
/// dropped makes room for the next, and leaves nothing. None is taken where there is one or a later one, and none
/// received before a later one; one of the same entry can be received again, and takes the place of the one that is there.
///
/// # Panics
/// If not.
pub fn stages_one_at_a_time(setup: &impl Setup) {
    let other = GroupId(1);
    let groups = [(GROUP, voters(3)), (other, voters(3))];
    let mut subject = Subject::with_groups(setup, "staging", &groups);
    subject.append(1, 9);
    let at = |term, index| Snapshot { last: LogId::new(Term(term), Index(index)), membership: voters(3) };
    let (five, ahead) = (at(1, 5), Subject::shot(2, 20, vec![7; 5_000]));
    let snapshots = subject.snapshots();
    let taken = subject.good("taking one", snapshots.take(GROUP, &five));
    subject.refused("taking a second one meanwhile", snapshots.take(GROUP, &at(1, 6)).map(drop));
    let received =
        subject.good("receiving one while another is taken", snapshots.receive(GROUP, &ahead.info));
    subject.refused("receiving a second one meanwhile", snapshots.receive(GROUP, &ahead.info).map(drop));
    let elsewhere = snapshots.receive(other, &ahead.info);
    drop(subject.good("receiving one in another group meanwhile", elsewhere));
    drop((taken, received));
    let listed = snapshots.list(GROUP);
    if !subject.good("listing", listed).is_empty() {
        subject.fail("a snapshot is listed that was dropped");
    }
    subject.reopen();
    // Whole, but dropped all the same.
    for _ in 0..2 {
        let mut taken = subject.snapshots().take(GROUP, &five).unwrap_or_else(|error| {
            subject.fail(format!("a snapshot can't be taken, though the one before was dropped: {error}"))
        });
        let written = taken.write(&[1; 9_000]);
        subject.good("staging", written);
        let synced = taken.sync();
        subject.good("syncing", synced);
        if taken.staged() != 9_000 {
            subject.fail(format!(
                "{} bytes are staged of 9,000: one taken here begins with its first",
                taken.staged()
            ));
        }
        drop(taken);
        subject.check();
    }
    subject.reopen();
    subject.take(5, b"five".to_vec());
    for index in [4, 5] {
        let taken = subject.snapshots().take(GROUP, &at(1, index)).map(drop);
        subject.refused(&format!("taking one at {index}, though there is one at 5"), taken);
    }
    let earlier = subject.snapshots().receive(GROUP, &Subject::shot(1, 4, vec![1]).info).map(drop);
    subject.refused("receiving one at 4, though there is one at 5", earlier);
    subject.take(9, b"nine".to_vec());
    // A peer's of the same entry: its bytes may be others, and take the place of those that are here.
    subject.receive(&Shot::new(subject.snapshot_at(9), b"nine, as another release writes it".to_vec()));
    subject.check();
    subject.receive(&ahead);
    subject.receive(&ahead);
    subject.check();
    subject.receive(&Subject::shot(2, 20, vec![8; 6_000]));
    subject.reopen();
}

/// A transfer that was cut short goes on where it was last synced or later, in this life or the next, and only if it is the same snapshot
/// to the byte: of another one nothing is left.
///
/// # Panics
/// If not.
pub fn resumes_transfers(setup: &impl Setup) {
    let mut rng = Rng::new(5);
    let slack = setup.slack();
    // What was written after the last sync may be there or not.
    let close = |subject: &Subject<'_>, staged: u64, synced: u64, written: u64| {
        if staged > written || staged < synced.saturating_sub(slack) {
            subject.fail(format!("it goes on at byte {staged}, and was synced at {synced} of {written}"));
        }
    };
    for reopened in [false, true] {
        let mut subject = Subject::new(setup, "a transfer that was cut short");
        subject.append(1, 3);
        let shot = Subject::shot(2, 20, rng.bytes(3 << 20));
        let (mut synced, mut written) = (0, 0);
        for part in [1_000_000, 1, 1_800_000] {
            let mut writer = begin(&mut subject, &shot);
            close(&subject, writer.staged(), synced, written);
            synced = writer.staged() + part;
            write_to(&subject, &mut *writer, &shot, synced);
            let result = writer.sync();
            subject.good("syncing", result);
            // This may be lost.
            written = synced + 70_000;
            write_to(&subject, &mut *writer, &shot, written);
            drop(writer);
            subject.append(1, 1);
            if reopened {
                subject.reopen();
            }
        }
        let writer = begin(&mut subject, &shot);
        close(&subject, writer.staged(), synced, written);
        subject.finish(writer, &shot);
        subject.reopen();
    }
    // Never synced, then another of the same entry, then the first again.
    let mut subject = Subject::new(setup, "a transfer of another snapshot");
    let first = Subject::shot(2, 20, rng.bytes(200_000));
    let same_entry = Subject::shot(2, 20, rng.bytes(200_000));
    let longer = Subject::shot(2, 20, [&first.bytes[..], b"more"].concat());
    let later = Subject::shot(3, 21, first.bytes.clone());
    let mut writer = begin(&mut subject, &first);
    write_to(&subject, &mut *writer, &first, 100_000);
    drop(writer);
    let mut begun = begin(&mut subject, &first).staged();
    close(&subject, begun, 0, 100_000);
    for (other, what) in
        [(&same_entry, "with other bytes"), (&longer, "with more bytes"), (&later, "of a later entry")]
    {
        let mut writer = begin(&mut subject, &first);
        write_to(&subject, &mut *writer, &first, 150_000);
        let result = writer.sync();
        subject.good("syncing", result);
        drop(writer);
        let mut writer = begin(&mut subject, other);
        if writer.staged() > 0 {
            subject.fail(format!("one {what} goes on at byte {}, with what is not its own", writer.staged()));
        }
        write_to(&subject, &mut *writer, other, 10);
        drop(writer);
        begun = begin(&mut subject, &first).staged();
        if begun > 0 {
            subject.fail(format!("one {what} was begun since, but {begun} bytes of the first are left"));
        }
    }
    let writer = begin(&mut subject, &same_entry);
    subject.finish(writer, &same_entry);
    subject.reopen();
}

fn begin<'a>(subject: &mut Subject<'a>, shot: &Shot) -> Box<dyn AnyWriter + 'a> {
    let writer = subject.snapshots().receive(GROUP, &shot.info);
    subject.good("receiving", writer)
}

fn write_to(subject: &Subject<'_>, writer: &mut dyn AnyWriter, shot: &Shot, to: u64) {
    let bytes = &shot.bytes[writer.staged() as usize..to as usize];
    let written = writer.write(bytes);
    subject.good("staging", written);
}

/// What was received is published only if it is what was announced: not more bytes, not fewer, not others. After that the
/// same snapshot can be received as it should be.
///
/// # Panics
/// If not.
pub fn refuses_other_bytes(setup: &impl Setup) {
    let mut rng = Rng::new(11);
    let shot = Subject::shot(2, 20, rng.bytes(50_000));
    let mut flipped = shot.bytes.clone();
    flipped[49_999] ^= 1;
    let cases: [(&str, &[u8]); 5] = [
        ("fewer bytes than announced", &shot.bytes[..49_999]),
        ("no bytes at all", &[]),
        ("other bytes than announced", &flipped),
        ("a byte more than announced", &[&shot.bytes[..], &[0]].concat()),
        ("twice what was announced", &[&shot.bytes[..], &shot.bytes[..]].concat()),
    ];
    for (what, bytes) in cases {
        let mut subject = Subject::new(setup, what);
        subject.append(1, 3);
        let mut writer = begin(&mut subject, &shot);
        let written = bytes.chunks(20_000).try_for_each(|chunk| writer.write(chunk));
        if bytes.len() > shot.bytes.len() {
            subject.refused("it", written);
            let again = writer.write(&[1]);
            subject.refused("staging more after that", again);
        } else {
            subject.good("staging", written);
        }
        let published = writer.publish();
        subject.refused("publishing it", published);
        subject.check();
        let writer = begin(&mut subject, &shot);
        subject.finish(writer, &shot);
        subject.reopen();
    }
}

/// A snapshot that is being read can be read to its end, though newer ones have taken its place; and they do take its place:
/// those that were replaced are not kept for ever.
///
/// # Panics
/// If not.
pub fn reads_what_is_removed(setup: &impl Setup) {
    let mut rng = Rng::new(13);
    let mut subject = Subject::new(setup, "reading a snapshot that is replaced");
    subject.append(1, 5);
    let first = subject.take(5, rng.bytes(400_000));
    let source = subject.snapshots().open(GROUP, first.last());
    let Some(mut source) = subject.good("opening a snapshot", source) else {
        subject.fail("a snapshot that was published can't be opened")
    };
    let mut found = vec![0; 400_000];
    let mut at = 0;
    for round in 0..20 {
        let read = source.read_at(at as u64, &mut found[at..at + 20_000]);
        at += subject.good(&format!("reading on, {round} snapshots later"), read);
        subject.append(1, 2);
        let last = subject.model.last().index.0;
        subject.take(last, rng.bytes(300));
        let compaction = subject.compaction(last - 1);
        subject.commit(&compaction);
    }
    if found != first.bytes {
        subject.fail("other bytes are read since it was replaced");
    }
    let listed = subject.snapshots().list(GROUP);
    let listed = subject.good("listing", listed);
    if listed.len() > 10 {
        subject.fail(format!(
            "{} snapshots are kept, of 21 of which each has replaced the one before",
            listed.len()
        ));
    }
    drop(source);
    subject.reopen();
}

/// Recovery names the newest snapshot that the log can rest on, and never one beyond the end of the log, or of another log,
/// that was received and not installed. Those stay, for any of them may be about to be installed; and however many there are,
/// the one that the log rests on stays as well.
///
/// # Panics
/// If not.
pub fn names_what_the_log_rests_on(setup: &impl Setup) {
    let mut subject = Subject::new(setup, "the snapshot that recovery names");
    subject.append(1, 30);
    subject.take(8, b"eight".to_vec());
    let compaction = subject.compaction(6);
    subject.commit(&compaction);
    subject.check();
    // Ahead of the log; then others, which are never installed.
    for (term, index) in [(2, 40), (3, 41), (4, 45), (5, 50)] {
        subject.receive(&Subject::shot(term, index, vec![4; 100]));
        subject.check();
        subject.reopen();
    }
    let installed = Subject::shot(6, 60, b"sixty".to_vec());
    subject.receive(&installed);
    subject.reopen();
    // The next one has come before the write of this one has.
    subject.receive(&Subject::shot(7, 61, vec![4; 100]));
    let installation = subject.installation(&installed);
    subject.commit(&installation);
    subject.check();
    subject.reopen();

    // Within the log, but of another one: it is to be installed in the place of the log's end.
    let mut subject = Subject::new(setup, "a snapshot of another log");
    subject.append(1, 30);
    subject.take(8, b"eight".to_vec());
    let compaction = subject.compaction(8);
    subject.commit(&compaction);
    for (term, index) in [(2, 15), (3, 16), (4, 20), (5, 21)] {
        subject.receive(&Subject::shot(term, index, vec![4; 100]));
        subject.check();
        subject.reopen();
    }
    let installed = Subject::shot(5, 22, b"in its place".to_vec());
    subject.receive(&installed);
    let installation = subject.installation(&installed);
    subject.commit(&installation);
    subject.check();
    subject.reopen();

    // The log comes to hold the entry: no installation is needed.
    let mut subject = Subject::new(setup, "a snapshot that the log catches up with");
    subject.append(1, 3);
    let ahead = Subject::shot(2, 10, b"ten".to_vec());
    subject.receive(&ahead);
    subject.append(2, 4);
    subject.check();
    subject.append(2, 5);
    subject.check();
    let mut compaction = Spec::new(GROUP);
    compaction.rebase = Some(quorate_core::Rebase::Compact(ahead.info.snapshot.clone()));
    subject.commit(&compaction);
    subject.check();
    subject.reopen();
}

/// What was staged and never published does not fill the disk, however often the process dies over it; nor do snapshots that
/// were replaced.
///
/// # Panics
/// If it does.
pub fn leaves_nothing_behind<H: Harness>(harness: &H) {
    const LEN: usize = 256 << 10;
    const ROUNDS: u64 = 24;
    for publish in [false, true] {
        let mut disk = Disk::new();
        drop(Maker::make(harness, &disk, &[(GROUP, voters(3))]));
        let mut model = Model::new(voters(3));
        let mut rng = Rng::new(17);
        let round = |disk: &Disk, model: &mut Model, rng: &mut Rng, n: u64| -> Result<(), Trouble> {
            let mut store = Maker::reopen(harness, disk)?;
            let incarnation = observe(&mut *store, GROUP)?.recovered.incarnation;
            let mut spec = Spec::new(GROUP);
            spec.hard_state = Some(quorate_core::HardState { term: Term(n), vote: None });
            let run = quorate_core::Run::commands(Term(n), model.last().index.next(), &[[0; 10]; 5]);
            spec.entries.extend(run);
            store.commit(&[spec.mint(incarnation, 1)])?;
            model.apply(&spec);
            let last = model.last();
            let snapshots = store.snapshots();
            let ahead = Subject::shot(n + 1, last.index.0 + 100, rng.bytes(LEN));
            let mut received = snapshots.receive(GROUP, &ahead.info)?;
            received.write(&ahead.bytes)?;
            received.sync()?;
            let snapshot = Snapshot { last, membership: voters(3) };
            let mut taken = snapshots.take(GROUP, &snapshot)?;
            taken.write(&rng.bytes(LEN))?;
            taken.sync()?;
            if publish {
                taken.publish()?;
                let mut spec = Spec::new(GROUP);
                spec.rebase = Some(quorate_core::Rebase::Compact(snapshot));
                store.commit(&[spec.mint(incarnation, 2)])?;
                model.apply(&spec);
            } else {
                // It dies with both in its hands.
                disk.freeze();
            }
            Ok(())
        };
        for n in 1..=ROUNDS {
            if let Err(error) = round(&disk, &mut model, &mut rng, n) {
                panic!("a process that dies while it stages snapshots, round {n}: {error}");
            }
            disk = disk.copy();
        }
        let (used, all) = (disk.used(), ROUNDS * LEN as u64);
        let what = if publish { "were published and replaced" } else { "were never published" };
        // Half of them or more are gone, whatever the store has besides.
        assert!(
            used < all,
            "{used} bytes are on the disk ({disk:?}), after snapshots of {LEN} bytes {what}, {ROUNDS} taken and {ROUNDS} received"
        );
    }
}

//! Groups: created, listed, recovered many at once, and removed for good.

use std::collections::BTreeMap;

use quorate_core::{
    GroupId, HardState, Incarnation, Index, Load, LoadId, LogId, Membership, Rebase, Run, Snapshot, Term,
    Write,
};

use super::{
    Disk, Harness, Rng, Setup,
    erased::{AnyStore, Trouble},
    harness::Maker,
    model::{Shot, Spec, observe, voters},
    subject::{GROUP, Subject},
};

/// Ids that are easily mistaken for one another, or for the end of all.
const IDS: [u64; 7] = [0, 1, 7, (1 << 32) + 7, 1 << 40, u64::MAX - 1, u64::MAX];

/// The groups that are here are listed, in order, whenever they came: none, one, many.
///
/// # Panics
/// If not.
pub fn lists_groups(setup: &impl Setup) {
    let mut started = setup.start(&[]);
    let mut here: Vec<GroupId> = Vec::new();
    listed(started.store(), &here);
    listed(started.reopen(), &here);
    for id in [7, 0, u64::MAX, 1 << 40, 3].map(GroupId) {
        good("creating a group", started.store().create(id, &voters(2)));
        here.push(id);
        here.sort_unstable();
        listed(started.store(), &here);
        listed(started.reopen(), &here);
    }
    for id in [0, u64::MAX, 7].map(GroupId) {
        good("removing a group", started.store().remove(id));
        here.retain(|other| *other != id);
        listed(started.store(), &here);
        listed(started.reopen(), &here);
    }
}

/// A group that is created is new, with its own membership, and takes writes; one that is here already is refused, and stays as
/// it was. Those that are created at once are as those that are created one by one.
///
/// # Panics
/// If not.
pub fn creates_groups(setup: &impl Setup) {
    let mut subject = Subject::new(setup, "a group beside which others are created");
    subject.append(1, 5);
    let (one, many) = IDS[1..].split_at(3);
    let groups = |ids: &[u64]| -> Vec<(GroupId, Membership)> {
        ids.iter().map(|id| (GroupId(*id), voters(1 + id % 5))).collect()
    };
    for (id, membership) in groups(one) {
        let created = subject.store().create(id, &membership);
        subject.good("creating a group", created);
    }
    let created = subject.store().create_many(&groups(many));
    subject.good("creating groups at once", created);
    let none = subject.store().create_many(&[]);
    subject.good("creating no groups at all", none);
    for life in 1..4_u64 {
        for (id, membership) in groups(&IDS[1..]) {
            let again = subject.store().create(id, &voters(4));
            subject.refused("creating a group that is here", again);
            let again = subject.store().create_many(&[(id, voters(4))]);
            subject.refused("creating a group that is here, at once with others", again);
            let found = observe(subject.store(), id);
            let found = subject.good("recovering a group that was created", found).recovered;
            let expected = (Incarnation(life), membership, Index(life - 1));
            if (found.incarnation, found.base_membership.clone(), found.last) != expected {
                subject
                    .fail(format!("group {id} should be {expected:?} in its life {life}, but is {found:?}"));
            }
            let written = subject.store().commit(&[noop(id, life).mint(found.incarnation, 1)]);
            subject.good("a commit of a group that was created", written);
        }
        let again = subject.store().create(GROUP, &voters(4));
        subject.refused("creating a group that is here from the beginning", again);
        subject.reopen();
    }
}

/// An entry in each life: that of life *n* at index *n*.
fn noop(group: GroupId, life: u64) -> Spec {
    let mut spec = Spec::new(group);
    spec.hard_state = Some(HardState { term: Term(life), vote: None });
    spec.entries.push(Run::noop(Term(life), Index(life)));
    spec
}

/// A group that was removed is gone and never comes back, at once, after the store was reopened, and after other logs were
/// compacted: it is not listed, can't be created, recovered, written or read, and has no snapshots; a write that was
/// minted before is refused. Its neighbours stay as they were.
///
/// # Panics
/// If not.
pub fn removes_groups(setup: &impl Setup) {
    for (n, removed) in IDS.iter().map(|id| GroupId(*id)).enumerate() {
        let mut started = setup.start(&IDS.map(|id| (GroupId(id), voters(3))));
        let mut lives = BTreeMap::new();
        for id in IDS.map(GroupId) {
            lives.insert(id, fill(started.store(), id));
        }
        if n % 2 == 0 {
            // Not recovered since.
            started.reopen();
        }
        let late = Spec::new(removed).mint(lives[&removed], 4);
        good("removing a group", started.store().remove(removed));
        if n % 2 == 0 {
            gone(started.store(), removed);
        } else {
            // Whether the store goes on after that is another check's.
            bad("a write that was minted before", started.store().commit(&[late]));
        }
        started.reopen();
        gone(started.store(), removed);
        let mut rest = IDS.map(GroupId).to_vec();
        rest.retain(|id| *id != removed);
        listed(started.store(), &rest);
        for id in &rest {
            let what = format!("group {id}, beside which {removed} was removed");
            let found = good(&what, observe(started.store(), *id));
            let kept = (found.recovered.base.index, found.recovered.last, found.snapshots.len());
            assert_eq!(kept, (Index(4), Index(9), 1), "{what}");
            lives.insert(*id, found.recovered.incarnation);
        }
        // The store may write all it has anew.
        let id = rest[n % rest.len()];
        compact_to(started.store(), id, 6, lives[&id], 1);
        gone(started.store(), removed);
        started.reopen();
        gone(started.store(), removed);
        bad("removing a group that was never here", started.store().remove(GroupId(12)));
        let created = started.store().create(GroupId(12), &voters(1));
        good("creating a group after removing it was refused, for it was not here", created);
    }
}

/// Nine entries, a snapshot at 4, and the log begins after it. Gives its incarnation; write 4 is next.
fn fill(store: &mut (dyn AnyStore<'_> + '_), id: GroupId) -> Incarnation {
    let incarnation = good("a recovery", store.recover(id)).incarnation;
    let mut spec = Spec::new(id);
    spec.hard_state = Some(HardState { term: Term(1), vote: None });
    spec.entries.extend(Run::commands(Term(1), Index(1), &[[7; 50]; 5]));
    good("a commit", store.commit(&[spec.mint(incarnation, 1)]));
    let mut spec = Spec::new(id);
    spec.entries.extend(Run::commands(Term(1), Index(6), &[[8; 50]; 4]));
    good("a commit", store.commit(&[spec.mint(incarnation, 2)]));
    compact_to(store, id, 4, incarnation, 3);
    incarnation
}

fn compact_to(store: &mut (dyn AnyStore<'_> + '_), id: GroupId, at: u64, incarnation: Incarnation, seq: u64) {
    let snapshot = Snapshot { last: LogId::new(Term(1), Index(at)), membership: voters(3) };
    let mut writer = good("taking a snapshot", store.snapshots().take(id, &snapshot));
    good("staging", writer.write(b"all of it"));
    good("publishing", writer.publish().map(drop));
    let mut spec = Spec::new(id);
    spec.rebase = Some(Rebase::Compact(snapshot));
    good("a compaction", store.commit(&[spec.mint(incarnation, seq)]));
}

/// Nothing of it can be had.
fn gone(store: &mut (dyn AnyStore<'_> + '_), id: GroupId) {
    bad("creating a group that was removed", store.create(id, &voters(3)));
    bad("creating it at once with others", store.create_many(&[(id, voters(3))]));
    bad("removing a group that was removed", store.remove(id));
    bad("recovering a group that was removed", store.recover(id));
    bad("recovering it at once with others", store.recover_many(&[id]));
    let load = Load { id: LoadId::default(), first: Index(5), last: Index(9), max_bytes: 1000 };
    bad("reading the log of a group that was removed", store.reader().load(id, &load));
    let shot = Subject::shot(1, 20, vec![1; 100]);
    let snapshots = store.snapshots();
    bad("listing the snapshots of a group that was removed", snapshots.list(id));
    bad("taking a snapshot of a group that was removed", snapshots.take(id, &shot.info.snapshot).map(drop));
    bad("receiving one", snapshots.receive(id, &shot.info).map(drop));
    let last = LogId::new(Term(1), Index(4));
    if matches!(snapshots.open(id, last), Ok(Some(_))) {
        panic!("the snapshot of group {id}, which was removed, can be opened");
    }
}

/// A snapshot that is being read when its group is removed can be read to its end. Those that are being staged can't go on: no
/// more is taken, or else they can't be published; and nobody who lets go of one brings the group back.
///
/// # Panics
/// If not.
pub fn removes_what_is_staged(setup: &impl Setup) {
    let mut rng = Rng::new(23);
    for publish in [false, true] {
        let mut subject =
            Subject::new(setup, "a group that is removed while its snapshots are staged and read");
        let other = GroupId(5);
        let created = subject.store().create(other, &voters(3));
        subject.good("creating a group", created);
        subject.append(1, 9);
        let shot = subject.take(3, rng.bytes(300_000));
        let source = subject.snapshots().open(GROUP, shot.last());
        let Some(mut source) = subject.good("opening a snapshot", source) else {
            subject.fail("a snapshot that was published can't be opened")
        };
        let taken = Shot::new(subject.snapshot_at(8), rng.bytes(200_000));
        let ahead = Subject::shot(2, 50, rng.bytes(200_000));
        let snapshots = subject.snapshots();
        let mut taking = subject.good("taking a snapshot", snapshots.take(GROUP, &taken.info.snapshot));
        let mut receiving = subject.good("receiving a snapshot", snapshots.receive(GROUP, &ahead.info));
        subject.good("staging", taking.write(&taken.bytes[..150_000]));
        subject.good("staging", receiving.write(&ahead.bytes[..150_000]));
        subject.good("syncing", receiving.sync());
        let removed = subject.store().remove(GROUP);
        subject.good("removing a group", removed);
        let mut bytes = vec![0; 300_000];
        for part in 0..3_usize {
            let read = source.read_at(part as u64 * 100_000, &mut bytes[part * 100_000..][..100_000]);
            subject.good("reading on", read);
        }
        if bytes != shot.bytes {
            subject.fail("other bytes are read since the group was removed");
        }
        drop(source);
        for (mut writer, shot) in [(taking, &taken), (receiving, &ahead)] {
            let written = writer.write(&shot.bytes[150_000..]);
            if publish {
                let published = written.and_then(|()| writer.publish());
                subject.refused("publishing a snapshot of a group that was removed meanwhile", published);
            } else {
                let synced = written.and_then(|()| writer.sync());
                subject.refused("staging more of a group that was removed meanwhile", synced);
            }
        }
        for _ in 0..2 {
            listed(subject.store(), &[other]);
            bad("listing the snapshots of a group that was removed", subject.snapshots().list(GROUP));
            bad("creating a group that was removed", subject.store().create(GROUP, &voters(3)));
            let recovered = subject.store().recover(other);
            subject.good("recovering the other group", recovered);
            subject.reopen_unrecovered();
        }
    }
}

/// Recovering many at once gives what recovering one after the other does, and new incarnations that are durable: however many there are, in any
/// order, and none at all. With one that is not here among them all of it is refused.
///
/// # Panics
/// If not.
pub fn recovers_many(setup: &impl Setup) {
    let ids = IDS.map(GroupId);
    let mut started = setup.start(&IDS.map(|id| (GroupId(id), voters(1 + id % 5))));
    for id in [0, 7, u64::MAX].map(GroupId) {
        fill(started.store(), id);
    }
    let mut newest: BTreeMap<GroupId, Incarnation> = BTreeMap::new();
    let mut order: Vec<GroupId> = ids.to_vec();
    for round in 0..6 {
        let mut one_by_one = Vec::new();
        for id in &order {
            one_by_one.push(good("a recovery", started.store().recover(*id)));
        }
        if round % 2 == 0 {
            started.reopen();
        }
        let at_once = good("a recovery of many", started.store().recover_many(&order));
        assert_eq!(at_once.len(), order.len(), "so many are recovered");
        for ((id, one), mut found) in order.iter().zip(one_by_one).zip(at_once) {
            let (first, second) = (one.incarnation, found.incarnation);
            let before = newest.get(id).copied().unwrap_or_default();
            assert!(
                before < first && first < second,
                "group {id} has {first} after {before}, and then {second}"
            );
            newest.insert(*id, second);
            found.incarnation = first;
            assert_eq!(found, one, "group {id} recovered with others, and alone");
        }
        // It takes the writes of that life, and of no other.
        let writes: Vec<_> = order.iter().map(|id| Spec::new(*id).mint(newest[id], 1)).collect();
        good("a commit of all groups", started.store().commit(&writes));
        started.reopen();
        order.rotate_left(3);
        order.swap(0, 1);
    }
    assert_eq!(good("a recovery of none", started.store().recover_many(&[])), []);
    bad("recovering one that is not here", started.store().recover_many(&[ids[1], GroupId(12), ids[2]]));
    for (id, before) in newest {
        let found = good("a recovery after one was refused", started.store().recover(id)).incarnation;
        assert!(found > before, "group {id} has {found} after {before}");
    }
}

/// Makes the write that is refused; `None`: it is one of a group that is removed first.
type Culprit = fn(Incarnation) -> Option<Write>;

/// If a store says that a commit was refused for the sake of one group, then it says of which, nothing of the commit is there, and it goes
/// on: the writes of the others are taken.
///
/// # Panics
/// If not.
pub fn refuses_one_group_alone(setup: &impl Setup) {
    let ids = [1, 2, 3].map(GroupId);
    let culprits: [(&str, Culprit); 4] = [
        ("a group that was removed", |_| None),
        ("a group that was never here", |_| Some(noop(GroupId(9), 1).mint(Incarnation(1), 1))),
        ("an earlier life", |now| Some(noop(GroupId(2), 1).mint(Incarnation(now.0 - 1), 1))),
        ("a write that is not the next", |now| Some(noop(GroupId(2), 1).mint(now, 5))),
    ];
    for (what, culprit) in culprits {
        for place in 0..3 {
            let mut started = setup.start(&ids.map(|id| (id, voters(3))));
            good("a recovery of many", started.store().recover_many(&ids));
            let lives = good("a recovery of many", started.store().recover_many(&ids));
            let culprit = culprit(lives[1].incarnation).unwrap_or_else(|| {
                good("removing a group", started.store().remove(ids[1]));
                noop(ids[1], 1).mint(lives[1].incarnation, 1)
            });
            let expected = culprit.receipt().group();
            // Two terms each: a store may have written down the first when it comes to the second.
            let other = |n: usize| {
                let mut spec = noop(ids[n], 1);
                spec.hard_state = Some(HardState { term: Term(2), vote: None });
                spec.entries.push(Run::noop(Term(2), Index(2)));
                spec.mint(lives[n].incarnation, 1)
            };
            let others = || vec![other(0), other(2)];
            let mut writes = others();
            writes.insert(place, culprit);
            let Err(error) = started.store().commit(&writes) else {
                panic!("a commit with a write of {what} is not refused")
            };
            let Some(found) = error.refused else {
                // It stops the store, or leaves what was before: that is checked elsewhere.
                continue;
            };
            assert_eq!(found, expected, "{what} is refused, but another group is named: {error}");
            for id in [ids[0], ids[2]] {
                let load = Load { id: LoadId::default(), first: Index(1), last: Index(9), max_bytes: 1000 };
                let loaded = good("a load", started.store().reader().load(id, &load));
                let nothing = quorate_core::Loaded::Entries(quorate_core::Few::new());
                assert_eq!(loaded, nothing, "a commit was refused for {what}, but group {id} has some of it");
            }
            good(
                &format!("the others' writes, once that of {what} is out"),
                started.store().commit(&others()),
            );
            started.reopen();
            for id in [ids[0], ids[2]] {
                assert_eq!(
                    good("a recovery", started.store().recover(id)).last,
                    Index(2),
                    "group {id}, {what}"
                );
            }
        }
    }
}

/// What a removed group had does not fill the disk: its log, its snapshots, and what was staged when it went, whoever let go of that, and
/// whenever the process died.
///
/// # Panics
/// If it does.
pub fn leaves_nothing_of_removed_groups<H: Harness>(harness: &H) {
    const LEN: usize = 256 << 10;
    const ROUNDS: u64 = 24;
    let round = |disk: &Disk, rng: &mut Rng, n: u64, killed: bool| -> Result<(), Trouble> {
        let mut store = Maker::reopen(harness, disk)?;
        let id = GroupId(n);
        store.create(id, &voters(3))?;
        let incarnation = store.recover(id)?.incarnation;
        let mut spec = Spec::new(id);
        spec.hard_state = Some(HardState { term: Term(1), vote: None });
        spec.entries.extend(Run::commands(Term(1), Index(1), &[rng.bytes(LEN), Vec::new()]));
        store.commit(&[spec.mint(incarnation, 1)])?;
        let snapshots = store.snapshots();
        let shot = |index| {
            Shot::new(Snapshot { last: LogId::new(Term(1), Index(index)), membership: voters(3) }, Vec::new())
        };
        let mut published = snapshots.take(id, &shot(1).info.snapshot)?;
        published.write(&rng.bytes(LEN))?;
        published.publish()?;
        let mut taken = snapshots.take(id, &shot(2).info.snapshot)?;
        taken.write(&rng.bytes(LEN))?;
        let ahead = Subject::shot(2, 100, rng.bytes(LEN));
        let mut received = snapshots.receive(id, &ahead.info)?;
        received.write(&ahead.bytes[..LEN - 1])?;
        received.sync()?;
        if n.is_multiple_of(3) {
            // Of one that was cut short nobody is there any more.
            drop(received);
            store.remove(id)?;
            drop(taken);
        } else {
            store.remove(id)?;
            if killed {
                disk.freeze();
            }
            // What can't be published is not, however far it has come.
            let published =
                received.write(&ahead.bytes[LEN - 1..]).and_then(|()| received.publish().map(drop));
            let refused = published.is_err() && taken.publish().is_err();
            assert!(refused, "a snapshot of a group that was removed is published");
        }
        if killed {
            disk.freeze();
        }
        Ok(())
    };
    for killed in [false, true] {
        let mut disk = Disk::new();
        drop(Maker::make(harness, &disk, &[(GROUP, voters(3))]));
        let mut rng = Rng::new(19);
        for n in 1..=ROUNDS {
            if let Err(error) = round(&disk, &mut rng, n, killed) {
                panic!("a group that is created and removed, round {n}: {error}");
            }
            disk = disk.copy();
        }
        drop(Maker::reopen(harness, &disk));
        let used = disk.used();
        // All were a hundred times as much, and all of one kind 24 times.
        let most = 8 * LEN as u64;
        assert!(
            used < most,
            "{used} bytes are on the disk ({disk:?}) after {ROUNDS} groups, each with some {LEN} in its log, and in three snapshots, were removed"
        );
    }
}

fn listed(store: &(dyn AnyStore<'_> + '_), expected: &[GroupId]) {
    let found = good("listing the groups", store.groups());
    assert_eq!(found, expected, "the groups that are listed");
}

#[track_caller]
fn good<T>(doing: &str, result: Result<T, Trouble>) -> T {
    result.unwrap_or_else(|error| panic!("{doing} fails: {error}"))
}

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "a result is handed over where it is made")]
fn bad<T>(doing: &str, result: Result<T, Trouble>) {
    assert!(result.is_err(), "{doing} is not refused");
}

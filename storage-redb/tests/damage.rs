//! Flipped bits after an unclean stop: noticed, or harmless; never a store that is silently older than what was
//! acknowledged. And the limits of that, as `docs/decisions/0001-durability-of-a-commit.md` states them.

mod common;

use std::collections::BTreeSet;

use common::{
    Change, IDENTITY, Model, Rng,
    faults::{Disk, Io, Left, Medium, SECTOR},
    voters,
};
use quorate_core::{GroupId, Store};
use quorate_storage_redb::{Error, Options, RedbStore};

const GROUP: GroupId = GroupId(1);

/// A store that was never closed, and where its newest commit has written.
struct Killed {
    options: Options,
    /// As the process left it: what a SIGKILL leaves, for the page cache lives on.
    live: Vec<u8>,
    /// As the disk has it if the power fails right after the newest commit was acknowledged and no page had been
    /// written that was not synced: the watermark of that commit was not.
    durable: Vec<u8>,
    /// The sectors that the newest commit wrote.
    newest: BTreeSet<usize>,
    /// What is acknowledged, and the commit before it.
    model: Model,
    older: Model,
}

fn killed(options: Options, seed: u64) -> Killed {
    killed_after(options, seed, &appended(), |_| {})
}

/// A newest commit that appends.
fn appended() -> [Change; 2] {
    [Change::Vote { newer: 1, vote: Some(2) }, Change::Append { newer: 0, sizes: vec![256] }]
}

/// One that lets the log begin later, and with what is left of a run of entries.
fn compacted() -> [Change; 2] {
    [Change::Vote { newer: 1, vote: Some(2) }, Change::Compact { keep: 8, sizes: vec![256] }]
}

/// One that puts a snapshot in the log's place.
fn installed() -> [Change; 2] {
    [Change::Vote { newer: 1, vote: Some(2) }, Change::Install { ahead: 70, newer: 0, voters: 4 }]
}

fn killed_after(options: Options, seed: u64, newest: &[Change], last: impl FnOnce(&mut RedbStore)) -> Killed {
    let medium = Medium::default();
    let groups = [(GROUP, voters(&[1, 2, 3]))];
    let mut rng = Rng(seed);
    let mut store = RedbStore::create_on(options, medium.clone(), IDENTITY, &groups).unwrap();
    let mut model = Model::new(&groups);
    model.check(&mut store).unwrap();
    for _ in 0..12 {
        let sizes = vec![200 + rng.below(200) as usize; 3 + rng.below(3) as usize];
        let write = model.write(GROUP, &Change::Append { newer: rng.below(2), sizes });
        store.commit(&[write]).unwrap();
    }
    let older = model.clone();
    let before = medium.trace().len();
    let writes: Vec<_> = newest.iter().map(|change| model.write(GROUP, change)).collect();
    store.commit(&writes).unwrap();
    last(&mut store);
    medium.freeze();
    drop(store);

    let trace = medium.trace();
    let mut disk = Disk::default();
    trace.iter().for_each(|io| disk.act(io, &mut rng));
    let mut newest = BTreeSet::new();
    for io in &trace[before..] {
        if let Io::Write(at, data) = io {
            newest.extend(*at as usize / SECTOR..(*at as usize + data.len()).div_ceil(SECTOR));
        }
    }
    let (live, durable) = (disk.image(Left::All, &mut rng), disk.image(Left::Nothing, &mut rng));
    Killed { options, live, durable, newest, model, older }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// The damage was noticed.
    Noticed,
    /// All that was acknowledged is there.
    Harmless,
    /// What was there before the newest commit, without a word.
    SilentlyOlder,
}

fn look(killed: &Killed, image: Vec<u8>) -> Found {
    let medium = Medium::of(image);
    let outcome = |mut store: RedbStore| {
        let fits = |model: &Model, store: &mut RedbStore| model.clone().check(store);
        match fits(&killed.model, &mut store) {
            Ok(()) => Found::Harmless,
            // Recovering has issued an incarnation: what the older one holds is compared on a fresh copy.
            Err(_) => {
                let mut older = killed.older.clone();
                older.groups.get_mut(&GROUP).unwrap().incarnation.0 += 1;
                match fits(&older, &mut store) {
                    Ok(()) => Found::SilentlyOlder,
                    Err(reason) if reason.contains("is damaged") => Found::Noticed,
                    Err(reason) => panic!("neither the newest nor the one before: {reason}"),
                }
            }
        }
    };
    match RedbStore::open_on(killed.options, medium.clone(), IDENTITY) {
        Ok(store) => outcome(store),
        Err(Error::Damaged(_) | Error::Lost(_) | Error::UnknownVersion { .. }) => {
            // Noticed once, noticed ever after, whatever the first look has repaired.
            let again = RedbStore::open_on(killed.options, medium, IDENTITY).err();
            assert!(
                matches!(again, Some(Error::Damaged(_) | Error::Lost(_) | Error::UnknownVersion { .. })),
                "the second time: {again:?}"
            );
            Found::Noticed
        }
        Err(Error::WrongCluster { .. } | Error::WrongNode { .. } | Error::Missing { .. }) => Found::Noticed,
        Err(error) => panic!("damage was called {error:?}"),
    }
}

fn flipped(image: &[u8], byte: usize, bit: u8) -> Vec<u8> {
    let mut image = image.to_vec();
    image[byte] ^= 1 << bit;
    image
}

/// Bits to flip in what the newest commit wrote: all in the first sectors of redb's header, some of all others.
fn bits(killed: &Killed, rng: &mut Rng) -> Vec<(usize, u8)> {
    let header = 16 << 10;
    let mut bits: Vec<(usize, u8)> = (header..header + 320)
        .flat_map(|byte| [(byte, (byte % 8) as u8), (byte, ((byte + 3) % 8) as u8)])
        .collect();
    // The byte with redb's flags, which no checksum covers.
    bits.extend((0..8).map(|bit| (header + 9, bit)));
    for sector in &killed.newest {
        for _ in 0..12 {
            bits.push((sector * SECTOR + rng.below(SECTOR as u64) as usize, rng.below(8) as u8));
        }
    }
    bits
}

#[test]
fn after_a_kill_no_flipped_bit_makes_it_silently_older() {
    let newest = [
        ("appended", false, appended()),
        ("appended", true, appended()),
        ("compacted", false, compacted()),
        ("installed", false, installed()),
    ];
    for (name, two_phase, newest) in newest {
        let killed = killed_after(Options::default().two_phase(two_phase), 5, &newest, |_| {});
        assert_eq!(look(&killed, killed.live.clone()), Found::Harmless);
        let mut rng = Rng(9);
        let (mut noticed, mut harmless) = (0, 0);
        for (byte, bit) in bits(&killed, &mut rng) {
            match look(&killed, flipped(&killed.live, byte, bit)) {
                Found::Noticed => noticed += 1,
                Found::Harmless => harmless += 1,
                Found::SilentlyOlder => panic!("{name}: bit {bit} of byte {byte}: silently older"),
            }
        }
        println!("{name}, two phases: {two_phase}: {noticed} noticed, {harmless} harmless");
        assert!(noticed > 100 && harmless > 10);
    }
}

/// The limit of one phase with a watermark: the power fails before the next commit, so that the newest watermark is
/// lost, and what the newest commit wrote is damaged though it was synced. With two phases that is noticed, but for
/// the flag in redb's header that says which of two commits is newer.
#[test]
fn after_a_power_failure_damage_to_the_newest_commit_is_noticed_with_two_phases() {
    for two_phase in [false, true] {
        let killed = killed(Options::default().two_phase(two_phase), 6);
        assert_ne!(killed.live, killed.durable, "the watermark is not durable yet");
        assert_eq!(look(&killed, killed.durable.clone()), Found::Harmless);
        let mut rng = Rng(10);
        let mut older = BTreeSet::new();
        for (byte, bit) in bits(&killed, &mut rng) {
            if look(&killed, flipped(&killed.durable, byte, bit)) == Found::SilentlyOlder {
                older.insert((byte, bit));
            }
        }
        println!("two phases: {two_phase}: {} flips make it silently older", older.len());
        if two_phase {
            assert!(older.iter().all(|(byte, _)| *byte == (16 << 10) + 9), "{older:?}");
        } else {
            assert!(older.len() > 10, "the decision record says what remains unnoticed; it is out of date");
        }
    }
}

/// A store that was idle for a moment, so that its driver has settled it, notices all of it with one phase too.
#[test]
fn once_settled_a_power_failure_hides_nothing() {
    let killed = killed_after(Options::default(), 6, &appended(), |store| {
        store.settle().unwrap();
        store.settle().unwrap();
    });
    let mut rng = Rng(10);
    let mut noticed = 0;
    for (byte, bit) in bits(&killed, &mut rng) {
        let found = look(&killed, flipped(&killed.durable, byte, bit));
        assert_ne!(found, Found::SilentlyOlder, "bit {bit} of byte {byte}");
        noticed += usize::from(found == Found::Noticed);
    }
    assert!(noticed > 100);
}

/// The database as it was long ago, under the watermark of now.
#[test]
fn an_older_image_of_the_database_is_noticed() {
    let killed = killed(Options::default(), 7);
    let medium = Medium::default();
    let groups = [(GROUP, voters(&[1, 2, 3]))];
    drop(RedbStore::create_on(killed.options, medium.clone(), IDENTITY, &groups).unwrap());
    let front = 16 << 10;
    let mut image = killed.live[..front].to_vec();
    image.extend_from_slice(&medium.image()[front..]);
    let error = RedbStore::open_on(killed.options, Medium::of(image), IDENTITY).unwrap_err();
    let Error::Lost(lost) = &error else { panic!("{error}") };
    let fact = lost.facts.iter().find(|fact| fact.group == GROUP).unwrap();
    assert_eq!(fact.last, killed.model.groups[&GROUP].last());
    assert_eq!(fact.hard_state, killed.model.groups[&GROUP].hard_state);
    assert!(lost.found < lost.acknowledged);
    let told = error.to_string();
    assert!(told.contains("has lost what was acknowledged") && told.contains("a vote for node 2"), "{told}");
    assert!(told.contains("join under a new id"), "{told}");
}

/// Damage to a store that was closed: every page is looked at when it is opened.
#[test]
fn after_a_clean_close_no_flipped_bit_gives_other_entries() {
    let medium = Medium::default();
    let groups = [(GROUP, voters(&[1, 2, 3]))];
    let options = Options::default();
    let mut store = RedbStore::create_on(options, medium.clone(), IDENTITY, &groups).unwrap();
    let mut model = Model::new(&groups);
    model.check(&mut store).unwrap();
    for n in 0..30 {
        let change = match n {
            9 | 29 => Change::Membership { voters: 3 },
            // What is left begins in the middle of a run.
            19 => Change::Compact { keep: 41, sizes: Vec::new() },
            _ => Change::Append { newer: 0, sizes: vec![300; 3] },
        };
        store.commit(&[model.write(GROUP, &change)]).unwrap();
    }
    store.close().unwrap();
    let live = medium.image();
    let used: Vec<usize> = (0..live.len() / SECTOR)
        .filter(|sector| live[sector * SECTOR..][..SECTOR].iter().any(|byte| *byte != 0))
        .collect();
    let mut rng = Rng(3);
    let mut noticed = 0;
    for _ in 0..600 {
        let sector = used[rng.below(used.len() as u64) as usize];
        let image = flipped(&live, sector * SECTOR + rng.below(SECTOR as u64) as usize, rng.below(8) as u8);
        let Ok(mut store) = RedbStore::open_on(options, Medium::of(image), IDENTITY) else {
            noticed += 1;
            continue;
        };
        match model.clone().check(&mut store) {
            Ok(()) => {}
            Err(reason) if reason.contains("is damaged") => noticed += 1,
            Err(reason) => panic!("sector {sector}: {reason}"),
        }
    }
    assert!(noticed > 100, "only {noticed} noticed");
}

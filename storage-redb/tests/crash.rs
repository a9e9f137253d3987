//! Crashes and failing disks, at every I/O of a workload.

mod common;

use common::{
    Change, IDENTITY, Model, Rng,
    faults::{Disk, Io, Left, Medium},
    voters,
};
use quorate_core::{GroupId, Membership, Store, Write};
use quorate_storage_redb::{Error, Options, RedbStore};

fn groups() -> Vec<(GroupId, Membership)> {
    vec![(GroupId(0), voters(&[1, 2, 3])), (GroupId(7), voters(&[3, 4]))]
}

/// Runs a workload on `medium`. Gives the model after each acknowledged commit, and whether it came to its end.
/// The last model is of the commit that was under way, if one failed.
fn workload(medium: &Medium, options: Options, seed: u64, commits: u64) -> (Vec<Model>, Option<Error>) {
    let mut rng = Rng(seed);
    let mut models = vec![Model::new(&groups())];
    let mut store = match RedbStore::create_on(options, medium.clone(), IDENTITY, &groups()) {
        Ok(store) => store,
        Err(error) => return (models, Some(error)),
    };
    medium.acknowledge(0);
    for step in 0..commits {
        let mut model = models.last().unwrap().clone();
        let result = if step < 2 || rng.chance(3) {
            let group = groups()[step as usize % 2].0;
            let restarted = model.groups.get_mut(&group).unwrap();
            restarted.incarnation.0 += 1;
            restarted.next = 1;
            store.recover(group).map(|_| ())
        } else {
            let writes: Vec<Write> = (0..=rng.below(3))
                .map(|_| model.write(groups()[rng.below(2) as usize].0, &Change::random(&mut rng)))
                .collect();
            store.commit(&writes)
        };
        models.push(model);
        if let Err(error) = result {
            refuses_everything(&mut store, models.last().unwrap());
            return (models, Some(error));
        }
        medium.acknowledge(models.len() - 1);
    }
    crash(store, medium);
    (models, None)
}

/// Ends a store without its closing it: nothing that it would write gets there any more.
fn crash(store: RedbStore, medium: &Medium) {
    medium.freeze();
    drop(store);
}

fn refuses_everything(store: &mut RedbStore, model: &Model) {
    let mut model = model.clone();
    for _ in 0..3 {
        let next = model.write(GroupId(0), &Change::Append { newer: 0, sizes: vec![10] });
        assert!(matches!(store.commit(&[next]), Err(Error::Stopped { .. })));
        assert!(matches!(store.recover(GroupId(7)), Err(Error::Stopped { .. })));
        assert!(matches!(store.add_group(GroupId(9), voters(&[1])), Err(Error::Stopped { .. })));
    }
}

/// Opens what a crash has left: it holds what was acknowledged, or that and the commit that was under way, whole.
fn holds(image: &[u8], options: Options, models: &[Model], acknowledged: usize) -> Result<Medium, String> {
    let mut reasons = String::new();
    for n in (acknowledged..models.len().min(acknowledged + 2)).rev() {
        // A comparison recovers the groups, so each has a copy of its own.
        let medium = Medium::of(image.to_vec());
        let mut store = RedbStore::open_on(options, medium.clone(), IDENTITY)
            .map_err(|error| format!("refused: {error}"))?;
        match models[n].clone().check(&mut store) {
            Ok(()) => {
                crash(store, &medium);
                return Ok(medium);
            }
            Err(reason) => reasons = format!("{reasons}\n  as after commit {n}: {reason}"),
        }
    }
    Err(reasons)
}

fn crash_everywhere(options: Options, seed: u64, commits: u64) -> usize {
    let medium = Medium::default();
    let (models, error) = workload(&medium, options, seed, commits);
    assert!(error.is_none(), "{error:?}");
    let mut rng = Rng(seed ^ 1);
    let mut disk = Disk::default();
    let (mut acknowledged, mut points) = (None, 0);
    for (n, io) in medium.trace().iter().enumerate() {
        disk.act(io, &mut rng);
        if let Io::Acknowledged(model) = io {
            acknowledged = Some(*model);
        }
        let newest = Left::Newest(1 + rng.below(3) as usize);
        let some = Left::Some([10, 50, 90][rng.below(3) as usize]);
        for left in [Left::Nothing, Left::All, newest, some] {
            // Without anything pending they are all the same.
            if left != Left::Nothing && !disk.has_pending() {
                continue;
            }
            let image = disk.image(left, &mut rng);
            let Some(acknowledged) = acknowledged else {
                // Bootstrap was cut short: there is no store, or the whole of the new one.
                match RedbStore::open_on(options, Medium::of(image.clone()), IDENTITY) {
                    Err(Error::Missing { .. }) => {}
                    Ok(_) => drop(holds(&image, options, &models, 0).unwrap()),
                    Err(error) => panic!("seed {seed}, I/O {n}, {left:?}: {error}"),
                }
                continue;
            };
            points += 1;
            match holds(&image, options, &models, acknowledged) {
                Err(reason) => {
                    panic!(
                        "seed {seed}, crash after I/O {n} ({left:?}), {acknowledged} acknowledged: {reason}"
                    )
                }
                Ok(reopened) if rng.chance(10) => {
                    crash_again(&image, &reopened, options, &models, acknowledged);
                }
                Ok(_) => {}
            }
        }
    }
    points
}

/// Another crash, while what the first had left was being repaired and recovered.
fn crash_again(image: &[u8], reopened: &Medium, options: Options, models: &[Model], acknowledged: usize) {
    let mut rng = Rng(image.len() as u64 ^ acknowledged as u64);
    let trace = reopened.trace();
    let stop = rng.below(trace.len() as u64) as usize;
    let mut disk = Disk::of(image.to_vec());
    trace[..stop].iter().for_each(|io| disk.act(io, &mut rng));
    let again = disk.image(Left::Some(50), &mut rng);
    // Recovery may have issued incarnations by then, so those are left out of what is compared.
    let mut store = RedbStore::open_on(options, Medium::of(again), IDENTITY).unwrap();
    for (id, _) in groups() {
        let found = store.recover(id).unwrap();
        let fits = models[acknowledged..models.len().min(acknowledged + 2)].iter().any(|model| {
            let group = &model.groups[&id];
            found.incarnation > group.incarnation
                && found.hard_state == group.hard_state
                && found.last == group.last().index
                && found.base == group.base
                && common::read_log(&store, id, found.base.index, found.last).as_ref() == Ok(&group.log)
        });
        assert!(fits, "group {id} after a second crash at I/O {stop} of recovery: {found:?}");
    }
}

#[test]
fn whatever_a_crash_leaves_what_was_acknowledged_is_there_and_nothing_is_halfway() {
    let points: usize = (0..4).map(|seed| crash_everywhere(Options::default(), seed, 36)).sum();
    assert!(points > 2000, "only {points} crash points");
    println!("{points} crash points");
}

#[test]
fn with_two_phases_too() {
    let points = crash_everywhere(Options::default().two_phase(true), 11, 16);
    assert!(points > 300, "only {points} crash points");
}

/// Every I/O fails once: with those after it, or alone, as when a sync fails and the next one is said to be fine.
#[test]
fn after_an_io_error_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    let options = Options::default();
    let clean = Medium::default();
    let (_, error) = workload(&clean, options, 3, 14);
    assert!(error.is_none());
    let mut failures = 0;
    for at in 0..clean.count() {
        for for_good in [true, false] {
            let medium = Medium::default();
            medium.fail_at(at, for_good);
            let (models, error) = workload(&medium, options, 3, 14);
            let Some(error) = error else {
                // redb may do without an I/O that is not needed for the commit; then all went well.
                continue;
            };
            failures += 1;
            assert!(
                matches!(error, Error::Io { .. } | Error::Database { .. }),
                "I/O {at} failed, but the error was {error:?}"
            );
            let mut rng = Rng(at);
            let mut disk = Disk::default();
            let mut acknowledged = None;
            for io in medium.trace() {
                disk.act(&io, &mut rng);
                if let Io::Acknowledged(model) = io {
                    assert!(acknowledged < Some(model));
                    acknowledged = Some(model);
                }
            }
            let Some(acknowledged) = acknowledged else {
                continue;
            };
            assert!(
                acknowledged + 2 == models.len(),
                "an acknowledgement after the error, or one that is missing"
            );
            for left in [Left::Nothing, Left::Some(50)] {
                let image = disk.image(left, &mut rng);
                if let Err(reason) = holds(&image, options, &models, acknowledged) {
                    panic!("I/O {at} failed (for good: {for_good}), then a crash ({left:?}): {reason}");
                }
            }
        }
    }
    assert!(failures > 100, "only {failures} failures");
}

//! The conformance suite, held against stores that are right.

#[path = "journal/mod.rs"]
mod journal;

use journal::Journals;
use quorate_runtime_tokio::{
    MemoryStore,
    conformance::{self, Closures, Summary},
};

#[test]
fn a_journal_conforms() {
    let summary = conformance::all(&Journals(None));
    println!("{summary}");
    let Summary { crashes, snapshot_crashes, group_crashes, errors, full, rot } = summary;
    // What is not met is not checked.
    assert!(crashes.points >= 20_000 && crashes.second_crashes > 1_000, "{crashes}");
    assert!(snapshot_crashes.points > 2_000, "{snapshot_crashes}");
    assert!(group_crashes.points > 1_000, "{group_crashes}");
    assert!(errors.told > 100 && errors.went_on > 5, "{errors}");
    assert!(full.told > 50 && full.went_on > 1, "{full}");
    assert!(rot.told > 50 && rot.harmless > 0, "{rot:?}");
    // It writes down how much of it was durable when it was begun, and no more than that.
    assert!(rot.forgotten < rot.told / 5, "{rot:?}");
}

/// Seeds that the suite itself does not use: a few, or as many as `QUORATE_SEEDS` says, after a change of the suite.
#[test]
fn a_journal_holds_for_other_seeds() {
    let seeds: u64 = std::env::var("QUORATE_SEEDS").map_or(2, |seeds| seeds.parse().expect("a number"));
    let (many, some) = (100..100 + seeds, 100..100 + seeds.div_ceil(4));
    println!("{}", conformance::crash_points(&Journals(None), many.clone(), 40));
    println!("{}", conformance::snapshot_crash_points(&Journals(None), many, 20));
    println!("{}", conformance::group_crash_points(&Journals(None), some.clone(), 30));
    println!("{}", conformance::io_errors(&Journals(None), some.clone(), 30));
    println!("{}", conformance::full_disk(&Journals(None), some.clone(), 30));
    println!("{:?}", conformance::notices_damage(&Journals(None), some, 500));
}

#[test]
fn a_store_in_memory_conforms_as_far_as_it_goes() {
    let memory = Closures::new(
        |groups| {
            let add = |store: MemoryStore, (group, membership)| store.with_group(group, membership);
            let store = groups.iter().cloned().fold(MemoryStore::default(), add);
            (store.clone(), store)
        },
        |place: &MemoryStore| place.clone(),
    );
    conformance::without_faults(&memory);
}

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
    let Summary { crashes, snapshot_crashes, errors, full, rot } = summary;
    // What is not met is not checked.
    assert!(crashes.points >= 20_000 && crashes.second_crashes > 1_000, "{crashes}");
    assert!(snapshot_crashes.points > 2_000, "{snapshot_crashes}");
    assert!(errors.told > 100 && errors.went_on > 5, "{errors}");
    assert!(full.told > 50 && full.went_on > 1, "{full}");
    assert!(rot.told > 50 && rot.harmless > 0, "{rot:?}");
    // It writes down how much of it was durable when it was begun, and no more than that.
    assert!(rot.forgotten < rot.told / 5, "{rot:?}");
}

#[test]
#[ignore = "takes minutes: for changes of the suite itself"]
fn a_journal_holds_for_many_seeds() {
    println!("{}", conformance::crash_points(&Journals(None), 100..500, 40));
    println!("{}", conformance::snapshot_crash_points(&Journals(None), 100..300, 20));
    println!("{}", conformance::io_errors(&Journals(None), 100..140, 30));
    println!("{}", conformance::full_disk(&Journals(None), 100..140, 30));
    println!("{:?}", conformance::notices_damage(&Journals(None), 100..140, 500));
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

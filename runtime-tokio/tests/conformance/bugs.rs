//! The conformance suite can fail: each bug that is planted in a store is caught, and by the check that is there for it.

#[path = "journal/mod.rs"]
mod journal;

use std::{
    panic::{self, AssertUnwindSafe, catch_unwind},
    thread,
};

use journal::{Bug, Journals};
use quorate_runtime_tokio::conformance::{self, Check};

/// All checks, those with faults as large as they need be.
fn checks() -> Vec<Check<Journals>> {
    let mut checks: Vec<Check<Journals>> = conformance::checks();
    checks.push(("leaves_nothing_behind", conformance::leaves_nothing_behind));
    checks.push(("leaves_nothing_of_removed_groups", conformance::leaves_nothing_of_removed_groups));
    checks.push(("group_crash_points", |journals| {
        conformance::group_crash_points(journals, 0..8, 25);
    }));
    checks.push(("crash_points", |journals| {
        conformance::crash_points(journals, 0..12, 40);
        // What a killed process had not synced is lost in the midst of the next one's recovery: rare.
        conformance::crash_points(journals, 100..102, 40);
    }));
    checks.push(("snapshot_crash_points", |journals| {
        conformance::snapshot_crash_points(journals, 0..6, 20);
    }));
    checks.push(("io_errors", |journals| {
        conformance::io_errors(journals, 0..3, 20);
        conformance::group_io_errors(journals, 0..2, 12);
    }));
    checks.push(("full_disk", |journals| {
        conformance::full_disk(journals, 0..2, 20);
    }));
    checks.push(("notices_damage", |journals| {
        conformance::notices_damage(journals, 0..8, 150);
    }));
    checks
}

/// What the check says of a journal with this bug, or without.
fn verdict(bug: Option<Bug>, name: &str) -> Option<String> {
    let checks = checks();
    let (_, check) = checks.iter().find(|(each, _)| *each == name).expect("a check of this name");
    let panic = catch_unwind(AssertUnwindSafe(|| check(&Journals(bug)))).err()?;
    Some(panic.downcast::<String>().map_or_else(|_| "without words".to_owned(), |text| *text))
}

#[test]
fn every_bug_is_caught_by_the_check_that_is_there_for_it() {
    // What is expected here need not be read by anyone.
    let before = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let missed = thread::scope(|scope| {
        let look = |bugs: &'static [Bug]| {
            let caught = |bug: &Bug| match verdict(Some(*bug), bug.caught_by()) {
                Some(text) => {
                    let line = text.lines().next().unwrap_or_default();
                    println!("{bug:?}: {}: {line}", bug.caught_by());
                    None
                }
                None => Some(format!("{bug:?} is missed by {}", bug.caught_by())),
            };
            bugs.iter().filter_map(caught).collect::<Vec<String>>()
        };
        let (some, others) = Bug::ALL.split_at(Bug::ALL.len() / 2);
        let other = scope.spawn(move || look(others));
        let mut missed = look(some);
        missed.extend(other.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        missed
    });
    panic::set_hook(before);
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn without_a_bug_nothing_is_caught() {
    for (name, _) in checks() {
        assert_eq!(verdict(None, name), None, "{name}");
    }
}

//! The store and the suite for authors of stores: the contract, crashes at every I/O, every I/O that fails, a disk that is full at every
//! point, damage. It is what `conformance::all` runs, in parts that run side by side.

mod common;

use common::on_disk::Redb;
use quorate_runtime_tokio::conformance;
use quorate_storage_redb::Options;

fn usual() -> Redb {
    Redb(Options::default())
}

#[test]
fn it_keeps_the_contract() {
    for (name, check) in conformance::checks() {
        println!("{name}");
        check(&usual());
    }
    conformance::leaves_nothing_behind(&usual());
    conformance::leaves_nothing_of_removed_groups(&usual());
}

/// At least 20,000 crash points: every write, resize, sync, rename and removal, with each kind of what a crash leaves.
#[test]
fn whatever_a_crash_leaves_what_was_acknowledged_is_there() {
    let report = conformance::crash_points(&usual(), 0..10, 30);
    println!("{report}");
    assert!(report.points >= 20_000, "{report}");
}

#[test]
fn with_other_seeds_if_asked_for() {
    let seeds: u64 = std::env::var("QUORATE_SEEDS").map_or(1, |seeds| seeds.parse().expect("a number"));
    println!("{}", conformance::crash_points(&usual(), 100..100 + seeds, 40));
}

#[test]
fn with_two_phases_too() {
    let report = conformance::crash_points(&Redb(Options::default().two_phase(true)), 100..102, 20);
    println!("{report}");
    assert!(report.points >= 2_000, "{report}");
}

#[test]
fn a_snapshot_is_there_whole_or_not_at_all() {
    let report = conformance::snapshot_crash_points(&Redb(Options::default().keep_snapshots(1)), 0..3, 12);
    println!("{report}");
    assert!(report.points >= 2_000, "{report}");
}

#[test]
fn a_group_is_there_whole_or_not_at_all_and_never_again() {
    let report = conformance::group_crash_points(&usual(), 0..4, 14);
    println!("{report}");
    assert!(report.points >= 4_000, "{report}");
}

#[test]
fn where_groups_come_and_go_nothing_acknowledged_is_lost_after_an_error_either() {
    println!("{}", conformance::group_io_errors(&usual(), 0..2, 8));
}

#[test]
fn after_an_error_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    println!("{}", conformance::io_errors(&usual(), 0..3, 20));
}

#[test]
fn a_disk_that_is_full_loses_nothing_and_goes_on_once_there_is_room() {
    println!("{}", conformance::full_disk(&usual(), 0..2, 12));
}

#[test]
fn bytes_that_change_are_noticed() {
    println!("{:?}", conformance::notices_damage(&usual(), 0..8, 60));
}

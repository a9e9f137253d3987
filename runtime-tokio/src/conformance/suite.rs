//! All of it.

use std::fmt;

use super::{Faults, Harness, Report, Rot, Setup};

/// What [`all`] has tried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// Crashes of a workload.
    pub crashes: Report,
    /// Crashes of one of snapshots.
    pub snapshot_crashes: Report,
    /// Crashes of one in which groups come and go.
    pub group_crashes: Report,
    /// I/O errors.
    pub errors: Faults,
    /// Full disks.
    pub full: Faults,
    /// Damage.
    pub rot: Rot,
}

/// So many images of crashes are tried at least.
const POINTS: u64 = 20_000;

/// Everything: the contract, crashes at 20,000 points and more, errors of every I/O, full disks, damage.
///
/// # Panics
/// If the store does not hold: with the seed, the point, what was acknowledged and what was found.
pub fn all<H: Harness>(harness: &H) -> Summary {
    without_faults(harness);
    super::leaves_nothing_behind(harness);
    super::leaves_nothing_of_removed_groups(harness);
    let mut crashes = Report::default();
    for seed in (0..).step_by(4) {
        if crashes.points >= POINTS {
            break;
        }
        crashes = crashes.add(super::crash_points(harness, seed..seed + 4, 40));
    }
    Summary {
        crashes,
        snapshot_crashes: super::snapshot_crash_points(harness, 0..4, 10),
        group_crashes: super::group_crash_points(harness, 0..6, 14),
        errors: super::io_errors(harness, 0..4, 20).add(super::group_io_errors(harness, 0..2, 8)),
        full: super::full_disk(harness, 0..2, 14),
        rot: super::notices_damage(harness, 0..8, 60),
    }
}

/// The contract: all that can be checked without faults.
///
/// # Panics
/// As [`all`].
pub fn without_faults<S: Setup>(setup: &S) {
    for (_, check) in checks() {
        check(setup);
    }
}

/// A check and its name.
pub type Check<S> = (&'static str, fn(&S));

/// Each check of [`without_faults`].
#[must_use]
pub fn checks<S: Setup>() -> Vec<Check<S>> {
    vec![
        ("round_trips", super::round_trips),
        ("incarnations_are_new", super::incarnations_are_new),
        ("refuses_what_does_not_fit", super::refuses_what_does_not_fit),
        ("truncates", super::truncates),
        ("begins_later", super::begins_later),
        ("keeps_groups_apart", super::keeps_groups_apart),
        ("takes_any_size", super::takes_any_size),
        ("settles", super::settles),
        ("loads_what_is_asked_for", super::loads_what_is_asked_for),
        ("reads_beside_the_writer", super::reads_beside_the_writer),
        ("publishes_snapshots", super::publishes_snapshots),
        ("stages_one_at_a_time", super::stages_one_at_a_time),
        ("resumes_transfers", super::resumes_transfers),
        ("refuses_other_bytes", super::refuses_other_bytes),
        ("reads_what_is_removed", super::reads_what_is_removed),
        ("names_what_the_log_rests_on", super::names_what_the_log_rests_on),
        ("lists_groups", super::lists_groups),
        ("creates_groups", super::creates_groups),
        ("removes_groups", super::removes_groups),
        ("removes_what_is_staged", super::removes_what_is_staged),
        ("recovers_many", super::recovers_many),
        ("refuses_one_group_alone", super::refuses_one_group_alone),
        ("follows_a_leader", super::follows_a_leader),
        ("agrees_in_a_cluster", super::agrees_in_a_cluster),
    ]
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { crashes, snapshot_crashes, group_crashes, errors, full, rot } = self;
        let Rot { flips, told, harmless, forgotten } = rot;
        write!(
            f,
            "workloads: {crashes}; snapshots: {snapshot_crashes}; groups: {group_crashes}; I/O errors: {errors}; full disks: {full}; \
             {flips} bytes changed, {told} told, {harmless} harmless, {forgotten} commits forgotten"
        )
    }
}

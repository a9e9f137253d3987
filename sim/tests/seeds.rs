//! A share of the seeds that the command line runs, in the quick tests; and that a seed is one run.

use quorate_sim::{Count, Options, Profile, Summary, Trace, run, run_seeds, run_traced};

/// Seeds that have found something, each with its line in `REGRESSIONS.md`.
const REGRESSIONS: &[(u64, Profile)] = &[
    (432, Profile::Everything),
    (351, Profile::Everything),
    (17, Profile::Everything),
    (791, Profile::Everything),
    (8, Profile::Membership),
    (16, Profile::Membership),
    (41, Profile::Membership),
    (72, Profile::Membership),
    (4005, Profile::Clock),
    (2210, Profile::Everything),
];

fn all(profile: Profile, seeds: std::ops::Range<u64>) -> Summary {
    let summary = run_seeds(seeds, &Options { profile, ..Options::new(0) }, 2, || true, |_| {});
    if let Some(violation) = &summary.violation {
        panic!("{violation}");
    }
    summary
}

#[test]
fn forty_seeds_of_everything_are_clean_and_meet_every_fault() {
    let summary = all(Profile::Everything, 0..40);
    assert_eq!(summary.runs, 40);
    for count in Count::ALL.iter().filter(|count| count.is_expected_in(Profile::Everything)) {
        assert!(summary.counts[*count] > 0, "never exercised: {}", count.name());
    }
    assert!(summary.simulated >= 40 * 60_000_000);
}

#[test]
fn the_other_profiles_are_clean() {
    for profile in [Profile::Calm, Profile::Network, Profile::Disk] {
        all(profile, 1000..1006);
    }
    for profile in [Profile::Membership, Profile::Clock] {
        all(profile, 1000..1020);
    }
    let calm = all(Profile::Calm, 0..4);
    assert_eq!(calm.counts[Count::Crashes] + calm.counts[Count::Lost] + calm.counts[Count::Cuts], 0);
}

/// Clocks that drift further than the configuration allows for do break leases, and a disk that loses what it said was durable
/// breaks everything: then that must be seen.
#[test]
fn what_no_core_survives_is_noticed() {
    for (profile, expected) in [(Profile::Drift, "R2"), (Profile::Lies, "D3"), (Profile::Stale, "D3")] {
        for first in [0, 1000] {
            let options = Options { profile, ..Options::new(0) };
            let summary = run_seeds(first..first + 200, &options, 2, || true, |_| {});
            assert_eq!(summary.violation.map(|violation| violation.invariant), Some(expected));
        }
    }
}

#[test]
fn seeds_that_found_something_stay_clean() {
    for (seed, profile) in REGRESSIONS {
        if let Err(violation) = run(&Options { profile: *profile, ..Options::new(*seed) }) {
            panic!("{violation}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run_on_any_number_of_threads() {
    let digest = |jobs| run_seeds(100..300, &Options::new(0), jobs, || true, |_| {}).digest;
    let one = digest(1);
    assert_ne!(one, 0);
    // `.ci/determinism` compares debug and release builds, too.
    assert_eq!(digest(3), one);
    // And another seed is another run.
    let single = |seed| run(&Options::new(seed)).unwrap().digest;
    assert_ne!(single(100), single(101));
}

#[test]
fn a_trace_tells_of_the_run_and_changes_nothing() {
    let options = Options { duration: Some(3_000_000), ..Options::new(5) };
    let (report, trace) = run_traced(&options, Trace::Lines(Vec::new()));
    let Trace::Lines(lines) = trace else { panic!("lines were asked for") };
    let report = report.unwrap();
    assert_eq!(report.digest, run(&options).unwrap().digest);
    let steps = lines.iter().filter(|line| line.contains(" <- ")).count() as u64;
    assert_eq!(steps, report.counts[Count::Steps], "a line for every step");
    assert!(lines.iter().any(|line| line.contains("Leader")));
}

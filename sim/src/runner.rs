//! Many seeds, over threads.

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{Counts, Options, Report, Violation, cast::Cast, run_with};

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that ended, well or not.
    pub runs: u64,
    /// µs of virtual time.
    pub simulated: u64,
    /// What has happened how often, in all of them.
    pub counts: Counts,
    /// Hashes of every run, in the order of the seeds, folded into one.
    pub digest: u64,
    /// Of the lowest seed that violated something, as far as was seen.
    pub violation: Option<Violation>,
}

/// Runs every seed of a range like `template`, in `jobs` threads, until all are done, one of them violates something, or it is
/// not to `go_on`. `progress` is told of each run that ends, from any thread.
pub fn run_seeds(
    seeds: Range<u64>,
    template: &Options,
    jobs: usize,
    go_on: impl Fn() -> bool + Sync,
    progress: impl Fn(&Result<Report, Violation>) + Sync,
) -> Summary {
    run_seeds_with(seeds, template, &Cast::default(), jobs, go_on, progress)
}

pub(crate) fn run_seeds_with(
    seeds: Range<u64>,
    template: &Options,
    cast: &Cast,
    jobs: usize,
    go_on: impl Fn() -> bool + Sync,
    progress: impl Fn(&Result<Report, Violation>) + Sync,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let work = || {
        while !stop.load(Ordering::Relaxed) && go_on() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let result = run_with(&Options { seed, ..template.clone() }, cast);
            progress(&result);
            stop.fetch_or(result.is_err(), Ordering::Relaxed);
            if let Ok(mut results) = results.lock() {
                results.push((seed, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    summarise(results.into_inner().unwrap_or_default())
}

fn summarise(mut results: Vec<(u64, Result<Report, Violation>)>) -> Summary {
    results.sort_unstable_by_key(|(seed, _)| *seed);
    let mut summary = Summary { runs: results.len() as u64, ..Summary::default() };
    for (_, result) in results {
        match result {
            Ok(report) => {
                summary.simulated += report.simulated;
                summary.counts += &report.counts;
                summary.digest = crate::rng::mix(summary.digest ^ report.digest);
            }
            Err(violation) => summary.violation = summary.violation.or(Some(violation)),
        }
    }
    summary
}

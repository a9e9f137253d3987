//! Whole quorate clusters in virtual time: cores, disks, a network and clocks, with faults drawn from a seed, and every
//! invariant checked after every step by an observer who sees everything.
//!
//! ```
//! use quorate_sim::{Options, run};
//!
//! let report = run(&Options { duration: Some(5_000_000), ..Options::new(7) })?;
//! assert_eq!(report.digest, run(&Options { duration: Some(5_000_000), ..Options::new(7) })?.digest);
//! # Ok::<(), quorate_sim::Violation>(())
//! ```
//!
//! One seed is one run, on every machine. See the folder's README for what is checked and what is not there yet.

mod bounds;
mod clients;
mod digest;
mod disk;
mod driver;
mod faults;
mod ghost;
mod lab;
mod network;
mod node;
mod op;
mod operator;
mod plan;
mod queue;
mod rest;
mod rng;
mod runner;
mod snapshots;
pub mod spec;
mod stats;
mod trace;
mod violation;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plan::Profile;
pub use runner::{Summary, run_seeds};
pub use stats::{Count, Counts};
pub use trace::Trace;
pub use violation::Violation;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Which faults may be drawn.
    pub profile: Profile,
    /// How many nodes; drawn if not said.
    pub nodes: Option<usize>,
    /// µs of virtual time with faults; 60 s if not said. Such a shorter run may not reach the least that is asked of one.
    pub duration: Option<u64>,
}

impl Options {
    /// A whole run of everything.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, profile: Profile::Everything, nodes: None, duration: None }
    }
}

/// A run without a violation.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// µs of virtual time.
    pub simulated: u64,
    /// What has happened how often.
    pub counts: Counts,
    /// A hash of every input and every action, in order.
    pub digest: u64,
}

/// Runs a seed.
///
/// # Errors
/// The first violation, a panic included, or `coverage` if a whole run with faults has met too little.
pub fn run(options: &Options) -> Result<Report, Violation> {
    run_traced(options, Trace::Off).0
}

/// Runs a seed, and tells of everything that happens.
pub fn run_traced(options: &Options, trace: Trace) -> (Result<Report, Violation>, Trace) {
    run_watched(options, trace, Vec::new())
}

/// The same, with onlookers.
pub(crate) fn run_watched(
    options: &Options,
    trace: Trace,
    watchers: Vec<Box<dyn watch::Watch>>,
) -> (Result<Report, Violation>, Trace) {
    let ended = catch_unwind(AssertUnwindSafe(|| world::World::run(options, trace, watchers)));
    let (result, trace) = ended.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = text.unwrap_or_else(|| "a panic without words".to_owned());
        (Err(Violation { invariant: "panic", seed: options.seed, at: 0, what }), Trace::Off)
    });
    let enough = |report: Report| {
        let whole = options.duration.is_none() && report.counts[Count::Steps] > 0;
        match clients::reached_enough(&report.counts, options.profile == Profile::Calm) {
            Err(what) if whole => {
                Err(Violation { invariant: "coverage", seed: options.seed, at: report.simulated, what })
            }
            Ok(()) | Err(_) => Ok(report),
        }
    };
    (result.and_then(enough), trace)
}

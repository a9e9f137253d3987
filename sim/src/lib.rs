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
mod cast;
mod clients;
mod digest;
mod disk;
mod driver;
mod faults;
pub mod flight;
mod ghost;
mod lab;
mod network;
mod node;
mod op;
mod operator;
mod picture;
mod plan;
mod queue;
mod rest;
mod rng;
mod runner;
mod schedule;
mod simulation;
mod snapshots;
pub mod spec;
mod stats;
mod touch;
mod trace;
mod violation;
mod watch;
pub mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use cast::Cast;

pub use faults::{Faults, Planned, Strike};
pub use picture::{MOST_EVENTS, run_pictured, run_pictured_within};
pub use plan::{Profile, Without};
pub use runner::{Summary, run_seeds};
pub use schedule::{Replayed, Schedule, ScheduleError, Shrinking};
pub use simulation::{Builder, Failure, Simulation};
pub use stats::{Count, Counts};
pub use trace::Trace;
pub use violation::Violation;

/// What to run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Which faults may be drawn.
    pub profile: Profile,
    /// How many nodes; drawn if not said.
    pub nodes: Option<usize>,
    /// µs of virtual time with faults; 60 s if not said. Such a shorter run may not reach the least that is asked of one.
    pub duration: Option<u64>,
    /// What is left out of whatever the seed draws.
    #[serde(default)]
    pub without: Vec<Without>,
    /// What runs on the nodes: one of [`workload::Service::NAMES`]; drawn if not said.
    #[serde(default)]
    pub workload: Option<String>,
    /// How strong faults are, in place of what is drawn.
    #[serde(default)]
    pub faults: Faults,
    /// What happens in any case.
    #[serde(default)]
    pub planned: Vec<Planned>,
    /// The nodes' configuration, but for id, seed and priority, in place of the one that is drawn.
    #[serde(default)]
    pub config: Option<quorate_core::Config>,
}

impl Options {
    /// A whole run of everything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            profile: Profile::Everything,
            nodes: None,
            duration: None,
            without: Vec::new(),
            workload: None,
            faults: Faults::default(),
            planned: Vec::new(),
            config: None,
        }
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
    run_with(options, &Cast::default())
}

pub(crate) fn run_with(options: &Options, cast: &Cast) -> Result<Report, Violation> {
    run_watched(options, cast, Trace::Off, Vec::new()).0
}

/// Runs a seed, and tells of everything that happens.
pub fn run_traced(options: &Options, trace: Trace) -> (Result<Report, Violation>, Trace) {
    run_watched(options, &Cast::default(), trace, Vec::new())
}

/// The same, with onlookers.
pub(crate) fn run_watched(
    options: &Options,
    cast: &Cast,
    trace: Trace,
    watchers: Vec<Box<dyn watch::Watch>>,
) -> (Result<Report, Violation>, Trace) {
    let ended = catch_unwind(AssertUnwindSafe(|| world::World::run(options, cast, trace, watchers)));
    let (result, trace) = ended.unwrap_or_else(|payload| {
        let what = words_of(&*payload);
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

/// What a panic has said.
pub(crate) fn words_of(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

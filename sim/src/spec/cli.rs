//! What the command line makes of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, IsTerminal, Write, stderr},
    ops::Range,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Held, export_steps, run_against_spec};
use crate::{Options, Violation};

/// What many runs came to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Totals {
    /// Runs that ended, well or not.
    pub runs: u64,
    /// µs of virtual time.
    pub simulated_us: u64,
    /// Steps of the specification.
    pub steps: u64,
    /// How often each of its actions was taken.
    pub actions: BTreeMap<&'static str, u64>,
    /// Of the lowest seed that was refused, as far as was seen.
    pub violation: Option<Violation>,
}

/// Holds every seed of a range against the specification, in `jobs` threads, until all are done or a step is refused.
pub fn hold_seeds(
    seeds: Range<u64>,
    template: &Options,
    jobs: usize,
    progress: impl Fn(&Result<Held, Violation>) + Sync,
) -> Totals {
    let (next, stop, results) = (AtomicU64::new(seeds.start), AtomicBool::new(false), Mutex::new(Vec::new()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let result = run_against_spec(&Options { seed, ..template.clone() });
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
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_unstable_by_key(|(seed, _)| *seed);
    let mut totals = Totals { runs: results.len() as u64, ..Totals::default() };
    for (_, result) in results {
        match result {
            Ok(held) => {
                totals.simulated_us += held.simulated;
                totals.steps += held.steps;
                for (action, count) in held.actions {
                    *totals.actions.entry(action).or_default() += count;
                }
            }
            Err(violation) => totals.violation = totals.violation.or(Some(violation)),
        }
    }
    totals
}

/// `run --spec`: prints a line, or JSON. What was refused, if anything was.
///
/// # Errors
/// If that can't be written.
pub fn run(
    seeds: Range<u64>,
    template: &Options,
    jobs: usize,
    json: bool,
    counts: bool,
) -> io::Result<Option<Violation>> {
    let started = clock();
    let bar = bar(seeds.end - seeds.start);
    let totals = hold_seeds(seeds, template, jobs, |_| bar.inc(1));
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&totals)?)?;
        return Ok(totals.violation);
    }
    let Totals { runs, simulated_us, steps, actions, violation } = totals;
    let told = format!(
        "{runs} seeds, {:.0} simulated s, {steps} steps held against the specification in {seconds:.1} s ({:.0} steps/s)",
        simulated_us as f64 / 1e6,
        steps as f64 / seconds,
    );
    match &violation {
        None => writeln!(out, "ok: {told}")?,
        Some(violation) => {
            writeln!(out, "VIOLATION: {violation} (see it: run --seed {} --trace); {told}", violation.seed)?;
        }
    }
    if counts {
        for (action, count) in &actions {
            writeln!(out, "{count:>12} {action}")?;
        }
    }
    Ok(violation)
}

/// `run --export-steps FILE`. Says what the run has violated, if it got so far.
///
/// # Errors
/// If the file can't be written.
pub fn export(options: &Options, most: u64, file: &Path) -> io::Result<Option<Violation>> {
    let mut out = BufWriter::new(File::create(file)?);
    let violation = export_steps(options, most, &mut out)?.err();
    if let Some(violation) = &violation {
        writeln!(io::stdout().lock(), "VIOLATION: {violation}")?;
    }
    Ok(violation)
}

fn bar(seeds: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long runs take: not part of any run"
)]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

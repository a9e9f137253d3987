//! Runs held against a TLA+ specification (`spec/quorate.tla`), step by step, and exported for other specifications.

pub mod cli;
mod elections;
mod export;
mod judge;
mod log;
mod node;
#[cfg(test)]
mod tests;
mod translate;
mod value;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, mpsc::sync_channel},
    thread,
};

use crate::{
    Options, Report, Trace, Violation,
    cast::Cast,
    plan::Plan,
    run_watched,
    violation::{Broken, Verdict},
    watch::{Seen, Watch},
};
use export::{Exporter, Receptions};
use judge::Judge;
use translate::{ENOUGH, Translator};

pub use export::VERSION as EXPORT_VERSION;

/// So many steps of a run are held against the specification, if nothing else is said.
pub const MOST_STEPS: u64 = 8_000;

/// A run of which every step was allowed.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Its seed.
    pub seed: u64,
    /// µs of virtual time.
    pub simulated: u64,
    /// Steps of the specification.
    pub steps: u64,
    /// How often each of its actions was taken.
    pub actions: BTreeMap<&'static str, u64>,
}

/// A watcher whose findings are there when the run is over.
#[derive(Debug)]
struct Shared<W>(Arc<Mutex<W>>);

impl<W: Watch> Watch for Shared<W> {
    fn see(&mut self, at: u64, seen: &Seen<'_>) -> Verdict {
        match self.0.lock() {
            Ok(mut watcher) => watcher.see(at, seen),
            Err(_) => Err(Broken("panic", "whoever looks on has panicked".to_owned())),
        }
    }
}

/// Runs a seed under somebody's eyes.
fn watched<W: Watch + 'static>(options: &Options, watcher: W) -> (Result<Report, Violation>, Arc<Mutex<W>>) {
    let shared = Arc::new(Mutex::new(watcher));
    let (result, _) =
        run_watched(options, &Cast::default(), Trace::Off, vec![Box::new(Shared(Arc::clone(&shared)))]);
    (result, shared)
}

/// Runs a seed, and holds its first [`MOST_STEPS`] protocol steps against the specification. It alone judges: what else is wrong with
/// the run is for [`run`](crate::run) to say.
///
/// # Errors
/// The first step that it doesn't allow, as a violation of `spec`.
pub fn run_against_spec(options: &Options) -> Result<Held, Violation> {
    hold(options, MOST_STEPS, false)
}

/// The same, of as many steps as you like. `whole`: the specification's `Next` is asked, not just the action that a step is meant to
/// be, and is shown all nodes and all messages. That is slow.
///
/// # Errors
/// The same.
pub fn hold(options: &Options, most_steps: u64, whole: bool) -> Result<Held, Violation> {
    let violation = |Broken(invariant, what)| Violation { invariant, seed: options.seed, at: 0, what };
    let (plan, _) = Plan::draw(options, &Cast::default());
    let mut judge = Judge::new(plan.setup.slots, plan.setup.config.pre_vote).map_err(violation)?;
    judge.whole = whole;
    let mut translator = Translator::new(plan.setup.slots, plan.setup.config.pre_vote, most_steps);
    translator.judge = Some(judge);
    let (result, shared) = watched(options, translator);
    let mut held = Held { seed: options.seed, ..Held::default() };
    if let Ok(translator) = shared.lock() {
        held.steps = translator.steps;
        held.simulated = translator.at;
        held.actions = translator.judge.as_ref().map(|judge| judge.taken.clone()).unwrap_or_default();
    }
    match result {
        Err(violation) if violation.invariant == "spec" || violation.invariant == "panic" => Err(violation),
        Ok(_) | Err(_) => Ok(held),
    }
}

/// Runs a seed, and writes its first `most` protocol steps as lines of JSON, after one that says what they are (`spec/README.md`).
/// The run ends there: without a report then, as without a violation.
///
/// # Errors
/// If `out` takes no more.
pub fn export_steps(
    options: &Options,
    most: u64,
    out: &mut dyn Write,
) -> io::Result<Result<Option<Report>, Violation>> {
    let (_, receptions) = watched(options, Receptions::default());
    let receptions = receptions.lock().map(|receptions| receptions.clone()).unwrap_or_default();
    let (plan, _) = Plan::draw(options, &Cast::default());
    let (slots, asks_first) = (plan.setup.slots, plan.setup.config.pre_vote);
    writeln!(out, "{}", export::header(options.seed, options.profile, slots, asks_first))?;
    let (lines, written) = sync_channel(256);
    let mut translator = Translator::new(slots, asks_first, u64::MAX);
    translator.exporter = Some(Exporter::new(lines, receptions, most));
    let result = thread::scope(|scope| {
        let run = scope.spawn(|| watched(options, translator).0);
        let failed = written.iter().try_for_each(|line| writeln!(out, "{line}")).err();
        // Whoever still runs finds nobody who reads.
        drop(written);
        let result = run.join().unwrap_or_else(|_| {
            Err(Violation { invariant: "panic", seed: options.seed, at: 0, what: "in the export".to_owned() })
        });
        failed.map_or(Ok(result), Err)
    })?;
    out.flush()?;
    Ok(match result {
        Ok(report) => Ok(Some(report)),
        Err(violation) if violation.invariant == ENOUGH => Ok(None),
        Err(violation) => Err(violation),
    })
}

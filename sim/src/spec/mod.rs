//! Runs held against a TLA+ specification (`spec/quorate.tla`), step by step, and exported for other specifications.

pub mod cli;
mod export;
mod judge;
mod log;
mod node;
mod translate;
mod value;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{
    Options, Trace, Violation,
    plan::Plan,
    run_watched,
    violation::{Broken, Verdict},
    watch::{Seen, Watch},
};
use judge::Judge;
use translate::{ENOUGH, Translator};

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
struct Shared(Arc<Mutex<Translator>>);

impl Watch for Shared {
    fn see(&mut self, at: u64, seen: &Seen<'_>) -> Verdict {
        match self.0.lock() {
            Ok(mut translator) => translator.see(at, seen),
            Err(_) => Err(Broken("panic", "the translator has panicked".to_owned())),
        }
    }
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
    let plan = Plan::draw(options);
    let mut judge = Judge::new(plan.setup.slots, plan.setup.config.pre_vote).map_err(violation)?;
    judge.whole = whole;
    let mut translator = Translator::new(plan.setup.slots, plan.setup.config.pre_vote, most_steps);
    translator.judge = Some(judge);
    let shared = Arc::new(Mutex::new(translator));
    let (result, _) = run_watched(options, Trace::Off, vec![Box::new(Shared(Arc::clone(&shared)))]);
    let mut held = Held { seed: options.seed, ..Held::default() };
    if let Ok(translator) = shared.lock() {
        held.steps = translator.steps;
        held.simulated = translator.at;
        held.actions = translator.judge.as_ref().map(|judge| judge.taken.clone()).unwrap_or_default();
    }
    match result {
        Err(violation) if violation.invariant == "spec" || violation.invariant == "panic" => Err(violation),
        Err(violation) if violation.invariant != ENOUGH => Ok(held),
        Ok(_) | Err(_) => Ok(held),
    }
}

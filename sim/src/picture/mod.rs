//! Pictures: one page, without network, that shows a run as a space-time diagram: a lane for each node, messages as arrows,
//! and every node's log at the cursor.
//!
//! A [`Recorder`] looks on and remembers the last events; [`page`] puts them into a page. What the page does with them is in
//! `page.html` and beside it, in plain JavaScript that is built into the page.

mod explain;
mod page;
mod recorder;
mod state;
mod words;

use std::sync::{Arc, Mutex, PoisonError};

use self::recorder::{Recorder, Recording};
use crate::{Options, Replayed, Report, Schedule, Trace, Violation, cast::Cast, run_watched, watch::Watch};

/// Events that a picture shows at most: the last ones. A page with so many has some 6 MB.
pub const MOST_EVENTS: usize = 20_000;

/// Runs a seed, and draws the last [`MOST_EVENTS`] of what happens, whether the run ends well or not: an HTML page that
/// needs nothing else.
pub fn run_pictured(options: &Options) -> (Result<Report, Violation>, String) {
    run_pictured_within(options, MOST_EVENTS)
}

/// The same, with the last `most` events.
pub fn run_pictured_within(options: &Options, most: usize) -> (Result<Report, Violation>, String) {
    run_pictured_with(options, &Cast::default(), most)
}

pub(crate) fn run_pictured_with(
    options: &Options,
    cast: &Cast,
    most: usize,
) -> (Result<Report, Violation>, String) {
    watched(most, &title("seed", options), |watcher| {
        let (result, _) = run_watched(options, cast, Trace::Off, vec![watcher]);
        let violation = result.as_ref().err().cloned();
        (result, violation)
    })
}

impl Schedule {
    /// Does it again, and draws the last [`MOST_EVENTS`] of what happens: an HTML page that needs nothing else.
    #[must_use]
    pub fn replay_pictured(&self) -> (Replayed, String) {
        watched(MOST_EVENTS, &title("a replay of seed", &self.options), |watcher| {
            let replayed = self.replay_watched(Trace::Off, vec![watcher]);
            let violation = replayed.violation.clone();
            (replayed, violation)
        })
    }
}

/// Lets something happen before an onlooker, and draws what that has seen.
pub(crate) fn watched<R>(
    most: usize,
    title: &str,
    happen: impl FnOnce(Box<dyn Watch>) -> (R, Option<Violation>),
) -> (R, String) {
    let recording = Arc::new(Mutex::new(Recording::new(most)));
    let (result, violation) = happen(Box::new(Recorder(Arc::clone(&recording))));
    let recording = recording.lock().unwrap_or_else(PoisonError::into_inner);
    let page = page::page(&recording, violation.as_ref(), title);
    (result, page)
}

fn title(what: &str, options: &Options) -> String {
    format!("quorate: {what} {}, {:?}", options.seed, options.profile).to_lowercase()
}

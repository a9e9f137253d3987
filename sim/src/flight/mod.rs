//! Flights: what real nodes have recorded (`quorate serve --record FILE`), replayed step by step, with the invariants checked on
//! the way.
//!
//! A recording says how a node's core started, each input and its time, and when its queue of actions was polled; so a core here
//! does the same again, bit for bit (contract, point 3), or the first step in which it doesn't is named (`replay`).
//! Recordings of several nodes of one cluster are brought together by their wall clocks, but never so that a message arrives
//! before it has left: clocks of two machines are never quite the same.
//!
//! # What is checked
//!
//! The simulator's observer (`ghost/`) knows every payload since the beginning and what each disk holds. A recording shows
//! less: one node or a few, from some start on; of what the store had recovered, terms alone; and that a write is durable
//! only once the core hears of it. So flights have an observer of their own, which goes by terms and by the answers that a node was
//! seen to get. It shares the arithmetic of quorums, the rules of memberships and the bounds with the other.
//!
//! | checked | as far as these recordings show |
//! | --- | --- |
//! | S1, S5 | leaders whose recordings are here; each is elected by votes that it was seen to receive |
//! | S2 | over all lives of a node, from its disk and from what it says |
//! | S3, S7, S9, M1 to M5 | each node by itself |
//! | S4, S6 | every entry that any of them has written, loaded or applied; every commit against those of the others |
//! | S8 | a leader's commit, by its own disk and the acknowledgements that it was seen to receive |
//! | P1 to P3 | each node by itself, and against what others take for committed |
//! | D1, D2, D4 | what is durable is what receipts have come back for |
//! | D3 | what the next life recovers lies between what was durable and what was issued; after a recording that was cut off, it has at least what was durable and committed |
//! | T1, R1 | each node by itself: a read sees what this node has acknowledged before |
//! | B1 | each node by itself |
//!
//! Not here: R2 (no clock is known to be right), X1 and the state machine, D5 and D6 (what a disk really holds), liveness.
//!
//! A recording that ends because it was full, or because the recorder couldn't keep up, says so; one whose process was killed just
//! ends, maybe in half a line. All of that is reported and nothing of it is a violation.

mod actions;
mod command;
mod error;
mod known;
mod leader;
mod log;
mod read;
mod requests;
#[cfg(test)]
mod tests;
mod track;
mod view;
mod wire;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
};

use quorate_core::{
    GroupId, Input,
    recording::{Ended, Start},
};

use crate::{Trace, watch::Watch};

pub use command::{FlightArgs, main};
pub use error::{FlightError, FlightViolation};

use known::Known;
use read::{Item, Recording};
use track::Track;
use wire::Wire;

/// Recordings that were replayed to their end, without a violation.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct FlightReport {
    /// Each node's.
    pub nodes: Vec<Totals>,
    /// The end of what is known to be committed.
    pub committed: u64,
    /// How many terms had a leader whose recording is here.
    pub leaders: u64,
    /// Messages that were seen to leave and to arrive.
    pub messages: u64,
    /// Messages whose author's recording is not here, or doesn't have them any more.
    pub messages_from_elsewhere: u64,
    /// µs from the earliest start to the last step.
    pub duration: u64,
}

/// What the recordings of one node came to.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Totals {
    /// Which.
    pub node: u64,
    /// How many lives of it.
    pub lives: u64,
    /// The number of the last.
    pub incarnation: u64,
    /// Steps taken again.
    pub steps: u64,
    /// Inputs that the core refused.
    pub refused: u64,
    /// Actions that came out the same.
    pub actions: u64,
    /// How the recording of its last life ended; `None` if it was cut off.
    pub ended: Option<Ended>,
    /// It ends, or a life in it does, in half a line.
    pub torn: bool,
}

/// Replays the recordings in these files: of one node, or of several of one cluster.
///
/// # Errors
/// If a file can't be read or is no recording that is known here; or the first violation.
pub fn replay(files: &[PathBuf]) -> Result<FlightReport, FlightError> {
    replay_traced(files, Trace::Off).0
}

/// The same, and tells of everything that happens.
pub fn replay_traced(files: &[PathBuf], trace: Trace) -> (Result<FlightReport, FlightError>, Trace) {
    replay_watched(files, trace, Vec::new())
}

/// The same, with onlookers.
pub(crate) fn replay_watched(
    files: &[PathBuf],
    trace: Trace,
    watchers: Vec<Box<dyn Watch>>,
) -> (Result<FlightReport, FlightError>, Trace) {
    let mut wire = Wire::new(trace, watchers);
    let result = files
        .iter()
        .map(|file| Recording::open(file))
        .collect::<Result<_, _>>()
        .and_then(|recordings| fly(recordings, &mut wire));
    (result, wire.trace)
}

fn fly(recordings: Vec<Recording>, wire: &mut Wire) -> Result<FlightReport, FlightError> {
    let (mut tracks, epoch) = sort(recordings)?;
    let mut known = Known::default();
    let mut duration = 0;
    loop {
        for track in &mut tracks {
            track.fetch(epoch)?;
        }
        let Some(k) = choose(&tracks, wire) else { break };
        let track = &mut tracks[k];
        duration = track.next().map_or(duration, |(at, _)| at.max(duration));
        track.advance(&mut known, wire)?;
    }
    for track in &mut tracks {
        track.finish(wire)?;
    }
    Ok(FlightReport {
        nodes: tracks.into_iter().map(|track| track.totals).collect(),
        committed: known.committed(),
        leaders: known.leaders() as u64,
        messages: wire.matched,
        messages_from_elsewhere: wire.unseen,
        duration,
    })
}

/// Whose turn is it? The earliest, but nothing arrives before it has left, if that is to be seen at all.
fn choose(tracks: &[Track], wire: &Wire) -> Option<usize> {
    let waits = |track: &Track, item: &Item| match item {
        Item::Step(_, Input::Receive { from, message }) => {
            let author = tracks.iter().find(|author| author.node == from.0);
            author.is_some_and(|author| author.next().is_some()) && !wire.has_left(*from, track.node, message)
        }
        Item::Step(..) | Item::Start(_) | Item::Polled(_) | Item::End(_) => false,
    };
    let next = tracks.iter().enumerate().filter_map(|(k, track)| {
        let (at, item) = track.next()?;
        Some((waits(track, item), at, k))
    });
    next.min().map(|(.., k)| k)
}

/// Puts recordings in order: by node, and by life. Returns the earliest moment of all, by the wall clock.
fn sort(recordings: Vec<Recording>) -> Result<(Vec<Track>, u64), FlightError> {
    let unrelated = |what: String| FlightError::Unrelated { what };
    let mut group: Option<GroupId> = None;
    let mut epoch = u64::MAX;
    let mut nodes: BTreeMap<u64, BTreeMap<u64, Recording>> = BTreeMap::new();
    for mut recording in recordings {
        let start = recording.first()?;
        let Start { config, recovered, unix_us, .. } = &start;
        if group.is_some_and(|group| group != config.group) {
            let what = "these are recordings of different groups: replay those of one group together";
            return Err(unrelated(what.to_owned()));
        }
        group = Some(config.group);
        epoch = epoch.min(*unix_us);
        let file = recording.file.display().to_string();
        let lives = nodes.entry(config.id.0).or_default();
        if lives.insert(recovered.incarnation.0, recording).is_some() {
            let (node, life) = (config.id, recovered.incarnation);
            return Err(unrelated(format!(
                "{file}: another file begins with the same life {life} of node {node}"
            )));
        }
    }
    let tracks =
        nodes.into_iter().map(|(node, lives)| Track::new(node, lives.into_values().collect::<VecDeque<_>>()));
    Ok((tracks.collect(), epoch))
}

/// How a life's recording ended, in words.
const fn how(ended: Option<Ended>) -> &'static str {
    match ended {
        None => "cut off",
        Some(Ended::Stopped) => "stopped",
        Some(Ended::Limit) => "the recording was full",
        Some(Ended::Gap) => "the recorder couldn't keep up",
    }
}

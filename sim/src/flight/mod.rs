//! Flights: what real nodes have recorded (`quorate serve --record DIR`), replayed step by step, with the invariants checked on
//! the way.
//!
//! A recording says where a node's core stood, each input and its time, and when its queue of actions was polled; so a core here
//! does the same again, bit for bit (contract, point 3), or the first step in which it doesn't is named (`replay`). It is a ring
//! of segments. Where one follows another, the core that is recorded there must be, bit for bit but for payloads, the one to which
//! the replay has come.
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
//! # Flights that begin in the middle
//!
//! The ring forgets the beginning, and where the recorder couldn't keep up there is a gap. What came before such a point isn't
//! known, and is taken to have been right:
//!
//! | not checked | until |
//! | --- | --- |
//! | S1: by whose votes it is elected | a term later than the one that it is in there |
//! | D1, D2, S8: what of the writes that are under way there is durable | the last of them is |
//! | D3: what the next life recovers | the same; and if a life in between is not here, only that nothing is lost that was committed |
//! | T1, R1: how requests end that were open there, and what reads must see that was acknowledged before | they have ended |
//! | S4, T1: what entries say, but for how long they are | never: a core in the middle is recorded without payloads |
//! | B1: what was handed to the state machine and not applied there | it is applied |
//!
//! Over a gap, S7 is held: term, commit and what was handed out don't go back. If payloads were left out of any of the
//! recordings, entries are compared by their lengths as well.
//!
//! A recording whose process was killed just ends, maybe in half a chunk. That is reported and is no violation.

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

use std::{collections::BTreeMap, path::PathBuf};

use quorate_core::{
    GroupId, Input,
    recording::{Ended, Payloads},
};

use crate::{Trace, watch::Watch};

pub use command::{FlightArgs, main};
pub use error::{FlightError, FlightViolation};

use known::{Contents, Known};
use read::{Item, Recording, Segment};
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
    /// How many segments.
    pub segments: u64,
    /// How many of the lives are met in the middle, for the ring has forgotten how they began: what was open then isn't checked.
    pub midway: u64,
    /// How often a stretch is missing in the middle of a life.
    pub gaps: u64,
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
    /// It ends, or a life in it does, in half a chunk.
    pub torn: bool,
}

/// Replays the recordings in these directories or files: of one node, or of several of one cluster. A directory is what was
/// recorded into, the one of a group in it, or a copy of that.
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
    let result = read::find(files).and_then(|segments| fly(segments, &mut wire));
    (result, wire.trace)
}

fn fly(segments: Vec<Segment>, wire: &mut Wire) -> Result<FlightReport, FlightError> {
    let Sorted { nodes, epoch, contents } = sort(segments)?;
    let mut known = Known::new(contents);
    let of_node = |(node, segments): (u64, BTreeMap<_, _>)| {
        Track::new(node, Recording::of(segments.into_values().collect()))
    };
    let mut tracks: Vec<_> = nodes.into_iter().map(of_node).collect();
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
        Item::Step(..) | Item::Begin(..) | Item::Polled(..) | Item::End(_) => false,
    };
    let next = tracks.iter().enumerate().filter_map(|(k, track)| {
        let (at, item) = track.next()?;
        Some((waits(track, item), at, k))
    });
    next.min().map(|(.., k)| k)
}

/// Segments in order.
struct Sorted {
    /// By node; then by life and number.
    nodes: BTreeMap<u64, BTreeMap<(u64, u64), Segment>>,
    /// The earliest moment of all, by the wall clock.
    epoch: u64,
    contents: Contents,
}

/// Puts segments in order.
fn sort(segments: Vec<Segment>) -> Result<Sorted, FlightError> {
    let unrelated = |what: String| FlightError::Unrelated { what };
    let mut group: Option<GroupId> = None;
    let mut epoch = u64::MAX;
    let mut nodes: BTreeMap<u64, BTreeMap<(u64, u64), Segment>> = BTreeMap::new();
    for segment in segments {
        let head = &segment.head;
        if group.is_some_and(|group| group != head.group) {
            let what = "these are recordings of different groups: replay those of one group together";
            return Err(unrelated(what.to_owned()));
        }
        group = Some(head.group);
        epoch = epoch.min(head.unix_us);
        let (node, life, number) = (head.node, head.incarnation, head.segment);
        let file = segment.file.display().to_string();
        if nodes.entry(node.0).or_default().insert((life.0, number), segment).is_some() {
            return Err(unrelated(format!(
                "{file}: another file holds the same segment {number} of life {life} of node {node}"
            )));
        }
    }
    let left_out = nodes.values().any(|segments| {
        let mut before = None;
        segments.iter().any(|(&(life, number), segment)| {
            // A core that is met in the middle comes without payloads.
            let follows = number == 0 || before.replace((life, number)) == Some((life, number - 1));
            before = Some((life, number));
            !follows || segment.is_gap || segment.head.payloads == Payloads::LeftOut
        })
    });
    let contents = Contents(if left_out { Payloads::LeftOut } else { Payloads::Kept });
    Ok(Sorted { nodes, epoch, contents })
}

/// How a life's recording ended, in words.
const fn how(ended: Option<Ended>) -> &'static str {
    match ended {
        None => "cut off",
        Some(Ended::Stopped) => "stopped",
        Some(Ended::Gap) => "the recorder couldn't keep up",
    }
}

//! How a run is recorded, so that it can be replayed step by step (contract, point 3): what a recorder and a replay harness
//! must agree on, and nothing of either.
//!
//! A recording is a sequence of *segments*, a file each, any of which a replay can begin with:
//!
//! ```text
//! MAGIC  VERSION (u32, little-endian)
//! length (u32)  CRC-32C of the rest (u32)  notes…       a chunk
//! length (u32)  CRC-32C of the rest (u32)  notes…       another
//! …
//! ```
//!
//! The first note of a segment is a [`Begin`]; it says where the core stood: at its start, or in the middle, which is then the
//! whole core ([`Raft`] itself is what is written). Then come steps, what was polled after them, and maybe an [`Ended`]. A life
//! whose last segment has no end was cut off: its process was killed, or its machine lost power. The last chunk may be torn then.
//!
//! In a [`Begin`] payloads are always left out; in the other notes they may be: see [`Payloads`]. So the payloads in a recording
//! are those that came while it was made.
//!
//! Notes are in [postcard](https://postcard.jamesmunns.com)'s format, written by [`pack`].

mod block;
mod digest;
mod pack;

#[cfg(feature = "replay")]
use alloc::boxed::Box;
use alloc::string::String;

use crate::{Action, Config, GroupId, Incarnation, Input, Instant, NodeId, Raft, Recovered};

pub(crate) use block::Block;
pub use digest::Digest;
pub use pack::{Payloads, pack};

/// The version of the format that is written, and the only one that is known.
pub const VERSION: u32 = 2;

/// The bytes with which each segment begins; then comes the [`VERSION`].
pub const MAGIC: [u8; 16] = *b"quorate-flight\r\n";

/// Bytes in front of each chunk: its length, and the CRC-32C of what follows.
pub const CHUNK_HEADER: usize = 8;

/// One thing that is taken down, as it is written. It borrows, for none of it can be copied.
#[derive(Debug, serde::Serialize)]
pub enum NoteRef<'a> {
    /// Always the first of a segment, and nowhere else.
    Begin(&'a Head, Origin<'a>),
    /// The core is told something.
    Step(Instant, &'a Input),
    /// An action came out of its queue: only if the recorder was asked for actions. They come before the [`Polled`] that
    /// counts them.
    Action(&'a Action),
    /// Its queue was polled.
    Polled(Polled),
    /// Nothing follows in this life.
    End(Ended),
}

/// Where a segment begins, as it is written.
#[derive(Debug, serde::Serialize)]
pub enum Origin<'a> {
    /// A life begins: this is what its core is made from.
    Start(&'a Config, &'a Recovered),
    /// The segment before it was full: nothing is missing between them.
    Full(&'a Raft),
    /// Something is missing before it: the recorder couldn't keep up.
    Gap(&'a Raft),
}

/// The same as [`NoteRef`], read back.
#[cfg(feature = "replay")]
#[derive(Debug, serde::Deserialize)]
pub enum Note {
    /// Always the first of a segment, and nowhere else.
    Begin(Head, Begin),
    /// The core is told something.
    Step(Instant, Input),
    /// An action came out of its queue.
    Action(Action),
    /// Its queue was polled.
    Polled(Polled),
    /// Nothing follows in this life.
    End(Ended),
}

/// The same as [`Origin`], read back.
#[cfg(feature = "replay")]
#[derive(Debug, serde::Deserialize)]
pub enum Begin {
    /// A life begins: this is what its core is made from.
    Start(Box<(Config, Recovered)>),
    /// The segment before it was full: nothing is missing between them.
    Full(Box<Raft>),
    /// Something is missing before it: the recorder couldn't keep up.
    Gap(Box<Raft>),
}

/// What a segment says of itself.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// The release that recorded it: only the same core is bound to do the same.
    pub release: String,
    /// Whose core.
    pub node: NodeId,
    /// Of which group.
    pub group: GroupId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Which segment of that life, from 0.
    pub segment: u64,
    /// Steps in that life before it, those in gaps included.
    pub steps: u64,
    /// When, in µs since 1970, by the machine's wall clock: brings recordings of several machines together, roughly.
    pub unix_us: u64,
    /// The same moment, by the clock that the core goes by.
    pub now: Instant,
    /// Are payloads left out of what follows?
    pub payloads: Payloads,
}

/// The queue of actions was polled: when that happens matters, for its bound does, and so does what is sent together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Polled {
    /// So many actions came out.
    pub count: u64,
    /// The queue wasn't empty after that, as far as anybody looked.
    pub more: bool,
    /// The [`Digest`] of all actions in this segment so far, little-endian.
    pub digest: [u8; 8],
}

/// Why the recording of a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The node has stopped: this is all there was.
    Stopped,
    /// The recorder couldn't keep up, and the node stopped before it could go on.
    Gap,
}

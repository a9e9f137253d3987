//! The flight recorder: takes down all that a node's core is told, so that `quorate-sim flight` can replay it step by step
//! and hold every invariant against it. It is made to be left on.
//!
//! What is taken down is what the core's contract makes sufficient: where the core stood, and then each input with its time, and
//! when the queue of actions was polled. Of the actions there is a running digest; a replay must come to the same, and the first
//! step that doesn't is found.
//!
//! It is a ring: segments, a file each, of which the oldest are removed. Each begins with the whole core (at the start of a life:
//! with what that is made from), so that a replay can begin with any. `quorate_core::recording` says what is in them.
//!
//! The driver packs an input into a buffer in memory, and a thread of the recorder's own writes that to the disk, some times a
//! second. The node never waits: when the disk can't keep up, a whole stretch is left out, and the recording goes on with a
//! segment that says so. When it can't be written at all it ends, says so in the log and in
//! [`Node::recording`](crate::Node::recording), and the node goes on without it. Nothing is synced: what a killed process
//! has handed to the operating system is there (all but the last few milliseconds), and after a loss of power the end may be missing.
//!
//! Payloads are in it: a recording is as confidential as the log, unless they are left out ([`Recording::payloads`]).

mod folder;
mod queue;
mod recorder;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use quorate_core::{
    Config, Instant, Recovered,
    recording::{Head, Payloads},
};

pub(crate) use queue::Tape;
pub(crate) use recorder::Recorder;

use crate::{clock, thread::Alive};

/// Where a recording goes, and how much of it: see [`Builder::record`](crate::Builder::record).
#[must_use = "it records nothing before it is handed to a node's builder"]
pub struct Recording {
    dir: PathBuf,
    max_bytes: u64,
    payloads: Payloads,
    actions: bool,
    put: Put,
}

/// Writes bytes to a file.
type Put = Box<dyn FnMut(&mut File, &[u8]) -> io::Result<()> + Send>;

/// No ring is smaller.
const MIN_BYTES: u64 = 64 << 10;

impl Recording {
    /// Into this directory, which is made if it isn't there. Each group has a directory of its own in it, `group-0` and so on,
    /// with its segments and, as `kept-…`, at most four copies of the ring as it was when a node came to an end that it
    /// should not have.
    ///
    /// It is for one node alone. Two of one group at a time can't record there: the second goes on without a recording.
    pub fn to_dir(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            max_bytes: 64 << 20,
            payloads: Payloads::Kept,
            actions: false,
            put: Box::new(File::write_all),
        }
    }

    /// Bytes that the ring may have on the disk, for each group; what was kept comes on top of it. Default 64 MiB, at least
    /// 64 KiB. A segment is a quarter of it, with the core at its beginning, which takes some bytes for each entry that it holds
    /// (up to the bounds in [`Config`]), whatever their payloads. Two segments are always there, so a ring that is small beside
    /// its core takes more than this.
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = if bytes < MIN_BYTES { MIN_BYTES } else { bytes };
        self
    }

    /// Are payloads in it? Without them it is far smaller, and not confidential, and replays as well. Default
    /// [`Payloads::Kept`]: those that come while it is recorded are in it, once each.
    pub const fn payloads(mut self, payloads: Payloads) -> Self {
        self.payloads = payloads;
        self
    }

    /// Takes down the actions themselves, too: then a replay that goes another way can show both, and holds the invariants
    /// against what was really done. It takes several times the room, and of the driver's time. Default off.
    pub const fn actions(mut self, on: bool) -> Self {
        self.actions = on;
        self
    }

    #[cfg(test)]
    fn put(mut self, put: impl FnMut(&mut File, &[u8]) -> io::Result<()> + Send + 'static) -> Self {
        self.put = Box::new(put);
        self
    }

    /// Starts the thread that writes; never fails, but may record nothing.
    pub(crate) fn start(
        self,
        config: &Config,
        recovered: &Recovered,
        now: Instant,
        alive: &Alive,
    ) -> (Recorder, Arc<Tape>) {
        let head = Head {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            node: config.id,
            group: config.group,
            incarnation: recovered.incarnation,
            segment: 0,
            steps: 0,
            unix_us: clock::wall(),
            now,
            payloads: self.payloads,
        };
        let tape = Arc::new(Tape::default());
        let (max_bytes, actions) = (self.max_bytes, self.actions);
        let recorder = Recorder::new(head.clone(), config, recovered, tape.clone(), max_bytes, actions);
        writer::start(self, head, &tape, alive);
        (recorder, tape)
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, max_bytes, payloads, actions, put: _ } = self;
        f.debug_struct("Recording")
            .field("dir", dir)
            .field("max_bytes", max_bytes)
            .field("payloads", payloads)
            .field("actions", actions)
            .finish_non_exhaustive()
    }
}

/// How a node's recording is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RecordingStatus {
    /// Steps taken down in this life.
    pub steps: u64,
    /// Steps that were left out, because the disk couldn't keep up.
    pub missing: u64,
    /// How often that was.
    pub gaps: u64,
    /// Bytes written in this life.
    pub bytes: u64,
    /// Bytes that the ring has on the disk, earlier lives included.
    pub on_disk: u64,
    /// Segments on the disk, earlier lives included.
    pub segments: u64,
    /// Why nothing more is recorded, if so.
    pub ended: Option<RecordingEnded>,
}

/// Why nothing more is recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordingEnded {
    /// The node has stopped: this is all there was.
    #[error("the node has stopped")]
    Stopped,
    /// It can't be written.
    #[error("it can't be written: {why}")]
    Failed {
        /// Why.
        why: Arc<str>,
    },
}

/// A copy of a ring.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecordingDump {
    /// How many segments it has.
    pub segments: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Why a ring was not copied.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The node was started without [`Builder::record`](crate::Builder::record).
    #[error("this node is not recorded")]
    NotRecorded,
    /// It records no more. What there is lies where it was recorded.
    #[error("nothing more is recorded: {why}")]
    Ended {
        /// Why.
        why: RecordingEnded,
    },
    /// The copy can't be written; or there is something of that name already, which is left alone.
    #[error("{}: {source}", dir.display())]
    Io {
        /// Where it should have gone.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

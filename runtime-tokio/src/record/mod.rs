//! The flight recorder: takes down all that a node's core is told, so that `quorate-sim flight` can replay it step by step
//! and hold every invariant against it.
//!
//! What is taken down is what the core's contract makes sufficient: the configuration, what the store had recovered, and
//! then each input with its time, and when the queue of actions was polled. Of the actions there is a running digest; a
//! replay must come to the same, and the first step that doesn't is found.
//!
//! The driver clones an input (payloads are shared, not copied), hashes what comes out, and hands both over a bounded queue
//! to a thread of the recorder's own, which makes text of it. The node never waits: when the queue is full, or the file can't
//! be written, the recording ends, says so in the log and in [`Node::recording`](crate::Node::recording), and the node goes
//! on without it.
//!
//! A recording begins when the node starts, for the core's state can't be put into a file and so a replay can begin nowhere
//! else; and it ends at [`Recording::max_bytes`]. What is kept of a node that runs for long is therefore its beginning. A
//! restart adds another life to the file. Nothing is synced: what a killed process has handed to the operating system is
//! there, and after a loss of power the end may be missing.
//!
//! Payloads are in it: a recording is as confidential as the log.

mod recorder;
mod writer;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use quorate_core::{
    Config, Instant, NodeId, Recovered,
    recording::{Start, VERSION},
};

pub(crate) use recorder::Recorder;

use crate::{clock, thread::Alive};

/// Where a recording goes, and how much of it: see [`Builder::record`](crate::Builder::record).
#[must_use = "it records nothing before it is handed to a node's builder"]
pub struct Recording {
    sink: Sink,
    max_bytes: u64,
    actions: bool,
}

enum Sink {
    File(PathBuf),
    Writer(Box<dyn io::Write + Send>),
}

impl Recording {
    /// Into this file. If it is there and holds recordings of earlier lives, this one is added; when it is half full it is
    /// moved aside first, to the same name with `.old` at its end, where it takes the place of the one before. Any other
    /// file is left alone, and nothing is recorded.
    pub fn to_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Sink::File(path.into()))
    }

    /// Into anything else.
    pub fn to_writer(writer: impl io::Write + Send + 'static) -> Self {
        Self::new(Sink::Writer(Box::new(writer)))
    }

    const fn new(sink: Sink) -> Self {
        Self { sink, max_bytes: 256 << 20, actions: false }
    }

    /// The recording ends when the file is this big. Default 256 MiB.
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Takes down the actions themselves, too: then a replay that goes another way can show both, and holds the invariants
    /// against what was really done. It takes several times the room, and the driver's own time to make text of it. Default
    /// off.
    pub const fn actions(mut self, on: bool) -> Self {
        self.actions = on;
        self
    }

    /// Starts the thread that writes; never fails, but may record nothing.
    pub(crate) fn start(
        self,
        config: Config,
        recovered: Recovered,
        now: Instant,
        alive: &Alive,
    ) -> (Recorder, Arc<Tape>) {
        let tape = Arc::new(Tape::default());
        let start = Start {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            unix_us: clock::wall(),
            now,
            config,
            recovered,
        };
        let (node, actions) = (start.config.id, self.actions);
        let queue = writer::start(self, start, &tape, alive);
        (Recorder::new(node, queue, tape.clone(), actions), tape)
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sink, max_bytes, actions } = self;
        let path = if let Sink::File(path) = sink { Some(path) } else { None };
        f.debug_struct("Recording")
            .field("path", &path)
            .field("max_bytes", max_bytes)
            .field("actions", actions)
            .finish_non_exhaustive()
    }
}

/// How a node's recording is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordingStatus {
    /// Steps taken down.
    pub steps: u64,
    /// Bytes written in this life.
    pub bytes: u64,
    /// Why nothing more is recorded, if so.
    pub ended: Option<RecordingEnded>,
}

/// Why nothing more is recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordingEnded {
    /// The node has stopped: this is all there was.
    #[error("the node has stopped")]
    Stopped,
    /// [`Recording::max_bytes`]: what comes later isn't in it.
    #[error("it has reached its bound of {bound} bytes")]
    Limit {
        /// The bound.
        bound: u64,
    },
    /// The recorder couldn't keep up: what comes later isn't in it.
    #[error("the recorder couldn't keep up with the node")]
    Gap,
    /// It can't be written.
    #[error("it can't be written: {why}")]
    Failed {
        /// Why.
        why: Arc<str>,
    },
}

/// What the driver's side, the writer's and onlookers share.
#[derive(Default, Debug)]
pub(crate) struct Tape {
    steps: AtomicU64,
    bytes: AtomicU64,
    /// Bytes between the driver and the writer.
    queued: AtomicUsize,
    ended: Mutex<Option<RecordingEnded>>,
}

impl Tape {
    pub(crate) fn status(&self) -> RecordingStatus {
        RecordingStatus {
            steps: self.steps.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            ended: self.ended(),
        }
    }

    fn ended(&self) -> Option<RecordingEnded> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first reason counts. Says whether this is it.
    fn end(&self, node: NodeId, why: RecordingEnded) -> bool {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ended.is_none();
        if first && why != RecordingEnded::Stopped {
            tracing::warn!(%node, %why, "nothing more is recorded of this node, which goes on without it");
        }
        ended.get_or_insert(why);
        first
    }
}

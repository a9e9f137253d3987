//! What lies between the driver, which must never wait, and the thread that writes.

use std::{
    mem,
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_core::NodeId;
use tokio::sync::oneshot;

use super::{DumpError, RecordingDump, RecordingEnded, RecordingStatus};

/// So many bytes may wait for the writer before a stretch is left out; the writer has as many in hand at most. The core at the
/// beginning of a segment may come on top of that.
const MAX_WAITING: usize = 16 << 20;

/// A buffer that has grown beyond this gives its room back.
const SPARE: usize = 4 << 20;

/// So long the writer rests after it was woken: so it is woken, and writes, some times a second only, however busy the node
/// is.
const REST: Duration = Duration::from_millis(5);

/// What the driver's side, the writer's and onlookers share.
#[derive(Default, Debug)]
pub(crate) struct Tape {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// What is yet to be done, and what has been.
#[derive(Default, Debug)]
pub(super) struct Waiting {
    /// Notes, one after the other.
    pub(super) notes: Vec<u8>,
    /// Where in them segments begin, and how many bytes of them are cores.
    pub(super) begins: Vec<usize>,
    pub(super) begin_bytes: usize,
    pub(super) dumps: Vec<Dump>,
    /// No more will come.
    pub(super) over: Option<Over>,
    pub(super) status: RecordingStatus,
    /// The writer sleeps until it is woken.
    asleep: bool,
}

/// A copy that somebody wants.
#[derive(Debug)]
pub(super) struct Dump {
    pub(super) dir: PathBuf,
    pub(super) answer: oneshot::Sender<Result<RecordingDump, DumpError>>,
}

/// The node has stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    /// As it should not have: the ring is to be kept.
    pub(super) keep: bool,
}

impl Tape {
    pub(crate) fn status(&self) -> RecordingStatus {
        self.lock().status.clone()
    }

    /// Copies the ring, with all that has happened so far, into a directory that isn't there yet.
    pub(crate) async fn dump(&self, dir: PathBuf) -> Result<RecordingDump, DumpError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.lock();
            if let Some(why) = &waiting.status.ended {
                return Err(DumpError::Ended { why: why.clone() });
            }
            waiting.dumps.push(Dump { dir, answer });
        }
        self.wake.notify_one();
        answered.await.unwrap_or_else(|_| {
            let why = self.status().ended.unwrap_or(RecordingEnded::Stopped);
            Err(DumpError::Ended { why })
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was added.
    #[inline]
    pub(super) fn added(&self, mut waiting: MutexGuard<'_, Waiting>) {
        if mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// There is nothing more to come.
    pub(super) fn over(&self, keep: bool) {
        self.lock().over = Some(Over { keep });
        self.wake.notify_one();
    }

    /// The writer's: waits for something to do, and takes all of it. `notes` is emptied, and used again.
    pub(super) fn take(&self, mut notes: Vec<u8>) -> Taken {
        let asleep = |waiting: &mut Waiting| {
            waiting.asleep = waiting.notes.is_empty() && !waiting.is_urgent();
            waiting.asleep
        };
        let mut waiting = self.wake.wait_while(self.lock(), asleep).unwrap_or_else(PoisonError::into_inner);
        if !waiting.is_urgent() {
            let rest = self.wake.wait_timeout_while(waiting, REST, |waiting| !waiting.is_urgent());
            waiting = rest.unwrap_or_else(PoisonError::into_inner).0;
        }
        notes.clear();
        notes.shrink_to(SPARE);
        Taken {
            notes: mem::replace(&mut waiting.notes, notes),
            begins: {
                waiting.begin_bytes = 0;
                mem::take(&mut waiting.begins)
            },
            dumps: mem::take(&mut waiting.dumps),
            over: waiting.over,
        }
    }

    /// Nothing more is recorded. The first reason counts.
    pub(super) fn end(&self, node: NodeId, why: RecordingEnded) {
        let mut waiting = self.lock();
        if waiting.status.ended.is_none() && why != RecordingEnded::Stopped {
            tracing::warn!(%node, %why, "nothing more is recorded of this node, which goes on without it");
        }
        waiting.status.ended.get_or_insert(why);
        // Whoever waits for a copy hears that nobody makes it.
        waiting.dumps.clear();
        (waiting.notes, waiting.begins) = (Vec::new(), Vec::new());
    }
}

impl Waiting {
    /// Too much waits for anything more to be added.
    pub(super) const fn is_full(&self) -> bool {
        self.notes.len() - self.begin_bytes >= MAX_WAITING
    }

    /// May a segment begin?
    pub(super) const fn has_room(&self) -> bool {
        self.notes.len() < MAX_WAITING / 2
    }

    const fn is_urgent(&self) -> bool {
        self.over.is_some() || !self.dumps.is_empty()
    }
}

/// What the writer has to do.
pub(super) struct Taken {
    pub(super) notes: Vec<u8>,
    pub(super) begins: Vec<usize>,
    pub(super) dumps: Vec<Dump>,
    pub(super) over: Option<Over>,
}

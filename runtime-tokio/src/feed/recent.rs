//! What was applied lately, shared by all feeds.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use quorate_core::{Few, Index, LogId, Run};
use tokio::sync::watch;

use crate::{error::Stopped, transport::BoxFuture};

/// What a run costs beside its bytes.
const RUN_OVERHEAD: usize = 128;

/// Reads the log for feeds that are behind the ring.
pub(crate) trait LoadLog: Send + Sync + 'static {
    /// The entries from `first` to `last`, as many as fit into `max_bytes` but one at least. All of them are applied here,
    /// so that they never change. One question at a time for each feed.
    fn load(&self, first: Index, last: Index, max_bytes: usize) -> BoxFuture<Result<FromLog, Stopped>>;
}

/// What the log says.
#[derive(Debug)]
pub(crate) enum FromLog {
    /// From the first one asked for, without a gap; one at least.
    Entries(Few<Run>),
    /// The log begins after `base`, which is not before the first one asked for. There is a snapshot at `snapshot`, which
    /// includes it.
    Compacted { base: Index, snapshot: LogId },
}

/// The runs that were applied last, by reference, up to a bound in bytes; and how far that is.
///
/// Without feeds it holds nothing, and costs the apply lane a look at a counter.
pub(crate) struct Recent {
    ring: Mutex<Ring>,
    progress: watch::Sender<Progress>,
    log: Box<dyn LoadLog>,
    max_bytes: usize,
}

/// What wakes a feed.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) stopped: Option<Stopped>,
}

#[derive(Default)]
struct Ring {
    /// Consecutive, up to `last`; or none.
    runs: VecDeque<Run>,
    bytes: usize,
    /// The last that was applied.
    last: Index,
}

/// Where an index is.
#[derive(Debug)]
pub(super) enum Place {
    /// In the ring: these.
    Here(Few<Run>),
    /// Before the ring. This is the last that has to come from the log.
    InLog { last: Index },
    /// Not applied yet.
    Ahead,
}

impl Recent {
    /// Of a node that has applied everything up to `applied`, and whose log is read through `log`.
    pub(crate) fn new(applied: Index, max_bytes: usize, log: impl LoadLog) -> Self {
        Self {
            ring: Mutex::new(Ring { last: applied, ..Ring::default() }),
            progress: watch::Sender::new(Progress { stopped: None }),
            log: Box::new(log),
            max_bytes,
        }
    }

    /// These have been applied, in order. To be called after they were, by whoever does it.
    pub(crate) fn push(&self, runs: &Few<Run>) {
        let mut ring = self.lock();
        let heard = self.progress.receiver_count() > 0;
        if heard {
            runs.iter().for_each(|run| ring.push(run, self.max_bytes));
        } else {
            let last = runs.last().map_or(ring.last, Run::last);
            ring.skip(last);
        }
        drop(ring);
        if heard {
            self.progress.send_modify(|_| {});
        }
    }

    /// The state has come from a snapshot at `to`: what lies before was never applied here.
    pub(crate) fn restored(&self, to: LogId) {
        self.lock().skip(to.index);
        self.progress.send_modify(|_| {});
    }

    /// The node has stopped: feeds end with what is in the ring.
    pub(crate) fn stop(&self, stopped: Stopped) {
        self.progress.send_modify(|progress| progress.stopped = Some(stopped));
    }

    pub(super) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(super) fn load(
        &self,
        first: Index,
        last: Index,
        max_bytes: usize,
    ) -> BoxFuture<Result<FromLog, Stopped>> {
        self.log.load(first, last, max_bytes)
    }

    pub(super) fn at(&self, next: Index, max_bytes: usize) -> Place {
        let whole = {
            let ring = self.lock();
            match ring.runs.front() {
                _ if next > ring.last => return Place::Ahead,
                Some(front) if front.first() <= next => ring.from(next, max_bytes),
                front => return Place::InLog { last: front.map_or(ring.last, |front| front.first().prev()) },
            }
        };
        // Not under the lock: to cut a run is to look through it.
        let (mut runs, mut left) = (Few::new(), max_bytes);
        for run in whole.into_iter().filter_map(|run| run.starting_at(next)) {
            if runs.is_empty() || run.bytes() <= left {
                let part = run.within(left);
                let cut = part.last() < run.last();
                left = left.saturating_sub(part.bytes());
                runs.push(part);
                if !cut {
                    continue;
                }
            }
            break;
        }
        Place::Here(runs)
    }

    #[cfg(test)]
    pub(super) fn ring_bytes(&self) -> usize {
        let ring = self.lock();
        assert_eq!(ring.bytes, ring.runs.iter().map(cost).sum::<usize>());
        ring.bytes
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, run: &Run, max_bytes: usize) {
        // Applied in order and once. If it were not, what can't be told from here is told from the log.
        if run.first() != self.last.next() {
            self.skip(self.last.max(run.last()));
            return;
        }
        self.last = run.last();
        self.bytes += cost(run);
        self.runs.push_back(run.clone());
        while self.bytes > max_bytes
            && let Some(run) = self.runs.pop_front()
        {
            self.bytes -= cost(&run);
        }
    }

    /// Everything up to here has to come from the log.
    fn skip(&mut self, last: Index) {
        // Gives its memory back, too.
        *self = Self { last, ..Self::default() };
    }

    /// Runs that hold `next` and what follows, of `max_bytes` or somewhat more.
    fn from(&self, next: Index, max_bytes: usize) -> Vec<Run> {
        let first = self.runs.partition_point(|run| run.last() < next);
        let mut bytes = 0_usize;
        let wanted = self.runs.iter().skip(first).take_while(|run| {
            // The first may begin long before `next`.
            let enough = bytes > max_bytes;
            bytes += if run.first() < next { 0 } else { run.bytes() };
            !enough
        });
        wanted.cloned().collect()
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ring = self.lock();
        f.debug_struct("Recent")
            .field("last", &ring.last)
            .field("runs", &ring.runs.len())
            .field("bytes", &ring.bytes)
            .field("feeds", &self.progress.receiver_count())
            .finish_non_exhaustive()
    }
}

fn cost(run: &Run) -> usize {
    run.bytes() + RUN_OVERHEAD
}

//! What is going on with snapshots, for whoever looks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quorate_core::{GroupId, LogId, NodeId};
use tokio::time::Instant;

use crate::metrics::{self, SnapshotKind, SnapshotMeter};

/// A snapshot that is being taken, sent or received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotProgress {
    /// Of which group.
    pub group: GroupId,
    /// What is done with it.
    pub activity: SnapshotActivity,
    /// The last entry that it includes.
    pub last: LogId,
    /// How many bytes are done: written, or handed to the transport, or staged. A transfer that is resumed begins where it was.
    pub done: u64,
    /// How many there will be; `None` while it is taken, when nobody knows yet.
    pub total: Option<u64>,
    /// For how long it has been under way, time in queues included.
    pub elapsed: Duration,
}

/// What is done with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotActivity {
    /// This node writes its own state.
    Taking,
    /// It sends one of its snapshots.
    Sending {
        /// To whom.
        to: NodeId,
    },
    /// It has asked another node to send one of its own.
    Relaying {
        /// To whom.
        to: NodeId,
        /// The node that was asked.
        source: NodeId,
    },
    /// It stages one that a peer sends.
    Receiving {
        /// Who sends it.
        from: NodeId,
    },
}

/// What has become of snapshots since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotCounts {
    /// Taken and published.
    pub taken: u64,
    /// Bytes of those.
    pub taken_bytes: u64,
    /// Not taken after all: the store or the state machine has failed, or it was cancelled.
    pub takes_failed: u64,
    /// Sent to a peer that has them whole, those that another node has sent on this one's behalf included.
    pub sent: u64,
    /// Of [`SnapshotCounts::sent`], those that another node has sent.
    pub relayed: u64,
    /// Bytes of chunks handed to the transport, also of transfers that were cut short.
    pub sent_bytes: u64,
    /// Given up.
    pub sends_failed: u64,
    /// Received and published.
    pub received: u64,
    /// Bytes staged of what peers have sent, also of transfers that were cut short.
    pub received_bytes: u64,
    /// Cut short, refused, or found to be wrong. A transfer that goes on later counts here each time it was cut.
    pub receives_failed: u64,
}

/// Keeps count of all that is going on in one process.
#[derive(Debug, Default)]
pub(crate) struct Board {
    active: Mutex<Active>,
    pub(crate) taken: AtomicU64,
    pub(crate) taken_bytes: AtomicU64,
    pub(crate) takes_failed: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) relayed: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) sends_failed: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) receives_failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Active {
    next: u64,
    entries: BTreeMap<u64, Arc<Meter>>,
}

/// How far something is.
#[derive(Debug)]
pub(crate) struct Meter {
    group: GroupId,
    activity: SnapshotActivity,
    last: LogId,
    done: AtomicU64,
    total: Option<u64>,
    started: Instant,
}

/// Something that is on the board for as long as this lives. Dropped before it is [finished](Listed::finish), it came to
/// nothing, as far as metrics are concerned.
#[derive(Debug)]
pub(crate) struct Listed {
    board: Arc<Board>,
    number: u64,
    meter: Arc<Meter>,
    /// None for what another node does, and counts.
    metrics: Option<SnapshotMeter>,
}

impl Board {
    /// Lists something that begins now, and tells the group's metrics of it.
    pub(crate) fn list(
        self: &Arc<Self>,
        metrics: &metrics::Meter,
        group: GroupId,
        activity: SnapshotActivity,
        last: LogId,
        total: Option<u64>,
    ) -> Listed {
        let started = Instant::now();
        let meter = Arc::new(Meter { group, activity, last, done: AtomicU64::new(0), total, started });
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let number = active.next;
        active.next += 1;
        active.entries.insert(number, meter.clone());
        let kind = match activity {
            SnapshotActivity::Taking => Some(SnapshotKind::Taken),
            SnapshotActivity::Sending { .. } => Some(SnapshotKind::Sent),
            SnapshotActivity::Receiving { .. } => Some(SnapshotKind::Received),
            SnapshotActivity::Relaying { .. } => None,
        };
        let metrics = kind.map(|kind| metrics.snapshot(kind, total));
        Listed { board: self.clone(), number, meter, metrics }
    }

    /// What is going on, the oldest first.
    pub(crate) fn progress(&self) -> Vec<SnapshotProgress> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.entries.values().map(|meter| meter.read()).collect()
    }

    /// What has become of all that was.
    pub(crate) fn counts(&self) -> SnapshotCounts {
        SnapshotCounts {
            taken: self.taken.load(Relaxed),
            taken_bytes: self.taken_bytes.load(Relaxed),
            takes_failed: self.takes_failed.load(Relaxed),
            sent: self.sent.load(Relaxed),
            relayed: self.relayed.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            sends_failed: self.sends_failed.load(Relaxed),
            received: self.received.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            receives_failed: self.receives_failed.load(Relaxed),
        }
    }
}

/// One more, or so many.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Meter {
    fn read(&self) -> SnapshotProgress {
        SnapshotProgress {
            group: self.group,
            activity: self.activity,
            last: self.last,
            done: self.done.load(Relaxed),
            total: self.total,
            elapsed: self.started.elapsed(),
        }
    }
}

impl Listed {
    /// So many bytes are done now.
    pub(crate) fn set(&self, done: u64) {
        self.meter.done.store(done, Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.reached(done);
        }
    }

    /// So many bytes were done before, by a transfer that was cut short.
    pub(crate) fn resume(&self, done: u64) {
        self.meter.done.store(done, Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.resume(done);
        }
    }

    /// It came to its end.
    pub(crate) fn finish(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.done();
        }
    }

    /// How many bytes are done.
    pub(crate) fn done(&self) -> u64 {
        self.meter.done.load(Relaxed)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut active = self.board.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.entries.remove(&self.number);
    }
}

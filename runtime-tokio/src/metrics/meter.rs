//! What happens often is told through handles that are had once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram, Label, SharedString, counter, gauge, histogram};
use quorate_core::{Class, GroupId, NodeId};

use super::names::{self, Metric};
use crate::error::ProposeError;

/// How finely metrics are told apart.
///
/// A process may host thousands of groups, and a series for each of their numbers would be more than most systems bear.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MetricsLevel {
    /// Nothing is told.
    Off,
    /// Each number is the node's: of several groups it is the sum, or the highest, as its meaning says. No label `group`.
    #[default]
    PerHost,
    /// Each number is a group's, with the label `group`. For a process with few groups.
    PerGroup,
}

/// Gives each group its [`Meter`].
#[derive(Debug)]
pub(crate) struct Meters {
    node: NodeId,
    level: MetricsLevel,
    /// What all groups share, unless each has its own.
    host: Arc<Meter>,
    store: Arc<StoreMeter>,
    /// Of a group that is not here. Never by group: which of them others speak of is not this node's choice.
    astray: Counter,
}

impl Meters {
    pub(crate) fn new(node: NodeId, level: MetricsLevel) -> Self {
        if level != MetricsLevel::Off {
            super::describe();
        }
        let host = match level {
            MetricsLevel::PerHost => Meter::new(&labels(node, None)),
            MetricsLevel::Off | MetricsLevel::PerGroup => Meter::off(),
        };
        let store = match level {
            MetricsLevel::PerHost | MetricsLevel::PerGroup => StoreMeter::new(&labels(node, None)),
            MetricsLevel::Off => StoreMeter::off(),
        };
        let astray = match level {
            MetricsLevel::PerHost | MetricsLevel::PerGroup => {
                counter!(names::MESSAGES_REFUSED.name, labels(node, None))
            }
            MetricsLevel::Off => Counter::noop(),
        };
        Self { node, level, host: Arc::new(host), store: Arc::new(store), astray }
    }

    /// A message has come for a group that is not open here.
    pub(crate) fn message_astray(&self) {
        self.astray.increment(1);
    }

    pub(crate) const fn store(&self) -> &Arc<StoreMeter> {
        &self.store
    }

    pub(crate) fn of(&self, group: GroupId) -> Arc<Meter> {
        match self.level {
            MetricsLevel::PerGroup => Arc::new(Meter::new(&labels(self.node, Some(group)))),
            MetricsLevel::Off | MetricsLevel::PerHost => self.host.clone(),
        }
    }
}

/// The labels of all that a node tells.
pub(super) fn labels(node: NodeId, group: Option<GroupId>) -> Vec<Label> {
    let node = Label::new("node", node.0.to_string());
    std::iter::once(node).chain(group.map(|group| Label::new("group", group.0.to_string()))).collect()
}

/// Adds a label.
pub(super) fn with(labels: &[Label], name: &'static str, value: impl Into<SharedString>) -> Vec<Label> {
    let mut labels = labels.to_vec();
    labels.push(Label::new(name, value));
    labels
}

/// Tells what happens. Each call is one or two updates of numbers that are at hand.
#[derive(Debug)]
pub(crate) struct Meter {
    proposals: Counter,
    proposal_batches: Counter,
    proposal_failures: [Counter; Failure::ALL.len()],
    proposal_seconds: Histogram,
    forwarded: Counter,
    commit_seconds: Histogram,
    apply_seconds: Histogram,
    applied: Counter,
    divergences: Counter,
    reads: Counter,
    read_batches: Counter,
    read_seconds: Histogram,
    overloaded: Counter,
    elections: Counter,
    elections_won: Counter,
    leader_changes: Counter,
    snapshots: [SnapshotHandles; SnapshotKind::ALL.len()],
    sent: [Counter; 2],
    received: [Counter; 2],
    messages_refused: Counter,
    messages_dropped: Counter,
}

/// Why a proposal has no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    Overloaded,
    NoLeader,
    TooBig,
    Refused,
    Unknown,
    Reply,
    Stopped,
}

impl Failure {
    const ALL: [Self; 7] = [
        Self::Overloaded,
        Self::NoLeader,
        Self::TooBig,
        Self::Refused,
        Self::Unknown,
        Self::Reply,
        Self::Stopped,
    ];

    /// The value of the label `reason`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::NoLeader => "no_leader",
            Self::TooBig => "too_big",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Reply => "reply",
            Self::Stopped => "stopped",
        }
    }
}

impl From<&ProposeError> for Failure {
    fn from(error: &ProposeError) -> Self {
        match error {
            ProposeError::NoLeader { .. } => Self::NoLeader,
            ProposeError::Overloaded { .. } => Self::Overloaded,
            ProposeError::TooBig { .. } => Self::TooBig,
            ProposeError::Refused { .. } => Self::Refused,
            ProposeError::Unknown { .. } => Self::Unknown,
            ProposeError::Reply { .. } => Self::Reply,
            ProposeError::Stopped(_) => Self::Stopped,
        }
    }
}

/// What is done with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SnapshotKind {
    /// Written from the state machine.
    Taken,
    /// Sent to a peer.
    Sent,
    /// Received from a peer, and staged.
    Received,
    /// Read into the state machine.
    Restored,
}

impl SnapshotKind {
    const ALL: [Self; 4] = [Self::Taken, Self::Sent, Self::Received, Self::Restored];

    const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Restored => "restored",
        }
    }
}

#[derive(Clone, Debug)]
struct SnapshotHandles {
    done: Counter,
    failures: Counter,
    seconds: Histogram,
    bytes: Counter,
    active: Gauge,
    progress: Gauge,
}

const fn class(class: Class) -> usize {
    match class {
        Class::Control => 0,
        Class::Append => 1,
    }
}

impl Meter {
    /// One that tells nothing.
    pub(crate) fn off() -> Self {
        Self::with(&|_, _| Counter::noop(), &|_, _| Gauge::noop(), &|_, _| Histogram::noop())
    }

    fn new(labels: &[Label]) -> Self {
        let labels = |label: Option<(&'static str, &'static str)>| match label {
            Some((name, value)) => with(labels, name, value),
            None => labels.to_vec(),
        };
        Self::with(
            &|metric, label| counter!(metric.name, labels(label)),
            &|metric, label| gauge!(metric.name, labels(label)),
            &|metric, label| histogram!(metric.name, labels(label)),
        )
    }

    fn with(
        counter: &dyn Fn(Metric, Option<(&'static str, &'static str)>) -> Counter,
        gauge: &dyn Fn(Metric, Option<(&'static str, &'static str)>) -> Gauge,
        histogram: &dyn Fn(Metric, Option<(&'static str, &'static str)>) -> Histogram,
    ) -> Self {
        let classes = |metric| ["control", "append"].map(|class| counter(metric, Some(("class", class))));
        Self {
            proposals: counter(names::PROPOSALS, None),
            proposal_batches: counter(names::PROPOSAL_BATCHES, None),
            proposal_failures: Failure::ALL
                .map(|failure| counter(names::PROPOSAL_FAILURES, Some(("reason", failure.name())))),
            proposal_seconds: histogram(names::PROPOSAL_SECONDS, None),
            forwarded: counter(names::FORWARDED, None),
            commit_seconds: histogram(names::COMMIT_SECONDS, None),
            apply_seconds: histogram(names::APPLY_SECONDS, None),
            applied: counter(names::APPLIED, None),
            divergences: counter(names::DIVERGENCES, None),
            reads: counter(names::READS, None),
            read_batches: counter(names::READ_BATCHES, None),
            read_seconds: histogram(names::READ_SECONDS, None),
            overloaded: counter(names::OVERLOADED, None),
            elections: counter(names::ELECTIONS, None),
            elections_won: counter(names::ELECTIONS_WON, None),
            leader_changes: counter(names::LEADER_CHANGES, None),
            snapshots: SnapshotKind::ALL.map(|kind| {
                let label = Some(("kind", kind.name()));
                SnapshotHandles {
                    done: counter(names::SNAPSHOTS, label),
                    failures: counter(names::SNAPSHOT_FAILURES, label),
                    seconds: histogram(names::SNAPSHOT_SECONDS, label),
                    bytes: counter(names::SNAPSHOT_BYTES, label),
                    active: gauge(names::SNAPSHOTS_ACTIVE, label),
                    progress: gauge(names::SNAPSHOT_PROGRESS, label),
                }
            }),
            sent: classes(names::MESSAGES_SENT),
            received: classes(names::MESSAGES_RECEIVED),
            messages_refused: counter(names::MESSAGES_REFUSED, None),
            messages_dropped: counter(names::MESSAGES_DROPPED, None),
        }
    }

    /// A core took a batch of `commands`.
    pub(crate) fn proposed(&self, commands: usize) {
        self.proposals.increment(commands as u64);
        self.proposal_batches.increment(1);
    }

    /// A proposal was applied, `after` it was made here.
    pub(crate) fn replied(&self, after: Duration) {
        self.proposal_seconds.record(after);
    }

    /// A proposal that was made here has no reply.
    pub(crate) fn failed(&self, failure: Failure) {
        if let Some(failures) = self.proposal_failures.get(failure as usize) {
            failures.increment(1);
        }
        if failure == Failure::Overloaded {
            self.overloaded.increment(1);
        }
    }

    /// A proposal is handed on to the leader.
    pub(crate) fn forwarded(&self) {
        self.forwarded.increment(1);
    }

    /// So many proposals that the core took together are committed, `after` that.
    pub(crate) fn committed(&self, after: Duration, proposals: usize) {
        self.commit_seconds.record_many(after.as_secs_f64(), proposals);
    }

    /// So many entries were applied, `after` they were handed over.
    pub(crate) fn applied(&self, after: Duration, entries: usize) {
        self.apply_seconds.record(after);
        self.applied.increment(entries as u64);
    }

    /// Another replica was found to differ.
    pub(crate) fn diverged(&self) {
        self.divergences.increment(1);
    }

    /// A core took a question for `reads`.
    pub(crate) fn asked(&self, reads: usize) {
        self.reads.increment(reads as u64);
        self.read_batches.increment(1);
    }

    /// A read was answered.
    pub(crate) fn answered(&self, after: Duration) {
        self.read_seconds.record(after);
    }

    /// A request that is no proposal was refused as overloaded.
    pub(crate) fn overloaded(&self) {
        self.overloaded.increment(1);
    }

    /// This node asks for votes in a new term.
    pub(crate) fn stood(&self) {
        self.elections.increment(1);
    }

    /// This node leads now.
    pub(crate) fn won(&self) {
        self.elections_won.increment(1);
    }

    /// Somebody leads who didn't.
    pub(crate) fn led(&self) {
        self.leader_changes.increment(1);
    }

    /// A message goes to a peer.
    pub(crate) fn sent(&self, of: Class) {
        if let Some(sent) = self.sent.get(class(of)) {
            sent.increment(1);
        }
    }

    /// A message was taken up.
    pub(crate) fn received(&self, of: Class) {
        if let Some(received) = self.received.get(class(of)) {
            received.increment(1);
        }
    }

    /// A core took a message for what it must not be.
    pub(crate) fn message_refused(&self) {
        self.messages_refused.increment(1);
    }

    /// A message found the inbox full.
    pub(crate) fn message_dropped(&self) {
        self.messages_dropped.increment(1);
    }

    /// Something begins to be done with a snapshot. `length` is how many bytes it has, if that is known.
    pub(crate) fn snapshot(&self, kind: SnapshotKind, length: Option<u64>) -> SnapshotMeter {
        let handles = self.snapshots[kind as usize].clone();
        handles.active.increment(1.0);
        let meter = SnapshotMeter {
            handles,
            begun: Instant::now(),
            length,
            bytes: AtomicU64::new(0),
            done: AtomicBool::new(false),
        };
        meter.resume(0);
        meter
    }
}

/// Tells what the store does, for all groups at once: a commit is of many.
#[derive(Debug)]
pub(crate) struct StoreMeter {
    commit_seconds: Histogram,
    commit_writes: Histogram,
    bytes: Counter,
    loads: Counter,
    load_seconds: Histogram,
}

impl StoreMeter {
    fn off() -> Self {
        Self {
            commit_seconds: Histogram::noop(),
            commit_writes: Histogram::noop(),
            bytes: Counter::noop(),
            loads: Counter::noop(),
            load_seconds: Histogram::noop(),
        }
    }

    fn new(labels: &[Label]) -> Self {
        Self {
            commit_seconds: histogram!(names::STORE_COMMIT_SECONDS.name, labels.to_vec()),
            commit_writes: histogram!(names::STORE_COMMIT_WRITES.name, labels.to_vec()),
            bytes: counter!(names::STORE_BYTES.name, labels.to_vec()),
            loads: counter!(names::LOADS.name, labels.to_vec()),
            load_seconds: histogram!(names::LOAD_SECONDS.name, labels.to_vec()),
        }
    }

    /// It made `writes` durable, in which there are entries of so many `bytes`.
    pub(crate) fn committed(&self, took: Duration, writes: usize, bytes: usize) {
        self.commit_seconds.record(took);
        self.commit_writes.record(writes as f64);
        self.bytes.increment(bytes as u64);
    }

    /// The log has answered a question.
    pub(crate) fn loaded(&self, took: Duration) {
        self.loads.increment(1);
        self.load_seconds.record(took);
    }
}

/// Follows one snapshot. Dropped before it is [done](SnapshotMeter::done), it came to nothing.
#[derive(Debug)]
#[must_use = "a snapshot that is not followed to its end counts as failed"]
pub(crate) struct SnapshotMeter {
    handles: SnapshotHandles,
    begun: Instant,
    length: Option<u64>,
    bytes: AtomicU64,
    done: AtomicBool,
}

impl SnapshotMeter {
    /// So many of its bytes are there already: it goes on where it was broken off.
    pub(crate) fn resume(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
        // An unknown length is none of which anything is done.
        let length = self.length.unwrap_or(u64::MAX).max(1);
        self.handles.progress.set((bytes as f64 / length as f64).min(1.0));
    }

    /// So many of its bytes are written, sent or read now.
    pub(crate) fn reached(&self, bytes: u64) {
        self.handles.bytes.increment(bytes.saturating_sub(self.bytes.load(Relaxed)));
        self.resume(bytes);
    }

    /// So many more bytes of it were written, sent or read.
    pub(crate) fn add(&self, bytes: usize) {
        self.reached(self.bytes.load(Relaxed).saturating_add(bytes as u64));
    }

    /// It came to its end.
    pub(crate) fn done(&self) {
        self.done.store(true, Relaxed);
    }
}

impl Drop for SnapshotMeter {
    fn drop(&mut self) {
        self.handles.active.decrement(1.0);
        if self.done.load(Relaxed) {
            self.handles.done.increment(1);
            self.handles.seconds.record(self.begun.elapsed());
            self.handles.progress.set(1.0);
        } else {
            self.handles.failures.increment(1);
        }
    }
}

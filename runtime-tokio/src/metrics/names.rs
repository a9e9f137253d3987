//! The metrics by name. `docs/metrics.md` shows the same; a test of `coord` holds the two together.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What kind of number a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only goes up, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Many values, in buckets.
    Histogram,
}

/// A metric: its name, and what it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Its name, as Prometheus has it: in base units, with `_total` for a counter.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// What it counts or measures.
    pub unit: Unit,
    /// Its labels, but for `group`: with [`MetricsLevel::PerGroup`](super::MetricsLevel::PerGroup) all metrics of a group have
    /// that, which are all but those of the store.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence or two.
    pub help: &'static str,
}

impl Metric {
    /// Tells the recorder that is installed what it is.
    pub fn describe(&self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.unit, self.help),
            Kind::Gauge => describe_gauge!(self.name, self.unit, self.help),
            Kind::Histogram => describe_histogram!(self.name, self.unit, self.help),
        }
    }
}

/// Bounds of buckets for durations: 50 µs to 10 s, each two to two and a half times the one before. A commit on a fast disk
/// takes 0.2 ms, an election about a second.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Bounds of buckets for numbers of things: powers of four.
pub const COUNT_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

macro_rules! metrics {
    ($($name:ident = $text:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $name: Metric = Metric {
            name: $text,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &["node", $($label),*],
            help: $help,
        };)*

        /// All metrics of this crate.
        pub const ALL: &[Metric] = &[$($name),*];
    };
}

metrics! {
    // Requests.
    PROPOSALS = "quorate_proposals_total", Counter, Count, [],
        "Commands that a core of this node took, to replicate them.";
    PROPOSAL_BATCHES = "quorate_proposal_batches_total", Counter, Count, [],
        "Batches in which they were proposed: one block in the log each.";
    PROPOSAL_FAILURES = "quorate_proposal_failures_total", Counter, Count, ["reason"],
        "Proposals made on this node that ended in an error: overloaded, no_leader, too_big, refused, unknown, reply or stopped.";
    PROPOSAL_SECONDS = "quorate_proposal_duration_seconds", Histogram, Seconds, [],
        "From the call to the reply of a proposal made on this node that was applied, forwarding and retries included.";
    FORWARDED = "quorate_proposals_forwarded_total", Counter, Count, [],
        "Proposals handed on to the leader; each attempt counts.";
    COMMIT_SECONDS = "quorate_commit_duration_seconds", Histogram, Seconds, [],
        "From when the leader's core took a proposal until it was committed and handed to the state machine.";
    APPLY_SECONDS = "quorate_apply_duration_seconds", Histogram, Seconds, [],
        "From when committed entries were handed to the state machine until they were applied: a value for each run of them.";
    APPLIED = "quorate_entries_applied_total", Counter, Count, [],
        "Entries applied to the state machine.";
    DIVERGENCES = "quorate_divergences_total", Counter, Count, [],
        "Replicas that were found to differ from this node's although they have applied the same.";
    READS = "quorate_reads_total", Counter, Count, [],
        "Reads that a core took, to say when they may be served: all but stale ones, which ask nobody.";
    READ_BATCHES = "quorate_read_batches_total", Counter, Count, [],
        "Batches in which they were asked for: reads that come together and want the same share one.";
    READ_SECONDS = "quorate_read_duration_seconds", Histogram, Seconds, [],
        "From the call to the answer of a read on this node, stale ones included.";
    OVERLOADED = "quorate_overloaded_total", Counter, Count, [],
        "Requests refused because a bound would have been passed.";

    // The store.
    STORE_COMMIT_SECONDS = "quorate_store_commit_duration_seconds", Histogram, Seconds, [],
        "How long a durable commit took: the write and its fsync.";
    STORE_COMMIT_WRITES = "quorate_store_commit_writes", Histogram, Count, [],
        "How many writes a durable commit was made of.";
    STORE_BYTES = "quorate_store_bytes_total", Counter, Bytes, [],
        "Bytes of entries made durable.";
    LOADS = "quorate_loads_total", Counter, Count, [],
        "Questions to the log: for a slow follower, a state machine that lags, or a feed.";
    LOAD_SECONDS = "quorate_load_duration_seconds", Histogram, Seconds, [],
        "How long the log took to answer one.";

    // Queues.
    QUEUE = "quorate_queue_depth", Gauge, Count, ["queue"],
        "What waits: proposals (without an outcome), reads (without an answer), messages (not taken up), store (writes), apply (runs of entries).";
    QUEUE_BYTES = "quorate_queue_bytes", Gauge, Bytes, ["queue"],
        "Bytes that wait: proposals and messages (not taken up), uncommitted, unpersisted (entries), cached (entries in memory).";

    // The protocol.
    GROUPS = "quorate_groups", Gauge, Count, ["role"],
        "Groups on this node by its part in them: follower, pre_candidate, candidate or leader.";
    HAS_LEADER = "quorate_has_leader", Gauge, Count, [],
        "1 if every group of this node knows its leader, else 0.";
    TERM = "quorate_term", Gauge, Count, [],
        "The term; the highest of several groups.";
    COMMIT_INDEX = "quorate_commit_index", Gauge, Count, [],
        "The index up to which the log is committed; the sum over several groups.";
    APPLIED_INDEX = "quorate_applied_index", Gauge, Count, [],
        "The index up to which the log is applied; the sum over several groups.";
    LAST_INDEX = "quorate_last_index", Gauge, Count, [],
        "The end of the log; the sum over several groups.";
    APPLY_LAG = "quorate_apply_lag_entries", Gauge, Count, [],
        "Entries that are committed and not yet applied; the highest of several groups.";
    LOG_ENTRIES = "quorate_log_entries", Gauge, Count, [],
        "Entries in the log, those replaced by a snapshot left out; the sum over several groups.";
    ELECTIONS = "quorate_elections_total", Counter, Count, [],
        "Elections that this node stood in: it asked for votes in a new term.";
    ELECTIONS_WON = "quorate_elections_won_total", Counter, Count, [],
        "How often this node became leader.";
    LEADER_CHANGES = "quorate_leader_changes_total", Counter, Count, [],
        "How often this node heard of a new leader, or of the same in a new term.";

    // Peers, as a leader sees them.
    PEER_LAG = "quorate_peer_lag_entries", Gauge, Count, ["peer"],
        "Entries of the leader's log that the peer is not known to have; the highest of several groups; 0 if this node leads none.";
    PEER_INFLIGHT = "quorate_peer_inflight_bytes", Gauge, Bytes, ["peer"],
        "Bytes of entries under way to the peer; the sum over several groups.";
    PEER_SNAPSHOTS = "quorate_peer_snapshots", Gauge, Count, ["peer"],
        "Groups in which the peer is being sent a snapshot, or waits for one.";

    // Snapshots.
    SNAPSHOTS = "quorate_snapshots_total", Counter, Count, ["kind"],
        "Snapshots taken, sent, received and restored.";
    SNAPSHOT_FAILURES = "quorate_snapshot_failures_total", Counter, Count, ["kind"],
        "Those that came to nothing.";
    SNAPSHOT_SECONDS = "quorate_snapshot_duration_seconds", Histogram, Seconds, ["kind"],
        "How long one took.";
    SNAPSHOT_BYTES = "quorate_snapshot_bytes_total", Counter, Bytes, ["kind"],
        "Their bytes, as they are written, sent or read.";
    SNAPSHOTS_ACTIVE = "quorate_snapshots_active", Gauge, Count, ["kind"],
        "Snapshots under way.";
    SNAPSHOT_PROGRESS = "quorate_snapshot_progress_ratio", Gauge, Count, ["kind"],
        "How much of the one under way is done, from 0 to 1, where its length is known; of several, the one that was heard of last.";

    // Messages between nodes.
    MESSAGES_SENT = "quorate_messages_sent_total", Counter, Count, ["class"],
        "Messages handed to the transport: control (votes, heartbeats, acknowledgements, reads) or append (entries).";
    MESSAGES_RECEIVED = "quorate_messages_received_total", Counter, Count, ["class"],
        "Messages taken up from the transport.";
    MESSAGES_REFUSED = "quorate_messages_refused_total", Counter, Count, [],
        "Messages refused: malformed, of a group that is not open here, or from somebody who can't have sent them.";
    MESSAGES_DROPPED = "quorate_messages_dropped_total", Counter, Count, [],
        "Messages dropped because the inbox was full.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_customs_of_prometheus() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            let Metric { name, kind, unit, help, .. } = metric;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("quorate_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(*unit == Unit::Seconds, name.contains("_seconds"), "{name}");
            assert_eq!(*unit == Unit::Bytes, name.contains("_bytes"), "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }
}

//! The same under etcd's names, so that dashboards and alerts that were made for etcd work.
//!
//! Only where the meaning is the same. There is a node's term, the applied index of its log or the fsync of its store in
//! both; there is nothing in quorate that takes as long as defragmenting a database, and so no name for it.

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder,
    SharedString, Unit,
};
use quorate_runtime_tokio::metrics::names as node;

use super::names::{self, Kind, Metric};

/// A metric that etcd has under another name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alias {
    /// The metric.
    pub of: Metric,
    /// Only with this label, which is left out then.
    pub only: Option<(&'static str, &'static str)>,
    /// etcd's name for it.
    pub name: &'static str,
    /// A label that has another name there.
    pub label: Option<(&'static str, &'static str)>,
}

const fn alias(of: Metric, name: &'static str) -> Alias {
    Alias { of, only: None, name, label: None }
}

/// All of them.
pub const ALL: &[Alias] = &[
    alias(node::HAS_LEADER, "etcd_server_has_leader"),
    Alias { only: Some(("role", "leader")), ..alias(node::GROUPS, "etcd_server_is_leader") },
    alias(node::LEADER_CHANGES, "etcd_server_leader_changes_seen_total"),
    alias(node::COMMIT_INDEX, "etcd_server_proposals_committed_total"),
    alias(node::APPLIED_INDEX, "etcd_server_proposals_applied_total"),
    Alias { only: Some(("queue", "proposals")), ..alias(node::QUEUE, "etcd_server_proposals_pending") },
    alias(node::PROPOSAL_FAILURES, "etcd_server_proposals_failed_total"),
    alias(node::STORE_COMMIT_SECONDS, "etcd_disk_wal_fsync_duration_seconds"),
    Alias {
        label: Some(("peer", "To")),
        ..alias(names::PEER_SENT_BYTES, "etcd_network_peer_sent_bytes_total")
    },
    Alias {
        label: Some(("peer", "From")),
        ..alias(names::PEER_RECEIVED_BYTES, "etcd_network_peer_received_bytes_total")
    },
    alias(names::KV_BYTES, "etcd_mvcc_db_total_size_in_bytes"),
];

impl Alias {
    /// The key under etcd's name, if `key` is one that etcd has.
    fn of(&self, key: &Key) -> Option<Key> {
        if key.name() != self.of.name {
            return None;
        }
        let mut labels: Vec<Label> = key.labels().cloned().collect();
        if let Some((name, value)) = self.only {
            let at = labels.iter().position(|label| label.key() == name && label.value() == value)?;
            labels.remove(at);
        }
        if let Some((ours, theirs)) = self.label
            && let Some(label) = labels.iter_mut().find(|label| label.key() == ours)
        {
            *label = Label::new(theirs, label.value().to_owned());
        }
        Some(Key::from_parts(self.name, labels))
    }
}

fn find(key: &Key) -> Option<Key> {
    ALL.iter().find_map(|alias| alias.of(key))
}

/// Tells the recorder that is installed the units and meanings of all of them.
pub(super) fn describe() {
    for Alias { of, name, .. } in ALL {
        Metric { name, ..*of }.describe();
    }
}

/// A recorder that tells another one everything, and what etcd has a name for twice.
#[derive(Debug)]
pub(super) struct Aliases<R>(pub(super) R);

impl<R: Recorder> Recorder for Aliases<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let ours = self.0.register_counter(key, metadata);
        match find(key) {
            None => ours,
            Some(key) => {
                let theirs = self.0.register_counter(&key, metadata);
                Counter::from_arc(Both { ours, theirs }.into())
            }
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let ours = self.0.register_gauge(key, metadata);
        match find(key) {
            None => ours,
            Some(key) => {
                let theirs = self.0.register_gauge(&key, metadata);
                Gauge::from_arc(Both { ours, theirs }.into())
            }
        }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let ours = self.0.register_histogram(key, metadata);
        match find(key) {
            None => ours,
            Some(key) => {
                let theirs = self.0.register_histogram(&key, metadata);
                Histogram::from_arc(Both { ours, theirs }.into())
            }
        }
    }
}

struct Both<T> {
    ours: T,
    theirs: T,
}

impl CounterFn for Both<Counter> {
    fn increment(&self, value: u64) {
        self.ours.increment(value);
        self.theirs.increment(value);
    }

    fn absolute(&self, value: u64) {
        self.ours.absolute(value);
        self.theirs.absolute(value);
    }
}

impl GaugeFn for Both<Gauge> {
    fn increment(&self, value: f64) {
        self.ours.increment(value);
        self.theirs.increment(value);
    }

    fn decrement(&self, value: f64) {
        self.ours.decrement(value);
        self.theirs.decrement(value);
    }

    fn set(&self, value: f64) {
        self.ours.set(value);
        self.theirs.set(value);
    }
}

impl HistogramFn for Both<Histogram> {
    fn record(&self, value: f64) {
        self.ours.record(value);
        self.theirs.record(value);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.ours.record_many(value, count);
        self.theirs.record_many(value, count);
    }
}

/// What kind of number an alias is, which is that of the metric.
impl Alias {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.of.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        Key::from_parts(
            name,
            labels.iter().map(|(name, value)| Label::new(*name, *value)).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn what_etcd_has_too_is_found_with_its_labels_by_their_names_there() {
        let (node, peer, control) = (("node", "1"), ("peer", "2"), ("class", "control"));
        for (ours, theirs) in [
            (key("quorate_has_leader", &[node]), Some(key("etcd_server_has_leader", &[node]))),
            (key("quorate_groups", &[node, ("role", "leader")]), Some(key("etcd_server_is_leader", &[node]))),
            (key("quorate_groups", &[node, ("role", "follower")]), None),
            (
                key("quorate_transport_sent_bytes_total", &[node, peer, control]),
                Some(key("etcd_network_peer_sent_bytes_total", &[node, ("To", "2"), control])),
            ),
            (key("quorate_proposals_total", &[node]), None),
        ] {
            assert_eq!(find(&ours), theirs, "{ours}");
        }
    }
}

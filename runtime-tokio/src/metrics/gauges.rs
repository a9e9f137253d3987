//! What is a state, not an event: looked at now and then, and told as it is.

use std::collections::{BTreeMap, BTreeSet};

use metrics::gauge;
use quorate_core::{GroupId, Mode, NodeId, RoleKind, Status};

use super::{
    meter::{MetricsLevel, labels, with},
    names,
};

/// How one group is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GroupSample {
    pub(crate) role: RoleKind,
    pub(crate) has_leader: bool,
    pub(crate) term: u64,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) last: u64,
    /// How many entries the log has.
    pub(crate) entries: u64,
    pub(crate) uncommitted_bytes: u64,
    pub(crate) unpersisted_bytes: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) peers: Vec<PeerSample>,
    pub(crate) queues: QueueSample,
}

/// What waits in a group's queues.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct QueueSample {
    /// Proposals without an outcome.
    pub(crate) proposals: u64,
    /// Bytes of those not taken up.
    pub(crate) proposal_bytes: u64,
    /// Reads without an answer.
    pub(crate) reads: u64,
    /// Messages not taken up.
    pub(crate) messages: u64,
    /// And their bytes.
    pub(crate) message_bytes: u64,
    /// Runs of entries for the state machine.
    pub(crate) apply: u64,
}

/// How a leader sees a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PeerSample {
    pub(crate) peer: NodeId,
    pub(crate) lag: u64,
    pub(crate) inflight_bytes: u64,
    pub(crate) snapshot: bool,
}

impl GroupSample {
    pub(crate) fn new(status: &Status, queues: QueueSample) -> Self {
        let peers = status.peers.iter().map(|peer| PeerSample {
            peer: peer.id,
            lag: status.last.index.0.saturating_sub(peer.match_index.0),
            inflight_bytes: peer.inflight_bytes,
            snapshot: peer.mode == Mode::Snapshot,
        });
        Self {
            role: status.role,
            has_leader: status.leader.is_some(),
            term: status.term.0,
            commit: status.commit.0,
            applied: status.applied.0,
            last: status.last.index.0,
            entries: status.last.index.0.saturating_sub(status.base.index.0),
            uncommitted_bytes: status.uncommitted_bytes,
            unpersisted_bytes: status.unpersisted_bytes,
            cached_bytes: status.cached_bytes,
            peers: peers.collect(),
            queues,
        }
    }
}

/// Tells the gauges of one node.
#[derive(Debug)]
pub(crate) struct Gauges {
    node: NodeId,
    level: MetricsLevel,
    /// Which series of groups and peers have been told: what is no more is told as nothing.
    told: BTreeSet<(Option<GroupId>, Option<NodeId>)>,
}

/// Of all the groups that share a series.
#[derive(Default)]
struct Sum {
    /// How many groups play which part.
    roles: [u64; ROLES.len()],
    leaderless: u64,
    term: u64,
    commit: u64,
    applied: u64,
    last: u64,
    entries: u64,
    apply_lag: u64,
    uncommitted_bytes: u64,
    unpersisted_bytes: u64,
    cached_bytes: u64,
    queues: QueueSample,
    peers: BTreeMap<NodeId, PeerSum>,
}

#[derive(Clone, Copy, Default)]
struct PeerSum {
    lag: u64,
    inflight_bytes: u64,
    snapshots: u64,
}

const ROLES: [&str; 4] = ["follower", "pre_candidate", "candidate", "leader"];

const fn role(role: RoleKind) -> usize {
    match role {
        RoleKind::Follower => 0,
        RoleKind::PreCandidate => 1,
        RoleKind::Candidate => 2,
        RoleKind::Leader => 3,
    }
}

impl Sum {
    fn add(&mut self, group: &GroupSample) {
        if let Some(count) = self.roles.get_mut(role(group.role)) {
            *count += 1;
        }
        self.leaderless += u64::from(!group.has_leader);
        self.term = self.term.max(group.term);
        self.commit = self.commit.saturating_add(group.commit);
        self.applied = self.applied.saturating_add(group.applied);
        self.last = self.last.saturating_add(group.last);
        self.entries = self.entries.saturating_add(group.entries);
        self.apply_lag = self.apply_lag.max(group.commit.saturating_sub(group.applied));
        self.uncommitted_bytes += group.uncommitted_bytes;
        self.unpersisted_bytes += group.unpersisted_bytes;
        self.cached_bytes += group.cached_bytes;
        self.queues.proposals += group.queues.proposals;
        self.queues.proposal_bytes += group.queues.proposal_bytes;
        self.queues.reads += group.queues.reads;
        self.queues.messages += group.queues.messages;
        self.queues.message_bytes += group.queues.message_bytes;
        self.queues.apply += group.queues.apply;
        for peer in &group.peers {
            let sum = self.peers.entry(peer.peer).or_default();
            sum.lag = sum.lag.max(peer.lag);
            sum.inflight_bytes += peer.inflight_bytes;
            sum.snapshots += u64::from(peer.snapshot);
        }
    }
}

impl Gauges {
    pub(crate) const fn new(node: NodeId, level: MetricsLevel) -> Self {
        Self { node, level, told: BTreeSet::new() }
    }

    /// Tells how the groups of this node are now: all of them, for what isn't among them is told as gone. `store` jobs wait
    /// for the store that they share.
    pub(crate) fn tell<'a>(
        &mut self,
        groups: impl IntoIterator<Item = (GroupId, &'a GroupSample)>,
        store: u64,
    ) {
        if self.level == MetricsLevel::Off {
            return;
        }
        gauge!(names::QUEUE.name, with(&labels(self.node, None), "queue", "store")).set(store as f64);
        let mut sums: BTreeMap<Option<GroupId>, Sum> = BTreeMap::new();
        if self.level == MetricsLevel::PerHost {
            // A node without groups is told about, too.
            sums.entry(None).or_default();
        }
        for (group, sample) in groups {
            let group = (self.level == MetricsLevel::PerGroup).then_some(group);
            sums.entry(group).or_default().add(sample);
        }
        let mut told = BTreeSet::new();
        for (group, sum) in &sums {
            told.insert((*group, None));
            told.extend(sum.peers.keys().map(|peer| (*group, Some(*peer))));
        }
        for (group, peer) in self.told.difference(&told) {
            match peer {
                Some(peer) => self.tell_peer(*group, *peer, PeerSum::default()),
                None => self.tell_sum(*group, &Sum::default()),
            }
        }
        for (group, sum) in &sums {
            self.tell_sum(*group, sum);
            for (peer, sum) in &sum.peers {
                self.tell_peer(*group, *peer, *sum);
            }
        }
        self.told = told;
    }

    fn tell_sum(&self, group: Option<GroupId>, sum: &Sum) {
        let labels = labels(self.node, group);
        let set = |metric: names::Metric, value: u64| gauge!(metric.name, labels.clone()).set(value as f64);
        for (name, groups) in ROLES.into_iter().zip(sum.roles) {
            gauge!(names::GROUPS.name, with(&labels, "role", name)).set(groups as f64);
        }
        set(names::HAS_LEADER, u64::from(sum.leaderless == 0));
        set(names::TERM, sum.term);
        set(names::COMMIT_INDEX, sum.commit);
        set(names::APPLIED_INDEX, sum.applied);
        set(names::LAST_INDEX, sum.last);
        set(names::LOG_ENTRIES, sum.entries);
        set(names::APPLY_LAG, sum.apply_lag);
        let queues = [
            ("proposals", sum.queues.proposals),
            ("reads", sum.queues.reads),
            ("messages", sum.queues.messages),
            ("apply", sum.queues.apply),
        ];
        for (queue, waiting) in queues {
            gauge!(names::QUEUE.name, with(&labels, "queue", queue)).set(waiting as f64);
        }
        let bytes = [
            ("proposals", sum.queues.proposal_bytes),
            ("messages", sum.queues.message_bytes),
            ("uncommitted", sum.uncommitted_bytes),
            ("unpersisted", sum.unpersisted_bytes),
            ("cached", sum.cached_bytes),
        ];
        for (queue, waiting) in bytes {
            gauge!(names::QUEUE_BYTES.name, with(&labels, "queue", queue)).set(waiting as f64);
        }
    }

    fn tell_peer(&self, group: Option<GroupId>, peer: NodeId, sum: PeerSum) {
        let labels = with(&labels(self.node, group), "peer", peer.0.to_string());
        gauge!(names::PEER_LAG.name, labels.clone()).set(sum.lag as f64);
        gauge!(names::PEER_INFLIGHT.name, labels.clone()).set(sum.inflight_bytes as f64);
        gauge!(names::PEER_SNAPSHOTS.name, labels).set(sum.snapshots as f64);
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;

    fn sample(role: RoleKind, commit: u64, applied: u64) -> GroupSample {
        GroupSample {
            role,
            has_leader: true,
            term: commit,
            commit,
            applied,
            last: commit,
            entries: commit,
            uncommitted_bytes: 1,
            unpersisted_bytes: 2,
            cached_bytes: 3,
            peers: vec![],
            queues: QueueSample { proposals: 5, ..QueueSample::default() },
        }
    }

    fn peer(id: u64, lag: u64) -> PeerSample {
        PeerSample { peer: NodeId(id), lag, inflight_bytes: 10, snapshot: lag > 50 }
    }

    /// All gauges, as Prometheus would show them.
    fn seen(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
        let series = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
            let (_, key) = key.into_parts();
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let DebugValue::Gauge(value) = value else { panic!("{key} is no gauge") };
            (format!("{}{{{}}}", key.name(), labels.join(",")), value.into_inner())
        });
        series.collect()
    }

    #[test]
    fn a_nodes_gauges_are_the_sum_or_the_highest_of_its_groups() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let mut a = sample(RoleKind::Leader, 10, 7);
            a.peers = vec![peer(2, 3), peer(3, 60)];
            let mut b = sample(RoleKind::Leader, 20, 19);
            b.peers = vec![peer(2, 9)];
            let mut c = sample(RoleKind::Candidate, 5, 5);
            c.has_leader = false;
            let mut gauges = Gauges::new(NodeId(1), MetricsLevel::PerHost);
            gauges.tell([(GroupId(1), &a), (GroupId(2), &b), (GroupId(3), &c)], 7);
            let now = seen(&snapshotter);
            for (series, value) in [
                ("quorate_groups{node=1,role=leader}", 2.0),
                ("quorate_groups{node=1,role=candidate}", 1.0),
                ("quorate_groups{node=1,role=follower}", 0.0),
                ("quorate_has_leader{node=1}", 0.0),
                ("quorate_term{node=1}", 20.0),
                ("quorate_commit_index{node=1}", 35.0),
                ("quorate_applied_index{node=1}", 31.0),
                ("quorate_apply_lag_entries{node=1}", 3.0),
                ("quorate_queue_depth{node=1,queue=proposals}", 15.0),
                ("quorate_queue_depth{node=1,queue=store}", 7.0),
                ("quorate_queue_bytes{node=1,queue=cached}", 9.0),
                ("quorate_peer_lag_entries{node=1,peer=2}", 9.0),
                ("quorate_peer_lag_entries{node=1,peer=3}", 60.0),
                ("quorate_peer_inflight_bytes{node=1,peer=2}", 20.0),
                ("quorate_peer_snapshots{node=1,peer=3}", 1.0),
            ] {
                assert_eq!(now.get(series), Some(&value), "{series} in {now:#?}");
            }

            // Once more, for what was looked at is forgotten. It leads no more, and a group has gone: nobody is shown as lagging for ever.
            gauges.tell([(GroupId(1), &a), (GroupId(2), &b), (GroupId(3), &c)], 7);
            a.peers.clear();
            a.role = RoleKind::Follower;
            gauges.tell([(GroupId(1), &a)], 0);
            let now = seen(&snapshotter);
            for (series, value) in [
                ("quorate_groups{node=1,role=leader}", 0.0),
                ("quorate_groups{node=1,role=follower}", 1.0),
                ("quorate_has_leader{node=1}", 1.0),
                ("quorate_commit_index{node=1}", 10.0),
                ("quorate_peer_lag_entries{node=1,peer=3}", 0.0),
                ("quorate_peer_snapshots{node=1,peer=3}", 0.0),
            ] {
                assert_eq!(now.get(series), Some(&value), "{series} in {now:#?}");
            }
        });
    }

    #[test]
    fn groups_are_told_apart_if_asked_for_and_not_told_at_all_if_not() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let (a, b) = (sample(RoleKind::Leader, 10, 7), sample(RoleKind::Follower, 20, 19));
            Gauges::new(NodeId(1), MetricsLevel::Off).tell([(GroupId(1), &a)], 0);
            assert!(seen(&snapshotter).is_empty());
            let mut gauges = Gauges::new(NodeId(1), MetricsLevel::PerGroup);
            gauges.tell([(GroupId(1), &a), (GroupId(2), &b)], 0);
            let now = seen(&snapshotter);
            assert_eq!(now.get("quorate_commit_index{node=1,group=1}"), Some(&10.0));
            assert_eq!(now.get("quorate_commit_index{node=1,group=2}"), Some(&20.0));
            gauges.tell([(GroupId(1), &a), (GroupId(2), &b)], 0);
            gauges.tell([(GroupId(2), &b)], 0);
            let now = seen(&snapshotter);
            assert_eq!(now.get("quorate_groups{node=1,group=1,role=leader}"), Some(&0.0));
            assert_eq!(now.get("quorate_commit_index{node=1,group=2}"), Some(&20.0));
        });
    }
}

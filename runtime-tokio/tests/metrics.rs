//! Metrics, as a recorder sees them.
//!
//! Each test has a recorder of its own, for its own thread: on that its nodes are started, and all their tasks run.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "node/support.rs"]
mod support;

use std::{collections::BTreeMap, num::NonZeroU64};

use bytes::Bytes;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use quorate_core::{
    Body, Entry, GroupId, Index, LogId, Membership, Message, NodeId, Snapshot, StateMachine, Term,
};
use quorate_runtime_tokio::{
    ControlError, Host, MemoryNetwork, MemoryStore, MetricsLevel, Node, ProposeError, SnapshotError,
    SnapshotPolicy,
    metrics::names::{self, Kind},
};

use support::{Cluster, ELECTION, GROUP, LONG, Words, alone, until, within};

/// All that was told so far, by name and labels. Counters and histograms add up; a gauge is as it was told last.
#[derive(Default)]
struct Seen {
    numbers: BTreeMap<String, f64>,
    values: BTreeMap<String, Vec<f64>>,
}

impl Seen {
    fn look(&mut self, snapshotter: &Snapshotter) {
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let (_, key) = key.into_parts();
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let series = format!("{}{{{}}}", key.name(), labels.join(","));
            match value {
                DebugValue::Counter(more) => *self.numbers.entry(series).or_default() += more as f64,
                DebugValue::Gauge(value) => {
                    self.numbers.insert(series, value.into_inner());
                }
                DebugValue::Histogram(more) => {
                    let values = more.into_iter().map(f64::from);
                    self.values.entry(series).or_default().extend(values);
                }
            }
        }
    }

    fn number(&self, series: &str) -> f64 {
        self.numbers.get(series).copied().unwrap_or_else(|| panic!("{series} in {:#?}", self.numbers))
    }

    fn values(&self, series: &str) -> &[f64] {
        self.values.get(series).unwrap_or_else(|| panic!("{series} in {:#?}", self.values.keys()))
    }

    /// Over all series of this name.
    fn sum(&self, name: &str) -> f64 {
        let of = |series: &str| series.split('{').next() == Some(name);
        self.numbers.iter().filter(|(series, _)| of(series)).map(|(_, number)| number).sum()
    }
}

#[tokio::test]
async fn a_cluster_tells_what_it_does() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(leader)[0];
    for n in 0..20 {
        within(cluster.node(leader).propose(format!("word {n}"))).await.unwrap();
    }
    for n in 0..5 {
        within(cluster.node(follower).propose(format!("from the follower {n}"))).await.unwrap();
    }
    for _ in 0..3 {
        within(cluster.node(follower).read(Words::texts)).await.unwrap();
    }
    let too_big = within(cluster.node(leader).propose(vec![0; 200 << 20])).await;
    assert!(matches!(too_big, Err(ProposeError::TooBig { .. })), "{too_big:?}");
    let (l, f) = (leader.0, follower.0);
    let mut seen = Seen::default();
    seen.look(&snapshotter);
    assert_eq!(seen.values(&format!("quorate_read_duration_seconds{{node={f}}}")).len(), 3);
    cluster.converged().await;
    seen.look(&snapshotter);
    // What was proposed, once each, whoever was asked. The leader's first entry is nobody's proposal.
    assert_eq!(seen.number(&format!("quorate_proposals_total{{node={l}}}")), 25.0);
    assert_eq!(seen.sum("quorate_proposals_total"), 25.0);
    assert_eq!(seen.number(&format!("quorate_proposals_forwarded_total{{node={f}}}")), 5.0);
    assert_eq!(seen.values(&format!("quorate_proposal_duration_seconds{{node={l}}}")).len(), 20);
    assert_eq!(seen.values(&format!("quorate_proposal_duration_seconds{{node={f}}}")).len(), 5);
    assert_eq!(seen.values(&format!("quorate_commit_duration_seconds{{node={l}}}")).len(), 25);
    assert_eq!(seen.number(&format!("quorate_proposal_failures_total{{node={l},reason=too_big}}")), 1.0);
    assert_eq!(seen.sum("quorate_proposal_failures_total"), 1.0);
    for node in 1..=3 {
        // One more for each election won: a leader begins with an entry of its own.
        let applied = seen.number(&format!("quorate_entries_applied_total{{node={node}}}"));
        assert_eq!(applied, 25.0 + seen.sum("quorate_elections_won_total"), "node {node}");
        assert!(!seen.values(&format!("quorate_apply_duration_seconds{{node={node}}}")).is_empty());
        // Every commit of the store was timed, and what they made durable was counted.
        let commits = seen.values(&format!("quorate_store_commit_duration_seconds{{node={node}}}"));
        assert!(commits.len() > 1 && commits.iter().all(|seconds| *seconds >= 0.0), "{commits:?}");
        let writes = seen.values(&format!("quorate_store_commit_writes{{node={node}}}"));
        assert_eq!(writes.len(), commits.len());
        assert!(writes.iter().all(|writes| *writes >= 1.0), "{writes:?}");
        let bytes = seen.number(&format!("quorate_store_bytes_total{{node={node}}}"));
        let least: usize = (0..20).map(|n| format!("word {n}").len()).sum();
        assert!(bytes > least as f64, "{bytes}");
    }
    assert!(seen.number(&format!("quorate_reads_total{{node={f}}}")) >= 3.0);
    assert!(seen.sum("quorate_elections_total") >= 1.0);
    assert!(seen.number(&format!("quorate_elections_won_total{{node={l}}}")) >= 1.0);
    assert!(seen.sum("quorate_elections_won_total") <= seen.sum("quorate_elections_total"));
    for node in 1..=3 {
        assert!(seen.number(&format!("quorate_leader_changes_total{{node={node}}}")) >= 1.0);
    }
    // In memory nothing is lost.
    for class in ["control", "append"] {
        let sent = seen.number(&format!("quorate_messages_sent_total{{node={l},class={class}}}"));
        assert!(sent > 0.0, "{class}");
    }
    assert_eq!(seen.sum("quorate_messages_dropped_total"), 0.0);

    // The gauges are told once a second.
    within(async {
        loop {
            seen.look(&snapshotter);
            let followers_know = cluster.others(leader).iter().all(|peer| {
                seen.numbers.get(&format!("quorate_peer_lag_entries{{node={l},peer={peer}}}")) == Some(&0.0)
            });
            let of = |name: &str| seen.numbers.get(&format!("{name}{{node={l}}}")).copied();
            let applied = of("quorate_applied_index");
            if followers_know
                && applied.is_some_and(|index| index >= 26.0)
                && applied == of("quorate_commit_index")
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(seen.number(&format!("quorate_groups{{node={l},role=leader}}")), 1.0);
    assert_eq!(seen.number(&format!("quorate_has_leader{{node={l}}}")), 1.0);
    assert_eq!(seen.number(&format!("quorate_queue_depth{{node={l},queue=proposals}}")), 0.0);
    let term = cluster.node(leader).status().await.unwrap().raft.term;
    assert_eq!(seen.number(&format!("quorate_term{{node={l}}}")), term.0 as f64);

    // Another leader is another election, and a change for everybody.
    let before = seen.number(&format!("quorate_leader_changes_total{{node={f}}}"));
    within(cluster.node(leader).transfer_leadership(Some(follower))).await.unwrap();
    until(|| (cluster.node(follower).leadership().borrow().leader == Some(follower)).then_some(())).await;
    seen.look(&snapshotter);
    assert!(seen.number(&format!("quorate_elections_won_total{{node={f}}}")) >= 1.0);
    assert!(seen.number(&format!("quorate_leader_changes_total{{node={f}}}")) > before);
    cluster.shutdown().await;

    // Whatever was told is listed, as what it is.
    seen.look(&snapshotter);
    for (series, is) in seen
        .numbers
        .keys()
        .map(|series| (series, false))
        .chain(seen.values.keys().map(|series| (series, true)))
    {
        let (name, labels) = series.split_once('{').unwrap();
        let metric = names::ALL.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{series} is not listed"));
        assert_eq!(metric.kind == Kind::Histogram, is, "{series}");
        let labels: Vec<_> =
            labels.trim_end_matches('}').split(',').map(|label| label.split('=').next().unwrap()).collect();
        assert_eq!(labels, metric.labels, "{series}");
    }
    for metric in names::ALL {
        let told = |series: &String| series.split('{').next() == Some(metric.name);
        let told = seen.numbers.keys().any(told) || seen.values.keys().any(told);
        assert!(told, "nobody has told {}", metric.name);
    }
}

#[tokio::test]
async fn a_follower_that_is_cut_off_is_seen_to_lag() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(leader)[0];
    within(cluster.node(leader).propose("before")).await.unwrap();
    cluster.converged().await;
    cluster.network.isolate(follower);
    for n in 0..10 {
        within(cluster.node(leader).propose(format!("word {n}"))).await.unwrap();
    }
    let lag = format!("quorate_peer_lag_entries{{node={leader},peer={follower}}}");
    let mut seen = Seen::default();
    until(|| {
        seen.look(&snapshotter);
        (seen.numbers.get(&lag) >= Some(&10.0)).then_some(())
    })
    .await;
    cluster.network.heal();
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_is_told_of_by_whoever_takes_sends_receives_and_restores_it() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        let policy = SnapshotPolicy { keep_entries: 0, keep_bytes: 0, ..SnapshotPolicy::manual() };
        cluster.start_node(id, |builder| builder.snapshots(policy)).await;
    }
    let leader = cluster.leader().await;
    let [follower, other] = cluster.others(leader)[..] else { panic!("there are three") };
    cluster.network.isolate(follower);
    for n in 0..10 {
        within(cluster.node(leader).propose(format!("word {n}"))).await.unwrap();
    }
    let last = within(cluster.node(leader).snapshot()).await.unwrap();
    within(async {
        while cluster.node(leader).status().await.unwrap().raft.base.index < last.index {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    cluster.network.heal();
    cluster.converged().await;
    let mut seen = Seen::default();
    // The sender hears of it last.
    let sent = format!("quorate_snapshots_total{{node={leader},kind=sent}}");
    until(|| {
        seen.look(&snapshotter);
        (seen.number(&sent) >= 1.0).then_some(())
    })
    .await;
    let bytes = seen.number(&format!("quorate_snapshot_bytes_total{{node={leader},kind=taken}}"));
    assert!(bytes > 70.0, "{bytes}");
    for (node, kind) in [(leader, "taken"), (leader, "sent"), (follower, "received"), (follower, "restored")]
    {
        let labels = format!("{{node={node},kind={kind}}}");
        assert_eq!(seen.number(&format!("quorate_snapshots_total{labels}")), 1.0, "{labels}");
        assert_eq!(seen.number(&format!("quorate_snapshot_bytes_total{labels}")), bytes, "{labels}");
        assert_eq!(seen.values(&format!("quorate_snapshot_duration_seconds{labels}")).len(), 1, "{labels}");
        assert_eq!(seen.number(&format!("quorate_snapshot_progress_ratio{labels}")), 1.0, "{labels}");
        assert_eq!(seen.number(&format!("quorate_snapshots_active{labels}")), 0.0, "{labels}");
    }
    assert_eq!(seen.sum("quorate_snapshots_total"), 4.0, "node {other} has nothing to do with it");
    assert_eq!(seen.sum("quorate_snapshot_failures_total"), 0.0);
    cluster.shutdown().await;
}

#[tokio::test]
async fn groups_are_told_apart_only_if_asked_for() {
    for (level, series, absent) in [
        (MetricsLevel::PerHost, "quorate_proposals_total{node=1}", "group="),
        (
            MetricsLevel::PerGroup,
            "quorate_proposals_total{node=1,group=2}",
            "quorate_proposals_total{node=1}",
        ),
        (MetricsLevel::Off, "", "quorate_"),
    ] {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let _recorder = metrics::set_default_local_recorder(&recorder);
        let network = MemoryNetwork::new();
        let host = Host::builder(NodeId(1)).transport(network.transport(NodeId(1))).metrics(level);
        let host = host.start(MemoryStore::default()).unwrap();
        let mut nodes: Vec<Node<Words>> = Vec::new();
        for group in [GroupId(1), GroupId(2)] {
            within(host.create(group, Membership::of_voters([NodeId(1)]))).await.unwrap();
            let builder = host.group(group).election_timeout(ELECTION).request_timeout(LONG / 2);
            nodes.push(within(builder.start(Words::default())).await.unwrap());
        }
        for node in &nodes {
            within(node.propose(Bytes::from_static(b"word"))).await.unwrap();
        }
        // For a group that was never here: which one that is, others choose, so there is no series for each.
        let stray = Message { term: Term(1), body: Body::TimeoutNow };
        network.transport(NodeId(2)).send(GroupId(9), NodeId(1), stray);
        let mut seen = Seen::default();
        seen.look(&snapshotter);
        if !series.is_empty() {
            assert_eq!(seen.number("quorate_messages_refused_total{node=1}"), 1.0, "{level:?}");
            let each = if level == MetricsLevel::PerHost { 2.0 } else { 1.0 };
            assert_eq!(seen.number(series), each, "{level:?}");
            // The store is all groups'.
            assert!(!seen.values("quorate_store_commit_duration_seconds{node=1}").is_empty(), "{level:?}");
        }
        let all = seen.numbers.keys().chain(seen.values.keys());
        let wrong: Vec<_> = all.filter(|series| series.contains(absent)).collect();
        assert!(wrong.is_empty(), "{level:?}: {wrong:?}");
        within(host.shutdown()).await;
    }
}

/// By the node itself and in the metrics alike.
#[tokio::test]
async fn what_is_refused_is_counted_whatever_it_is() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let (network, id) = (MemoryNetwork::new(), NodeId(1));
    let builder = Node::builder(id).max_pending(1).transport(network.transport(id)).store(alone());
    let node = within(builder.start(Words::default())).await.unwrap();
    within(node.until_applied(Index(1))).await.unwrap();
    // On this one thread the driver takes nothing up before both have been made.
    let (_, refused) = within(async { tokio::join!(node.campaign(), node.campaign()) }).await;
    assert!(matches!(refused, Err(ControlError::Overloaded { .. })), "{refused:?}");
    let (_, refused) = within(async { tokio::join!(node.snapshot(), node.snapshot()) }).await;
    assert!(matches!(refused, Err(SnapshotError::Overloaded { .. })), "{refused:?}");
    // No snapshot is announced without its bytes.
    let snapshot = Snapshot { last: LogId::new(Term(9), Index(9)), membership: Membership::of_voters([id]) };
    let message = Message { term: Term(9), body: Body::InstallSnapshot { snapshot: Box::new(snapshot) } };
    network.transport(NodeId(2)).send(GROUP, id, message);
    let counts = within(node.status()).await.unwrap().counts;
    assert_eq!((counts.overloaded, counts.messages_refused), (2, 1));
    let mut seen = Seen::default();
    seen.look(&snapshotter);
    assert_eq!(seen.number("quorate_overloaded_total{node=1}"), 2.0);
    assert_eq!(seen.number("quorate_messages_refused_total{node=1}"), 1.0);
    within(node.shutdown()).await;
}

#[tokio::test]
async fn without_a_recorder_nothing_is_different() {
    let node: Node<Words> =
        within(Node::builder(NodeId(1)).store(alone()).start(Words::default())).await.unwrap();
    within(node.propose("word")).await.unwrap();
    within(node.shutdown()).await;
}

/// Each node's state is another.
struct Odd(u64);

impl StateMachine for Odd {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        entry.payload.clone()
    }

    fn state_hash(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[tokio::test]
async fn replicas_that_differ_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let (network, ids) = (MemoryNetwork::new(), [1, 2].map(NodeId));
    let mut nodes = Vec::new();
    for id in ids {
        let builder = Node::builder(id).election_timeout(ELECTION).request_timeout(LONG / 2);
        let builder = builder.compare_state_every(NonZeroU64::MIN).transport(network.transport(id));
        let store = MemoryStore::new(Membership::of_voters(ids));
        nodes.push(builder.store(store).start(Odd(id.0)).await.unwrap());
    }
    for node in &nodes {
        let mut found = node.divergences();
        within(async {
            while found.borrow_and_update().is_empty() {
                node.propose("word").await.unwrap();
            }
        })
        .await;
    }
    let mut seen = Seen::default();
    seen.look(&snapshotter);
    for id in ids {
        assert_eq!(seen.number(&format!("quorate_divergences_total{{node={id}}}")), 1.0);
    }
}

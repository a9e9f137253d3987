//! Real nodes, recorded while they write, read, change and stop.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{
    ChangeOp, Entry, Membership, MembershipChange, NodeId, RoleKind, StateMachine, recording::Ended,
};
use quorate_runtime_tokio::{MemoryNetwork, MemoryStore, Node, Recording, RecordingEnded};
use quorate_sim::flight::{FlightReport, replay};
use tempfile::TempDir;

/// Keeps the last command.
#[derive(Default)]
pub(crate) struct Latest(Bytes);

impl StateMachine for Latest {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        std::mem::replace(&mut self.0, entry.payload.clone())
    }
}

pub(crate) struct Cluster {
    network: MemoryNetwork,
    stores: BTreeMap<NodeId, MemoryStore>,
    pub(crate) nodes: BTreeMap<NodeId, Node<Latest>>,
    folder: TempDir,
    actions: bool,
}

impl Cluster {
    pub(crate) async fn start(actions: bool) -> Self {
        let ids = [1, 2, 3].map(NodeId);
        let store = |id| (id, MemoryStore::new(Membership::of_voters(ids)));
        let (network, stores) = (MemoryNetwork::new(), ids.into_iter().map(store).collect());
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { network, stores, nodes: BTreeMap::new(), folder, actions };
        for id in ids {
            cluster.start_node(id).await;
        }
        cluster
    }

    async fn start_node(&mut self, id: NodeId) {
        let node = Node::builder(id)
            .election_timeout(Duration::from_millis(300))
            .transport(self.network.transport(id))
            .store(self.stores[&id].clone())
            .record(Recording::to_file(self.file(id)).actions(self.actions));
        self.nodes.insert(id, node.start(Latest::default()).await.unwrap());
    }

    pub(crate) fn file(&self, id: NodeId) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.stores.keys().map(|id| self.file(*id)).collect()
    }

    pub(crate) async fn leader(&self) -> NodeId {
        loop {
            let leads = |node: &&Node<Latest>| node.leadership().borrow().role == RoleKind::Leader;
            if let Some(leader) = self.nodes.values().find(leads) {
                return leader.id();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn write(&self, via: NodeId, count: u64) {
        for n in 0..count {
            self.nodes[&via].propose(format!("{via} {n}")).await.unwrap();
        }
    }

    async fn stop(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).unwrap();
        node.shutdown().await;
        assert_eq!(node.recording().unwrap().ended, Some(RecordingEnded::Stopped));
    }

    async fn stop_all(&mut self) {
        while let Some(id) = self.nodes.keys().next().copied() {
            self.stop(id).await;
        }
    }
}

/// A cluster has done all sorts of things.
pub(crate) async fn busy(actions: bool) -> Cluster {
    let mut cluster = Cluster::start(actions).await;
    let leader = cluster.leader().await;
    for id in [1, 2, 3].map(NodeId) {
        cluster.write(id, 20).await;
        cluster.nodes[&id].read(|latest| latest.0.clone()).await.unwrap();
    }
    let node = &cluster.nodes[&leader];
    for op in [ChangeOp::AddLearner(NodeId(4)), ChangeOp::Remove(NodeId(4))] {
        node.change_membership(MembershipChange::new(vec![op])).await.unwrap();
    }
    let next = node.transfer_leadership(None).await.unwrap();
    cluster.write(leader, 20).await;
    cluster.stop(next).await;
    cluster.leader().await;
    cluster.write(leader, 20).await;
    cluster.start_node(next).await;
    cluster.write(next, 20).await;
    cluster.stop_all().await;
    cluster
}

fn steps(report: &FlightReport) -> u64 {
    report.nodes.iter().map(|node| node.steps).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_records_replays_the_same_all_together_and_each_alone() {
    let cluster = busy(false).await;
    let report = replay(&cluster.files()).unwrap();
    assert!(report.committed >= 120 && report.leaders >= 2 && steps(&report) > 1000, "{report:?}");
    assert_eq!(report.messages_from_elsewhere, 0, "{report:?}");
    assert_eq!(report.nodes.iter().map(|node| node.lives).sum::<u64>(), 4, "{report:?}");
    assert!(report.nodes.iter().all(|node| node.ended == Some(Ended::Stopped) && !node.torn), "{report:?}");
    let alone = cluster.files().into_iter().map(|file| replay(&[file]).unwrap());
    let alone: Vec<_> = alone.collect();
    assert_eq!(alone.iter().map(steps).sum::<u64>(), steps(&report));
    assert!(alone.iter().all(|report| report.messages == 0 && report.messages_from_elsewhere > 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_that_were_recorded_are_compared_one_by_one() {
    let cluster = busy(true).await;
    assert!(fs::read_to_string(cluster.file(NodeId(1))).unwrap().contains("\"a\":[{"));
    replay(&cluster.files()).unwrap();
}

/// As a killed process leaves it: wherever the file ends, what is there replays, and half a line is no error.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_may_be_cut_off_anywhere() {
    let cluster = busy(false).await;
    let file = cluster.file(NodeId(1));
    let whole = fs::read(&file).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for end in (first..whole.len()).step_by(whole.len() / 40) {
        fs::write(&file, &whole[..end]).unwrap();
        let report = replay(&cluster.files()).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
        // All of a line but its end is the line.
        assert_eq!(report.nodes[0].torn, ![whole[end - 1], whole[end]].contains(&b'\n'), "cut at {end}");
    }
}

/// Dropped with its runtime in the middle of writes, and started again: the next life is added to half a line.
#[test]
fn a_node_that_is_dropped_goes_on_in_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flight");
    let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
    for life in 1..=3 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let node = runtime.block_on(async {
            let node = Node::builder(NodeId(1)).store(store.clone()).record(Recording::to_file(&file));
            let node = node.start(Latest::default()).await.unwrap();
            node.propose(format!("life {life}")).await.unwrap();
            node
        });
        let busy = node.clone();
        runtime.spawn(async move { while busy.propose("more").await.is_ok() {} });
        std::thread::sleep(Duration::from_millis(30));
        drop(runtime);
        // The recorder's thread ends with the node's others.
        while node.recording().unwrap().ended.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        tear(&file);
    }
    let report = replay(&[file]).unwrap();
    assert_eq!((report.nodes[0].lives, report.nodes[0].torn), (3, true), "{report:?}");
    assert!(report.committed > 6, "{report:?}");
}

/// Takes the end of the recording away, as if its process had been killed while it wrote.
fn tear(file: &Path) {
    let whole = fs::read(file).unwrap();
    fs::write(file, &whole[..whole.len() - 30]).unwrap();
}

//! Real nodes, recorded while they write, read, change and stop.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    slice::from_ref,
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{
    ChangeOp, Entry, Membership, MembershipChange, NodeId, RoleKind, StateMachine,
    recording::{Ended, Note},
};
use quorate_runtime_tokio::{MemoryNetwork, MemoryStore, Node, Payloads, Recording, RecordingEnded};
use quorate_sim::flight::{FlightReport, replay};
use tempfile::TempDir;

use crate::notes;

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
    how: How,
}

/// How a cluster is recorded.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) max_bytes: u64,
    pub(crate) payloads: Payloads,
    pub(crate) actions: bool,
}

/// All of it, in one segment for each life.
pub(crate) const WHOLE: How = How { max_bytes: 64 << 20, payloads: Payloads::Kept, actions: false };

/// With what was done.
pub(crate) const ACTIONS: How = How { actions: true, ..WHOLE };

/// A ring so small that the beginning is forgotten.
pub(crate) const SMALL: How = How { max_bytes: 0, ..WHOLE };

impl Cluster {
    pub(crate) async fn start(how: How) -> Self {
        let ids = [1, 2, 3].map(NodeId);
        let store = |id| (id, MemoryStore::new(Membership::of_voters(ids)));
        let (network, stores) = (MemoryNetwork::new(), ids.into_iter().map(store).collect());
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { network, stores, nodes: BTreeMap::new(), folder, how };
        for id in ids {
            cluster.start_node(id).await;
        }
        cluster
    }

    async fn start_node(&mut self, id: NodeId) {
        let How { max_bytes, payloads, actions } = self.how;
        let recording =
            Recording::to_dir(self.dir(id)).max_bytes(max_bytes).payloads(payloads).actions(actions);
        let node = Node::builder(id)
            // So a core is small beside the smallest ring, and entries must be read back.
            .config(|config| config.max_cached_bytes = 1000)
            .election_timeout(Duration::from_millis(300))
            .transport(self.network.transport(id))
            .store(self.stores[&id].clone())
            .record(recording);
        self.nodes.insert(id, node.start(Latest::default()).await.unwrap());
    }

    /// Where a node is recorded.
    pub(crate) fn dir(&self, id: NodeId) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        self.stores.keys().map(|id| self.dir(*id)).collect()
    }

    /// A node's segments, oldest first.
    pub(crate) fn segments(&self, id: NodeId) -> Vec<PathBuf> {
        segments(&self.dir(id).join("group-0"))
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
pub(crate) async fn busy(how: How) -> Cluster {
    let mut cluster = Cluster::start(how).await;
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

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "flight"));
    found.sort();
    found
}

fn steps(report: &FlightReport) -> u64 {
    report.nodes.iter().map(|node| node.steps).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_records_replays_the_same_all_together_and_each_alone() {
    let cluster = busy(WHOLE).await;
    let report = replay(&cluster.dirs()).unwrap();
    assert!(report.committed >= 120 && report.leaders >= 2 && steps(&report) > 1000, "{report:?}");
    assert_eq!(report.messages_from_elsewhere, 0, "{report:?}");
    assert_eq!(report.nodes.iter().map(|node| node.lives).sum::<u64>(), 4, "{report:?}");
    assert!(report.nodes.iter().all(|node| node.ended == Some(Ended::Stopped) && !node.torn), "{report:?}");
    assert!(report.nodes.iter().all(|node| node.midway == 0 && node.gaps == 0), "{report:?}");
    let alone: Vec<_> = cluster.dirs().into_iter().map(|dir| replay(&[dir]).unwrap()).collect();
    assert_eq!(alone.iter().map(steps).sum::<u64>(), steps(&report));
    assert!(alone.iter().all(|report| report.messages == 0 && report.messages_from_elsewhere > 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_that_were_recorded_are_compared_one_by_one() {
    let cluster = busy(ACTIONS).await;
    let notes = notes::read(&cluster.segments(NodeId(1))[0]);
    assert!(notes.iter().filter(|note| matches!(notes::parse(note), Note::Action(_))).count() > 100);
    replay(&cluster.dirs()).unwrap();
}

/// The ring has forgotten the beginning; what is left replays, from wherever one begins, and whoever is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_replays_from_any_of_its_segments() {
    for payloads in [Payloads::Kept, Payloads::LeftOut] {
        let mut cluster = Cluster::start(How { payloads, ..SMALL }).await;
        let leader = cluster.leader().await;
        let secret = "the secret of a client";
        let forgotten = |cluster: &Cluster| {
            let first = |id| cluster.segments(id)[0].file_name().unwrap().to_string_lossy().into_owned();
            cluster.stores.keys().all(|id| !first(*id).contains("-0000000000."))
        };
        while !forgotten(&cluster) {
            for id in [leader, NodeId(1), NodeId(2), NodeId(3)] {
                cluster.nodes[&id].propose(format!("{id} {secret}{}", "x".repeat(400))).await.unwrap();
                cluster.nodes[&id].read(|latest| latest.0.clone()).await.unwrap();
            }
        }
        // The others have their middles; and a leader that is elected there.
        cluster.nodes[&leader].transfer_leadership(None).await.unwrap();
        cluster.write(leader, 20).await;
        cluster.stop_all().await;
        let report = replay(&cluster.dirs()).unwrap();
        assert!(report.nodes.iter().all(|node| node.midway == 1 && node.gaps == 0), "{report:?}");
        assert!(report.nodes.iter().all(|node| node.segments >= 2 && node.ended == Some(Ended::Stopped)));
        for id in [1, 2, 3].map(NodeId) {
            let found = cluster.segments(id);
            for n in 0..found.len() {
                let report =
                    replay(&found[n..]).unwrap_or_else(|error| panic!("node {id} from {n}: {error}"));
                assert_eq!(report.nodes[0].segments, (found.len() - n) as u64);
                replay(from_ref(&found[n])).unwrap_or_else(|error| panic!("node {id}, {n} alone: {error}"));
            }
            let all: Vec<u8> = found.iter().flat_map(|path| fs::read(path).unwrap()).collect();
            let there = all.windows(12).any(|window| window == &secret.as_bytes()[..12]);
            assert_eq!(there, payloads == Payloads::Kept);
        }
    }
}

/// One node's recording without payloads beside others with them.
#[tokio::test(flavor = "multi_thread")]
async fn recordings_with_and_without_payloads_go_together() {
    let mut cluster = Cluster::start(WHOLE).await;
    cluster.stop(NodeId(2)).await;
    cluster.how.payloads = Payloads::LeftOut;
    cluster.start_node(NodeId(2)).await;
    let leader = cluster.leader().await;
    for id in [1, 2, 3].map(NodeId) {
        cluster.write(id, 20).await;
    }
    cluster.write(leader, 20).await;
    cluster.stop_all().await;
    let report = replay(&cluster.dirs()).unwrap();
    assert_eq!(report.messages_from_elsewhere, 0, "{report:?}");
}

/// While the cluster works: copies of different moments, that go together as far as they go.
#[tokio::test(flavor = "multi_thread")]
async fn copies_that_were_made_while_the_nodes_ran_replay() {
    let mut cluster = Cluster::start(SMALL).await;
    let leader = cluster.leader().await;
    let to = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for round in 0..3 {
        for id in [1, 2, 3].map(NodeId) {
            cluster.write(leader, 50).await;
            let copy = to.path().join(format!("{round}-{id}"));
            let dump = cluster.nodes[&id].dump_recording(&copy).await.unwrap();
            assert_eq!(dump.segments as usize, segments(&copy).len());
            copies.push(copy);
        }
    }
    cluster.stop_all().await;
    for copies in copies.chunks(3) {
        let report = replay(copies).unwrap();
        assert!(report.nodes.iter().all(|node| node.ended.is_none() && !node.torn), "{report:?}");
        assert!(steps(&report) > 100 && report.messages > 100, "{report:?}");
    }
}

/// As a killed process leaves it: wherever the file ends, what is there replays, and half a chunk is no error.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_may_be_cut_off_anywhere() {
    let cluster = busy(WHOLE).await;
    let file = cluster.segments(NodeId(1)).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let mut torn = 0;
    // Not before it says whose it is.
    for end in (500..whole.len()).step_by(whole.len() / 40) {
        fs::write(&file, &whole[..end]).unwrap();
        let report = replay(&cluster.dirs()).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
        torn += u32::from(report.nodes[0].torn);
    }
    assert!(torn > 20, "{torn}");
}

/// Dropped with its runtime in the middle of writes, and started again: the next life is added.
#[test]
fn a_node_that_is_dropped_goes_on_in_the_same_ring() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
    for life in 1..=3 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let node = runtime.block_on(async {
            let recording = Recording::to_dir(folder.path());
            let node = Node::builder(NodeId(1)).store(store.clone()).record(recording);
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
        // As if its process had been killed while it wrote.
        let file = segments(&folder.path().join("group-0")).pop().unwrap();
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 30]).unwrap();
    }
    let report = replay(&[folder.path().to_owned()]).unwrap();
    assert_eq!((report.nodes[0].lives, report.nodes[0].torn), (3, true), "{report:?}");
    assert!(report.committed > 6, "{report:?}");
}

//! Nodes, each with a disk that outlives it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{Entry, GroupId, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::{Host, MemoryStore, Node, Recording, WorkKind};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{Dice, disk::Disk, network::Network};

const GROUP: GroupId = GroupId(1);

/// Keeps every command, and replies with its place.
#[derive(Default)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl StateMachine for Words {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        self.0.push(String::from_utf8_lossy(&entry.payload).into_owned());
        Bytes::from(self.0.len().to_string())
    }
}

/// The nodes that run, as clients see them.
pub(crate) type Nodes = Arc<Mutex<BTreeMap<NodeId, Node<Words>>>>;

pub(crate) struct Cluster {
    seed: u64,
    size: u64,
    pub(crate) network: Network,
    pub(crate) nodes: Nodes,
    pub(crate) over: Arc<AtomicBool>,
    disks: BTreeMap<NodeId, MemoryStore>,
    lives: BTreeMap<NodeId, Life>,
    /// How slow each node's disk is, at most, in µs.
    slowness: BTreeMap<NodeId, Arc<AtomicU64>>,
    files: Vec<PathBuf>,
    folder: TempDir,
}

struct Life {
    alive: Arc<AtomicBool>,
    host: Host,
}

impl Cluster {
    pub(crate) async fn start(seed: u64, size: u64) -> Self {
        let ids = || (1..=size).map(NodeId);
        let disk = |id| (id, MemoryStore::default().with_group(GROUP, Membership::of_voters(ids())));
        let mut cluster = Self {
            seed,
            size,
            network: Network::new(seed),
            nodes: Nodes::default(),
            over: Arc::default(),
            disks: ids().map(disk).collect(),
            lives: BTreeMap::new(),
            slowness: ids().map(|id| (id, Arc::new(AtomicU64::new(800)))).collect(),
            files: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        for id in ids() {
            cluster.restart(id).await;
        }
        cluster
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    pub(crate) async fn restart(&mut self, id: NodeId) {
        if self.lives.contains_key(&id) {
            return;
        }
        let alive = Arc::new(AtomicBool::new(true));
        let life = self.files.len() as u64;
        let (slowness, dice) = (self.slowness[&id].clone(), Mutex::new(Dice::new(self.seed, 1000 + life)));
        let pace = move |kind| {
            let most = slowness.load(SeqCst);
            dice.lock().unwrap().micros(if kind == WorkKind::Store { most } else { most / 4 })
        };
        let host = Host::builder(id)
            .transport(self.network.transport(id, alive.clone()))
            .in_virtual_time(pace)
            .start(Disk { store: self.disks[&id].clone(), alive: alive.clone() })
            .unwrap();
        let file = self.folder.path().join(format!("{life}-node-{id}"));
        let node = host
            .group(GROUP)
            .config(|config| config.seed = self.seed)
            .election_timeout(Duration::from_millis(500))
            .request_timeout(Duration::from_secs(2))
            .quiesce_after(if self.seed.is_multiple_of(3) { Duration::from_secs(1) } else { Duration::ZERO })
            .lease_reads(self.seed.is_multiple_of(2))
            .record(Recording::to_dir(&file))
            .start(Words::default())
            .await
            .unwrap();
        self.files.push(file);
        self.nodes.lock().unwrap().insert(id, node);
        self.lives.insert(id, Life { alive, host });
    }

    pub(crate) async fn restart_all(&mut self) {
        for slowness in self.slowness.values() {
            slowness.store(800, SeqCst);
        }
        for id in (1..=self.size).map(NodeId) {
            // A node may have stopped because of its disk.
            self.restart(id).await;
        }
    }

    /// At once, without a word: what is not durable is gone.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let Some(life) = self.lives.remove(&id) else { return };
        life.alive.store(false, SeqCst);
        self.nodes.lock().unwrap().remove(&id);
        self.network.died(id);
    }

    pub(crate) fn slow(&self, id: NodeId, dice: &mut Dice) {
        self.slowness[&id].store(dice.below(400_000), SeqCst);
    }

    pub(crate) fn clients_stop(&self) {
        self.over.store(true, SeqCst);
    }

    pub(crate) async fn write_until_done(&self, word: &str) {
        for attempt in 0.. {
            let node = self.nodes.lock().unwrap().values().next().cloned().unwrap();
            if node.propose(format!("{word} {attempt}")).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Once all nodes have the same.
    pub(crate) async fn converged(&self) -> Vec<String> {
        loop {
            let nodes: Vec<_> = self.nodes.lock().unwrap().values().cloned().collect();
            let mut all = Vec::new();
            for node in nodes {
                all.extend(node.read_stale(|words| words.0.clone()).await);
            }
            if all.len() as u64 == self.size && all.windows(2).all(|pair| pair[0] == pair[1]) {
                return all.swap_remove(0);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn messages(&self) -> u64 {
        let nodes: Vec<_> = self.nodes.lock().unwrap().values().cloned().collect();
        let mut sum = 0;
        for node in nodes {
            sum += node.status().await.unwrap().counts.messages;
        }
        sum
    }

    /// Stops all nodes; returns the recordings of all lives, and the folder that they are in.
    pub(crate) async fn stop(mut self) -> (Vec<PathBuf>, TempDir) {
        for (_, life) in std::mem::take(&mut self.lives) {
            life.host.shutdown().await;
        }
        (self.files, self.folder)
    }
}

//! A slow state machine. The program's is not slow, so this is a cluster of the library's nodes within this process, with
//! stores on disk, that meet over QUIC on loopback.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use quorate_core::{Entry, GroupId, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::Node;
use quorate_storage_redb::{Identity, RedbStore};
use quorate_transport_quic::{ClusterId, Limits, Options, QuicTransport, pki::Ca};
use tokio::time::{Instant, sleep};

use super::compare::{Compared, Window, compare};
use crate::history::{Op, Outcome, Request};

pub(crate) const NAME: &str = "slow state machine";

const CLUSTER: u64 = 0x7e57_0000_0000_0078;
const NODES: u64 = 3;
const SLOW: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(5);

/// Counts its commands.
struct Counter {
    count: u64,
    /// Microseconds that each takes longer.
    slow: Arc<AtomicU64>,
}

impl StateMachine for Counter {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _entry: &Entry) -> Bytes {
        let slow = self.slow.load(Relaxed);
        if slow > 0 {
            thread::sleep(Duration::from_micros(slow));
        }
        self.count += 1;
        Bytes::copy_from_slice(&self.count.to_le_bytes())
    }
}

/// Runs with a follower's state machine slow, between runs with it as fast as the others'.
pub(crate) async fn run(runs: usize, run: Duration, settle: Duration, clients: usize) -> Result<Compared> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::generate(ClusterId(CLUSTER))?;
    let address = |id: u64| std::net::SocketAddr::from(([127, 0, 0, 1], 2_400 + id as u16));
    let slow: Vec<Arc<AtomicU64>> = (0..NODES).map(|_| Arc::default()).collect();
    let mut nodes = Vec::new();
    for id in 1..=NODES {
        let own = NodeId(id);
        let voters = Membership::of_voters((1..=NODES).map(NodeId));
        let identity = Identity { cluster: CLUSTER.into(), node: own };
        let store = dir.path().join(id.to_string());
        std::fs::create_dir_all(&store)?;
        RedbStore::create(&store, identity, &[(GroupId::default(), voters)])?.close()?;
        let peers = (1..=NODES).filter(|peer| *peer != id).map(|peer| (NodeId(peer), address(peer)));
        let transport = QuicTransport::bind(Options {
            id: own,
            cluster: ClusterId(CLUSTER),
            listen: address(id),
            peers: peers.collect(),
            identity: ca.issue(own)?.identity()?,
            limits: Limits::default(),
        })?;
        let machine = Counter { count: 0, slow: slow[id as usize - 1].clone() };
        let builder = Node::builder(own).store(RedbStore::open(&store, identity)?);
        nodes.push(builder.transport(Arc::new(transport)).start(machine).await?);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let leader = loop {
        if let Some(leader) = nodes[0].leadership().borrow().leader {
            break leader;
        }
        ensure!(Instant::now() < deadline, "no leader within 30 s");
        sleep(Duration::from_millis(50)).await;
    };
    let victim = (leader.0 as usize) % nodes.len();
    let healthy: Vec<Node<Counter>> = nodes
        .iter()
        .enumerate()
        .filter(|(place, _)| *place != victim)
        .map(|(_, node)| node.clone())
        .collect();

    let started = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..clients)
        .map(|id| {
            let node = healthy[id % healthy.len()].clone();
            tokio::spawn(client(id, node, started, stop.clone()))
        })
        .collect();
    sleep(settle).await;
    let term = async || nodes[0].status().await.map(|status| status.raft.term.0);
    let mut windows = Vec::new();
    let mut last = term().await?;
    for n in 0..runs {
        for disturbed in [n % 2 == 1, n % 2 == 0] {
            let from = started.elapsed();
            if disturbed {
                slow[victim].store(SLOW.as_micros() as u64, Relaxed);
            }
            sleep(run).await;
            let to = started.elapsed();
            slow[victim].store(0, Relaxed);
            sleep(settle).await;
            let now = term().await?;
            windows.push(Window { from, to, disturbed, elections: now - std::mem::replace(&mut last, now) });
        }
    }
    stop.store(true, Relaxed);
    let mut ops = Vec::new();
    for client in clients {
        ops.append(&mut client.await.context("a client panicked")?);
    }
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(compare(NAME, &ops, &windows))
}

async fn client(id: usize, node: Node<Counter>, started: Instant, stop: Arc<AtomicBool>) -> Vec<Op> {
    let mut ops = Vec::new();
    let command = Bytes::from_static(&[7; 64]);
    while !stop.load(Relaxed) {
        let invoked = started.elapsed();
        // Every other one reads.
        let outcome = if ops.len() % 2 == 0 {
            let proposed = node.propose(command.clone()).await;
            proposed.map_or_else(|error| Outcome::Unknown(error.to_string()), |_| Outcome::Written(0))
        } else {
            let read = node.read(|counter| counter.count).await;
            read.map_or_else(|error| Outcome::Unknown(error.to_string()), Outcome::Read)
        };
        let (ended, request) = (started.elapsed(), Request::Get);
        ops.push(Op { client: id, node: 0, key: 0, request, invoked, ended, outcome, revision: 0 });
        sleep(PAUSE).await;
    }
    ops
}

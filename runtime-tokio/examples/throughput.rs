//! How many proposals a second a node replicates in memory, and how long each takes: what the driver itself costs.
//!
//!     cargo run --release --example throughput -p quorate-runtime-tokio -- [proposers] [nodes] [seconds]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorate_core::{Entry, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::{MemoryNetwork, MemoryStore, Node};
use tokio::task::JoinSet;

/// Counts what it is given.
struct Count(u64);

impl StateMachine for Count {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _entry: &Entry) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let proposers = numbers.next().transpose()?.unwrap_or(64);
    let ids: Vec<NodeId> = (1..=numbers.next().transpose()?.unwrap_or(1)).map(NodeId).collect();
    let time = Duration::from_secs(numbers.next().transpose()?.unwrap_or(3));

    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for id in &ids {
        let store = MemoryStore::new(Membership::of_voters(ids.iter().copied()));
        let builder = Node::builder(*id).store(store).transport(network.transport(*id));
        nodes.push(builder.start(Count(0)).await?);
    }
    nodes.first().ok_or("at least one node")?.propose("first").await?;
    let leader = nodes[0].leadership().borrow().leader;
    let node = nodes.iter().find(|node| Some(node.id()) == leader).ok_or("nobody leads")?;

    let command = Bytes::from(vec![b'x'; 256]);
    let before = node.status().await?.counts;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..proposers {
        let (node, command) = (node.clone(), command.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < time {
                let asked = Instant::now();
                node.propose(command.clone()).await?;
                times.push(asked.elapsed());
            }
            Ok::<_, quorate_runtime_tokio::ProposeError>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let after = node.status().await?.counts;
    times.sort_unstable();
    let percentile = |percent: usize| {
        times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    };
    println!(
        "{} nodes, {proposers} proposers, 256 B: {:.0} proposals/s, p50 {:?}, p99 {:?}; {:.1} a batch, {:.1} a commit",
        ids.len(),
        times.len() as f64 / seconds,
        percentile(50),
        percentile(99),
        (after.proposals - before.proposals) as f64 / (after.batches - before.batches).max(1) as f64,
        (after.proposals - before.proposals) as f64 / (after.commits - before.commits).max(1) as f64,
    );
    Ok(())
}

//! An embedded, replicated counter: on one node, then on three.
//!
//!     cargo run --example counter -p quorate-runtime-tokio

use std::error::Error;

use bytes::Bytes;
use quorate_core::{Entry, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::{MemoryNetwork, MemoryStore, Node};

/// Each command is a number to add; the reply is the total.
struct Counter(i64);

impl StateMachine for Counter {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        let text = std::str::from_utf8(&entry.payload).unwrap_or_default();
        self.0 += text.parse().unwrap_or(0);
        Bytes::from(self.0.to_string())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let alone = MemoryStore::new(Membership::of_voters([NodeId(1)]));
    let node = Node::builder(NodeId(1)).store(alone).start(Counter(0)).await?;
    println!("one node:    add 5 -> {:?}, add 7 -> {:?}", node.propose("5").await?, node.propose("7").await?);
    node.shutdown().await;

    let (network, ids) = (MemoryNetwork::new(), [1, 2, 3].map(NodeId));
    let mut nodes = Vec::new();
    for id in ids {
        let store = MemoryStore::new(Membership::of_voters(ids));
        let builder = Node::builder(id).store(store).transport(network.transport(id));
        nodes.push(builder.start(Counter(0)).await?);
    }
    for node in &nodes {
        println!("three nodes: node {} adds 10 -> {:?}", node.id(), node.propose("10").await?);
    }
    for node in &nodes {
        println!("three nodes: node {} reads {}", node.id(), node.read(|counter| counter.0).await?);
    }
    Ok(())
}

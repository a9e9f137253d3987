//! A replicated service, embedded: three nodes, each with a store on the disk and peers over QUIC with mutual TLS. Here they
//! share a process; on three machines each would run its third of the loop.
//!
//!     cargo run -p quorate-coord --example embedded

use std::{collections::BTreeMap, error::Error, sync::Arc};

use bytes::Bytes;
use quorate_core::{Entry, GroupId, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::Node;
use quorate_storage_redb::{Identity, RedbStore};
use quorate_transport_quic::{ClusterId, Options, QuicTransport, pki::Ca};
use serde::{Deserialize, Serialize};

/// A command: so much more for this account.
#[derive(Serialize, Deserialize)]
struct Deposit(String, u64);

/// What it answers: what is there now.
#[derive(Serialize, Deserialize, Debug)]
struct Balance(u64);

/// What is replicated.
#[derive(Default)]
struct Bank(BTreeMap<String, u64>);

impl StateMachine for Bank {
    type Command = Deposit;
    type Reply = Balance;

    fn apply(&mut self, entry: &Entry) -> Balance {
        // On all nodes the same, for bytes that are no command, too.
        let Ok(Deposit(account, amount)) = serde_json::from_slice(&entry.payload) else { return Balance(0) };
        let balance = self.0.entry(account).or_default();
        *balance = balance.saturating_add(amount);
        Balance(*balance)
    }
}

impl From<Deposit> for Bytes {
    fn from(deposit: Deposit) -> Self {
        serde_json::to_vec(&deposit).expect("a text and a number have a JSON form").into()
    }
}

impl From<Balance> for Bytes {
    fn from(balance: Balance) -> Self {
        serde_json::to_vec(&balance).expect("a number has a JSON form").into()
    }
}

impl TryFrom<Bytes> for Balance {
    type Error = serde_json::Error;

    fn try_from(bytes: Bytes) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&bytes)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (ids, cluster) = ([1, 2, 3].map(NodeId), ClusterId(0x00c0_ffee));
    let (data, ca) = (tempfile::tempdir()?, Ca::generate(cluster)?);

    let mut transports = Vec::new();
    for id in ids {
        let options = Options::new("127.0.0.1:0".parse()?, ca.issue(id)?.identity()?);
        transports.push((id, Arc::new(QuicTransport::bind(options)?)));
    }
    let mut nodes = Vec::new();
    for (id, transport) in &transports {
        for (peer, other) in &transports {
            transport.set_peer(*peer, other.local_addr())?;
        }
        // At the very first start; ever after it is opened: `RedbStore::open(dir, identity)`.
        let (dir, identity) =
            (data.path().join(id.to_string()), Identity { cluster: cluster.0.into(), node: *id });
        let store = RedbStore::create(dir, identity, &[(GroupId(0), Membership::of_voters(ids))])?;
        let builder = Node::builder(*id).store(store).transport(transport.clone());
        nodes.push(builder.start(Bank::default()).await?);
    }

    for node in &nodes {
        let Balance(balance) = node.propose(Deposit("ada".into(), 10)).await?;
        println!("node {} adds 10: {balance}", node.id());
    }
    for node in &nodes {
        let balance = node.read(|bank| bank.0.get("ada").copied()).await?;
        println!("node {} reads {balance:?}", node.id());
    }
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

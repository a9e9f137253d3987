//! Nodes in this process, each with a server on loopback.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use quorate_coord::{
    machine::Machine,
    pb::etcdserverpb::{
        PutRequest, RangeRequest, cluster_client::ClusterClient, kv_client::KvClient,
        maintenance_client::MaintenanceClient,
    },
    server::{Cluster, Member, ServeError, serve},
};
use quorate_core::{Membership, NodeId};
use quorate_runtime_tokio::{MemoryNetwork, MemoryStore, Node};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

/// Long enough for anything that ends at all, on a busy machine too.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const CLUSTER_ID: u64 = 0xc1;

/// A node with its server.
pub(crate) struct Served {
    pub(crate) node: Node<Machine>,
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    pub(crate) async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }

    pub(crate) async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }

    /// Stops the server, then the node.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        within(self.server).await.unwrap().unwrap();
        within(self.node.shutdown()).await;
    }
}

/// So many nodes, that know of each other.
pub(crate) async fn start(count: u64) -> (MemoryNetwork, BTreeMap<u64, Served>) {
    let network = MemoryNetwork::new();
    let ids = (1..=count).map(NodeId);
    let mut listeners = Vec::new();
    let mut members = Vec::new();
    for id in 1..=count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        members.push(Member {
            id,
            name: format!("n{id}"),
            peer_urls: vec![format!("https://127.0.0.1:{id}")],
            client_urls: vec![format!("http://{}", listener.local_addr().unwrap())],
            is_learner: false,
        });
        listeners.push(listener);
    }
    let mut all = BTreeMap::new();
    for (id, listener) in (1..=count).zip(listeners) {
        let node = Node::builder(NodeId(id))
            .election_timeout(Duration::from_millis(400))
            .request_timeout(Duration::from_secs(20))
            .store(MemoryStore::new(Membership::of_voters(ids.clone())))
            .transport(network.transport(NodeId(id)))
            .start(Machine::new())
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let cluster = Cluster { id: CLUSTER_ID, members: members.clone() };
        let server = tokio::spawn(serve(node.clone(), cluster, listener, async {
            let _dropped = stopped.await;
        }));
        all.insert(id, Served { node, url, stop: Some(stop), server });
    }
    (network, all)
}

pub(crate) async fn alone() -> Served {
    start(1).await.1.remove(&1).unwrap()
}

/// Who leads, once somebody does and all of these know.
pub(crate) async fn leader(nodes: &BTreeMap<u64, Served>) -> u64 {
    within(async {
        loop {
            let seen: Vec<_> = nodes.values().map(|served| *served.node.leadership().borrow()).collect();
            let first = seen.first().and_then(|leadership| leadership.leader);
            if let Some(leader) = first
                && seen.iter().all(|leadership| leadership.leader == Some(leader))
            {
                return leader.0;
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Fails instead of hanging.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("it must end, but didn't")
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub(crate) fn get(key: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), ..RangeRequest::default() }
}

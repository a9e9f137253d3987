//! Many who connect again and again, and those who only want to work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quorate_core::NodeId;
use quorate_runtime_tokio::Transport as _;
use quorate_transport_quic::node_name;

use crate::common::{Cluster, Node, eventually, heartbeat, met, raw_client, within};

/// Connects to `node` as node 3, from several sockets, many times at once, without end.
fn storm(cluster: &Cluster, node: &Node) -> Storm {
    const SOCKETS: usize = 8;
    const EACH: usize = 8;
    let (stop, attempts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let issued = cluster.ca.issue(NodeId(3)).unwrap();
    let (name, address) = (node_name(cluster.id, node.id), node.address());
    let mut tasks = Vec::new();
    for _ in 0..SOCKETS {
        let client = raw_client(&cluster.ca, Some(&issued));
        for _ in 0..EACH {
            let (client, name, stop, attempts) =
                (client.clone(), name.clone(), stop.clone(), attempts.clone());
            tasks.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    attempts.fetch_add(1, Relaxed);
                    match client.connect(address, &name).unwrap().await {
                        // It stays until it is thrown out.
                        Ok(connection) => drop(connection.closed().await),
                        Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
            }));
        }
    }
    Storm { stop, attempts, tasks }
}

struct Storm {
    stop: Arc<AtomicBool>,
    attempts: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Storm {
    fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.attempts.load(Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_connects_without_end_keeps_nobody_else_out() {
    const HANDSHAKES: usize = 8;
    let cluster = Cluster::of(4);
    let mut options = cluster.options(1);
    options.limits.handshakes = HANDSHAKES;
    options.limits.reconnects = 10;
    let (a, stays) = (Node::start(&options), cluster.start(4));
    met(&[&a, &stays]).await;
    let connections = a.peer(stays.id).connections;
    let storm = storm(&cluster, &a);
    eventually("it storms", || a.transport.stats().refused.too_often > 20).await;
    for _ in 0..3 {
        // One that comes, by dialling from the address in the book, and goes.
        let mut options = cluster.options(2);
        options.limits.dial_timeout = Duration::from_secs(20);
        let comes = Node::start(&options);
        a.exchanges_with(&comes).await;
        within("it stops", comes.transport.shutdown()).await;
        // One that is there, and is not disturbed.
        let before = a.inbox.all().len();
        for round in 0..100 {
            stays.send(&a, heartbeat(round));
        }
        a.inbox.has(before + 100).await;
        assert!(a.transport.stats().handshakes <= HANDSHAKES);
    }
    let refused = a.transport.stats().refused;
    let attempts = storm.end();
    assert_eq!(a.peer(stays.id).connections, connections, "the connection of the healthy lasts");
    assert!(refused.total() > 40 && refused.total() <= attempts + 100, "{refused:?} of {attempts}");
    // Whoever keeps the peace for a while is heard again.
    let third = cluster.start(3);
    a.exchanges_with(&third).await;
}

//! Not every node of the cluster may speak with every other.

use std::collections::BTreeSet;

use quorate_core::NodeId;
use quorate_runtime_tokio::Transport as _;

use crate::common::{
    Cluster, GROUP, Node, eventually, heartbeat, met, raw_client, raw_connection, warned, within,
};

fn only(nodes: &[u64]) -> Option<BTreeSet<NodeId>> {
    Some(nodes.iter().copied().map(NodeId).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_on_the_list_is_refused_and_told() {
    let cluster = Cluster::of(3);
    let mut options = cluster.options(1);
    options.allow = only(&[2]);
    let (a, b, c) = (Node::start(&options), cluster.start(2), cluster.start(3));
    a.exchanges_with(&b).await;
    let why = "node 3 is not on the list of nodes that are allowed here";
    warned(&["refusing a connection", &format!("from={}", c.address()), "address_of=3", why]).await;
    warned(&["the peer refuses this node", "peer=1", &format!("from={}", a.address()), why]).await;
    // Nor does it dial them, or take anything from them.
    assert_eq!(a.peer(c.id).connections, 0);
    assert!(a.inbox.from(c.id).is_empty() && a.transport.stats().refused.not_allowed > 0);
    assert!(a.transport.forward(GROUP, c.id, "x".into()).await.is_err());

    let client = raw_client(&cluster.ca, Some(&cluster.ca.issue(NodeId(9)).unwrap()));
    let connection = raw_connection(&cluster, &client, &a).await;
    let closed = within("it is closed", connection.closed()).await;
    assert!(
        matches!(&closed, quinn::ConnectionError::ApplicationClosed(close)
        if close.error_code.into_inner() == 9),
        "{closed}"
    );
    assert!(a.transport.stats().peers.iter().all(|peer| peer.peer != NodeId(9)), "no account is kept");

    a.transport.set_allowed(only(&[2, 3]));
    a.exchanges_with(&c).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_taken_off_the_list_is_cut_off() {
    let cluster = Cluster::of(3);
    let (a, b, c) = (cluster.start(1), cluster.start(2), cluster.start(3));
    met(&[&a, &b, &c]).await;
    let connections = a.peer(c.id).connections;
    a.transport.set_allowed(only(&[3]));
    eventually("it is cut off", || !a.peer(b.id).connected).await;
    assert_eq!(a.transport.stats().disallowed, 1);
    warned(&["the peer refuses this node", "peer=1", &format!("from={}", a.address()), "node 2 is not on"])
        .await;
    eventually("it is refused", || a.transport.stats().refused.not_allowed > 0).await;
    let heard = a.inbox.from(b.id).len();
    b.send(&a, heartbeat(1));
    a.exchanges_with(&c).await;
    assert_eq!(a.peer(c.id).connections, connections, "the others are left alone");
    assert_eq!(a.inbox.from(b.id).len(), heard);

    a.transport.set_allowed(None);
    a.exchanges_with(&b).await;
}

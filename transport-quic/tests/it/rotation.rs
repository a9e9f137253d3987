//! Certificates and authorities are replaced while the nodes run.

use std::time::{Duration, SystemTime};

use quorate_core::NodeId;
use quorate_runtime_tokio::Transport as _;
use quorate_transport_quic::pki::{Ca, Identity};

use crate::common::{
    Cluster, GROUP, Node, eventually, heartbeat, met, raw_client, raw_connection, warned, within,
};

/// A certificate of one authority, for somebody who takes those of several.
fn identity(of: &Ca, id: NodeId, takes: &[&Ca]) -> Identity {
    let issued = of.issue(id).unwrap();
    let authorities: String = takes.iter().map(|ca| ca.certificate()).collect();
    Identity::from_pem(issued.certificate(), issued.key(), &authorities).unwrap()
}

fn connections(nodes: &[&Node]) -> Vec<u64> {
    let of = |node: &Node| node.transport.stats().peers.iter().map(|peer| peer.connections).sum();
    nodes.iter().map(|node| of(node)).collect()
}

async fn all_exchange(nodes: &[&Node]) {
    for (n, a) in nodes.iter().enumerate() {
        for b in &nodes[..n] {
            a.exchanges_with(b).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_is_changed_under_way_and_the_old_one_is_of_no_use_afterwards() {
    let cluster = Cluster::of(4);
    let (old, new) = (&cluster.ca, &Ca::generate(cluster.id).unwrap());
    let nodes = [cluster.start(1), cluster.start(2), cluster.start(3)];
    let nodes = nodes.each_ref();
    met(&nodes).await;
    let before = connections(&nodes);

    // Both authorities; then, one by one, a certificate of the new one. No connection is touched.
    for certificates_of in [old, new] {
        for node in nodes {
            node.transport.set_identity(&identity(certificates_of, node.id, &[old, new])).unwrap();
            all_exchange(&nodes).await;
        }
    }
    assert_eq!(connections(&nodes), before);
    // Those who come now are known by either.
    let late = Node::start(&{
        let mut options = cluster.options(4);
        options.identity = identity(new, NodeId(4), &[new]);
        options
    });
    all_exchange(&[nodes[0], nodes[1], nodes[2], &late]).await;
    within("it stops", late.transport.shutdown()).await;

    // The old authority is taken away: connections that were made with its certificates are made again with the new ones.
    for node in nodes {
        node.transport.set_identity(&identity(new, node.id, &[new])).unwrap();
        all_exchange(&nodes).await;
    }
    assert!(nodes.iter().any(|node| node.transport.stats().outdated > 0));
    met(&nodes).await;

    // An old certificate is worth nothing now, whichever side shows it.
    let client = raw_client(new, Some(&old.issue(NodeId(4)).unwrap()));
    let connection = raw_connection(&cluster, &client, nodes[0]).await;
    within("it is closed", connection.closed()).await;
    let from = format!("from={}", client.local_addr().unwrap());
    warned(&["refusing a connection", &from, "UnknownIssuer"]).await;
    let stale = Node::start(&{
        let mut options = cluster.options(4);
        options.identity = identity(old, NodeId(4), &[old, new]);
        options
    });
    let at = format!("from={}", stale.address());
    warned(&["can't connect to the peer", "peer=4", &at, "UnknownIssuer"]).await;
    assert!(nodes.iter().all(|node| !node.peer(NodeId(4)).connected));
    all_exchange(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_only_an_old_certificate_is_cut_off_when_its_authority_goes() {
    let cluster = Cluster::of(2);
    let (old, new) = (&cluster.ca, &Ca::generate(cluster.id).unwrap());
    // Each of the two dials the other in turn: both ways of checking are used.
    for (rotates, stays) in [(1, 2), (2, 1)] {
        let (rotates, stays) = {
            let mut options = cluster.options(stays);
            options.identity = identity(old, NodeId(stays), &[old, new]);
            (cluster.start(rotates), Node::start(&options))
        };
        met(&[&rotates, &stays]).await;
        rotates.transport.set_identity(&identity(new, rotates.id, &[new])).unwrap();
        assert_eq!(rotates.transport.stats().outdated, 1);
        eventually("it is cut off", || !rotates.peer(stays.id).connected).await;
        let heard = rotates.inbox.from(stays.id).len();
        let at = format!("from={}", stays.address());
        warned(&["can't connect to the peer", &format!("peer={}", stays.id), &at, "UnknownIssuer"]).await;
        stays.send(&rotates, heartbeat(1));
        assert!(rotates.transport.forward(GROUP, stays.id, "x".into()).await.is_err());
        assert_eq!(rotates.inbox.from(stays.id).len(), heard);
        // With a new certificate it is back, without a restart.
        stays.transport.set_identity(&identity(new, stays.id, &[new])).unwrap();
        stays.exchanges_with(&rotates).await;
        within("it stops", stays.transport.shutdown()).await;
        within("it stops", rotates.transport.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_ends_its_connection() {
    let cluster = Cluster::of(2);
    // Doubled until the machine is quick enough to connect before it is over.
    for seconds in [3, 6, 12, 24] {
        let mut options = cluster.options(1);
        options.limits.recheck = Duration::from_millis(50);
        let a = Node::start(&options);
        let now = SystemTime::now();
        let valid = now - Duration::from_secs(3600)..now + Duration::from_secs(seconds);
        let expires = cluster.ca.issue_for(cluster.id, NodeId(2), &valid).unwrap();
        let mut options = cluster.options(2);
        options.identity = expires.identity().unwrap();
        let b = Node::start(&options);
        a.exchanges_with(&b).await;
        if a.transport.stats().outdated == 0 {
            eventually("it has expired", || a.transport.stats().outdated > 0 && !a.peer(b.id).connected)
                .await;
            let from = format!("from={}", b.address());
            warned(&["peer=2", &from, "certificate expired"]).await;
            b.transport.set_identity(&cluster.identity(b.id)).unwrap();
            a.exchanges_with(&b).await;
            return;
        }
        within("it stops", a.transport.shutdown()).await;
        within("it stops", b.transport.shutdown()).await;
    }
    panic!("the machine is too slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_is_of_no_use_changes_nothing() {
    let cluster = Cluster::of(3);
    let (a, b) = (cluster.start(1), cluster.start(2));
    met(&[&a, &b]).await;
    let other = Ca::generate(cluster.id).unwrap();
    let hour = Duration::from_secs(3600);
    let past = SystemTime::now() - 2 * hour..SystemTime::now() - hour;
    let expired = cluster.ca.issue_for(cluster.id, a.id, &past).unwrap();
    for (wrong, why) in [
        (cluster.identity(NodeId(2)), "it is for node 2"),
        (identity(&cluster.ca, a.id, &[&other]), "UnknownIssuer"),
        (expired.identity().unwrap(), "expired"),
    ] {
        let error = a.transport.set_identity(&wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    a.exchanges_with(&b).await;
    a.exchanges_with(&cluster.start(3)).await;
    assert_eq!(a.transport.stats().outdated, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_were_replaced_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::of(2);
    let files = cluster.ca.issue(NodeId(1)).unwrap().save(dir.path()).unwrap();
    let mut options = cluster.options(1);
    options.identity = files.load().unwrap();
    let a = Node::start(&options);
    let new = Ca::generate(cluster.id).unwrap();
    new.issue(NodeId(1)).unwrap().save(dir.path()).unwrap();
    let again = Identity::load(&files.certificate, &files.key, &files.authorities).unwrap();
    a.transport.set_identity(&again).unwrap();
    let mut options = cluster.options(2);
    options.identity = new.issue(NodeId(2)).unwrap().identity().unwrap();
    a.exchanges_with(&Node::start(&options)).await;
}

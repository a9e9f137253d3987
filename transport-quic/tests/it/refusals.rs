//! Who may not speak: another authority's nodes, another cluster's, the wrong node, the expired, the nameless.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use quorate_core::NodeId;
use quorate_runtime_tokio::Transport as _;
use quorate_transport_quic::{
    BindError, ClusterId, QuicTransport,
    pki::{Ca, Identity, PkiError},
};
use rcgen::ExtendedKeyUsagePurpose;

use crate::common::{
    Cluster, Node, eventually, rand, raw_client, raw_connection, raw_server, warned, within,
};

/// A node of the same address book, with another cluster or authority.
fn intruder(cluster: &Cluster, id: u64, other: ClusterId, ca: &Ca) -> Node {
    let mut options = cluster.options(id);
    options.cluster = other;
    options.identity = ca.issue_for(other, NodeId(id), &in_force()).unwrap().identity().unwrap();
    Node::start(&options)
}

/// Each has been dialled by the other, in vain.
async fn both_refuse(a: &Node, b: &Node) {
    eventually("both have been dialled in vain", || {
        [a, b].iter().all(|node| node.transport.stats().refused.total() > 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_refused_on_both_sides() {
    let cluster = Cluster::of(3);
    let (a, good) = (cluster.start(1), cluster.start(3));
    let b = intruder(&cluster, 2, cluster.id, &Ca::generate(cluster.id).unwrap());
    let (at_a, at_b) = (a.address().to_string(), b.address().to_string());
    // Each dials the other: the dialler doesn't take the certificate, and whoever is dialled hears of it.
    warned(&["peer=2", &at_b, "can't connect to the peer", "UnknownIssuer"]).await;
    warned(&["peer=1", &at_a, "can't connect to the peer", "UnknownIssuer"]).await;
    warned(&["refusing a connection", &format!("from={at_b}"), "address_of=2"]).await;
    both_refuse(&a, &b).await;
    assert!(!a.peer(b.id).connected && !b.peer(a.id).connected);
    assert!(b.inbox.all().is_empty());
    a.exchanges_with(&good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_trusts_but_is_not_trusted_is_told() {
    let cluster = Cluster::of(2);
    let other = Ca::generate(cluster.id).unwrap();
    let issued = other.issue(NodeId(2)).unwrap();
    let both = format!("{}{}", cluster.ca.certificate(), other.certificate());
    let mut options = cluster.options(2);
    options.identity = Identity::from_pem(issued.certificate(), issued.key(), &both).unwrap();
    let (a, b) = (cluster.start(1), Node::start(&options));
    let (at_a, at_b) = (format!("from={}", a.address()), format!("from={}", b.address()));
    // The one that dials has done its part of the handshake when the other looks at its certificate.
    warned(&["the peer refuses this node", "peer=1", &at_a, "UnknownIssuer"]).await;
    warned(&["refusing a connection", &at_b, "address_of=2", "UnknownIssuer"]).await;
    assert!(a.inbox.all().is_empty() && b.inbox.all().is_empty());
    assert_eq!(a.peer(b.id).connections, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_authority_is_refused_by_the_node() {
    let cluster = Cluster::of(1);
    let a = cluster.start(1);
    let other = Ca::generate(cluster.id).unwrap();
    let client = raw_client(&cluster.ca, Some(&other.issue(NodeId(2)).unwrap()));
    let connection = raw_connection(&cluster, &client, &a).await;
    within("it is closed", connection.closed()).await;
    let from = format!("from={}", client.local_addr().unwrap());
    warned(&["refusing a connection", &from, "UnknownIssuer"]).await;
    assert!(a.transport.stats().peers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_of_the_same_authority_is_refused_on_both_sides() {
    let cluster = Cluster::of(3);
    let (a, good) = (cluster.start(1), cluster.start(3));
    let other = ClusterId(rand());
    let b = intruder(&cluster, 2, other, &cluster.ca);
    let (at_a, at_b) = (a.address().to_string(), b.address().to_string());
    warned(&["peer=2", &at_b, "not valid for name", &other.to_string()]).await;
    warned(&["peer=1", &at_a, "not valid for name", &cluster.id.to_string()]).await;
    both_refuse(&a, &b).await;
    assert!(!a.peer(b.id).connected && !b.peer(a.id).connected);
    a.exchanges_with(&good).await;

    // One that asks for the node by its right name gets through TLS, and no further.
    let issued = cluster.ca.issue_for(other, NodeId(2), &in_force()).unwrap();
    let client = raw_client(&cluster.ca, Some(&issued));
    let connection = raw_connection(&cluster, &client, &a).await;
    let closed = within("it is closed", connection.closed()).await;
    assert!(
        matches!(&closed, quinn::ConnectionError::ApplicationClosed(close)
        if close.error_code.into_inner() == 3),
        "{closed}"
    );
    let from = format!("from={}", client.local_addr().unwrap());
    warned(&["refusing a connection", &from, "node 2 is of cluster", &other.to_string()]).await;
}

/// A validity that has begun and is not over.
fn in_force() -> Range<SystemTime> {
    let now = SystemTime::now();
    now - Duration::from_secs(3600)..now + Duration::from_secs(3600)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_the_one_dialled_is_refused() {
    let cluster = Cluster::of(2);
    let b = cluster.start(2);
    // The address book has node 3 where node 2 is.
    let mut options = cluster.options(1);
    options.peers = vec![(NodeId(3), b.address().into())];
    let a = Node::start(&options);
    let at_b = b.address().to_string();
    warned(&["peer=3", &at_b, "not valid for name", "node-3.", "node-2."]).await;
    assert!(!a.peer(NodeId(3)).connected);
    // Node 2 dials, too, and is taken for what it is.
    a.exchanges_with(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_it_is_the_node_itself_is_refused() {
    let cluster = Cluster::of(1);
    let a = cluster.start(1);
    let client = raw_client(&cluster.ca, Some(&cluster.ca.issue(NodeId(1)).unwrap()));
    let connection = raw_connection(&cluster, &client, &a).await;
    within("it is closed", connection.closed()).await;
    let from = format!("from={}", client.local_addr().unwrap());
    warned(&["refusing a connection", &from, "says that it is node 1, which is this node"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_certificate_no_connection() {
    let cluster = Cluster::of(1);
    let a = cluster.start(1);
    let client = raw_client(&cluster.ca, None);
    let connection = raw_connection(&cluster, &client, &a).await;
    within("it is closed", connection.closed()).await;
    let from = format!("from={}", client.local_addr().unwrap());
    warned(&["refusing a connection", &from, "no certificates"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_expired_are_refused_on_both_sides_and_do_not_start() {
    let cluster = Cluster::of(2);
    let hour = Duration::from_secs(3600);
    let past = SystemTime::now() - 2 * hour..SystemTime::now() - hour;
    let expired = cluster.ca.issue_for(cluster.id, NodeId(2), &past).unwrap();
    let at_server = cluster.addresses[1].1;
    let server = raw_server(at_server, &expired);
    let serving = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let refused = incoming.await;
            assert!(refused.is_err());
        }
    });
    let a = cluster.start(1);
    warned(&["peer=2", &at_server.to_string(), "certificate expired"]).await;
    serving.abort();

    let client = raw_client(&cluster.ca, Some(&expired));
    let connection = raw_connection(&cluster, &client, &a).await;
    within("it is closed", connection.closed()).await;
    let from = format!("from={}", client.local_addr().unwrap());
    warned(&["refusing a connection", &from, "certificate expired"]).await;

    let mut options = cluster.options(2);
    options.identity = expired.identity().unwrap();
    let error = QuicTransport::bind(options).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_the_wrong_identity_does_not_start() {
    let cluster = Cluster::of(2);
    let mut options = cluster.options(1);
    options.identity = cluster.identity(NodeId(2));
    let error = QuicTransport::bind(options.clone()).unwrap_err();
    assert!(matches!(error, BindError::Pki(_)), "{error:?}");
    assert!(error.to_string().contains("it is for node 2"), "{error}");

    options = cluster.options(1);
    options.cluster = ClusterId(1);
    let error = QuicTransport::bind(options).unwrap_err().to_string();
    assert!(error.contains("this is node 1 of cluster 0000000000000001"), "{error}");

    let (a, other) = (cluster.ca.issue(NodeId(1)).unwrap(), Ca::generate(cluster.id).unwrap());
    let stranger = Identity::from_pem(a.certificate(), a.key(), other.certificate()).unwrap();
    let mut options = cluster.options(1);
    options.identity = stranger;
    let error = QuicTransport::bind(options).unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");

    let b = cluster.ca.issue(NodeId(1)).unwrap();
    let mixed = Identity::from_pem(a.certificate(), b.key(), cluster.ca.certificate());
    let mut options = cluster.options(1);
    options.identity = mixed.unwrap();
    let error = QuicTransport::bind(options).unwrap_err().to_string();
    assert!(error.contains("key"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_one_side_of_a_connection_only_is_told_at_once() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

    let cluster = Cluster::of(2);
    let a = cluster.start(1);
    for (usage, lacks) in [(ServerAuth, "clientAuth"), (ClientAuth, "serverAuth")] {
        let mut options = cluster.options(2);
        options.identity = cluster.identity_for(NodeId(2), std::slice::from_ref(&usage));
        let error = QuicTransport::bind(options).unwrap_err();
        assert!(
            matches!(error, BindError::Pki(PkiError::Usage { missing }) if missing == lacks),
            "{error:?}"
        );
        let words = format!("is not for {lacks}");
        assert!(error.to_string().contains(&words), "{error}");
        // Nor is it taken later on.
        let error = a.transport.set_identity(&cluster.identity_for(a.id, &[usage])).unwrap_err();
        assert!(matches!(error, PkiError::Usage { missing } if missing == lacks), "{error:?}");
    }
    // Whoever has both, or says nothing of it, is taken, by peers as well.
    for usages in [&[ServerAuth, ClientAuth][..], &[]] {
        let mut options = cluster.options(2);
        options.identity = cluster.identity_for(NodeId(2), usages);
        a.transport.set_identity(&cluster.identity_for(a.id, usages)).unwrap();
        let b = Node::start(&options);
        a.exchanges_with(&b).await;
        within("it stops", b.transport.shutdown()).await;
    }
}

#[test]
fn without_a_runtime_it_says_so() {
    let cluster = Cluster::of(1);
    assert!(matches!(QuicTransport::bind(cluster.options(1)), Err(BindError::NoRuntime)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_told() {
    let cluster = Cluster::of(1);
    let a = cluster.start(1);
    let error = QuicTransport::bind(cluster.options(1)).unwrap_err().to_string();
    assert!(error.contains(&a.address().to_string()), "{error}");
}

//! Two releases, and what they have in common.

use quorate_core::NodeId;
use quorate_runtime_tokio::{ForwardError, Transport as _};
use quorate_transport_quic::{BindError, KNOWN_TRANSPORT_VERSIONS, QuicTransport, TRANSPORT_VERSION};

use crate::common::{
    Cluster, GROUP, Node, append, eventually, heartbeat, met, raw_client, raw_client_that_speaks,
    raw_connection, warned, within,
};

fn start(cluster: &Cluster, id: u64, versions: &[u8]) -> Node {
    let mut options = cluster.options(id);
    options.versions = versions.to_vec();
    Node::start(&options)
}

fn spoken(from: &Node, to: &Node) -> u8 {
    from.peer(to.id).connection.expect("there is a connection").version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_version_that_both_know_is_spoken() {
    for (old, new) in [(1, 2), (2, 1)] {
        let cluster = Cluster::of(2);
        let (old, new) = (start(&cluster, old, &[1]), start(&cluster, new, KNOWN_TRANSPORT_VERSIONS));
        met(&[&old, &new]).await;
        assert_eq!((spoken(&old, &new), spoken(&new, &old)), (1, 1));
        let before = new.inbox.all().len();
        old.send(&new, append(1, 10_000));
        new.inbox.has(before + 1).await;
        // Whoever dialled: what only the newer one knows is not asked of the older one, and nothing breaks.
        for (from, to) in [(&old, &new), (&new, &old)] {
            assert_eq!(from.transport.forward(GROUP, to.id, "ab".into()).await, Ok("ba".into()));
            let refused = from.transport.open(GROUP, to.id).await.map(drop).unwrap_err();
            let ForwardError::NotDelivered { why, .. } = &refused else { panic!("{refused}") };
            assert!(why.contains("transport version 1; streams came with version 2"), "{why}");
        }
        assert_eq!(old.peer(new.id).violations + new.peer(old.id).violations, 0);

        let cluster = Cluster::of(2);
        let (a, b) = (start(&cluster, 1, &[2, 1]), start(&cluster, 2, KNOWN_TRANSPORT_VERSIONS));
        met(&[&a, &b]).await;
        assert_eq!((spoken(&a, &b), spoken(&b, &a)), (TRANSPORT_VERSION, TRANSPORT_VERSION));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_release_is_understood() {
    let cluster = Cluster::of(1);
    let a = cluster.start(1);
    let client = raw_client(&cluster.ca, Some(&cluster.ca.issue(NodeId(3)).unwrap()));
    let connection = raw_connection(&cluster, &client, &a).await;
    let mut stream = connection.open_uni().await.unwrap();
    let body = quorate_core::wire::encode(&heartbeat(1)).to_bytes();
    let frame = [&(body.len() as u32 + 8).to_le_bytes()[..], &7_u64.to_le_bytes(), &body].concat();
    stream.write_all(&[&b"qrte\x01\x00"[..], &frame].concat()).await.unwrap();
    eventually("it arrives", || a.inbox.from(NodeId(3)) == [heartbeat(1)]).await;
    // And it is spoken to as it expects.
    a.transport.send(GROUP, NodeId(3), heartbeat(2));
    let mut control = within("it is answered", connection.accept_uni()).await.unwrap();
    let mut hello = [0; 6];
    within("it is answered", control.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello[..5], b"qrte\x01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_version_in_common_both_say_which_they_know() {
    let cluster = Cluster::of(2);
    let (a, b) = (start(&cluster, 1, &[1]), start(&cluster, 2, &[2]));
    let said = |by: &Node, of: &Node| {
        let knows = |node: &Node| format!("node {} knows [{}]", node.id, node.id);
        format!("no transport version in common: {}, {}", knows(by), knows(of))
    };
    // Each of the two is dialled by the other; both sides of each attempt say the same.
    for (dialled, dialler) in [(&a, &b), (&b, &a)] {
        let why = said(dialled, dialler);
        warned(&["refusing a connection", &format!("from={}", dialler.address()), &why]).await;
        let peer = format!("peer={}", dialled.id);
        warned(&["can't connect to the peer", &peer, &format!("from={}", dialled.address()), &why]).await;
        eventually("it is counted", || dialled.transport.stats().refused.version > 0).await;
    }
    assert_eq!((a.peer(b.id).connections, b.peer(a.id).connections), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_speaks_something_else_is_refused_by_tls() {
    let cluster = Cluster::of(1);
    let a = start(&cluster, 1, &[2]);
    let issued = cluster.ca.issue(NodeId(3)).unwrap();
    // The first release can't even be told; its own log says that no protocol is in common.
    for protocols in [&[&b"quorate"[..]][..], &[b"h3"], &[b"quorate/9"]] {
        let client = raw_client_that_speaks(protocols, &cluster.ca, Some(&issued));
        let name = quorate_transport_quic::node_name(cluster.id, a.id);
        let connecting = client.connect(a.address(), &name).unwrap();
        let refused = within("it is refused", connecting).await.unwrap_err();
        assert!(refused.to_string().contains("protocol"), "{refused}");
        let from = format!("from={}", client.local_addr().unwrap());
        warned(&["refusing a connection", &from, "none of the transport versions [2]"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_known_can_not_be_asked_for() {
    let cluster = Cluster::of(1);
    for versions in [vec![], vec![1, 9]] {
        let mut options = cluster.options(1);
        options.versions = versions.clone();
        let error = QuicTransport::bind(options).unwrap_err();
        assert!(matches!(&error, BindError::Versions { asked } if *asked == versions));
        assert!(error.to_string().contains("out of [1, 2]"), "{error}");
    }
}

//! Certificates and authorities are replaced by SIGHUP while the processes run; peers may be names.
#![cfg(feature = "server")]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{CLUSTER, Cluster, Node, signal, until};
use quorate_coord::pb::etcdserverpb::PutRequest;
use quorate_core::NodeId;
use quorate_transport_quic::{ClusterId, pki::Ca};

const LIMIT: Duration = Duration::from_secs(60);

const TAKEN: &str = "the certificates were read again";
const REFUSED: &str = "the certificates were not taken; those from before stay in force";

/// Has the node read its files, and waits until it has said this once more.
async fn reload(node: &Node, says: &str) {
    let said = || node.log_text().matches(says).count();
    let before = said();
    signal(node.pid(), "HUP");
    until(says, LIMIT, async || said() > before).await;
}

/// A certificate of one authority, for a node that takes those of several.
fn write(node: &Node, of: &Ca, takes: &[&Ca]) {
    of.issue(NodeId(node.id)).unwrap().save(&node.dir).unwrap();
    let authorities: String = takes.iter().map(|ca| ca.certificate()).collect();
    fs::write(node.dir.join("ca.pem"), authorities).unwrap();
}

async fn put(node: &Node, key: &str) {
    let until = Instant::now() + LIMIT;
    let put = PutRequest { key: key.to_owned().into(), value: "x".into(), ..PutRequest::default() };
    loop {
        match node.kv().put(put.clone()).await {
            Ok(_) => return,
            Err(status) => assert!(Instant::now() < until, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_is_changed_without_a_restart_and_what_cannot_be_used_is_refused() {
    let mut cluster = Cluster::make(3);
    let [old, new] = [(); 2].map(|()| Ca::generate(ClusterId(CLUSTER)).unwrap());
    for node in &mut cluster.nodes {
        write(node, &old, &[&old]);
        node.start();
    }
    cluster.wait_for_leader().await;

    // Not a certificate, another node's, one that its own authorities don't know: nothing changes.
    fs::write(cluster.nodes[0].dir.join("node.pem"), "no certificate").unwrap();
    reload(&cluster.nodes[0], REFUSED).await;
    old.issue(NodeId(2)).unwrap().save(&cluster.nodes[0].dir).unwrap();
    reload(&cluster.nodes[0], REFUSED).await;
    write(&cluster.nodes[0], &new, &[&old]);
    reload(&cluster.nodes[0], REFUSED).await;
    assert!(cluster.nodes[0].runs());
    put(&cluster.nodes[0], "after refusals").await;

    // Both authorities; then certificates of the new one; then the old one is taken away.
    for (of, takes) in [(&old, &[&old, &new][..]), (&new, &[&old, &new]), (&new, &[&new])] {
        for node in &cluster.nodes {
            write(node, of, takes);
            reload(node, TAKEN).await;
            put(node, "under way").await;
        }
    }
    // Whoever has only the new authority, and a certificate of it, is let in by those that never were restarted.
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.wait_for_leader().await;
    put(&cluster.nodes[2], "new").await;
    // And whoever has only a certificate of the old one is not: it takes the others, so it is they who refuse.
    cluster.nodes[2].kill();
    write(&cluster.nodes[2], &old, &[&old, &new]);
    let from = format!("from=127.0.0.1:{} ", cluster.nodes[2].port + 1);
    let refused = |node: &Node| {
        let parts = ["refusing a connection", &from, "UnknownIssuer"];
        node.log_text().lines().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(!cluster.nodes.iter().any(refused));
    cluster.nodes[2].start();
    for node in &cluster.nodes[..2] {
        until("the node is refused", LIMIT, async || refused(node)).await;
    }
    put(&cluster.nodes[0], "without it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_certificates_outlives_a_hangup() {
    let mut cluster = Cluster::make(1);
    let node = &mut cluster.nodes[0];
    let config = fs::read_to_string(node.config()).unwrap();
    let without: Vec<&str> = config
        .lines()
        .filter(|line| !["[tls]", "ca =", "cert =", "key ="].iter().any(|l| line.starts_with(l)))
        .collect();
    fs::write(node.config(), without.join("\n")).unwrap();
    node.start();
    until("it leads", LIMIT, async || node.status().await.is_some_and(|status| status.leader > 0)).await;
    reload(node, "no certificates to read again").await;
    assert!(node.runs());
    put(node, "still there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_may_be_a_name_that_is_not_known_yet() {
    let mut cluster = Cluster::make(3);
    let third = cluster.nodes[2].port + 1;
    for node in &mut cluster.nodes {
        let config = fs::read_to_string(node.config()).unwrap();
        let peer = |host: &str| format!("peer = \"{host}:{third}\"");
        // Nobody can look up a name below .invalid (RFC 6761): these two wait until the third one dials.
        let host = if node.id == 3 { "localhost" } else { "node-3.invalid" };
        // Where the third itself listens stays an address.
        let lines = config.lines().map(|line| match line.starts_with("listen-peer") {
            true => line.to_owned(),
            false => line.replace(&peer("127.0.0.1"), &peer(host)),
        });
        fs::write(node.config(), lines.map(|line| line + "\n").collect::<String>()).unwrap();
    }
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    cluster.wait_for_leader().await;
    put(&cluster.nodes[0], "without the third").await;
    cluster.nodes[2].start();
    cluster.wait_for_leader().await;
    put(&cluster.nodes[2], "with it").await;
}

//! A node that was away until the others have compacted what it lacks, against processes: it comes back by a snapshot.
#![cfg(feature = "server")]

mod common;

use std::{fs::OpenOptions, io::Write as _, time::Duration};

use common::{Cluster, Node, quorate, until};
use quorate_coord::pb::etcdserverpb::{
    HashKvRequest, PutRequest, RangeRequest, maintenance_client::MaintenanceClient,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// Puts these keys through a node; each is acknowledged.
async fn put(node: &Node, keys: std::ops::Range<u32>) {
    let mut kv = node.kv();
    for n in keys {
        let key = format!("key-{n:05}").into();
        let value = format!("{n:-<500}").into();
        let put = PutRequest { key, value, ..PutRequest::default() };
        tokio::time::timeout(LIMIT, kv.put(put)).await.unwrap().unwrap();
    }
}

/// How many keys a node has by itself.
async fn count(node: &Node) -> Option<i64> {
    let all = RangeRequest {
        key: "key-".into(),
        range_end: "key.".into(),
        count_only: true,
        serializable: true,
        ..RangeRequest::default()
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), node.kv().range(all)).await;
    Some(answer.ok()?.ok()?.into_inner().count)
}

async fn hash(node: &Node) -> Option<(u32, i64)> {
    let mut client = MaintenanceClient::new(node.channel());
    let hash = client.hash_kv(HashKvRequest::default()).await.ok()?.into_inner();
    Some((hash.hash, hash.header?.revision))
}

fn inspect(node: &Node) -> Value {
    let output = quorate().args(["inspect", "--json"]).arg(node.data()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_until_its_entries_were_compacted_comes_back_by_a_snapshot() {
    let mut cluster = Cluster::make(3);
    for node in &mut cluster.nodes {
        let mut config = OpenOptions::new().append(true).open(node.config()).unwrap();
        config.write_all(b"[snapshots]\nentries = 200\nkeep-entries = 20\n").unwrap();
        node.start();
    }
    let leader = usize::try_from(cluster.wait_for_leader().await - 1).unwrap();
    let [away, other] = [(leader + 1) % 3, (leader + 2) % 3];
    put(&cluster.nodes[leader], 0..20).await;
    until("the node has the first keys", LIMIT, async || count(&cluster.nodes[away]).await == Some(20)).await;
    cluster.nodes[away].kill();

    put(&cluster.nodes[leader], 20..500).await;
    for at in [leader, other] {
        let node = &cluster.nodes[at];
        until("the others take a snapshot", LIMIT, async || node.log_text().contains("a snapshot was taken"))
            .await;
    }
    // What it lacks is gone with them.
    cluster.nodes[away].start();
    put(&cluster.nodes[leader], 500..600).await;
    until("the node is back", LIMIT, async || count(&cluster.nodes[away]).await == Some(600)).await;
    let log = cluster.nodes[away].log_text();
    assert!(log.contains("a snapshot was installed"), "it came by a snapshot");
    let hashes = async || {
        let mut all = Vec::new();
        for node in &cluster.nodes {
            all.push(hash(node).await);
        }
        all
    };
    until("all have the same", LIMIT, async || {
        let all = hashes().await;
        all[0].is_some() && all.iter().all(|hash| *hash == all[0])
    })
    .await;

    // What it has is durable, and it can carry the cluster.
    cluster.nodes[away].kill();
    let found = inspect(&cluster.nodes[away]);
    let text = found.to_string();
    assert!(text.contains("\"snapshots\":[{"), "{text}");
    cluster.nodes[away].start();
    cluster.nodes[leader].kill();
    cluster.wait_for_leader().await;
    put(&cluster.nodes[away], 600..620).await;
    assert_eq!(count(&cluster.nodes[away]).await, Some(620));
}

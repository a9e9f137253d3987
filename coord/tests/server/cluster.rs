//! Three nodes: a client may talk to any of them.

use std::time::Duration;

use quorate_coord::{
    machine::Machine,
    pb::etcdserverpb::{
        CompactionRequest, Compare, HashKvRequest, HashRequest, PutRequest, RangeRequest, RequestOp,
        StatusRequest, TxnRequest, request_op::Request,
    },
    server::{Cluster, MAX_REQUESTS, MAX_STREAMS, serve},
};
use quorate_core::{Membership, NodeId};
use quorate_runtime_tokio::{MemoryNetwork, MemoryStore, Node};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::Code;

use crate::support::{bytes, get, leader, put, start, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_more_than_a_node_has_under_way_is_refused_at_once_and_what_it_has_is_answered() {
    let (network, nodes) = start(3).await;
    let leader = leader(&nodes).await;
    // Whatever it is asked now has to wait.
    let cut_off = nodes.values().find(|served| served.node.id().0 != leader).unwrap();
    network.isolate(cut_off.node.id());
    let more = 100;
    let mut asked = JoinSet::new();
    let mut left = MAX_REQUESTS + more;
    while left > 0 {
        let here = left.min(MAX_STREAMS as usize);
        left -= here;
        let kv = cut_off.kv().await;
        for n in 0..here {
            let mut kv = kv.clone();
            asked.spawn(async move {
                if n % 2 == 0 {
                    kv.range(get("a")).await.map(drop)
                } else {
                    kv.put(put("a", "1")).await.map(drop)
                }
            });
        }
    }
    for _ in 0..more {
        let refused = within(asked.join_next()).await.unwrap().unwrap().unwrap_err();
        let words = "etcdserver: too many requests";
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, words));
    }
    // It makes room, so it is let in.
    let mut kv = cut_off.kv().await;
    asked
        .spawn(async move { kv.compact(CompactionRequest { revision: 1, physical: false }).await.map(drop) });
    network.heal();
    while let Some(answered) = within(asked.join_next()).await {
        answered.unwrap().unwrap();
    }
    cut_off.kv().await.range(get("a")).await.unwrap();
    for served in nodes.into_values() {
        served.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_on_one_node_is_read_on_every_other() {
    let (_network, nodes) = start(3).await;
    let leader = leader(&nodes).await;
    let mut clients = Vec::new();
    for served in nodes.values() {
        clients.push((served.node.id().0, served.kv().await));
    }
    let mut revision = 1;
    for round in 0..5 {
        for writer in 0..3 {
            let value = format!("{round} by {writer}");
            let (id, kv) = &mut clients[writer];
            let written = kv.put(put("a", &value)).await.unwrap().into_inner().header.unwrap();
            revision += 1;
            assert_eq!((written.revision, written.member_id), (revision, *id));
            for (id, kv) in &mut clients {
                let found = kv.range(get("a")).await.unwrap().into_inner();
                assert_eq!(found.kvs[0].value, value, "on node {id}; the leader is {leader}");
                assert_eq!(found.header.unwrap().member_id, *id);
            }
        }
    }
    for served in nodes.into_values() {
        served.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_and_errors_reach_a_client_of_a_follower() {
    let (_network, nodes) = start(3).await;
    let leader = leader(&nodes).await;
    let follower = nodes.values().find(|served| served.node.id().0 != leader).unwrap();
    let mut kv = follower.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    let with_prev = PutRequest { prev_kv: true, ..put("a", "2") };
    let response = kv.put(with_prev).await.unwrap().into_inner();
    assert_eq!(response.prev_kv.unwrap().value, "1");
    let request = TxnRequest {
        compare: vec![Compare { key: bytes("b"), ..Compare::default() }],
        success: vec![RequestOp { request: Some(Request::RequestPut(put("b", "1"))) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get("b"))) }],
    };
    assert!(kv.txn(request.clone()).await.unwrap().into_inner().succeeded);
    assert!(!kv.txn(request).await.unwrap().into_inner().succeeded);
    let missing = kv.put(PutRequest { ignore_value: true, ..put("x", "") }).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::InvalidArgument, "etcdserver: key not found"));
    kv.compact(CompactionRequest { revision: 3, physical: false }).await.unwrap();
    let old = kv.range(RangeRequest { revision: 2, ..get("a") }).await.unwrap_err();
    let words = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!((old.code(), old.message()), (Code::OutOfRange, words));

    // All nodes hold the same, once they have applied the same.
    let mut hashes = Vec::new();
    for served in nodes.values() {
        served.node.read(|_| ()).await.unwrap();
        let mut maintenance = served.maintenance().await;
        let hash = maintenance.hash(HashRequest {}).await.unwrap().into_inner();
        let kv = maintenance.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
        let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.leader, leader);
        hashes.push((hash.hash, kv.hash, kv.compact_revision, kv.hash_revision));
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    for served in nodes.into_values() {
        served.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_leader_serves_what_it_has_and_says_what_is_missing() {
    // One of three, that never hears of the others.
    let node = Node::builder(NodeId(1))
        .election_timeout(Duration::from_millis(100))
        .request_timeout(Duration::from_millis(300))
        .store(MemoryStore::new(Membership::of_voters([1, 2, 3].map(NodeId))))
        .transport(MemoryNetwork::new().transport(NodeId(1)))
        .start(Machine::new())
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stopped = node.clone();
    let server =
        tokio::spawn(serve(node.clone(), Cluster { id: 1, members: vec![] }, listener, async move {
            let _why = stopped.stopped().await;
        }));
    let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut kv = quorate_coord::pb::etcdserverpb::kv_client::KvClient::new(channel.clone());
    for status in [
        kv.put(put("a", "1")).await.unwrap_err(),
        kv.range(get("a")).await.unwrap_err(),
        kv.txn(TxnRequest::default()).await.unwrap_err(),
    ] {
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    }
    let stale = kv.range(RangeRequest { serializable: true, ..get("a") }).await.unwrap().into_inner();
    assert_eq!(stale.header.unwrap().revision, 1);
    let mut maintenance =
        quorate_coord::pb::etcdserverpb::maintenance_client::MaintenanceClient::new(channel);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));
    within(node.shutdown()).await;
    within(server).await.unwrap().unwrap();
}

//! The state as it is sent to a client.

use std::{io::Write as _, time::Duration};

use quorate_coord::{
    machine::{Machine, SnapshotHead},
    pb::etcdserverpb::{SnapshotRequest, SnapshotResponse},
    server::MAX_SNAPSHOTS,
};
use quorate_core::{GroupId, NodeId, StateMachine as _};
use quorate_runtime_tokio::SnapshotSource;
use quorate_storage_redb::{ArchiveReader, Identity};
use tonic::{Code, Streaming};

use crate::support::{CLUSTER_ID, Served, alone, leader, put, start, within};

async fn snapshot(served: &Served) -> Result<Streaming<SnapshotResponse>, tonic::Status> {
    let answer = within(served.maintenance().await.snapshot(SnapshotRequest {})).await;
    answer.map(tonic::Response::into_inner)
}

/// All messages.
async fn messages(mut stream: Streaming<SnapshotResponse>) -> Vec<SnapshotResponse> {
    let mut all = Vec::new();
    while let Some(message) = within(stream.message()).await.unwrap() {
        all.push(message);
    }
    all
}

/// What the messages hold together, and the archive in it.
fn archive(messages: &[SnapshotResponse]) -> (tempfile::NamedTempFile, ArchiveReader) {
    let (last, parts) = messages.split_last().unwrap();
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.blob.iter().copied()).collect();
    let sha = ring::digest::digest(&ring::digest::SHA256, &bytes);
    assert_eq!((sha.as_ref(), last.remaining_bytes), (&last.blob[..], 0));
    let mut left = bytes.len() as u64;
    for part in parts {
        left -= part.blob.len() as u64;
        assert_eq!(part.remaining_bytes, left);
        assert!(part.blob.len() <= 64 << 10);
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let mut reader = ArchiveReader::open(file.path()).unwrap();
    reader.verify().unwrap();
    (file, reader)
}

fn machine(reader: ArchiveReader) -> Machine {
    Machine::read_snapshot(&mut SnapshotSource::new(reader)).unwrap()
}

async fn fill(served: &Served, count: u32) {
    let mut kv = served.kv().await;
    for n in 0..count {
        kv.put(put(&format!("{n}"), &"v".repeat(1_000_000))).await.unwrap();
    }
}

#[tokio::test]
async fn it_is_an_archive_of_the_state_and_its_digest_and_says_where_it_is_from() {
    let served = alone().await;
    fill(&served, 3).await;
    let all = messages(snapshot(&served).await.unwrap()).await;
    let header = all[0].header.unwrap();
    assert_eq!((header.cluster_id, header.member_id, header.revision), (CLUSTER_ID, 1, 4));
    let (_file, reader) = archive(&all);
    let found = reader.header().clone();
    assert_eq!(found.identity, Identity { cluster: CLUSTER_ID.into(), node: NodeId(1) });
    let (last, voters) = (found.snapshot.last, found.snapshot.membership.voters().to_vec());
    assert_eq!((found.group, last.index.0, voters), (GroupId(0), 4, vec![NodeId(1)]));
    let mut source = SnapshotSource::new(reader);
    assert_eq!(
        SnapshotHead::read(&mut source).unwrap(),
        SnapshotHead { revision: 4, compacted: -1, keys: 3 }
    );
    let (_file, reader) = archive(&all);
    let own = served.node.read(Machine::clone).await.unwrap();
    assert_eq!(machine(reader), own);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_any_node_it_has_all_that_was_acknowledged_before() {
    let (_network, nodes) = start(3).await;
    let leader = leader(&nodes).await;
    let mut kv = nodes[&leader].kv().await;
    for n in 0..10 {
        let revision = kv.put(put("a", &format!("{n}"))).await.unwrap().into_inner().header.unwrap().revision;
        for served in nodes.values() {
            let all = messages(snapshot(served).await.unwrap()).await;
            assert_eq!(all[0].header.unwrap().revision, revision);
            assert_eq!(machine(archive(&all).1).revision(), revision);
        }
    }
    for (_, served) in nodes {
        served.stop().await;
    }
}

#[tokio::test]
async fn few_are_sent_at_once_and_one_whose_client_goes_makes_room() {
    let served = alone().await;
    // More than what may be on its way without the client taking it.
    fill(&served, 8).await;
    let mut held = Vec::new();
    for _ in 0..MAX_SNAPSHOTS {
        let mut stream = snapshot(&served).await.unwrap();
        within(stream.message()).await.unwrap().unwrap();
        held.push(stream);
    }
    let refused = snapshot(&served).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("etcdserver: too many requests"), "{refused}");
    // What happens meanwhile doesn't show in it.
    served.kv().await.put(put("late", "1")).await.unwrap();
    drop(held.pop());
    let stream = within(async {
        loop {
            match snapshot(&served).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    let rest = messages(held.pop().unwrap()).await;
    assert_eq!(rest.last().unwrap().header.unwrap().revision, 9);
    let whole = messages(stream).await;
    let (_file, reader) = archive(&whole);
    let found = machine(reader);
    assert_eq!(found.revision(), 10);
    let mut fresh = Machine::new();
    let mut bytes = Vec::new();
    found.freeze().unwrap().write(&mut bytes).unwrap();
    fresh.restore(&mut &bytes[..]).unwrap();
    assert_eq!(fresh, found);
    served.stop().await;
}

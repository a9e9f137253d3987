//! A cluster of one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quorate_core::{GroupId, Membership, NodeId, RoleKind};
use quorate_runtime_tokio::{
    MemoryStore, Node, NodeConfig, ProposeError, ReadError, StartError, StopReason, Stopped,
};

use crate::support::{GROUP, Place, Words, alone, start_alone, until, within};

#[tokio::test]
async fn takes_proposals_and_serves_reads() {
    let node = start_alone(&alone()).await;
    assert_eq!(node.propose("a").await, Ok(Place(1)));
    assert_eq!(node.propose(Bytes::from_static(b"b")).await, Ok(Place(2)));
    assert_eq!(node.propose("").await, Ok(Place(3)), "an empty command is one too");
    assert_eq!(node.read(Words::texts).await.unwrap(), ["a", "b", ""]);
    assert_eq!(node.read_stale(|words| words.words.len()).await, Ok(3));
    let status = node.status().await.unwrap();
    assert_eq!((status.raft.id, status.raft.group), (NodeId(1), GROUP));
    assert_eq!(status.raft.role, RoleKind::Leader);
    assert_eq!(status.raft.commit.0, 4, "the leader's first entry, and three commands");
    assert_eq!((status.counts.proposals, status.counts.reads, status.counts.forwarded), (3, 1, 0));
    let leadership = *node.leadership().borrow();
    assert_eq!((leadership.leader, leadership.role), (Some(NodeId(1)), RoleKind::Leader));
    assert!(format!("{node:?}").contains("n1"));
}

#[tokio::test]
async fn a_quiet_store_is_settled_once_after_its_last_commit() {
    let store = alone();
    let node = start_alone(&store).await;
    node.propose("a").await.unwrap();
    until(|| (store.settled() > 0).then_some(())).await;
    let settled = store.settled();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.settled(), settled, "and then left alone");
    node.propose("b").await.unwrap();
    until(|| (store.settled() > settled).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_its_data_across_restarts() {
    let store = alone();
    for life in 1..=4_u64 {
        let node = start_alone(&store).await;
        for n in 0..100 {
            node.propose(format!("{life}.{n}")).await.unwrap();
        }
        assert_eq!(node.read(|words| words.words.len() as u64).await, Ok(life * 100));
        assert_eq!(node.status().await.unwrap().raft.incarnation.0, life);
        within(node.shutdown()).await;
    }
    let node = start_alone(&store).await;
    let words = node.read(Words::texts).await.unwrap();
    let wanted: Vec<String> = (1..=4).flat_map(|life| (0..100).map(move |n| format!("{life}.{n}"))).collect();
    assert_eq!(words, wanted);
}

#[tokio::test]
async fn says_why_it_cannot_start() {
    let start = |store: MemoryStore| Node::builder(NodeId(1)).store(store).start(Words::default());
    let three = MemoryStore::new(Membership::of_voters([1, 2, 3].map(NodeId)));
    assert!(matches!(start(three).await, Err(StartError::NoTransport { members: 3 })));
    let error = start(MemoryStore::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store can't be opened: there is no group 0 in this store: add it first"
    );
    let bad = Node::builder(NodeId(0)).store(alone()).start(Words::default()).await.unwrap_err();
    assert_eq!(bad.to_string(), "the configuration: id is 0, but must be from 1 to 2^64 - 2");
    let broken = alone();
    broken.fail("bad sector");
    assert_eq!(start(broken).await.unwrap_err().to_string(), "the store can't be opened: bad sector");
}

/// What a file may not say its program may not say either.
#[tokio::test]
async fn settings_of_the_builder_are_held_to_the_same_rules_as_those_of_a_file() {
    let (node, ms) = (|| Node::<Words>::builder(NodeId(1)), Duration::from_millis);
    let of = NodeConfig::default;
    for (builder, config) in [
        (node().request_timeout(Duration::MAX), NodeConfig { request_timeout: Duration::MAX, ..of() }),
        (node().request_timeout(ms(0)), NodeConfig { request_timeout: ms(0), ..of() }),
        (node().shutdown_timeout(Duration::MAX), NodeConfig { shutdown_timeout: Duration::MAX, ..of() }),
        (node().disk_stall_timeout(ms(0)), NodeConfig { disk_stall_timeout: Some(ms(0)), ..of() }),
        (node().max_pending(0), NodeConfig { max_pending: 0, ..of() }),
    ] {
        let same = config.validate().unwrap_err();
        let found = builder.store(alone()).start(Words::default()).await.unwrap_err();
        assert!(matches!(&found, StartError::NodeConfig(error) if *error == same), "{found} is not {same}");
    }
}

#[test]
fn wants_a_runtime() {
    let mut start = Box::pin(Node::builder(NodeId(1)).store(alone()).start(Words::default()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = start.as_mut().poll(&mut context);
    assert!(matches!(polled, std::task::Poll::Ready(Err(StartError::NoRuntime))));
}

#[tokio::test]
async fn stops_when_the_last_handle_is_dropped() {
    let alive = Arc::new(());
    let machine = Words { _alive: alive.clone(), ..Words::default() };
    let node = Node::builder(NodeId(1)).store(alone()).start(machine).await.unwrap();
    let other = node.clone();
    drop(node);
    assert_eq!(other.propose("still here").await, Ok(Place(1)));
    drop(other);
    until(|| (Arc::strong_count(&alive) == 1).then_some(())).await;
}

#[tokio::test]
async fn a_shutdown_lets_what_is_under_way_end_and_takes_nothing_new() {
    let store = alone();
    store.set_commit_time(Duration::from_millis(50));
    let node = Node::builder(NodeId(1))
        .store(store.clone())
        .shutdown_timeout(Duration::from_secs(30))
        .start(Words::default())
        .await
        .unwrap();
    let proposers: Vec<_> = (0..20).map(|n| tokio::spawn(propose(node.clone(), format!("{n}")))).collect();
    let taken = || async { node.status().await.unwrap().counts.proposals };
    within(async { while taken().await < 20 {} }).await;
    within(node.shutdown()).await;
    for proposer in proposers {
        assert!(proposer.await.unwrap().is_ok());
    }
    let stopped = Stopped { why: StopReason::Shutdown };
    assert_eq!(within(node.stopped()).await, stopped);
    assert_eq!(node.propose("late").await, Err(ProposeError::Stopped(stopped.clone())));
    assert_eq!(node.read(Words::texts).await, Err(ReadError::Stopped(stopped.clone())));
    assert_eq!(node.read_stale(Words::texts).await, Err(ReadError::Stopped(stopped.clone())));
    assert_eq!(node.status().await, Err(stopped));
    within(node.shutdown()).await;
    let words: u64 = store.log(GROUP).iter().map(quorate_core::Run::count).sum();
    assert_eq!(words, 21, "the leader's first entry, and twenty commands");
}

#[tokio::test]
async fn a_shutdown_that_cannot_wait_longer_says_unknown() {
    let store = alone();
    let node = Node::builder(NodeId(1))
        .store(store.clone())
        .shutdown_timeout(Duration::from_millis(20))
        .start(Words::default())
        .await
        .unwrap();
    node.propose("before").await.unwrap();
    store.set_commit_time(Duration::from_millis(500));
    let proposer = tokio::spawn(propose(node.clone(), "lost in time".to_owned()));
    within(async { while node.status().await.unwrap().counts.proposals < 2 {} }).await;
    within(node.shutdown()).await;
    match proposer.await.unwrap() {
        Err(ProposeError::Unknown { why }) => assert_eq!(why, "the node has stopped: it was shut down"),
        other => panic!("{other:?}"),
    }
    // It was queued, so it was written all the same: unknown was the truth.
    store.set_commit_time(Duration::ZERO);
    assert_eq!(start_alone(&store).await.read(Words::texts).await.unwrap(), ["before", "lost in time"]);
}

#[tokio::test]
async fn a_proposer_may_give_up() {
    let store = alone();
    let node = start_alone(&store).await;
    node.propose("first").await.unwrap();
    store.set_commit_time(Duration::from_millis(30));
    for n in 0..5 {
        let proposer = tokio::spawn(propose(node.clone(), format!("given up {n}")));
        within(async { while node.status().await.unwrap().counts.proposals < 2 + n {} }).await;
        proposer.abort();
    }
    let Place(last) = node.propose("last").await.unwrap();
    assert_eq!(last, 7, "those given up were applied, and nobody minded");
    assert_eq!(node.status().await.unwrap().raft.pending, 0);
}

#[tokio::test]
async fn a_panicking_read_is_its_callers_alone() {
    let node = start_alone(&alone()).await;
    let panicked = node.read(|_| panic!("oh {}", "no")).await;
    assert_eq!(panicked, Err::<(), _>(ReadError::Panicked { message: "oh no".to_owned() }));
    assert_eq!(node.propose("alive").await, Ok(Place(1)));
}

#[tokio::test]
async fn what_is_too_big_is_refused_alone() {
    let node = Node::builder(NodeId(1))
        .config(|config| config.max_uncommitted_bytes = 1000)
        .store(alone())
        .start(Words::default())
        .await
        .unwrap();
    let big = propose(node.clone(), "x".repeat(2000));
    node.read(|_| ()).await.unwrap();
    let (small, big, other) = tokio::join!(node.propose("small"), big, node.propose("other"));
    assert_eq!((small, other), (Ok(Place(1)), Ok(Place(2))));
    assert_eq!(big, Err(ProposeError::TooBig { bytes: 2005, bound: 1000 }));
}

#[tokio::test]
async fn groups_live_side_by_side_in_one_store() {
    let ours = Membership::of_voters([NodeId(1)]);
    let store = MemoryStore::new(ours.clone()).with_group(GroupId(7), ours);
    let start = |group| Node::builder(NodeId(1)).group(group).store(store.clone()).start(Words::default());
    let (zero, seven) = (start(GROUP).await.unwrap(), start(GroupId(7)).await.unwrap());
    zero.propose("zero").await.unwrap();
    seven.propose("seven").await.unwrap();
    assert_eq!(seven.group(), GroupId(7));
    assert_eq!(zero.read(Words::texts).await.unwrap(), ["zero"]);
    assert_eq!(seven.read(Words::texts).await.unwrap(), ["seven"]);
}

async fn propose(node: Node<Words>, word: String) -> Result<Place, ProposeError> {
    node.propose(word).await
}

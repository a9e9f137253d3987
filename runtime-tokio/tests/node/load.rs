//! More than a node can do.

use std::{sync::mpsc, time::Duration};

use quorate_core::{NodeId, RoleKind};
use quorate_runtime_tokio::{MemoryStore, Node, ProposeError, ReadError, SnapshotError};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use crate::support::{Cluster, Place, Words, alone, start_alone, within};

/// Proposes all at once, and says how many were done, and how many refused as overloaded.
async fn storm(node: &Node<Words>, words: impl IntoIterator<Item = String>) -> (usize, usize) {
    let mut proposers = JoinSet::new();
    for word in words {
        let node = node.clone();
        proposers.spawn(async move { node.propose(word).await });
    }
    let (mut done, mut refused) = (0, 0);
    while let Some(outcome) = within(proposers.join_next()).await {
        match outcome.unwrap() {
            Ok(_) => done += 1,
            Err(ProposeError::Overloaded { what }) => {
                assert!(
                    what.contains("would pass its bound") || what.contains("would pass their bound"),
                    "{what}"
                );
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (done, refused)
}

/// Has a read hold up the state machine, until what is returned first is dropped.
async fn hold(node: &Node<Words>) -> (mpsc::Sender<()>, JoinHandle<Result<bool, ReadError>>) {
    let (go, gate) = mpsc::channel();
    let (blocks, blocked) = oneshot::channel();
    let wait = move |_: &Words| blocks.send(()).is_ok() && gate.recv().is_err();
    let reader = node.clone();
    let reading = tokio::spawn(async move { reader.read_stale(wait).await });
    within(blocked).await.unwrap();
    (go, reading)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposers_that_come_together_share_their_commits() {
    let store = alone();
    store.set_commit_time(Duration::from_millis(1));
    let node = start_alone(&store).await;
    node.propose("first").await.unwrap();
    let mut proposers = JoinSet::new();
    for proposer in 0..64 {
        let node = node.clone();
        proposers.spawn(async move {
            for n in 0..20 {
                node.propose(format!("{proposer}.{n}")).await.unwrap();
            }
        });
    }
    within(proposers.join_all()).await;
    let counts = node.status().await.unwrap().counts;
    assert_eq!(counts.proposals, 1 + 64 * 20);
    assert!(counts.batches < counts.proposals, "{counts:?}");
    assert!(store.commits() * 4 < counts.proposals, "{} commits for {counts:?}", store.commits());
    assert_eq!(counts.commits, store.commits());
    assert!(counts.writes >= counts.commits);
    let mut words = node.read(Words::texts).await.unwrap();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), 1281, "each exactly once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_on_pending_proposals_is_kept() {
    let store = alone();
    let node = limited(&store, |node| node.max_pending(10)).await;
    store.set_commit_time(Duration::from_millis(20));
    let (done, refused) = storm(&node, (0..500).map(|n| format!("{n}"))).await;
    assert_eq!(done + refused, 500);
    assert!(refused > 0 && done >= 10, "{done} done, {refused} refused");
    let counts = node.status().await.unwrap().counts;
    assert_eq!(counts.overloaded as usize, refused);
    // What was refused did not happen, and when the storm is over there is room again.
    store.set_commit_time(Duration::ZERO);
    assert_eq!(node.propose("after").await, Ok(Place(done as u64 + 1)));
}

/// Whoever has a reply does not count any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_after_the_other_finds_room_for_one() {
    let node = limited(&alone(), |node| node.max_pending(1)).await;
    for n in 0..500 {
        assert_eq!(within(node.propose(format!("{n}"))).await, Ok(Place(n + 1)));
        assert_eq!(within(node.read(|words| words.words.len() as u64)).await, Ok(n + 1));
    }
}

/// Whoever waits for the state machine counts, until that has come to him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_wait_for_the_state_machine_count() {
    let node = limited(&alone(), |node| node.max_pending(3)).await;
    let (go, reading) = hold(&node).await;
    let mut proposers = JoinSet::new();
    for n in 0..3 {
        let node = node.clone();
        proposers.spawn(async move { node.propose(format!("{n}")).await });
    }
    // With the leader's first entry.
    within(node.until(|now| now.commit.0 == 4)).await.unwrap();
    let outcome = within(node.propose("one too many")).await;
    assert!(matches!(outcome, Err(ProposeError::Overloaded { .. })), "{outcome:?}");
    drop(go);
    assert_eq!(within(reading).await.unwrap(), Ok(true));
    while let Some(outcome) = within(proposers.join_next()).await {
        assert!(outcome.unwrap().is_ok());
    }
    assert_eq!(within(node.propose("room again")).await, Ok(Place(4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_on_uncommitted_bytes_is_kept() {
    let store = alone();
    let node = limited(&store, |node| node.config(|config| config.max_uncommitted_bytes = 4096)).await;
    store.set_commit_time(Duration::from_millis(20));
    let (done, refused) = storm(&node, (0..200).map(|n| format!("{n:0>500}"))).await;
    assert_eq!(done + refused, 200);
    assert!(refused > 0 && done > 0, "{done} done, {refused} refused");
    store.set_commit_time(Duration::ZERO);
    assert_eq!(node.propose("after").await, Ok(Place(done as u64 + 1)));
}

/// A slow state machine lets the log run ahead of it: who waits is bounded all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_state_machine_pushes_back() {
    let node = limited(&alone(), |node| {
        node.max_pending(20).config(|config| {
            config.max_applying_bytes = 40;
            config.max_cached_bytes = 40;
        })
    })
    .await;
    let (done, refused) = storm(&node, (0..300).map(|_| "slow".to_owned())).await;
    assert_eq!(done + refused, 300);
    assert!(refused > 0 && done >= 20, "{done} done, {refused} refused");
    assert_eq!(node.propose("after").await, Ok(Place(done as u64 + 1)));
    // What was committed meanwhile had left the cache, and was read again.
    assert!(node.status().await.unwrap().counts.loads > 0);
}

/// Its followers commit what the leader's own disk has yet to write: that must not pile up either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_slow_disk_pushes_back() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        let limit = |config: &mut quorate_core::Config| config.max_unpersisted_bytes = 5000;
        // Slow is not stuck: it is to lead on.
        let lead_on = Duration::from_secs(60);
        cluster.start_node(id, |builder| builder.config(limit).disk_stall_timeout(lead_on)).await;
    }
    let leader = cluster.leader().await;
    cluster.stores[&leader].set_commit_time(Duration::from_millis(200));
    let (done, refused) = storm(cluster.node(leader), (0..200).map(|n| format!("{n:0>500}"))).await;
    assert_eq!(done + refused, 200);
    assert!(refused > 0 && done > 0, "{done} done, {refused} refused");
    cluster.stores[&leader].set_commit_time(Duration::ZERO);
    assert_eq!(cluster.converged().await.len(), done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_on_pending_reads_is_kept() {
    let node = limited(&alone(), |node| node.max_pending(10)).await;
    let (go, first) = hold(&node).await;
    // Linearizable ones get their read index, and wait for the state machine like the others.
    let mut readers = JoinSet::new();
    for n in 0..200 {
        let node = node.clone();
        let read = |words: &Words| words.words.len();
        readers.spawn(
            async move { if n % 2 == 0 { node.read(read).await } else { node.read_stale(read).await } },
        );
    }
    for _ in 0..191 {
        let outcome = within(readers.join_next()).await.unwrap().unwrap();
        assert!(matches!(outcome, Err(ReadError::Overloaded { .. })), "{outcome:?}");
    }
    // The driver is not held up by a read that blocks.
    assert_eq!(within(node.status()).await.unwrap().raft.role, RoleKind::Leader);
    drop(go);
    assert_eq!(within(first).await.unwrap(), Ok(true));
    for _ in 0..9 {
        assert_eq!(within(readers.join_next()).await.unwrap().unwrap(), Ok(0));
    }
    assert_eq!(node.status().await.unwrap().counts.overloaded, 191);
}

/// It asks nobody, so nobody else is to blame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_read_that_the_state_machine_does_not_come_to_says_so() {
    let patience = Duration::from_millis(500);
    let node = limited(&alone(), |node| node.request_timeout(patience)).await;
    let (go, reading) = hold(&node).await;
    let behind = ReadError::Behind { waited: patience };
    assert_eq!(within(node.read_stale(|_| ())).await, Err(behind.clone()));
    assert_eq!(within(reading).await.unwrap(), Err(behind));
    let outcome = within(node.snapshot()).await;
    let Err(SnapshotError::Failed { why }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(why, "the state machine did not come to hold its state still within 500ms");
    drop(go);
    assert_eq!(within(node.propose("in time again")).await, Ok(Place(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_state_machine_loses_no_leadership() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        cluster.start_node(id, |builder| builder.election_timeout(Duration::from_millis(600))).await;
    }
    let leader = cluster.leader().await;
    let before = *cluster.node(leader).leadership().borrow();
    // Two seconds of applying, on every node.
    let (done, refused) = storm(cluster.node(leader), (0..100).map(|_| "slow".to_owned())).await;
    assert_eq!((done, refused), (100, 0));
    assert_eq!(*cluster.node(leader).leadership().borrow(), before);
    assert_eq!(cluster.converged().await.len(), 100);
}

async fn limited(
    store: &MemoryStore,
    limit: impl FnOnce(quorate_runtime_tokio::Builder<Words>) -> quorate_runtime_tokio::Builder<Words>,
) -> Node<Words> {
    let node = limit(Node::builder(NodeId(1))).store(store.clone()).start(Words::default()).await.unwrap();
    // It leads from here on.
    node.read(|_| ()).await.unwrap();
    node
}

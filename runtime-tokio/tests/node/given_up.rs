//! Reads for an index that does not come, and those who wait for them no longer.

use std::time::Duration;

use quorate_core::{Index, NodeId};
use quorate_runtime_tokio::{Consistency, Node, ReadError, StopReason};
use tokio::time::{Instant, timeout};

use crate::support::{Cluster, ELECTION, LONG, Words, alone, within};

const SHORT: Duration = Duration::from_millis(20);

const NEVER: Consistency = Consistency::AtLeast(Index(1_000));

/// Alone, with room for few reads, and with callers that wait so long.
async fn start(patience: Duration) -> Node<Words> {
    let builder = Node::builder(NodeId(1)).request_timeout(patience).shutdown_timeout(LONG);
    let builder = builder.max_pending(4).config(|config| config.max_reads = 4);
    let node = builder.store(alone()).start(Words::default()).await.unwrap();
    // Its first entry is there.
    within(node.until_applied(Index(1))).await.unwrap();
    node
}

/// Nothing of those that were given up is left, here or in the core.
async fn assert_forgotten(node: &Node<Words>) {
    assert_eq!(within(node.status()).await.unwrap().raft.pending, 0);
    assert_eq!(within(node.read(|words| words.words.len())).await, Ok(0));
}

#[tokio::test]
async fn whoever_waits_in_vain_makes_room_when_his_time_is_up() {
    let node = start(ELECTION).await;
    for round in 0..3 {
        let four = || (node.read_with(NEVER, |_| ()), node.read_with(NEVER, |_| ()));
        let ((a, b), (c, d)) = (four(), four());
        let all = within(async { tokio::join!(a, b, c, d) }).await;
        for outcome in <[_; 4]>::from(all) {
            assert!(matches!(outcome, Err(ReadError::NoLeader { .. })), "in round {round}: {outcome:?}");
        }
        assert_forgotten(&node).await;
    }
    within(node.shutdown()).await;
}

#[tokio::test]
async fn whoever_drops_his_call_makes_room_and_those_beside_him_wait_on() {
    let node = start(LONG).await;
    let other = tokio::spawn({
        let node = node.clone();
        async move { node.read_with(Consistency::AtLeast(Index(3)), |_| ()).await }
    });
    for _ in 0..10 {
        let dropped = timeout(SHORT, node.read_with(Consistency::AtLeast(Index(3)), |_| ())).await;
        assert!(dropped.is_err(), "{dropped:?}");
        assert_eq!(within(node.status()).await.unwrap().raft.pending, 1);
    }
    for word in ["entry 2", "entry 3"] {
        within(node.propose(word)).await.unwrap();
    }
    assert_eq!(within(other).await.unwrap(), Ok(()));
    within(node.shutdown()).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_those_who_have_given_up() {
    let node = start(ELECTION).await;
    let outcome = within(node.read_with(NEVER, |_| ())).await;
    assert!(matches!(outcome, Err(ReadError::NoLeader { .. })), "{outcome:?}");
    let begun = Instant::now();
    node.shutdown().await;
    assert!(begun.elapsed() < LONG / 2, "it took {:?}", begun.elapsed());
}

/// The time that it may take counts from the first call on, while somebody waits.
#[tokio::test]
async fn a_shutdown_that_is_asked_for_again_and_again_ends_in_time() {
    let builder = Node::builder(NodeId(1)).request_timeout(2 * LONG).shutdown_timeout(Duration::from_secs(1));
    let node = builder.store(alone()).start(Words::default()).await.unwrap();
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.read_with(NEVER, |_| ()).await }
    });
    within(async { while node.status().await.unwrap().raft.pending == 0 {} }).await;
    within(async { while timeout(SHORT, node.shutdown()).await.is_err() {} }).await;
    assert!(matches!(within(waiting).await.unwrap(), Err(ReadError::Stopped(_))));
}

/// Who waits for an index does not need this leader: another may bring it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_although_somebody_waits_for_an_index() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        cluster.start_node(id, |builder| builder.shutdown_timeout(4 * ELECTION)).await;
    }
    let leader = cluster.leader().await;
    let node = cluster.nodes.remove(&leader).unwrap();
    let term = within(node.status()).await.unwrap().raft.term;
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.read_with(NEVER, |_| ()).await }
    });
    within(async { while node.status().await.unwrap().raft.pending == 0 {} }).await;
    within(node.shutdown()).await;
    let others = cluster.others(leader);
    let next = cluster.leader_of(&others).await;
    assert!(
        node.leadership().borrow().term > term,
        "node {next} leads with the consent of the one that stopped"
    );
    let stopped = within(waiting).await.unwrap();
    assert!(
        matches!(&stopped, Err(ReadError::Stopped(stopped)) if stopped.why == StopReason::Shutdown),
        "{stopped:?}"
    );
    cluster.shutdown().await;
}

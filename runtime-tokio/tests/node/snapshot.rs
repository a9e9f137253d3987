//! States that are held still, and nodes that start from a snapshot.

use bytes::Bytes;
use quorate_core::{
    ChangeOp, Entry, Index, LogId, Membership, MembershipChange, NodeId, Snapshot, SnapshotWriter as _,
    Snapshots as _, StateMachine, Store as _, Term,
};
use quorate_runtime_tokio::{FreezeError, MemoryStore, Node, ReadError, StartError};

use crate::support::{Cluster, GROUP, Place, Words, alone, start_alone, within};

/// Puts a snapshot into the store.
pub(crate) fn publish(store: &MemoryStore, snapshot: &Snapshot, bytes: &[u8]) {
    let mut writer = store.snapshots().take(GROUP, snapshot).unwrap();
    writer.write(bytes).unwrap();
    writer.publish().unwrap();
}

/// A state that is held still, written out, and where it is.
async fn frozen<S: StateMachine>(node: &Node<S>) -> (Snapshot, Vec<u8>) {
    let (snapshot, frozen) = within(node.freeze()).await.unwrap();
    let mut bytes = Vec::new();
    frozen.write(&mut bytes).unwrap();
    (snapshot, bytes)
}

#[tokio::test]
async fn a_frozen_state_stays_as_it_was_and_says_where_it_is() {
    let node = start_alone(&alone()).await;
    node.propose("one").await.unwrap();
    node.propose("two").await.unwrap();
    let (snapshot, held) = node.freeze().await.unwrap();
    node.propose("three").await.unwrap();
    let mut bytes = Vec::new();
    held.write(&mut bytes).unwrap();
    assert_eq!(bytes, b"words:one\ntwo\n");
    // The leader's empty entry comes first.
    let last = LogId::new(Term(1), Index(3));
    assert_eq!(snapshot, Snapshot { last, membership: Membership::of_voters([NodeId(1)]) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_any_node_it_holds_all_that_was_acknowledged_before_with_the_membership_in_force() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.node(leader).propose("one").await.unwrap();
    let gone = cluster.others(leader)[0];
    let mut left = Membership::of_voters(cluster.ids());
    let change = MembershipChange::new(vec![ChangeOp::Remove(gone)]);
    let index = within(cluster.node(leader).change_membership(change)).await.unwrap();
    for round in 0..20 {
        let word = format!("{round}");
        cluster.node(leader).propose(word.clone()).await.unwrap();
        for id in cluster.ids().into_iter().filter(|id| *id != gone) {
            let (snapshot, bytes) = frozen(cluster.node(id)).await;
            assert!(String::from_utf8(bytes).unwrap().ends_with(&format!("{word}\n")), "on node {id}");
            assert!(snapshot.last.index > index);
            assert_eq!(snapshot.membership.voters().len(), 2, "on node {id}: {snapshot:?}");
            left = snapshot.membership;
        }
    }
    assert!(!left.contains(gone));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_machine_that_takes_no_snapshots_says_so_and_a_stopped_node_too() {
    let node = Node::builder(NodeId(1)).store(alone()).start(Never).await.unwrap();
    assert_eq!(node.freeze().await.map(|_| ()), Err(FreezeError::Unsupported));
    node.shutdown().await;
    let stopped = node.stopped().await;
    assert_eq!(node.freeze().await.map(|_| ()), Err(FreezeError::Read(ReadError::Stopped(stopped))));
}

#[tokio::test]
async fn a_node_starts_from_the_newest_snapshot_and_applies_only_the_rest() {
    let store = alone();
    let node = start_alone(&store).await;
    for word in ["one", "two"] {
        node.propose(word).await.unwrap();
    }
    let (older, bytes) = frozen(&node).await;
    publish(&store, &older, &bytes);
    node.propose("three").await.unwrap();
    let (newer, bytes) = frozen(&node).await;
    publish(&store, &newer, &bytes);
    node.propose("four").await.unwrap();
    within(node.shutdown()).await;
    drop(node);

    let node = start_alone(&store).await;
    let seen = node.read(|machine: &Words| (machine.texts(), machine.applied)).await.unwrap();
    assert_eq!(seen, (["one", "two", "three", "four"].map(str::to_owned).to_vec(), 1));
    assert_eq!(node.propose("five").await, Ok(Place(5)));
    let (snapshot, bytes) = frozen(&node).await;
    assert_eq!(bytes, b"words:one\ntwo\nthree\nfour\nfive\n");
    // Each of the two leaders has begun with an empty entry.
    assert_eq!((snapshot.last, newer.last.index), (LogId::new(Term(2), Index(7)), Index(4)));
    assert_eq!(snapshot.membership, newer.membership);
}

#[tokio::test]
async fn a_node_whose_log_ends_with_the_snapshot_knows_where_it_is() {
    let store = alone();
    let node = start_alone(&store).await;
    node.propose("one").await.unwrap();
    let (at, bytes) = frozen(&node).await;
    publish(&store, &at, &bytes);
    within(node.shutdown()).await;
    drop(node);
    let node = start_alone(&store).await;
    // Before anything is applied, as after it.
    assert_eq!(node.read_stale(Words::texts).await.unwrap(), ["one"]);
    let (snapshot, same) = frozen(&node).await;
    assert_eq!((snapshot.last, same), (LogId::new(Term(2), Index(3)), bytes));
}

#[tokio::test]
async fn a_snapshot_that_the_machine_can_not_take_is_named_and_harms_nothing() {
    for (bytes, why) in [
        (&b"numbers:1"[..], "these are no words"),
        (b"words:\xFF", "invalid utf-8"),
        (b"panic", "it panicked: no such state"),
        (b"", "these are no words"),
    ] {
        let store = alone();
        let node = start_alone(&store).await;
        node.propose("one").await.unwrap();
        let (at, _) = frozen(&node).await;
        within(node.shutdown()).await;
        drop(node);
        publish(&store, &at, bytes);
        let error = Node::builder(NodeId(1)).store(store.clone()).start(Words::default()).await.unwrap_err();
        let StartError::Restore { at: found, source } = &error else { panic!("{error:?}") };
        assert_eq!(*found, at.last);
        assert!(source.to_string().contains(why), "{source}");
        assert!(error.to_string().contains(&format!("snapshot at {}", at.last)), "{error}");
        // Nor by one that takes none.
        let error = Node::builder(NodeId(1)).store(store).start(Never).await.unwrap_err();
        assert!(error.to_string().ends_with("this state machine takes no snapshots"), "{error}");
    }
}

/// Takes no snapshots.
struct Never;

impl StateMachine for Never {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        Bytes::new()
    }
}

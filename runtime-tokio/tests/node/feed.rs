//! Feeds of what nodes apply.

use std::time::Duration;

use quorate_core::{Entry, EntryKind, GroupId, Index, Membership, NodeId};
use quorate_runtime_tokio::{
    Feed, FeedError, FeedItem, Host, MemoryStore, Node, SnapshotPolicy, StopReason, Stopped,
};

use crate::{
    failure::{Faulty, assert_stopped, storage},
    support::{Cluster, Words, alone, start_alone, within},
};

/// What a feed has told, up to some index.
#[derive(Default)]
struct Told {
    entries: Vec<Entry>,
    /// The first and the last that were missing.
    gaps: Vec<(u64, u64)>,
}

impl Told {
    /// Goes on until what comes next is after `last`. Each index is told once, in order.
    async fn up_to(&mut self, feed: &mut Feed, last: Index) {
        while feed.position() <= last {
            let next = feed.position();
            match within(feed.next()).await.unwrap() {
                FeedItem::Entries(entries) => {
                    assert_eq!(entries.first(), next);
                    let indexes = entries.iter().map(|entry| entry.id.index.0);
                    assert!(indexes.eq(next.0..=entries.last().0), "{entries:?}");
                    self.entries.extend(entries);
                }
                FeedItem::Gap { from, to, snapshot } => {
                    assert_eq!(from, next);
                    assert!(from <= to && to <= snapshot.index, "{from} to {to}, snapshot at {snapshot}");
                    self.gaps.push((from.0, to.0));
                }
            }
        }
    }

    fn words(&self) -> Vec<String> {
        let commands = self.entries.iter().filter(|entry| entry.kind == EntryKind::Command);
        commands.map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()).collect()
    }
}

/// Up to where it has applied, which is all that was acknowledged before.
async fn applied(node: &Node<Words>) -> Index {
    within(node.freeze()).await.unwrap().0.last.index
}

fn expected(words: std::ops::Range<u32>) -> Vec<String> {
    words.map(|n| format!("{n}")).collect()
}

async fn propose(node: &Node<Words>, words: std::ops::Range<u32>) {
    for word in expected(words) {
        within(node.propose(word)).await.unwrap();
    }
}

/// On the leader and on followers, from before and from the middle, from memory and from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_tells_all_that_it_applies_from_wherever_one_likes() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        // One of them keeps nothing for feeds.
        let bytes = if id == NodeId(3) { 0 } else { 1 << 20 };
        cluster.start_node(id, |builder| builder.feed_bytes(bytes)).await;
    }
    let subscribe = |from| cluster.nodes.values().map(move |node| node.subscribe(Index(from)));
    let early: Vec<_> = subscribe(0).collect();
    propose(cluster.node(NodeId(1)), 0..60).await;
    let late: Vec<_> = subscribe(21).collect();
    let loads = |node: Node<Words>| async move { within(node.status()).await.unwrap().counts.loads };
    for (feeds, from) in [(early, 1), (late, 21)] {
        for (mut feed, (id, node)) in feeds.into_iter().zip(&cluster.nodes) {
            within(node.read(|_| ())).await.unwrap();
            let (last, mut told) = (applied(node).await, Told::default());
            told.up_to(&mut feed, last).await;
            assert_eq!((told.entries[0].id.index, &told.gaps[..]), (Index(from), &[][..]), "node {id}");
            let words: Vec<_> = told.words().into_iter().filter(|word| word != "more").collect();
            assert!(expected(0..60).ends_with(&words) && words.len() >= 39, "node {id}: {words:?}");
            // And it goes on: what comes is told as soon as it is applied, from memory if that may be used.
            let before = loads(node.clone()).await;
            let waiting = tokio::spawn(async move { within(feed.next()).await });
            within(node.propose("more")).await.unwrap();
            let FeedItem::Entries(more) = waiting.await.unwrap().unwrap() else { panic!("a gap") };
            assert_eq!(more.first(), last.next(), "node {id}");
            assert_eq!(loads(node.clone()).await > before, *id == NodeId(3), "node {id}");
        }
    }
}

/// What a snapshot has taken the place of is told as a gap, and the rest follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_is_a_gap() {
    let node = Node::builder(NodeId(1))
        .store(alone())
        .snapshots(SnapshotPolicy { keep_entries: 5, ..SnapshotPolicy::manual() });
    let node = node.start(Words::default()).await.unwrap();
    propose(&node, 0..30).await;
    // It reads so slowly that it is still in the middle when the log is cut.
    let mut slow = node.subscribe(Index(1)).max_bytes(1);
    let mut told = Told::default();
    told.up_to(&mut slow, Index(3)).await;
    let snapshot = within(node.snapshot()).await.unwrap();
    let base = within(async {
        loop {
            let base = node.status().await.unwrap().raft.base.index;
            if base.0 == snapshot.index.0 - 5 {
                return base;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    propose(&node, 30..40).await;
    let last = applied(&node).await;
    told.up_to(&mut slow, last).await;
    assert_eq!((&told.gaps[..], told.entries[3].id.index), (&[(4, base.0)][..], base.next()));
    let mut told = Told::default();
    told.up_to(&mut node.subscribe(Index(1)), last).await;
    assert_eq!((&told.gaps[..], told.entries[0].id.index), (&[(1, base.0)][..], base.next()));
    assert!(expected(0..40).ends_with(&told.words()), "{:?}", told.words());
    assert_eq!(told.entries.len() as u64, last.0 - base.0);
    within(node.shutdown()).await;
}

/// A follower that is restored from its leader's snapshot has never applied what lies before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installed_snapshot_is_a_gap() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        let policy = SnapshotPolicy { keep_entries: 0, ..SnapshotPolicy::manual() };
        cluster.start_node(id, |builder| builder.snapshots(policy)).await;
    }
    let leader = cluster.leader().await;
    let left = cluster.others(leader)[0];
    propose(cluster.node(leader), 0..10).await;
    assert_eq!(within(cluster.node(left).read(Words::texts)).await.unwrap().len(), 10);
    let mut feed = cluster.node(left).subscribe(Index(1));
    let (mut told, seen) = (Told::default(), applied(cluster.node(left)).await);
    told.up_to(&mut feed, seen).await;
    cluster.network.isolate(left);
    let others = cluster.others(left);
    let leader = cluster.leader_of(&others).await;
    propose(cluster.node(leader), 10..30).await;
    for id in &others {
        assert_eq!(within(cluster.node(*id).read(Words::texts)).await.unwrap().len(), 30);
        let at = within(cluster.node(*id).snapshot()).await.unwrap();
        within(async {
            while cluster.node(*id).status().await.unwrap().raft.base.index < at.index {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
    cluster.network.heal();
    // It is told as soon as it is there, whether or not anything follows.
    assert_eq!(within(cluster.node(left).read(Words::texts)).await.unwrap().len(), 30);
    let restored = applied(cluster.node(left)).await;
    told.up_to(&mut feed, restored).await;
    assert_eq!(told.gaps.len(), 1, "{:?}", told.gaps);
    propose(cluster.node(leader), 30..35).await;
    assert_eq!(within(cluster.converged()).await.len(), 35);
    let last = applied(cluster.node(left)).await;
    told.up_to(&mut feed, last).await;
    let [(first, to)] = told.gaps[..] else { panic!("{:?}", told.gaps) };
    assert!(first == seen.0 + 1 && to < last.0, "{first} to {to}");
    let words = told.words();
    assert!(words.starts_with(&expected(0..10)) && words.ends_with(&expected(30..35)), "{words:?}");
    cluster.shutdown().await;
}

/// A feed doesn't keep its node alive, and says why that has stopped.
#[tokio::test]
async fn a_feed_ends_with_its_node() {
    for dropped in [false, true] {
        let store = alone();
        let node = start_alone(&store).await;
        let mut feed = node.subscribe(Index(1));
        propose(&node, 0..3).await;
        let last = applied(&node).await;
        Told::default().up_to(&mut feed, last).await;
        if dropped {
            drop(node);
        } else {
            within(node.shutdown()).await;
        }
        let why = if dropped { StopReason::Dropped } else { StopReason::Shutdown };
        let stopped = FeedError::Stopped(Stopped { why });
        assert_eq!(within(feed.next()).await, Err(stopped.clone()));
        assert_eq!(within(feed.next()).await, Err(stopped));
    }
}

/// Groups of a host share the thread that reads their logs.
#[tokio::test]
async fn each_group_of_a_host_has_its_own_feed() {
    let host = Host::builder(NodeId(1)).start(MemoryStore::default()).unwrap();
    let mut nodes = Vec::new();
    for group in [GroupId(1), GroupId(2)] {
        host.create(group, Membership::of_voters([NodeId(1)])).await.unwrap();
        let node = host.group(group).feed_bytes(0).start(Words::default()).await.unwrap();
        within(node.propose(format!("of {group}"))).await.unwrap();
        nodes.push(node);
    }
    for node in &nodes {
        let mut told = Told::default();
        told.up_to(&mut node.subscribe(Index(1)), applied(node).await).await;
        assert_eq!(told.words(), [format!("of {}", node.group())]);
    }
    // A question that nobody waits for any more keeps nothing alive.
    let mut feed = nodes[0].subscribe(Index(1));
    drop(nodes);
    within(host.shutdown()).await;
    assert!(matches!(within(feed.next()).await, Err(FeedError::Stopped(_))));
}

#[tokio::test]
async fn a_log_that_can_not_be_read_ends_the_feed_and_stops_the_node() {
    let builder = Node::builder(NodeId(1)).store(Faulty::unreadable(alone())).feed_bytes(0);
    let node = builder.start(Words::default()).await.unwrap();
    propose(&node, 0..3).await;
    let stopped = storage("entry 2 is damaged");
    let error = within(node.subscribe(Index(2)).next()).await;
    assert_eq!(error, Err(FeedError::Stopped(stopped.clone())));
    assert_stopped(&node, &stopped).await;
}

//! Messages between nodes that trust each other.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use quorate_core::{Body, Class, Message, NodeId};
use quorate_runtime_tokio::Transport as _;
use quorate_transport_quic::QueueLimit;

use crate::common::{Cluster, GROUP, Node, STALLING, append, eventually, heartbeat, met};

fn of_class(messages: Vec<Message>, class: Class) -> Vec<Message> {
    messages.into_iter().filter(|message| message.class() == class).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_exchange_messages_in_the_order_of_each_class() {
    const EACH: u64 = 300;
    let cluster = Cluster::of(3);
    let nodes = [cluster.start(1), cluster.start(2), cluster.start(3)];
    met(&nodes.each_ref()).await;
    let before: Vec<usize> = nodes.iter().map(|node| node.inbox.all().len()).collect();
    for n in 1..=EACH {
        for from in &nodes {
            for to in nodes.iter().filter(|to| to.id != from.id) {
                from.send(to, heartbeat(n));
                from.send(to, append(n, 100 * (n as usize % 40)));
            }
        }
    }
    for (to, before) in nodes.iter().zip(before) {
        to.inbox.has(before + 4 * EACH as usize).await;
        for from in nodes.iter().filter(|from| from.id != to.id) {
            let appends = of_class(to.inbox.from(from.id), Class::Append);
            let expected: Vec<_> = (1..=EACH).map(|n| append(n, 100 * (n as usize % 40))).collect();
            assert!(appends == expected, "appends of {} arrive at {} in order and whole", from.id, to.id);
            let beats = of_class(to.inbox.from(from.id), Class::Control);
            let expected: Vec<_> = (1..=EACH).map(heartbeat).collect();
            assert!(beats.ends_with(&expected), "heartbeats of {} arrive at {} in order", from.id, to.id);
        }
    }
    let stats = nodes[0].peer(NodeId(2));
    assert_eq!((stats.control.dropped, stats.append.dropped, stats.append.sent), (0, 0, EACH));
    assert!(stats.connected && stats.append.sent_bytes > stats.append.sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_overtake_a_huge_append() {
    const SIZE: usize = 20 << 20;
    let cluster = Cluster::of(2);
    // A small window makes the append wait for the receiver some hundred times, however fast the machine is.
    let options = |id| {
        let mut options = cluster.options(id);
        options.limits.stream_window = 64 << 10;
        options
    };
    let (a, b) = (Node::start(&options(1)), Node::start(&options(2)));
    met(&[&a, &b]).await;
    let before = b.inbox.all().len();
    a.send(&b, append(1, SIZE));
    for round in 1..=100 {
        a.send(&b, heartbeat(round));
    }
    b.inbox.has(before + 101).await;
    let all = b.inbox.from(a.id);
    let at = all.iter().position(|message| message.class() == Class::Append).unwrap();
    assert_eq!(at, all.len() - 1, "every heartbeat is there before the append that was sent first");
    let Body::Append { entries, .. } = &all[at].body else { unreachable!() };
    assert!(entries.first().unwrap().bytes() > SIZE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_pass_an_append_that_is_stuck() {
    let cluster = Cluster::of(2);
    let start = |id| {
        let mut options = cluster.options(id);
        options.limits.stream_window = 64 << 10;
        Node::start(&options)
    };
    let (a, b) = (start(1), start(2));
    met(&[&a, &b]).await;
    let before = b.inbox.all().len();
    // Nobody reads on behind the first one, so the second fills every window that it may.
    a.transport.send(STALLING, b.id, append(1, 100));
    a.send(&b, append(2, 20 << 20));
    for round in 1..=50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        a.send(&b, heartbeat(round));
        b.inbox.has(before + round as usize).await;
    }
    assert!(b.inbox.from(a.id).iter().all(|message| message.class() == Class::Control));
    let answer = a.transport.forward(GROUP, b.id, "ab".into()).await;
    assert_eq!(answer, Ok("ba".into()), "requests pass, too");
    b.inbox.open.store(true, Relaxed);
    b.inbox.has(before + 52).await;
    assert_eq!(of_class(b.inbox.from(a.id), Class::Append), [append(1, 100), append(2, 20 << 20)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unreachable_peer_does_not_take_is_dropped() {
    const COUNT: u64 = 100_000;
    let cluster = Cluster::of(2);
    let mut options = cluster.options(1);
    options.limits.control = QueueLimit { messages: 500, bytes: 1 << 20 };
    options.limits.append = QueueLimit { messages: 10_000, bytes: 1 << 20 };
    let a = Node::start(&options);
    for n in 1..=COUNT {
        a.transport.send(GROUP, NodeId(2), heartbeat(n));
        a.transport.send(GROUP, NodeId(2), append(n, 1000));
    }
    let stats = a.peer(NodeId(2));
    assert_eq!((stats.control.queued, stats.control.dropped), (500, COUNT - 500));
    assert!(stats.append.queued_bytes <= 1 << 20 && stats.append.queued > 900, "{stats:?}");
    assert_eq!(stats.append.dropped, COUNT - stats.append.queued as u64);
    assert_eq!((stats.control.sent, stats.append.sent, stats.connected), (0, 0, false));

    // Nobody wants what has been waiting since: once the peer is there, it gets what is new.
    tokio::time::sleep(cluster.options(1).limits.stale * 2).await;
    let b = cluster.start(2);
    a.exchanges_with(&b).await;
    assert!(b.inbox.all().iter().all(|(.., message)| message.class() == Class::Control));
    assert_eq!(a.peer(NodeId(2)).append.dropped, COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_nobody_is_counted() {
    let cluster = Cluster::of(1);
    let a = cluster.start(1);
    a.transport.send(GROUP, NodeId(9), heartbeat(1));
    assert_eq!(a.transport.stats().unroutable, 1);
}

#[tokio::test]
async fn one_thread_is_enough() {
    let cluster = Cluster::of(2);
    let (a, b) = (cluster.start(1), cluster.start(2));
    met(&[&a, &b]).await;
    let before = b.inbox.all().len();
    for first in 1..=50 {
        a.send(&b, append(first, 100_000));
    }
    b.inbox.has(before + 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_in_the_address_book_is_answered() {
    let cluster = Cluster::of(2);
    let mut options = cluster.options(1);
    options.peers.clear();
    let (a, b) = (Node::start(&options), cluster.start(2));
    eventually("the new node is connected", || a.transport.stats().peers.iter().any(|peer| peer.connected))
        .await;
    a.exchanges_with(&b).await;
}

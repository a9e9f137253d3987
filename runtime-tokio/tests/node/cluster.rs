//! Clusters of several nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{GroupId, Index, Message, NodeId};
use quorate_runtime_tokio::{BoxFuture, ForwardError, Inbound, Node, ProposeError, ReadError, Transport};

use crate::support::{Cluster, ELECTION, GROUP, Place, Words, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_proposals_and_reads_what_was_acknowledged() {
    let cluster = Cluster::start(3).await;
    let mut place = 0;
    for round in 0..20 {
        for writer in cluster.nodes.values() {
            let word = format!("{round} by {}", writer.id());
            place += 1;
            assert_eq!(writer.propose(word.clone()).await, Ok(Place(place)));
            for reader in cluster.nodes.values() {
                let latest = reader.read(|words| words.texts().last().cloned()).await.unwrap();
                assert_eq!(latest.as_ref(), Some(&word), "node {} reads", reader.id());
            }
        }
    }
    assert_eq!(cluster.converged().await.len(), 60);
    let leader = cluster.leader().await;
    for other in cluster.others(leader) {
        assert!(cluster.node(other).status().await.unwrap().counts.forwarded > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        cluster.start_node(id, |builder| builder.request_timeout(ELECTION * 5)).await;
    }
    let old = cluster.leader().await;
    within(propose(&cluster, old, "before")).await;
    cluster.network.isolate(old);

    let lost = cluster.node(old).propose("lost").await;
    assert!(matches!(lost, Err(ProposeError::Unknown { .. } | ProposeError::NoLeader { .. })), "{lost:?}");
    let others = cluster.others(old);
    let new = cluster.leader_of(&others).await;
    assert_ne!(new, old);
    for id in &others {
        within(propose(&cluster, *id, &format!("meanwhile on {id}"))).await;
    }
    // Whoever can't ask a quorum can't know of that, and must not answer.
    let stale = cluster.node(old).read(Words::texts).await;
    assert!(matches!(stale, Err(ReadError::NoLeader { .. })), "{stale:?}");
    assert_eq!(cluster.node(old).read_stale(Words::texts).await.unwrap(), ["before"]);

    cluster.network.heal();
    within(propose(&cluster, old, "after")).await;
    let words = cluster.converged().await;
    let [a, b] = others[..] else { panic!() };
    assert_eq!(words, ["before", &format!("meanwhile on {a}"), &format!("meanwhile on {b}"), "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_restarts_with_its_data_one_by_one_and_as_a_whole() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..50 {
        cluster.node(NodeId(n % 3 + 1)).propose(format!("{n}")).await.unwrap();
    }
    for id in cluster.ids() {
        let node = cluster.nodes.remove(&id).unwrap();
        within(node.shutdown()).await;
        let other = cluster.others(id)[0];
        within(propose(&cluster, other, &format!("without {id}"))).await;
        cluster.start_node(id, |builder| builder).await;
        within(propose(&cluster, id, &format!("with {id}"))).await;
    }
    let words = cluster.converged().await;
    assert_eq!(words.len(), 56);
    cluster.shutdown().await;
    cluster.start_all().await;
    assert_eq!(within(cluster.converged()).await, words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_happens_and_that_is_said() {
    let mut cluster = Cluster::of(3);
    let lone = NodeId(1);
    cluster.start_node(lone, |builder| builder.request_timeout(ELECTION)).await;
    let node = cluster.node(lone);
    let refused = within(node.propose("nobody hears")).await;
    assert!(
        matches!(&refused, Err(ProposeError::NoLeader { waited, .. }) if *waited == ELECTION),
        "{refused:?}"
    );
    assert!(matches!(within(node.read(Words::texts)).await, Err(ReadError::NoLeader { .. })));
    assert_eq!(node.read_stale(Words::texts).await.unwrap(), Vec::<String>::new());
    for id in cluster.others(lone) {
        cluster.start_node(id, |builder| builder).await;
    }
    cluster.leader().await;
    assert_eq!(cluster.converged().await, Vec::<String>::new());
}

/// Requests wait for a leader that isn't there yet, and find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_wait_for_the_first_leader() {
    let cluster = Cluster::start(3).await;
    let proposals = cluster.nodes.values().map(|node| {
        let node = node.clone();
        tokio::spawn(async move { node.propose("early").await })
    });
    let mut places = Vec::new();
    for proposal in proposals.collect::<Vec<_>>() {
        places.push(within(proposal).await.unwrap().unwrap().0);
    }
    places.sort_unstable();
    assert_eq!(places, [1, 2, 3]);
}

/// Delivers every request, and loses the answer.
#[derive(Debug)]
struct LosesAnswers(Arc<dyn Transport>);

impl Transport for LosesAnswers {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        self.0.start(inbound);
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        self.0.send(group, to, message);
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        let forward = self.0.forward(group, to, request);
        Box::pin(async move {
            let _answer = forward.await?;
            Err(ForwardError::Unknown { to, why: "the connection was lost".to_owned() })
        })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        self.0.shutdown()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_happened_is_never_tried_again() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        let transport = Arc::new(LosesAnswers(cluster.network.transport(id)));
        cluster.start_over(id, transport, |builder| builder).await;
    }
    let leader = cluster.leader().await;
    for id in cluster.others(leader) {
        match within(cluster.node(id).propose(format!("once from {id}"))).await {
            Err(ProposeError::Unknown { why }) => assert!(why.contains("the connection was lost"), "{why}"),
            // An election came between: then this one proposed it itself.
            Ok(_) => assert_ne!(cluster.leader().await, leader),
            other => panic!("{other:?}"),
        }
    }
    let words = cluster.converged().await;
    assert_eq!(words, cluster.others(leader).iter().map(|id| format!("once from {id}")).collect::<Vec<_>>());
}

/// Delivers no request, for there are too many; counts them.
#[derive(Debug)]
struct Busy(Arc<dyn Transport>, Arc<AtomicUsize>);

impl Transport for Busy {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        self.0.start(inbound);
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        self.0.send(group, to, message);
    }

    fn forward(&self, _: GroupId, to: NodeId, _: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        self.1.fetch_add(1, Relaxed);
        Box::pin(async move { Err(ForwardError::Busy { to, why: "much to do".to_owned() }) })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        self.0.shutdown()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_leader_is_overload_and_not_asked_again() {
    let mut cluster = Cluster::of(3);
    let asked: Arc<AtomicUsize> = Arc::default();
    for id in cluster.ids() {
        let transport = Arc::new(Busy(cluster.network.transport(id), asked.clone()));
        cluster.start_over(id, transport, |builder| builder).await;
    }
    let leader = cluster.leader().await;
    for id in cluster.others(leader) {
        let before = asked.load(Relaxed);
        match within(cluster.node(id).propose(format!("from {id}"))).await {
            Err(ProposeError::Overloaded { what }) => {
                assert!(what.contains("much to do"), "{what}");
                assert_eq!(cluster.node(id).status().await.unwrap().counts.overloaded, 1);
            }
            // An election came between: then this one proposed it itself.
            Ok(_) => assert_ne!(cluster.leader().await, leader),
            other => panic!("{other:?}"),
        }
        assert!(asked.load(Relaxed) - before <= 1, "it was tried again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_cannot_be_read_says_that_it_happened() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let other = cluster.others(leader)[0];
    let proposed = within(cluster.node(other).propose("unreadable")).await;
    assert_eq!(proposed, Err(ProposeError::Reply { why: "places begin at 1".to_owned() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_send_is_looked_at_before_it_is_believed() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let stranger = cluster.network.transport(NodeId(99));
    stranger.start(Arc::new(Deaf));
    let answer = within(stranger.forward(GROUP, leader, Bytes::from_static(&[9, 1, 2]))).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.ends_with("unknown version 9 of forwarded requests; this node knows 1"), "{text}");
    let wrong_group = within(stranger.forward(GroupId(5), leader, Bytes::new())).await;
    assert!(matches!(wrong_group, Err(ForwardError::NotDelivered { .. })), "{wrong_group:?}");
    stranger.send(GroupId(5), leader, message(7));
    stranger.send(GROUP, leader, message(0));
    // Of a term that no node is in, from nobody: refused, and nothing comes of it.
    let node = cluster.node(leader);
    until_status(node, |counts| counts.messages_refused >= 1).await;
    within(propose(&cluster, leader, "unharmed")).await;
}

/// Takes nothing in.
struct Deaf;

impl Inbound for Deaf {
    fn receive(&self, _: GroupId, _: NodeId, _: Message) {}

    fn forwarded(&self, _: GroupId, to: NodeId, _: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(async move { Err(ForwardError::NotDelivered { to, why: "deaf".to_owned() }) })
    }
}

fn message(term: u64) -> Message {
    let commit = quorate_core::Index(3);
    Message { term: quorate_core::Term(term), body: quorate_core::Body::Commit { commit } }
}

async fn until_status(node: &Node<Words>, enough: impl Fn(quorate_runtime_tokio::Counts) -> bool) {
    within(async {
        while !enough(node.status().await.unwrap().counts) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_can_be_watched() {
    let mut cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let watcher = cluster.others(old)[0];
    let mut leadership = cluster.node(watcher).leadership();
    let before = *leadership.borrow_and_update();
    assert_eq!(before.leader, Some(old));
    within(cluster.nodes.remove(&old).unwrap().shutdown()).await;
    let after = *within(leadership.wait_for(|now| now.leader.is_some_and(|new| new != old))).await.unwrap();
    assert!(after.term > before.term);
    until(|| cluster.nodes.values().any(|node| node.id() == after.leader.unwrap()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_should_come_to_can_be_waited_for() {
    let mut cluster = Cluster::start(3).await;
    let leader = within(cluster.node(NodeId(1)).until_led()).await.unwrap();
    let other = cluster.others(leader)[0];
    let waiting = {
        let node = cluster.node(other).clone();
        tokio::spawn(async move { node.until_applied(Index(3)).await })
    };
    for word in ["one", "two"] {
        propose(&cluster, other, word).await;
    }
    within(waiting).await.unwrap().unwrap();
    let there = *cluster.node(other).progress().borrow();
    assert!(there.applied >= Index(3) && there.commit >= there.applied && there.last >= there.commit);
    within(cluster.node(leader).transfer_leadership(Some(other))).await.unwrap();
    within(cluster.node(leader).until_led_by(other)).await.unwrap();
    // One that has stopped comes to nothing any more; what it had come to stays true.
    let node = cluster.nodes.remove(&leader).unwrap();
    within(node.shutdown()).await;
    let stopped = within(node.stopped()).await;
    assert_eq!(within(node.until_applied(Index(u64::MAX))).await, Err(stopped));
    assert_eq!(within(node.until_applied(Index(3))).await, Ok(()));
}

async fn propose(cluster: &Cluster, id: NodeId, word: &str) -> Place {
    cluster.node(id).propose(word.to_owned()).await.unwrap()
}

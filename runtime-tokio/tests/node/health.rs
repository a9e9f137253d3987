//! Leaders whose disk is stuck, and groups that sleep.

use std::time::Duration;

use quorate_core::{Membership, NodeId, StateMachine};
use quorate_runtime_tokio::{MemoryNetwork, MemoryStore, Node};

use crate::support::{Cluster, ELECTION, LONG, Words, start_alone, until, within};

/// Longer than any timeout of these tests, and short enough to wait for its end.
const STUCK: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_makes_no_progress_hands_over() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    within(cluster.node(leader).propose("before")).await.unwrap();
    cluster.stores[&leader].set_commit_time(STUCK);
    let other = cluster.others(leader)[0];
    // What it sends out is committed by the others, without its disk.
    within(cluster.node(other).propose("meanwhile")).await.unwrap();
    let next =
        within(cluster.node(other).until(|now| now.leadership.leader.is_some_and(|now| now != leader)));
    let next = next.await.unwrap().leadership.leader.unwrap();
    within(cluster.node(next).propose("after")).await.unwrap();
    assert!(cluster.node(leader).status().await.unwrap().counts.disk_stalls > 0);
    cluster.stores[&leader].set_commit_time(Duration::ZERO);
    assert_eq!(within(cluster.converged()).await, ["before", "meanwhile", "after"]);
}

/// The one that could take over doesn't hear of it: leading on would help nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_hand_over_steps_down() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    within(cluster.node(leader).propose("before")).await.unwrap();
    let others = cluster.others(leader);
    for other in &others {
        // They answer and don't write: nobody has what the leader has.
        cluster.stores[other].set_commit_time(STUCK);
    }
    cluster.stores[&leader].set_commit_time(STUCK);
    let node = cluster.node(leader).clone();
    let _lost_or_not = tokio::spawn(async move { node.propose("stuck").await });
    let stepped_down = cluster.node(leader).until(|now| now.leadership.leader != Some(leader));
    within(stepped_down).await.unwrap();
    for store in cluster.stores.values() {
        store.set_commit_time(Duration::ZERO);
    }
    let next = cluster.leader().await;
    within(cluster.node(next).propose("after")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_alone_leads_on_whatever_its_disk_does() {
    let store = crate::support::alone();
    let node = start_alone(&store).await;
    within(node.propose("before")).await.unwrap();
    store.set_commit_time(Duration::from_millis(1500));
    within(node.propose("slow")).await.unwrap();
    assert_eq!(node.leadership().borrow().leader, Some(NodeId(1)));
    assert_eq!(node.status().await.unwrap().counts.disk_stalls, 0);
}

/// Three nodes that may sleep.
async fn sleepers() -> (MemoryNetwork, Vec<Node<Words>>) {
    let (network, ids) = (MemoryNetwork::new(), [1, 2, 3].map(NodeId));
    let mut nodes = Vec::new();
    for id in ids {
        let store = MemoryStore::new(Membership::of_voters(ids));
        let builder = Node::builder(id).store(store).transport(network.transport(id));
        let builder = builder.election_timeout(ELECTION).quiesce_after(ELECTION).request_timeout(LONG / 2);
        nodes.push(builder.start(Words::default()).await.unwrap());
    }
    (network, nodes)
}

pub(crate) async fn all_asleep<S: StateMachine>(nodes: &[Node<S>]) {
    for node in nodes {
        within(async {
            while !node.status().await.unwrap().raft.asleep {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_sleeps_and_wakes_for_work() {
    let (_network, nodes) = sleepers().await;
    within(nodes[0].propose("work")).await.unwrap();
    all_asleep(&nodes).await;
    let messages = |at: usize| {
        let node = nodes[at].clone();
        async move { node.status().await.unwrap().counts.messages }
    };
    let before = messages(0).await + messages(1).await + messages(2).await;
    tokio::time::sleep(3 * ELECTION).await;
    assert_eq!(messages(0).await + messages(1).await + messages(2).await, before, "nobody says anything");
    let term = nodes[0].leadership().borrow().term;
    for node in &nodes {
        within(node.propose(format!("by {}", node.id()))).await.unwrap();
        all_asleep(&nodes).await;
        assert_eq!(within(node.read(|words| words.words.len())).await.unwrap(), node.id().0 as usize + 1);
        all_asleep(&nodes).await;
    }
    assert_eq!(nodes[0].leadership().borrow().term, term, "the leader stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_gone_is_replaced_though_all_sleep() {
    let (_network, mut nodes) = sleepers().await;
    within(nodes[0].propose("work")).await.unwrap();
    all_asleep(&nodes).await;
    let leader = nodes[0].leadership().borrow().leader.unwrap();
    let gone = nodes.iter().position(|node| node.id() == leader).unwrap();
    // Without handing over: its handle is dropped.
    drop(nodes.remove(gone));
    until(|| {
        let led = |node: &Node<Words>| node.leadership().borrow().leader.filter(|now| *now != leader);
        nodes.iter().all(|node| led(node).is_some()).then_some(())
    })
    .await;
    within(nodes[0].propose("on")).await.unwrap();
}

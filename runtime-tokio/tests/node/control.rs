//! Who leads and who is a member, changed on request; and what a leader does before it stops.

use std::time::Duration;

use quorate_core::{ChangeError, ChangeOp, Index, Membership, MembershipChange, NodeId, RoleKind};
use quorate_runtime_tokio::{
    Builder, Consistency, ControlError, Leadership, MemoryStore, Node, ProposeError, ReadError, StopReason,
};

use crate::support::{Cluster, GROUP, LONG, Words, alone, start_alone, until, within};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);
const FOUR: NodeId = NodeId(4);

/// Nobody campaigns by itself for an hour: whoever leads was told to.
fn patient(builder: Builder<Words>) -> Builder<Words> {
    builder.shutdown_timeout(LONG).config(|config| {
        config.election_timeout = Duration::from_secs(3600);
        config.heartbeat_interval = Duration::from_millis(20);
    })
}

/// Three such nodes, of which the first leads.
async fn led_by_one() -> Cluster {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        cluster.start_node(id, patient).await;
    }
    campaigns(&cluster, ONE).await;
    cluster
}

async fn campaigns(cluster: &Cluster, id: NodeId) {
    within(cluster.node(id).campaign()).await.unwrap();
    assert_eq!(cluster.leader().await, id);
}

fn only(op: ChangeOp) -> MembershipChange {
    MembershipChange::new(vec![op])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_sent() {
    let cluster = led_by_one().await;
    let transfer = |from, to| within(cluster.node(from).transfer_leadership(to));
    assert_eq!(transfer(ONE, Some(THREE)).await, Ok(THREE));
    assert_eq!(cluster.leader().await, THREE);
    assert_eq!(transfer(ONE, None).await, Err(ControlError::NotLeader { leader: Some(THREE) }));
    assert_eq!(transfer(THREE, Some(FOUR)).await, Err(ControlError::NoSuchVoter));
    assert_eq!(transfer(THREE, Some(THREE)).await, Err(ControlError::NoSuchVoter));
    let next = transfer(THREE, None).await.unwrap();
    assert_eq!(cluster.leader().await, next);
    for id in cluster.ids() {
        within(cluster.node(id).propose(format!("by {id}"))).await.unwrap();
    }
    assert_eq!(cluster.converged().await.len(), 3);
    // To campaign against a leader that is heard comes to nothing.
    let other = cluster.others(next)[0];
    within(cluster.node(other).campaign()).await.unwrap();
    within(cluster.node(other).propose("still here")).await.unwrap();
    assert_eq!(cluster.leader().await, next);

    let lone = start_alone(&alone()).await;
    within(lone.propose("alone")).await.unwrap();
    assert_eq!(within(lone.transfer_leadership(None)).await, Err(ControlError::NoSuchVoter));
    within(lone.shutdown()).await;
    let stopped = within(lone.campaign()).await;
    assert!(
        matches!(&stopped, Err(ControlError::Stopped(stopped)) if stopped.why == StopReason::Shutdown),
        "{stopped:?}"
    );
}

/// A proposal that meets a leader that is handing over waits for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_go_on_while_leadership_goes_round() {
    let cluster = led_by_one().await;
    let proposers = cluster.nodes.values().cloned().map(|node| {
        tokio::spawn(async move {
            let mut sent = Vec::new();
            for n in 0..200 {
                let word = format!("{n} by {}", node.id());
                let outcome = node.propose(word.clone()).await;
                // It may have been appended by a leader that did not hear in time that it was committed.
                let known = !matches!(outcome, Err(ProposeError::Unknown { .. }));
                assert!(outcome.is_ok() || !known, "{outcome:?}");
                sent.push((word, known));
            }
            sent
        })
    });
    let proposers: Vec<_> = proposers.collect();
    let mut leader = ONE;
    for to in [TWO, THREE, ONE].into_iter().cycle().take(30) {
        match within(cluster.node(leader).transfer_leadership(Some(to))).await {
            Ok(now) => leader = now,
            error => panic!("{error:?}"),
        }
    }
    let mut sent = Vec::new();
    for proposer in proposers {
        sent.extend(within(proposer).await.unwrap());
    }
    let words = cluster.converged().await;
    for (word, known) in &sent {
        let count = words.iter().filter(|there| *there == word).count();
        assert!(count == 1 || count == 0 && !known, "{word}: {count} times");
    }
    assert!(sent.iter().filter(|(_, known)| *known).count() > 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_shut_down_hands_over_first() {
    let mut cluster = led_by_one().await;
    within(cluster.node(ONE).propose("first")).await.unwrap();
    within(cluster.nodes.remove(&ONE).unwrap().shutdown()).await;
    // The election timeout is an hour away.
    let next = cluster.leader_of(&[TWO, THREE]).await;
    within(cluster.node(next).propose("second")).await.unwrap();
    assert_eq!(cluster.converged().await, ["first", "second"]);
}

/// Nobody who is gone is handed the leadership, however much of the log it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_gone_is_not_handed_over_to() {
    for gone in [TWO, THREE] {
        let mut cluster = led_by_one().await;
        within(cluster.node(ONE).propose("all have it")).await.unwrap();
        cluster.converged().await;
        within(cluster.nodes.remove(&gone).unwrap().shutdown()).await;
        within(cluster.nodes.remove(&ONE).unwrap().shutdown()).await;
        let (id, left) = cluster.nodes.iter().next().unwrap();
        let mut leadership = left.leadership();
        let leads = |now: &Leadership| (now.leader, now.role) == (Some(*id), RoleKind::Leader);
        within(leadership.wait_for(leads)).await.unwrap();
    }
}

/// With nobody left to take it, it just stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_one_stops_without_handing_over() {
    let mut cluster = led_by_one().await;
    for id in [THREE, TWO, ONE] {
        within(cluster.nodes.remove(&id).unwrap().shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_and_leave() {
    let mut cluster = led_by_one().await;
    within(cluster.node(ONE).propose("before")).await.unwrap();
    let change = |node: &Node<Words>, op| {
        let node = node.clone();
        within(async move { node.change_membership(only(op)).await })
    };
    let refused = change(cluster.node(TWO), ChangeOp::AddVoter(FOUR)).await;
    assert_eq!(refused, Err(ControlError::NotLeader { leader: Some(ONE) }));
    let refused = change(cluster.node(ONE), ChangeOp::AddVoter(TWO)).await;
    assert_eq!(refused, Err(ControlError::Membership(ChangeError::AlreadyMember(TWO))));

    // A new node knows the cluster as it is, without itself.
    cluster.stores.insert(FOUR, MemoryStore::new(Membership::of_voters([ONE, TWO, THREE])));
    cluster.start_node(FOUR, patient).await;
    let joined = change(cluster.node(ONE), ChangeOp::Join(FOUR)).await.unwrap();
    let membership = until_membership(&cluster, FOUR, |membership| membership.is_voter(FOUR)).await;
    assert_eq!(membership.voters(), [ONE, TWO, THREE, FOUR]);
    assert!(joined > Index(0));
    assert_eq!(cluster.converged().await, ["before"]);

    // Who leads may leave, and has another lead at once: nobody else campaigns for an hour.
    change(cluster.node(ONE), ChangeOp::Remove(ONE)).await.unwrap();
    let left = cluster.nodes.remove(&ONE).unwrap();
    let next = cluster.leader_of(&[TWO, THREE, FOUR]).await;
    within(left.shutdown()).await;
    within(cluster.node(next).propose("after")).await.unwrap();
    assert_eq!(cluster.converged().await, ["before", "after"]);
    let again = change(cluster.node(next), ChangeOp::AddLearner(ONE)).await;
    assert!(matches!(again, Err(ControlError::Membership(ChangeError::IdUsed { id: ONE, .. }))), "{again:?}");
}

async fn until_membership(cluster: &Cluster, id: NodeId, holds: impl Fn(&Membership) -> bool) -> Membership {
    within(async {
        loop {
            let membership = cluster.node(id).status().await.unwrap().raft.membership;
            if holds(&membership) {
                return membership;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// With a lease of an hour, a leader serves reads without hearing from anybody; and says what it can't.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_keep_what_they_promise() {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        let builder = |builder| patient(builder).lease_reads(true).request_timeout(Duration::from_secs(2));
        cluster.start_node(id, builder).await;
    }
    campaigns(&cluster, ONE).await;
    let node = cluster.node(ONE);
    within(node.propose("word")).await.unwrap();
    let written = within(node.status()).await.unwrap().raft.commit;
    let read = |id: NodeId, consistency| cluster.node(id).read_with(consistency, Words::texts);
    for id in cluster.ids() {
        for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::AtLeast(written)] {
            assert_eq!(within(read(id, consistency)).await.unwrap(), ["word"], "node {id}, {consistency:?}");
        }
    }
    within(async { while node.status().await.unwrap().raft.lease_until.is_none() {} }).await;
    cluster.network.isolate(ONE);
    assert_eq!(within(read(ONE, Consistency::Lease)).await.unwrap(), ["word"]);
    assert_eq!(within(read(ONE, Consistency::AtLeast(written))).await.unwrap(), ["word"]);
    assert_eq!(within(read(ONE, Consistency::Stale)).await.unwrap(), ["word"]);
    for too_much in [Consistency::Linearizable, Consistency::AtLeast(written.next())] {
        let nobody = within(read(ONE, too_much)).await;
        assert!(matches!(nobody, Err(ReadError::NoLeader { .. })), "{too_much:?}: {nobody:?}");
    }
    // Who may have promised a lease doesn't campaign against it.
    assert_eq!(within(cluster.node(TWO).campaign()).await, Err(ControlError::Leased));
    cluster.network.heal();
    within(cluster.node(TWO).propose("another")).await.unwrap();
    assert_eq!(within(read(THREE, Consistency::AtLeast(written.next()))).await.unwrap(), ["word", "another"]);
    assert_eq!(cluster.stores[&ONE].log(GROUP).len(), 3);
}

/// The core hears of a snapshot when its bytes are there, and here they never are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_its_bytes_is_refused() {
    use quorate_core::{Body, LogId, Message, Snapshot, Term};
    let cluster = led_by_one().await;
    let last = LogId::new(Term(1), Index(100));
    let snapshot = Snapshot { last, membership: Membership::of_voters([ONE, TWO, THREE]) };
    let message = Message { term: Term(1), body: Body::InstallSnapshot { snapshot: Box::new(snapshot) } };
    let leader = cluster.network.transport(ONE);
    leader.send(GROUP, TWO, message);
    let node = cluster.node(TWO);
    within(async { while node.status().await.unwrap().counts.messages_refused == 0 {} }).await;
    assert_eq!(node.status().await.unwrap().raft.base, LogId::ZERO);
    within(node.propose("unharmed")).await.unwrap();
    until(|| (cluster.stores[&TWO].log(GROUP).len() >= 2).then_some(())).await;
}

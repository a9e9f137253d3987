//! Many groups at one host.

use std::{sync::Arc, time::Duration};

use quorate_core::{GroupId, Membership, NodeId};
use quorate_runtime_tokio::{
    GroupError, Host, MemoryNetwork, MemoryStore, Node, ProposeError, StartError, StopReason,
};

use crate::support::{ELECTION, LONG, Words, within};

pub(crate) const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Three hosts, each with a store.
pub(crate) struct Hosts {
    network: MemoryNetwork,
    pub(crate) stores: Vec<MemoryStore>,
    pub(crate) hosts: Vec<Host>,
}

impl Hosts {
    pub(crate) fn start() -> Self {
        let stores: Vec<_> = IDS.iter().map(|_| MemoryStore::default()).collect();
        let mut hosts = Self { network: MemoryNetwork::new(), stores, hosts: Vec::new() };
        hosts.hosts = IDS.iter().zip(&hosts.stores).map(|(id, store)| hosts.host(*id, store)).collect();
        hosts
    }

    fn host(&self, id: NodeId, store: &MemoryStore) -> Host {
        Host::builder(id).transport(self.network.transport(id)).start(store.clone()).unwrap()
    }

    /// Creates a group everywhere, and opens it.
    async fn create(&self, group: GroupId) -> Vec<Node<Words>> {
        for host in &self.hosts {
            within(host.create(group, Membership::of_voters(IDS))).await.unwrap();
        }
        self.open(group).await
    }

    async fn open(&self, group: GroupId) -> Vec<Node<Words>> {
        let mut nodes = Vec::new();
        for host in &self.hosts {
            nodes.push(open(host, group).await.unwrap());
        }
        nodes
    }
}

async fn open(host: &Host, group: GroupId) -> Result<Node<Words>, StartError> {
    let builder = host.group(group).election_timeout(ELECTION).request_timeout(LONG / 2);
    within(builder.start(Words::default())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_created_and_stopped_while_others_run() {
    let hosts = Hosts::start();
    let first = hosts.create(GroupId(1)).await;
    within(first[0].propose("in the first")).await.unwrap();
    let second = hosts.create(GroupId(2)).await;
    for node in &second {
        within(node.propose(format!("by {}", node.id()))).await.unwrap();
    }
    assert_eq!(hosts.hosts[0].open_groups(), [GroupId(1), GroupId(2)]);
    assert_eq!(within(hosts.hosts[0].groups()).await.unwrap(), [GroupId(1), GroupId(2)]);
    for node in &second {
        assert_eq!(within(node.read(Words::texts)).await.unwrap(), ["by 1", "by 2", "by 3"]);
    }
    // One group's end is not the other's.
    for node in &first {
        within(node.shutdown()).await;
        assert_eq!(
            within(node.propose("late")).await,
            Err(ProposeError::Stopped(within(node.stopped()).await))
        );
    }
    within(second[0].propose("still here")).await.unwrap();
    assert_eq!(hosts.hosts[0].open_groups(), [GroupId(2)]);
    // It can be opened again, in the same process, and has kept what it had.
    let first = hosts.open(GroupId(1)).await;
    assert_eq!(within(first[1].read(Words::texts)).await.unwrap(), ["in the first"]);
    for host in &hosts.hosts {
        within(host.shutdown()).await;
    }
    assert_eq!(within(first[0].stopped()).await.why, StopReason::Shutdown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_opened_once_and_removed_only_when_it_is_not_open() {
    let store = MemoryStore::default();
    let host = Host::builder(NodeId(1)).start(store).unwrap();
    let (group, alone) = (GroupId(7), Membership::of_voters([NodeId(1)]));
    assert!(matches!(open(&host, group).await, Err(StartError::Store(_))), "it isn't there yet");
    within(host.create(group, alone.clone())).await.unwrap();
    let node = open(&host, group).await.unwrap();
    assert!(matches!(open(&host, group).await, Err(StartError::AlreadyOpen(GroupId(7)))));
    assert!(matches!(within(host.remove(group)).await, Err(GroupError::Open(GroupId(7)))));
    within(node.propose("unharmed")).await.unwrap();
    within(node.shutdown()).await;
    within(host.remove(group)).await.unwrap();
    assert_eq!(within(host.groups()).await.unwrap(), []);
    assert!(matches!(open(&host, group).await, Err(StartError::Store(_))), "it is gone");
    within(host.shutdown()).await;
    assert!(matches!(within(host.groups()).await, Err(GroupError::Closed)));
    assert!(matches!(open(&host, group).await, Err(StartError::HostClosed)));
}

/// While a commit is under way the writes of all groups gather behind it, and go into the next one together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_groups_share_a_commit() {
    let store = MemoryStore::default();
    let host = Host::builder(NodeId(1)).start(store.clone()).unwrap();
    let mut nodes = Vec::new();
    for group in (1..=20).map(GroupId) {
        within(host.create(group, Membership::of_voters([NodeId(1)]))).await.unwrap();
        nodes.push(open(&host, group).await.unwrap());
    }
    for node in &nodes {
        within(node.propose("leads")).await.unwrap();
    }
    store.set_commit_time(Duration::from_millis(50));
    let before = store.commits();
    let proposals: Vec<_> = nodes
        .iter()
        .map(|node| {
            let node = node.clone();
            tokio::spawn(async move { node.propose("together").await })
        })
        .collect();
    for proposal in proposals {
        within(proposal).await.unwrap().unwrap();
    }
    let commits = store.commits() - before;
    assert!(commits <= 10, "{commits} commits for 20 groups");
    within(host.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_stops_all_groups() {
    let store = MemoryStore::default();
    let host = Host::builder(NodeId(1)).start(store.clone()).unwrap();
    let mut nodes = Vec::new();
    for group in [GroupId(1), GroupId(2)] {
        within(host.create(group, Membership::of_voters([NodeId(1)]))).await.unwrap();
        nodes.push(open(&host, group).await.unwrap());
    }
    for node in &nodes {
        within(node.propose("kept")).await.unwrap();
    }
    store.fail("no space left");
    let unknown = within(nodes[0].propose("lost")).await;
    assert!(matches!(unknown, Err(ProposeError::Unknown { .. })), "{unknown:?}");
    for node in &nodes {
        let failed = StopReason::Storage(Arc::from("no space left"));
        assert_eq!(within(node.stopped()).await.why, failed, "group {}", node.group());
        within(node.shutdown()).await;
    }
    assert!(matches!(open(&host, GroupId(1)).await, Err(StartError::HostClosed)));
    within(host.shutdown()).await;
}

/// It did not panic, nor was it asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_to_be_opened_when_the_store_failed_finds_its_host_closed() {
    let store = MemoryStore::default();
    let host = Host::builder(NodeId(1)).start(store.clone()).unwrap();
    for group in [GroupId(1), GroupId(2)] {
        within(host.create(group, Membership::of_voters([NodeId(1)]))).await.unwrap();
    }
    let first = open(&host, GroupId(1)).await.unwrap();
    within(first.propose("kept")).await.unwrap();
    store.set_commit_time(Duration::from_millis(300));
    store.fail("no space left");
    let proposal = tokio::spawn(async move { first.propose("lost").await });
    // It waits behind that commit.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = open(&host, GroupId(2)).await.map(|_| ());
    assert!(matches!(second, Err(StartError::HostClosed)), "{second:?}");
    assert!(matches!(within(proposal).await.unwrap(), Err(ProposeError::Unknown { .. })));
    within(host.shutdown()).await;
}

/// Whatever of the old life is still under way belongs to it, and not to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_node_makes_room_for_another() {
    let store = MemoryStore::default();
    let host = Host::builder(NodeId(1)).start(store.clone()).unwrap();
    within(host.create(GroupId(1), Membership::of_voters([NodeId(1)]))).await.unwrap();
    for round in 0..10 {
        let node = open(&host, GroupId(1)).await.unwrap();
        within(node.propose(format!("{round}"))).await.unwrap();
        let late = node.clone();
        let proposal = tokio::spawn(async move { late.propose("late").await });
        let stopped = node.leadership();
        drop(node);
        drop(within(proposal).await);
        drop(stopped);
        within(async {
            while !host.open_groups().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let node = open(&host, GroupId(1)).await.unwrap();
    let words = within(node.read(Words::texts)).await.unwrap();
    let rounds: Vec<_> = words.iter().filter(|word| *word != "late").collect();
    assert_eq!(rounds, (0..10).map(|round| round.to_string()).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    within(host.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_host_finds_its_groups() {
    let mut hosts = Hosts::start();
    let mut running = Vec::new();
    for group in [GroupId(1), GroupId(2)] {
        let nodes = hosts.create(group).await;
        within(nodes[0].propose(format!("of {group}"))).await.unwrap();
        running.extend(nodes);
    }
    within(hosts.hosts[2].shutdown()).await;
    hosts.hosts[2] = hosts.host(NodeId(3), &hosts.stores[2]);
    let groups = within(hosts.hosts[2].groups()).await.unwrap();
    assert_eq!(groups, [GroupId(1), GroupId(2)]);
    for group in groups {
        let node = open(&hosts.hosts[2], group).await.unwrap();
        assert_eq!(within(node.read(Words::texts)).await.unwrap(), [format!("of {group}")]);
    }
}

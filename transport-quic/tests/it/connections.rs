//! Connections come and go: one per pair, again after a restart, and none after the end.

use std::{net::UdpSocket, time::Duration};

use quorate_core::NodeId;
use quorate_runtime_tokio::Transport as _;
use quorate_transport_quic::Options;
use tokio::runtime::Runtime;

use crate::common::{
    Cluster, Node,
    Touch::{Lost, Made},
    eventually, logged, met, within,
};

/// A node in a runtime of its own, so that it can be killed: its tasks end at once, nobody is told.
struct Killable {
    runtime: Runtime,
    node: Node,
}

impl Killable {
    fn start(options: &Options) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let node = {
            let _within = runtime.enter();
            Node::start(options)
        };
        Self { runtime, node }
    }

    fn kill(self) {
        kill(self.runtime);
        drop(self.node);
    }
}

/// Ends everything that runs in it, before anything of it can be let go of in an orderly way.
fn kill(runtime: Runtime) {
    let ending = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)));
    ending.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_is_connected_again_when_it_is_back() {
    let cluster = Cluster::of(2);
    for (stays, restarts) in [(1, 2), (2, 1)] {
        let stays = cluster.start(stays);
        for _ in 0..3 {
            let other = Killable::start(&cluster.options(restarts));
            stays.exchanges_with(&other.node).await;
            other.kill();
        }
        assert!(stays.peer(NodeId(restarts)).connections >= 3);
        within("it stops", stays.transport.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_tells_that_the_old_connection_is_gone() {
    let cluster = Cluster::of(2);
    // The one that is restarted knows no address: it cannot dial, so only its reset can help before the timeout.
    let mut deaf = deaf(&cluster, 2);
    deaf.limits.idle_timeout = Duration::from_secs(3600);
    let mut options = cluster.options(1);
    options.limits.idle_timeout = Duration::from_secs(3600);
    options.limits.keep_alive = Duration::from_millis(100);
    // That the port was closed in between would be noticed first.
    options.limits.probe = false;
    let a = Node::start(&options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let killed = {
        let _within = runtime.enter();
        Node::start(&deaf)
    };
    let address = killed.address();
    a.exchanges_with(&killed).await;
    kill(runtime);
    drop(killed);
    let b = Node::start(&deaf);
    assert_eq!(b.address(), address);
    a.exchanges_with(&b).await;
    let from = format!("from={address}");
    eventually("the reset is logged", || !logged(&["the peer was restarted", &from]).is_empty()).await;
}

/// Knows no address: it waits to be dialled, so who has which connection when is certain.
fn deaf(cluster: &Cluster, id: u64) -> Options {
    let mut options = cluster.options(id);
    options.peers.clear();
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_is_told_when_touch_is_made_and_when_it_is_lost() {
    let cluster = Cluster::of(2);
    let a = Node::start(&deaf(&cluster, 1));
    for (round, mut told) in [(1, vec![]), (2, vec![Made(NodeId(2)), Lost(NodeId(2))])] {
        let b = cluster.start(2);
        a.exchanges_with(&b).await;
        told.push(Made(b.id));
        assert_eq!(a.inbox.touch(), told, "in round {round}");
        assert_eq!(b.inbox.touch(), [Made(a.id)]);
        within("it stops", b.transport.shutdown()).await;
        assert_eq!(b.inbox.touch(), [Made(a.id), Lost(a.id)]);
        eventually("the node is told", || a.inbox.touch().len() > told.len()).await;
        told.push(Lost(b.id));
        assert_eq!(a.inbox.touch(), told, "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_connection_was_replaced_is_told_as_lost_and_made_again() {
    let cluster = Cluster::of(2);
    // The old connection is still thought to be alive when the new one comes: nothing is said on it that a peer which was
    // restarted would answer with a reset, nor is it waited for.
    let patient = |mut options: Options| {
        options.limits.idle_timeout = Duration::from_secs(3600);
        options.limits.keep_alive = Duration::from_secs(1000);
        options.limits.probe = false;
        options
    };
    let a = Node::start(&patient(deaf(&cluster, 1)));
    let dials = patient(cluster.options(2));
    let b = Killable::start(&dials);
    a.exchanges_with(&b.node).await;
    // What is left to be acknowledged is.
    tokio::time::sleep(Duration::from_millis(300)).await;
    b.kill();
    assert_eq!(a.inbox.touch(), [Made(NodeId(2))]);
    let b = Node::start(&dials);
    eventually("it has dialled again", || a.inbox.touch().len() > 1 && a.peer(b.id).connections == 2).await;
    a.exchanges_with(&b).await;
    assert_eq!(a.inbox.touch(), [Made(b.id), Lost(b.id), Made(b.id)]);
    assert!(logged(&["the peer was restarted", &format!("from={}", b.address())]).is_empty(), "no reset");
    assert_eq!(b.inbox.touch(), [Made(a.id)]);
    // By then the old one has ended, too, and nothing more was told of it.
    within("it stops", a.transport.shutdown()).await;
    assert_eq!(a.inbox.touch(), [Made(b.id), Lost(b.id), Made(b.id), Lost(b.id)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_dial_at_once_end_with_one_connection() {
    for _ in 0..5 {
        let cluster = Cluster::of(2);
        let (a, b) = (cluster.start(1), cluster.start(2));
        met(&[&a, &b]).await;
        let connections = (a.peer(b.id).connections, b.peer(a.id).connections);
        a.exchanges_with(&b).await;
        assert_eq!((a.transport.stats().open_connections, b.transport.stats().open_connections), (1, 1));
        assert_eq!(
            (a.peer(b.id).connections, b.peer(a.id).connections),
            connections,
            "and it stays the same"
        );
        assert_eq!(a.peer(b.id).violations + b.peer(a.id).violations, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_says_so_and_its_port_is_free_again() {
    let cluster = Cluster::of(2);
    let (a, b) = (cluster.start(1), cluster.start(2));
    met(&[&a, &b]).await;
    // Of two connections that were dialled at once, the one that goes may have been the first in use.
    let lost = a.inbox.lost().len();
    let address = b.address();
    within("it stops", b.transport.shutdown()).await;
    let from = format!("from={address}");
    eventually("the farewell is logged", || !logged(&["the peer stops", &from]).is_empty()).await;
    eventually("it is disconnected", || !a.peer(b.id).connected).await;
    eventually("the node is told", || a.inbox.lost().len() > lost).await;
    eventually("the port is free", || UdpSocket::bind(address).is_ok()).await;
    let requests = a.transport.forward(crate::common::GROUP, b.id, "x".into()).await;
    assert!(requests.is_err());
    // Twice is as good as once.
    within("it stops", b.transport.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_given_up() {
    let cluster = Cluster::of(2);
    let mut options = cluster.options(1);
    options.limits.idle_timeout = Duration::from_millis(800);
    options.limits.keep_alive = Duration::from_millis(200);
    options.limits.probe = false;
    let a = Node::start(&options);
    let b = Killable::start(&cluster.options(2));
    a.exchanges_with(&b.node).await;
    b.kill();
    let lost = a.inbox.lost().len();
    eventually("the silent peer is given up", || !a.peer(NodeId(2)).connected).await;
    eventually("the node is told", || a.inbox.lost().len() > lost).await;
    assert_eq!(a.inbox.lost().last(), Some(&NodeId(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_has_ended_is_noticed_by_its_closed_port() {
    let cluster = Cluster::of(2);
    let mut options = cluster.options(1);
    // Nothing else can tell.
    options.limits.idle_timeout = Duration::from_secs(3600);
    options.limits.keep_alive = Duration::from_millis(200);
    let a = Node::start(&options);
    let b = Killable::start(&cluster.options(2));
    met(&[&a, &b.node]).await;
    assert_eq!(a.peer(NodeId(2)).found_ended, 0, "whoever lives is not taken for dead");
    let lost = a.inbox.lost().len();
    b.kill();
    eventually("the node is told", || a.inbox.lost().len() > lost).await;
    assert!(!a.peer(NodeId(2)).connected);
    assert_eq!(a.peer(NodeId(2)).found_ended, 1);
    let b = cluster.start(2);
    a.exchanges_with(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_connection_is_kept() {
    let cluster = Cluster::of(2);
    let start = |id| {
        let mut options = cluster.options(id);
        options.limits.keep_alive = Duration::from_millis(80);
        Node::start(&options)
    };
    let (a, b) = (start(1), start(2));
    met(&[&a, &b]).await;
    let connections = (a.peer(b.id).connections, b.peer(a.id).connections);
    tokio::time::sleep(a_while(&cluster)).await;
    assert_eq!((a.peer(b.id).connections, b.peer(a.id).connections), connections);
    assert_eq!(a.peer(b.id).found_ended + b.peer(a.id).found_ended, 0);
}

/// Longer than any silence that is borne.
fn a_while(cluster: &Cluster) -> Duration {
    cluster.options(1).limits.idle_timeout * 2
}

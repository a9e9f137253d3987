//! The address book changes while the transport runs; names and both families of addresses work.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use quorate_core::NodeId;
use quorate_runtime_tokio::Transport as _;
use quorate_transport_quic::{PeerAddress, QuicTransport, Resolver};

use crate::common::{Cluster, Node, eventually, free_addresses, warned, within};

/// A node that dials nobody: whoever wants to speak with it has to know where it is.
fn quiet(cluster: &Cluster, id: u64, listen: SocketAddr) -> Node {
    let mut options = cluster.options(id);
    options.peers.clear();
    options.listen = listen;
    Node::start(&options)
}

fn address_in_use(from: &Node, to: NodeId) -> Option<SocketAddr> {
    from.peer(to).connection.map(|connection| connection.address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_has_moved_is_dialled_where_it_is_now() {
    let cluster = Cluster::of(2);
    let elsewhere = free_addresses(3);
    let a = cluster.start(1);
    let b = quiet(&cluster, 2, cluster.addresses[1].1);
    a.exchanges_with(&b).await;
    let connections = a.peer(b.id).connections;

    // The book may be ahead of the peer: what works is left alone.
    a.transport.set_peer(b.id, elsewhere[0].1).unwrap();
    a.exchanges_with(&b).await;
    assert_eq!((a.peer(b.id).connections, address_in_use(&a, b.id)), (connections, Some(b.address())));
    within("it stops", b.transport.shutdown()).await;
    let b = quiet(&cluster, 2, elsewhere[0].1);
    a.exchanges_with(&b).await;
    assert_eq!(address_in_use(&a, b.id), Some(b.address()));

    // Or behind it: then it is dialled once the book says where.
    within("it stops", b.transport.shutdown()).await;
    let b = quiet(&cluster, 2, elsewhere[1].1);
    eventually("it is missed", || !a.peer(b.id).connected).await;
    a.transport.set_peer(b.id, b.address()).unwrap();
    a.exchanges_with(&b).await;

    // Or the peer itself dials, from wherever it is.
    within("it stops", b.transport.shutdown()).await;
    let mut options = cluster.options(2);
    options.listen = elsewhere[2].1;
    let b = Node::start(&options);
    a.exchanges_with(&b).await;
    assert_eq!(address_in_use(&a, b.id), Some(b.address()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_added_and_taken_off() {
    let cluster = Cluster::of(2);
    let b_at = cluster.addresses[1].1;
    let (a, b) = (quiet(&cluster, 1, cluster.addresses[0].1), quiet(&cluster, 2, b_at));
    for _ in 0..2 {
        a.transport.set_peer(b.id, b_at).unwrap();
        a.exchanges_with(&b).await;
        // It is told what is under way to the end.
        a.transport.remove_peer(b.id);
        a.exchanges_with(&b).await;
    }
    within("it stops", b.transport.shutdown()).await;
    let b = quiet(&cluster, 2, b_at);
    eventually("it is missed", || !a.peer(b.id).connected).await;
    // Nobody dials it. Its account goes, too, once it is taken off for good.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(b.transport.stats().open_connections, 0);
    a.transport.remove_peer(b.id);
    assert!(a.transport.stats().peers.is_empty());
    a.transport.set_peer(b.id, b_at).unwrap();
    a.exchanges_with(&b).await;
    // This node itself is never a peer.
    a.transport.set_peer(a.id, b_at).unwrap();
    assert_eq!(a.transport.stats().peers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_room_for_those_who_come_and_not_for_those_who_have_gone() {
    let cluster = Cluster::of(6);
    let mut options = cluster.options(1);
    options.peers.truncate(2);
    options.limits.peers = 2;
    let a = Node::start(&options);
    // Nodes are replaced, ever under new ids.
    for id in 3..=5 {
        let stranger = cluster.start(id);
        a.exchanges_with(&stranger).await;
        within("it stops", stranger.transport.shutdown()).await;
        eventually("it is missed", || !a.peer(stranger.id).connected).await;
    }
    let known: Vec<_> = a.transport.stats().peers.iter().map(|peer| peer.peer.0).collect();
    assert_eq!(known, [2, 5]);
    let stays = cluster.start(6);
    a.exchanges_with(&stays).await;
    let full = a.transport.set_peer(NodeId(7), cluster.addresses[4].1).unwrap_err();
    assert_eq!(full.to_string(), "the address book has 3 peers, and the limit is 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_systems_names_work() {
    let cluster = Cluster::of(2);
    let b = quiet(&cluster, 2, cluster.addresses[1].1);
    let a = quiet(&cluster, 1, cluster.addresses[0].1);
    let named: PeerAddress = format!("localhost:{}", b.address().port()).parse().unwrap();
    a.transport.set_peer(b.id, named).unwrap();
    a.exchanges_with(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_looked_up_each_time_and_all_its_addresses_are_tried() {
    let cluster = Cluster::of(2);
    let places = free_addresses(4);
    let means = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::new(AtomicUsize::new(0));
    let mut options = cluster.options(1);
    options.peers = vec![(NodeId(2), "node-2.example:4000".parse().unwrap())];
    options.limits.dial_timeout = Duration::from_millis(400);
    options.resolver = {
        let (means, asked) = (means.clone(), asked.clone());
        Resolver::new(move |host, port| {
            assert_eq!((host.as_str(), port), ("node-2.example", 4000));
            asked.fetch_add(1, Relaxed);
            let means: Vec<SocketAddr> = means.lock().unwrap().clone();
            async move {
                // The first times, it is slower than anybody waits.
                if means.is_empty() {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    return Err(std::io::Error::other("the name server has no time"));
                }
                Ok(means)
            }
        })
    };
    let a = Node::start(&options);
    warned(&["peer=2", "from=node-2.example:4000", "takes too long to look up"]).await;
    assert_eq!(asked.load(Relaxed), 1, "there is one question at a time");
    warned(&["peer=2", "from=node-2.example:4000", "the name server has no time"]).await;

    // Nobody is at the first, one can't be reached, the peer is at the last.
    let b = quiet(&cluster, 2, cluster.addresses[1].1);
    *means.lock().unwrap() = vec![places[0].1, (Ipv6Addr::LOCALHOST, 1).into(), b.address()];
    a.exchanges_with(&b).await;
    assert_eq!(address_in_use(&a, b.id), Some(b.address()));

    // It moves, and only the name knows.
    within("it stops", b.transport.shutdown()).await;
    let b = quiet(&cluster, 2, places[1].1);
    *means.lock().unwrap() = vec![places[1].1];
    a.exchanges_with(&b).await;
    assert_eq!(address_in_use(&a, b.id), Some(b.address()));
    assert!(asked.load(Relaxed) > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_no_use_is_told() {
    let cluster = Cluster::of(2);
    let a = quiet(&cluster, 1, cluster.addresses[0].1);
    for (address, why) in [
        ("no-such-host.invalid:1".into(), "no-such-host.invalid:1"),
        (format!("[::1]:{}", cluster.addresses[1].1.port()), "one is IPv4, the other IPv6"),
    ] {
        let address: PeerAddress = address.parse().unwrap();
        let from = format!("from={address}");
        a.transport.set_peer(NodeId(2), address).unwrap();
        warned(&["can't connect to the peer", "peer=2", &from, why]).await;
    }
    // It was only the address.
    let b = quiet(&cluster, 2, cluster.addresses[1].1);
    a.transport.set_peer(b.id, b.address()).unwrap();
    a.exchanges_with(&b).await;
}

/// Is there an IPv6 loopback? Says so if there isn't.
fn has_ipv6() -> bool {
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => true,
        Err(err) => {
            eprintln!("not tested over IPv6: there is no ::1 here: {err}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_alone_works() {
    if !has_ipv6() {
        return;
    }
    let mut cluster = Cluster::of(2);
    for (_, address) in &mut cluster.addresses {
        address.set_ip(Ipv6Addr::LOCALHOST.into());
    }
    let (a, b) = (cluster.start(1), cluster.start(2));
    a.exchanges_with(&b).await;
    assert!(a.address().is_ipv6() && address_in_use(&a, b.id) == Some(b.address()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_serves_both_families() {
    if !has_ipv6() {
        return;
    }
    let cluster = Cluster::of(4);
    let both: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
    let a = quiet(&cluster, 1, both);
    let port = a.address().port();
    let v4 = quiet(&cluster, 2, (Ipv4Addr::LOCALHOST, 0).into());
    let v6 = quiet(&cluster, 3, (Ipv6Addr::LOCALHOST, 0).into());
    // Dialled from it, and dialling it.
    for (n, peer) in [&v4, &v6].into_iter().enumerate() {
        if n == 0 {
            a.transport.set_peer(peer.id, peer.address()).unwrap();
        } else {
            peer.transport.set_peer(a.id, SocketAddr::from((Ipv6Addr::LOCALHOST, port))).unwrap();
        }
        a.exchanges_with(peer).await;
    }
    let (to_v6, from_v4) = (quiet(&cluster, 4, (Ipv6Addr::LOCALHOST, 0).into()), v4);
    a.transport.set_peer(to_v6.id, to_v6.address()).unwrap();
    a.exchanges_with(&to_v6).await;
    within("it stops", from_v4.transport.shutdown()).await;
    eventually("it is missed", || !a.peer(from_v4.id).connected).await;
    a.transport.remove_peer(from_v4.id);
    let from_v4 = quiet(&cluster, 2, (Ipv4Addr::LOCALHOST, 0).into());
    from_v4.transport.set_peer(a.id, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
    a.exchanges_with(&from_v4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_make_no_sense_are_refused() {
    let cluster = Cluster::of(1);
    let mut options = cluster.options(1);
    options.limits.keep_alive = options.limits.idle_timeout;
    let error = QuicTransport::bind(options).unwrap_err().to_string();
    assert!(error.contains("keep_alive") && error.contains("less than half of idle_timeout"), "{error}");
}

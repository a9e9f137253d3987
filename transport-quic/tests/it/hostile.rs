//! A peer with a valid certificate that breaks every rule, and noise from whoever.

use std::net::{Ipv4Addr, UdpSocket};

use quinn::{Connection, ConnectionError};
use quorate_core::{NodeId, wire};

use crate::common::{
    Cluster, Node, append, eventually, heartbeat, logged, rand, raw_client, raw_connection, warned, within,
};

/// Nodes 1 and 2, and whoever pretends to be node 3, with its certificate.
struct Scene {
    cluster: Cluster,
    a: Node,
    b: Node,
    hostile: quinn::Endpoint,
}

impl Scene {
    async fn set() -> Self {
        let cluster = Cluster::of(2);
        // It connects as often as it likes.
        let mut options = cluster.options(1);
        options.limits.reconnects = 1000;
        let (a, b) = (Node::start(&options), cluster.start(2));
        a.exchanges_with(&b).await;
        let hostile = raw_client(&cluster.ca, Some(&cluster.ca.issue(NodeId(3)).unwrap()));
        Self { cluster, a, b, hostile }
    }

    async fn connect(&self) -> Connection {
        raw_connection(&self.cluster, &self.hostile, &self.a).await
    }

    /// Sends `bytes` on a one-way stream, ends it if asked to; must be refused with `code`, with `why` in the log, and node 1
    /// must work on.
    async fn refuses(&self, bytes: &[u8], ends: bool, code: u64, why: &str) {
        let connection = self.connect().await;
        let mut stream = connection.open_uni().await.unwrap();
        // It may be refused before all of it is written.
        let _refused = stream.write_all(bytes).await;
        if ends {
            let _refused = stream.finish();
        }
        self.is_refused(&connection, code, why).await;
    }

    async fn is_refused(&self, connection: &Connection, code: u64, why: &str) {
        let closed = within("the connection is closed", connection.closed()).await;
        let ConnectionError::ApplicationClosed(close) = &closed else { panic!("closed by {closed}") };
        assert_eq!(close.error_code.into_inner(), code, "{closed}");
        let from = format!("from={}", self.hostile.local_addr().unwrap());
        warned(&["closing the connection to a peer that breaks the rules", "peer=3", &from, why]).await;
        assert!(self.a.inbox.from(NodeId(3)).is_empty());
        self.a.exchanges_with(&self.b).await;
    }
}

fn hello(version: u8, kind: u8) -> Vec<u8> {
    [b"qrte", &[version, kind][..]].concat()
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_le_bytes()[..], &7_u64.to_le_bytes(), body].concat()
}

fn heartbeat_frame() -> Vec<u8> {
    frame(&wire::encode(&heartbeat(1)).to_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_beginnings_are_refused() {
    let scene = Scene::set().await;
    let mut unknown = hello(9, 0);
    unknown.extend(heartbeat_frame());
    scene.refuses(&unknown, false, 5, "a stream of transport version 9 on a connection of version 1").await;
    scene.refuses(b"GET / HTTP/1.1\r\n\r\n", true, 4, "a stream begins with").await;
    scene.refuses(&hello(1, 77), false, 4, "kind 77").await;
    scene.refuses(&hello(1, 2), false, 4, "kind 2").await;
    assert_eq!(scene.a.peer(NodeId(3)).violations, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_are_refused() {
    let scene = Scene::set().await;
    let cut = [hello(1, 0), heartbeat_frame()].concat();
    scene.refuses(&cut[..cut.len() - 3], true, 6, "3 bytes early").await;
    scene.refuses(&hello(1, 0)[..5], true, 6, "ends inside a frame").await;
    let two_gib = [hello(1, 1), (2_u32 << 30).to_le_bytes().to_vec(), vec![0; 1000]].concat();
    scene.refuses(&two_gib, false, 6, "a frame of 2147483648 bytes is announced").await;
    let short = [hello(1, 0), 3_u32.to_le_bytes().to_vec()].concat();
    scene.refuses(&short, false, 6, "a frame of 3 bytes is announced").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_are_refused() {
    let scene = Scene::set().await;
    let garbage: Vec<u8> = (0..997_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    scene.refuses(&[hello(1, 0), frame(&garbage)].concat(), false, 7, "a message that can't be read").await;
    let mut newer = wire::encode(&heartbeat(1)).to_bytes().to_vec();
    newer[0] = 9;
    scene.refuses(&[hello(1, 0), frame(&newer)].concat(), false, 7, "unknown wire version 9").await;
    let mut damaged = wire::encode(&append(1, 100)).to_bytes().to_vec();
    let len = damaged.len();
    damaged[len - 104] ^= 0xff;
    scene.refuses(&[hello(1, 1), frame(&damaged)].concat(), false, 7, "entries").await;
    scene.refuses(&[hello(1, 0), frame(&[])].concat(), false, 7, "a message that can't be read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_none_are_refused() {
    for (bytes, code, why) in [
        ([hello(1, 0), frame(b"x")].concat(), 4, "kind 0"),
        ([hello(1, 2), frame(b"x"), frame(b"y")].concat(), 6, "follow a forwarded request"),
        ([hello(1, 2), (5_u32 << 20).to_le_bytes().to_vec()].concat(), 6, "a frame of 5242880 bytes"),
        ([hello(1, 2), frame(b"abc")[..13].to_vec()].concat(), 6, "2 bytes early"),
    ] {
        let scene = Scene::set().await;
        let connection = scene.connect().await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let _refused = send.finish();
        scene.is_refused(&connection, code, why).await;
        assert_eq!(*scene.a.inbox.requests.borrow(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_peer_can_not_flood_the_log() {
    const TIMES: usize = 40;
    let scene = Scene::set().await;
    for _ in 0..TIMES {
        let connection = scene.connect().await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(b"nonsense").await.unwrap();
        within("it is closed", connection.closed()).await;
    }
    eventually("all are counted", || scene.a.peer(NodeId(3)).violations == TIMES as u64).await;
    let from = format!("from={}", scene.hostile.local_addr().unwrap());
    let lines = logged(&["WARN", &from]).len();
    assert!((1..TIMES / 2).contains(&lines), "{lines} lines");
    scene.a.exchanges_with(&scene.b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_the_port_is_harmless() {
    let scene = Scene::set().await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for n in 0..2000_usize {
        let mut noise: Vec<u8> = (0..n % 1400).map(|_| rand() as u8).collect();
        if let Some(first) = noise.first_mut().filter(|_| n % 2 == 0) {
            // Looks like the beginning of a connection.
            *first |= 0xc0;
        }
        let _sent = socket.send_to(&noise, scene.a.address());
    }
    scene.a.exchanges_with(&scene.b).await;
    assert_eq!(scene.a.transport.stats().peers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_message_behind_the_certificate_of_a_node_is_that_nodes() {
    let scene = Scene::set().await;
    let connection = scene.connect().await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[hello(1, 0), heartbeat_frame()].concat()).await.unwrap();
    eventually("it arrives", || scene.a.inbox.from(NodeId(3)) == [heartbeat(1)]).await;
}

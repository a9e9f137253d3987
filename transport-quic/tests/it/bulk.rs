//! Streams for what is long: whole or seen to be broken, held up by slow readers, and never in anybody's way.

use std::time::Duration;

use quorate_core::{Class, NodeId};
use quorate_runtime_tokio::{BoxStream, ForwardError, Transport as _};
use quorate_transport_quic::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::common::{
    Cluster, GROUP, Node, REFUSING, SILENT, append, eventually, heartbeat, met, raw_client_that_speaks,
    raw_connection, within,
};

const WINDOW: u32 = 64 << 10;

async fn pair(cluster: &Cluster, change: impl Fn(&mut Limits)) -> (Node, Node) {
    let start = |id| {
        let mut options = cluster.options(id);
        options.limits.stream_window = WINDOW;
        change(&mut options.limits);
        Node::start(&options)
    };
    let (a, b) = (start(1), start(2));
    met(&[&a, &b]).await;
    (a, b)
}

async fn open(from: &Node, to: &Node) -> (BoxStream, BoxStream) {
    let here = within("a stream is opened", from.transport.open(GROUP, to.id)).await.unwrap();
    let (group, who, there) = to.inbox.stream().await;
    assert_eq!((group, who), (GROUP, from.id));
    (here, there)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 3) as u8).collect()
}

/// Writes until the stream takes no more for a while; says how much it took.
async fn fill(stream: &mut BoxStream) -> usize {
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), stream.write(&[7; 8192])).await {
        taken += written.expect("the stream is open");
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_arrives_whole_both_ways_and_ends() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |_| {}).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let (mut here, mut there) = open(from, to).await;
        let sent = pattern(3 << 20);
        let writing = tokio::spawn(async move {
            here.write_all(&sent).await.unwrap();
            here.shutdown().await.unwrap();
            // Its own end is said; what the other side says is read all the same.
            let mut answer = Vec::new();
            here.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut got = Vec::new();
        within("all is read", there.read_to_end(&mut got)).await.unwrap();
        assert!(got == pattern(3 << 20));
        there.write_all(b"thanks").await.unwrap();
        there.shutdown().await.unwrap();
        assert_eq!(within("the answer is read", writing).await.unwrap(), b"thanks");
    }
    let (at_a, at_b) = (a.peer(b.id).bulk, b.peer(a.id).bulk);
    assert_eq!((at_a.opened, at_a.accepted, at_b.opened, at_b.accepted), (1, 1, 1, 1));
    assert_eq!((at_a.sent_bytes, at_a.received_bytes), ((3 << 20) + 6, (3 << 20) + 6));
    eventually("both ends are let go of", || a.peer(b.id).bulk.open + b.peer(a.id).bulk.open == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_reads_hold_up_their_writers_and_nobody_else() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| limits.bulk_streams = 3).await;
    let mut stuck = Vec::new();
    // As many as there may be, from both sides, both ways full.
    for (from, to) in [(&a, &b), (&b, &a)] {
        for _ in 0..3 {
            let (mut here, mut there) = open(from, to).await;
            let most = WINDOW as usize;
            let (out, back) = (fill(&mut here).await, fill(&mut there).await);
            assert!(out > 0 && out <= most, "{out} bytes are taken before anybody reads");
            assert!(back > 0 && back <= most, "{back} bytes are taken before anybody reads");
            stuck.push((here, there, out));
        }
    }
    assert_eq!((a.peer(b.id).bulk.open, b.peer(a.id).bulk.open), (6, 6));
    for (from, to) in [(&a, &b), (&b, &a)] {
        let before = to.inbox.all().len();
        for n in 1..=50 {
            from.send(to, heartbeat(n));
            from.send(to, append(n, 20_000));
        }
        to.inbox.has(before + 100).await;
        assert_eq!(from.transport.forward(GROUP, to.id, "ab".into()).await, Ok("ba".into()));
        let appends = to.inbox.from(from.id);
        assert_eq!(appends.iter().filter(|message| message.class() == Class::Append).count(), 50);
    }
    // One more than there may be is refused, at once.
    for (from, to) in [(&a, &b), (&b, &a)] {
        let refused = within("it is refused", from.transport.open(GROUP, to.id)).await.map(drop).unwrap_err();
        let ForwardError::NotDelivered { why, .. } = &refused else { panic!("{refused}") };
        assert!(why.contains("3 streams"), "{why}");
    }
    // Whoever is read goes on; one that is let go of makes room.
    let (mut here, mut there, out) = stuck.pop().unwrap();
    let mut got = vec![0; out];
    within("what was held is read", there.read_exact(&mut got)).await.unwrap();
    within("the writer goes on", here.write_all(&[1; 1000])).await.unwrap();
    drop((here, there));
    eventually("there is room again", || b.peer(a.id).bulk.open == 5 && a.peer(b.id).bulk.open == 5).await;
    let again = within("a stream is opened", b.transport.open(GROUP, a.id)).await;
    assert!(again.is_ok());
}

/// On one thread, nothing is sent before all of it has been handed over.
#[tokio::test]
async fn all_else_overtakes_what_is_long() {
    const LONG: usize = 32 << 20;
    const ENTRY: usize = 16 << 20;
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| limits.stream_window = 64 << 20).await;
    let (mut here, mut there) = open(&a, &b).await;
    let reading = tokio::spawn(async move { tokio::io::copy(&mut there, &mut tokio::io::sink()).await });
    let before = b.inbox.all().len();
    within("it is taken", here.write_all(&vec![7; LONG])).await.unwrap();
    a.send(&b, append(1, ENTRY));
    b.inbox.has(before + 1).await;
    let read = b.peer(a.id).bulk.received_bytes;
    assert!(read < ENTRY as u64 / 2, "{read} bytes have overtaken the entry");
    here.shutdown().await.unwrap();
    assert_eq!(within("all is read", reading).await.unwrap().unwrap(), LONG as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_take_their_time_leave_streams_for_what_is_long() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |limits| {
        limits.forwards = 2;
        limits.forward_timeout = Duration::from_secs(20);
    })
    .await;
    let asked: Vec<_> =
        (0..50).map(|_| tokio::spawn(a.transport.forward(SILENT, b.id, "x".into()))).collect();
    eventually("requests arrive", || *b.inbox.requests.borrow() == 2).await;
    let (mut here, mut there) = open(&a, &b).await;
    here.write_all(b"x").await.unwrap();
    assert_eq!(within("it arrives", there.read_u8()).await.unwrap(), b'x');
    assert_eq!(*b.inbox.requests.borrow(), 2, "the others wait for their turn");
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_keeps_no_count_is_refused() {
    let cluster = Cluster::of(1);
    let mut options = cluster.options(1);
    options.limits.bulk_streams = 2;
    let a = Node::start(&options);
    let issued = cluster.ca.issue(NodeId(3)).unwrap();
    let client = raw_client_that_speaks(&[b"quorate/2"], &cluster.ca, Some(&issued));
    let connection = raw_connection(&cluster, &client, &a).await;
    let mut held = Vec::new();
    for n in 1..=3 {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&[b"qrte\x02\x03", &7_u64.to_le_bytes()[..]].concat()).await.unwrap();
        let mut status = [9];
        let answer = within("it is answered", recv.read_exact(&mut status)).await;
        if n < 3 {
            assert_eq!((answer, status), (Ok(()), [0]));
        } else {
            let reset = quinn::ReadError::Reset(quinn::VarInt::from_u32(11));
            assert_eq!(answer, Err(quinn::ReadExactError::ReadError(reset)));
        }
        held.push((send, recv));
    }
    assert_eq!((a.peer(NodeId(3)).bulk.refused, a.peer(NodeId(3)).bulk.open), (1, 2));
    assert_eq!(connection.close_reason(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_dropped_is_seen_to_be_broken() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |_| {}).await;
    // Its writer is dropped: all that was written may be there, but it is no clean end.
    let (mut here, mut there) = open(&a, &b).await;
    here.write_all(b"half").await.unwrap();
    let mut four = [0; 4];
    there.read_exact(&mut four).await.unwrap();
    drop(here);
    let end = within("the reader hears of it", there.read(&mut four)).await;
    let error = end.expect_err("it has not ended well").to_string();
    assert!(error.contains("let go"), "{error}");

    // Its reader is dropped: whoever writes can't go on for ever.
    let (mut here, there) = open(&a, &b).await;
    drop(there);
    within("the writer hears of it", async { while here.write(&[0; 100]).await.is_ok() {} }).await;

    // Nobody wants it from the beginning: that is heard at once, or by whoever reads first.
    if let Ok(mut unwanted) = within("it ends", a.transport.open(REFUSING, b.id)).await {
        let end = within("the reader hears of it", unwanted.read(&mut four)).await;
        assert!(end.is_err(), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_their_connection_on_both_sides() {
    let cluster = Cluster::of(2);
    let (a, b) = pair(&cluster, |_| {}).await;
    let (mut here, mut there) = open(&a, &b).await;
    here.write_all(b"x").await.unwrap();
    there.read_u8().await.unwrap();
    within("it stops", b.transport.shutdown()).await;
    for stream in [&mut here, &mut there] {
        let end = within("the end is seen", stream.read(&mut [0; 4])).await;
        assert!(end.expect_err("no clean end").to_string().contains("the connection is lost"));
        within("the end is seen", async { while stream.write(&[0; 100]).await.is_ok() {} }).await;
    }
    let result = within("it ends", b.transport.open(GROUP, a.id)).await.map(drop);
    assert!(matches!(result, Err(ForwardError::NotDelivered { .. })), "{result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_to_nobody_is_not_delivered() {
    let cluster = Cluster::of(2);
    let a = cluster.start(1);
    for to in [NodeId(2), NodeId(9)] {
        let result = a.transport.open(GROUP, to).await.map(drop);
        assert!(
            matches!(result, Err(ForwardError::NotDelivered { to: said, .. }) if said == to),
            "{result:?}"
        );
    }
}

//! How fast messages go from one node to another on this machine.
//!
//!     cargo run --release -p quorate-transport-quic --example ping
//!
//! Two transports in one process, on loopback: first one-way, 256-byte appends handed over as fast as the queue takes them;
//! then round trips, one at a time: of small control messages, alone and beside big appends, and of forwarded requests of
//! 256 bytes.

use std::{
    error::Error,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_core::{Body, GroupId, Index, LogId, Message, NodeId, Run, Term};
use quorate_runtime_tokio::{BoxFuture, ForwardError, Inbound, Transport};
use quorate_transport_quic::{ClusterId, Limits, Options, QuicTransport, pki::Ca};
use tokio::sync::mpsc;

const GROUP: GroupId = GroupId(1);
const PAYLOAD: usize = 256;
const MESSAGES: u64 = 2_000_000;
const ROUND_TRIPS: usize = 20_000;

/// Counts appends, hands heartbeats to whoever waits for them, or sends them back.
struct Node {
    appends: AtomicU64,
    beats: mpsc::UnboundedSender<u64>,
    echo: Option<OnceLock<Arc<QuicTransport>>>,
}

impl Inbound for Node {
    fn receive(&self, group: GroupId, from: NodeId, message: Message) {
        match (&message.body, &self.echo) {
            (Body::Append { .. }, _) => {
                self.appends.fetch_add(1, Relaxed);
            }
            (_, Some(transport)) => {
                if let Some(transport) = transport.get() {
                    transport.send(group, from, message);
                }
            }
            (Body::Heartbeat { round, .. }, None) => {
                let _nobody_waits = self.beats.send(*round);
            }
            (_, None) => {}
        }
    }

    fn forwarded(&self, _: GroupId, _: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(async move { Ok(request) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = ClusterId(1);
    let ca = Ca::generate(cluster)?;
    let sockets = [UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?];
    let peers = vec![(NodeId(1), sockets[0].local_addr()?), (NodeId(2), sockets[1].local_addr()?)];
    drop(sockets);
    let bind = |id: u64| -> Result<_, Box<dyn Error>> {
        Ok(Arc::new(QuicTransport::bind(Options {
            id: NodeId(id),
            cluster,
            listen: peers[id as usize - 1].1,
            peers: peers.clone(),
            identity: ca.issue(NodeId(id))?.identity()?,
            limits: Limits::default(),
        })?))
    };
    let (a, b) = (bind(1)?, bind(2)?);
    let (beats, mut back) = mpsc::unbounded_channel();
    let here = Arc::new(Node { appends: AtomicU64::new(0), beats: beats.clone(), echo: None });
    let there = Arc::new(Node { appends: AtomicU64::new(0), beats, echo: Some(OnceLock::from(b.clone())) });
    a.start(here);
    b.start(there.clone());
    while back.is_empty() {
        a.send(GROUP, NodeId(2), heartbeat(0));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while back.try_recv().is_ok() {}

    one_way(&a, &there).await;

    let mut times = Histogram::<u64>::new(3)?;
    for n in 1..=ROUND_TRIPS as u64 {
        let begun = Instant::now();
        a.send(GROUP, NodeId(2), heartbeat(n));
        while back.recv().await.is_some_and(|round| round != n) {}
        times.record(begun.elapsed().as_nanos() as u64)?;
    }
    report("control message, round trip", &times);

    let mut times = Histogram::<u64>::new(3)?;
    let big = append(1 << 20);
    let before = there.appends.load(Relaxed);
    let mut sent = before;
    for n in 1..=ROUND_TRIPS as u64 / 4 {
        // Eight big appends are always under way.
        while sent - there.appends.load(Relaxed) < 8 {
            a.send(GROUP, NodeId(2), big.clone());
            sent += 1;
        }
        let begun = Instant::now();
        a.send(GROUP, NodeId(2), heartbeat(n));
        while back.recv().await.is_some_and(|round| round != n) {}
        times.record(begun.elapsed().as_nanos() as u64)?;
    }
    report(&format!("control message, round trip, beside {} appends of 1 MiB", sent - before), &times);

    let request = Bytes::from(vec![7; PAYLOAD]);
    let mut times = Histogram::<u64>::new(3)?;
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        a.forward(GROUP, NodeId(2), request.clone()).await?;
        times.record(begun.elapsed().as_nanos() as u64)?;
    }
    report("forwarded request of 256 B, answered", &times);

    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}

/// Hands messages over as fast as the queue takes them, and waits until all have come.
async fn one_way(a: &QuicTransport, there: &Node) {
    let message = append(PAYLOAD);
    let begun = Instant::now();
    let mut sent = 0;
    while sent < MESSAGES {
        // Never more than the queue holds: what doesn't fit would be dropped.
        while sent < MESSAGES && sent - there.appends.load(Relaxed) < 4000 {
            a.send(GROUP, NodeId(2), message.clone());
            sent += 1;
        }
        tokio::task::yield_now().await;
    }
    while there.appends.load(Relaxed) < MESSAGES {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let took = begun.elapsed();
    let rate = MESSAGES as f64 / took.as_secs_f64();
    println!("one way: {MESSAGES} appends of {PAYLOAD} B in {took:.2?}: {rate:.0} a second");
    let lost: u64 = a.stats().peers.iter().map(|peer| peer.append.dropped).sum();
    println!("dropped: {lost}");
}

fn report(what: &str, times: &Histogram<u64>) {
    let at = |q| times.value_at_quantile(q) as f64 / 1000.0;
    println!(
        "{what}: p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs",
        at(0.5),
        at(0.99),
        times.max() as f64 / 1000.0
    );
}

fn append(payload: usize) -> Message {
    let run = Run::commands(Term(1), Index(1), &[vec![7_u8; payload]]).expect("one command is a run");
    let entries = vec![run].into();
    Message { term: Term(1), body: Body::Append { prev: LogId::ZERO, commit: Index(0), entries } }
}

fn heartbeat(round: u64) -> Message {
    Message { term: Term(1), body: Body::Heartbeat { commit: Index(0), round, quiesce: false } }
}

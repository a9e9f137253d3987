//! How soon a node hears that its peer is gone.
//!
//!     cargo run --release -p quorate-transport-quic --example detect
//!
//! The peer is a process of its own on loopback, with a heartbeat every 100 ms from here, or none. It is stopped in good order,
//! killed, or halted (SIGSTOP), which to its peers looks like a lost host or network.

use std::{
    env,
    error::Error,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorate_core::{Body, GroupId, Index, Message, NodeId, Term};
use quorate_runtime_tokio::{BoxFuture, ForwardError, Inbound, Transport};
use quorate_transport_quic::{
    ClusterId, Options, QuicTransport,
    pki::{Ca, Saved},
};
use tokio::{sync::mpsc, time::sleep};

const TIMES: usize = 7;

/// Passes on who is lost.
struct Ears(mpsc::UnboundedSender<NodeId>);

impl Inbound for Ears {
    fn receive(&self, _: GroupId, _: NodeId, _: Message) {}

    fn unreachable(&self, peer: NodeId) {
        let _nobody_waits = self.0.send(peer);
    }

    fn forwarded(&self, _: GroupId, _: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(async move { Ok(request) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [dir, here, there] = &args[..] {
        return peer(Path::new(dir), here.parse()?, there.parse()?).await;
    }
    let ca = Ca::generate(ClusterId(1))?;
    for (how, signal) in [("stopped in good order", "TERM"), ("killed", "KILL"), ("halted", "STOP")] {
        for beats in [true, false] {
            let mut times = Vec::new();
            for _ in 0..TIMES {
                times.push(measure(&ca, signal, beats).await?);
            }
            times.sort_unstable();
            println!(
                "{how}, {}: p50 {} ms, max {} ms",
                if beats { "a heartbeat every 100 ms" } else { "quiet" },
                times[TIMES / 2].as_millis(),
                times[TIMES - 1].as_millis()
            );
        }
    }
    Ok(())
}

async fn measure(ca: &Ca, signal: &str, beats: bool) -> Result<Duration, Box<dyn Error>> {
    let sockets = [UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?];
    let (here, there) = (sockets[0].local_addr()?, sockets[1].local_addr()?);
    drop(sockets);
    let dir = tempfile::tempdir()?;
    ca.issue(NodeId(2))?.save(dir.path())?;
    let (ears, mut lost) = mpsc::unbounded_channel();
    let identity = ca.issue(NodeId(1))?.identity()?;
    let peers = vec![(NodeId(2), there.into())];
    let transport = Arc::new(QuicTransport::bind(Options { peers, ..Options::new(here, identity) })?);
    transport.start(Arc::new(Ears(ears)));
    let child = Command::new(env::current_exe()?)
        .args([dir.path(), Path::new(&there.to_string()), Path::new(&here.to_string())])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut child = Killed(child);
    while !transport.stats().peers.iter().any(|peer| peer.connected) {
        sleep(Duration::from_millis(10)).await;
    }
    // Two connections that were dialled at once have settled on one; and not always at the same point between two packets.
    sleep(Duration::from_millis(1000 + u64::from(here.port() % 500))).await;
    while lost.try_recv().is_ok() {}
    let beating = tokio::spawn({
        let transport = transport.clone();
        async move {
            for round in 0.. {
                if beats {
                    transport.send(GroupId(1), NodeId(2), heartbeat(round));
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
    sleep(Duration::from_millis(350)).await;
    let begun = Instant::now();
    match signal {
        // It stops when nobody holds the other end.
        "TERM" => drop(child.0.stdin.take()),
        signal => {
            let pid = child.0.id().to_string();
            Command::new("kill").args([&format!("-{signal}"), &pid]).status()?;
        }
    }
    lost.recv().await;
    let took = begun.elapsed();
    beating.abort();
    transport.shutdown().await;
    Ok(took)
}

/// The other process: a node until its input ends.
async fn peer(dir: &Path, here: SocketAddr, there: SocketAddr) -> Result<(), Box<dyn Error>> {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let saved = Saved { certificate: file("node.pem"), key: file("node.key"), authorities: file("ca.pem") };
    let peers = vec![(NodeId(1), there.into())];
    let transport = QuicTransport::bind(Options { peers, ..Options::new(here, saved.load()?) })?;
    transport.start(Arc::new(Ears(mpsc::unbounded_channel().0)));
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    transport.shutdown().await;
    Ok(())
}

fn heartbeat(round: u64) -> Message {
    Message { term: Term(1), body: Body::Heartbeat { commit: Index(0), round, quiesce: false } }
}

/// Does not outlive its parent.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _has_ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

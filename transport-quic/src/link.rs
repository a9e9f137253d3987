//! One connection at work: a stream out for each class, streams in, requests in; and the end of it, explained.

use std::{array, sync::Arc};

use bytes::Bytes;
use quinn::{ConnectionError, ReadExactError, RecvStream, SendStream, WriteError};
use quorate_core::{Class, wire};
use quorate_runtime_tokio::Inbound;
use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, info};

use crate::{
    audit, bulk,
    code::{Cause, Code},
    forward,
    peer::{Link, Peer},
    probe,
    shared::Shared,
    stream::{ENVELOPE, HELLO, Kind, Packer, Parser, Violation, hello},
};

/// How many bytes of messages are handed to a stream at a time: enough for few writes, little enough that what is
/// queued behind can still be dropped. One message may be longer.
const BATCH: usize = 256 << 10;

/// How many pieces of a stream are taken at a time; a piece is at most a packet's worth.
pub(crate) const PIECES: usize = 32;

/// Uses a new connection to `peer`, unless there is a better one.
pub(crate) fn adopt(shared: &Arc<Shared>, peer: &Arc<Peer>, link: Link) -> bool {
    let Some(inbound) = shared.inbound() else {
        return false;
    };
    let link = Arc::new(link);
    if !peer.install(shared.id, &link, &shared.limits) {
        link.connection.close(Code::Duplicate.number(), b"there is a connection already");
        return false;
    }
    info!(
        peer = %peer.id,
        address = %link.connection.remote_address(),
        version = link.version,
        "connected"
    );
    // What is asked for may have changed since its handshake.
    audit::check(shared, peer, &link);
    inbound.reachable(peer.id);
    shared.tasks.spawn(run(shared.clone(), peer.clone(), link, inbound));
    true
}

/// Higher goes first, when both have something to say.
pub(crate) const fn priority(kind: Kind) -> i32 {
    match kind {
        Kind::Messages(Class::Control) => 3,
        Kind::Forward => 2,
        Kind::Messages(Class::Append) => 1,
        Kind::Bulk => 0,
    }
}

/// The peer has broken the rules: closes the connection and says why, to the peer and in the log.
pub(crate) fn refuse(peer: &Peer, link: &Link, violation: &Violation) {
    peer.violations.add(1);
    peer.mark_steady(false);
    peer.warn(
        &link.connection.remote_address(),
        "closing the connection to a peer that breaks the rules",
        violation,
    );
    link.connection.close(violation.code().number(), violation.to_string().as_bytes());
}

async fn run(shared: Arc<Shared>, peer: Arc<Peer>, link: Arc<Link>, inbound: Arc<dyn Inbound>) {
    let mut tasks = JoinSet::new();
    for class in [Class::Control, Class::Append] {
        let (peer, link) = (peer.clone(), link.clone());
        tasks.spawn(async move {
            if let Err(err) = write(&peer, &link, class).await {
                debug!(peer = %peer.id, ?class, "no longer writing: {err}");
            }
        });
    }
    tasks.spawn(accept_messages(peer.clone(), link.clone(), inbound.clone()));
    tasks.spawn(accept_streams(shared.clone(), peer.clone(), link.clone(), inbound.clone()));
    if shared.limits.probe {
        tasks.spawn(probe::watch(peer.clone(), link.clone(), shared.limits.keep_alive));
    }
    let why = tokio::select! {
        why = link.connection.closed() => why,
        () = peer.forgotten.cancelled() => {
            // There was no room for its account while it connected.
            link.connection.close(Code::Abandoned.number(), b"connect again");
            link.connection.closed().await
        }
    };
    tasks.shutdown().await;
    peer.settle(&link);
    let was_in_use = peer.uninstall(&link);
    explain(&peer, &link, &why);
    // A connection that another has replaced is lost as well, but touch is not; and the few messages under way on it
    // are missed by the peer, which says so.
    if was_in_use {
        inbound.unreachable(peer.id);
    }
}

async fn write(peer: &Peer, link: &Link, class: Class) -> Result<(), WriteError> {
    let lane = peer.lane(class);
    let kind = Kind::Messages(class);
    let mut stream = link.connection.open_uni().await?;
    stream.set_priority(priority(kind))?;
    stream.write_all(&hello(link.version, kind)).await?;
    let mut batch = Vec::new();
    let mut packer = Packer::default();
    loop {
        lane.queue.take(BATCH, &mut batch).await;
        let mut sent = 0;
        for (group, message) in batch.drain(..) {
            if packer.push(group, &message) {
                sent += 1;
            } else {
                lane.counters.dropped.add(1);
                let longest = format!("it is longer than {} bytes", wire::MAX_FRAME);
                peer.warn(&link.connection.remote_address(), "dropping a message to the peer", &longest);
            }
        }
        let bytes = packer.bytes() as u64;
        stream.write_all_chunks(packer.pieces()).await?;
        packer.clear();
        lane.counters.sent.add(sent);
        lane.counters.sent_bytes.add(bytes);
    }
}

async fn accept_messages(peer: Arc<Peer>, link: Arc<Link>, inbound: Arc<dyn Inbound>) {
    let mut readers = JoinSet::new();
    // The peer can have as many streams open as the connection's configuration allows.
    while let Ok(stream) = link.connection.accept_uni().await {
        let (peer, link, inbound) = (peer.clone(), link.clone(), inbound.clone());
        readers.spawn(async move {
            if let Err(violation) = read(stream, &peer, link.version, &*inbound).await {
                refuse(&peer, &link, &violation);
            }
        });
        while readers.try_join_next().is_some() {}
    }
}

async fn read(
    mut stream: RecvStream,
    peer: &Peer,
    version: u8,
    inbound: &dyn Inbound,
) -> Result<(), Violation> {
    let mut parser = Parser::new(wire::MAX_FRAME);
    let mut lane = None;
    let mut pieces: [Bytes; PIECES] = array::from_fn(|_| Bytes::new());
    loop {
        let count = match stream.read_chunks(&mut pieces).await {
            Ok(Some(count)) => count,
            Ok(None) => return parser.end(),
            // Reset, or the connection is gone: no fault of what was on the stream.
            Err(_) => return Ok(()),
        };
        for piece in pieces.iter_mut().take(count) {
            parser.push(&std::mem::take(piece));
            let counters = match lane {
                Some(counters) => counters,
                None => match parser.hello(version)? {
                    Some(Kind::Messages(class)) => *lane.insert(&peer.lane(class).counters),
                    Some(other @ (Kind::Forward | Kind::Bulk)) => {
                        return Err(Violation::Kind { found: other.code() });
                    }
                    None => continue,
                },
            };
            while let Some((group, body)) = parser.next()? {
                let message = wire::decode(body)?;
                counters.received.add(1);
                counters.received_bytes.add((ENVELOPE + body.len()) as u64);
                peer.mark_steady(true);
                inbound.receive(group, peer.id, message);
            }
        }
    }
}

/// Takes in two-way streams, as many at a time as the connection's configuration allows: requests, and what is long.
async fn accept_streams(shared: Arc<Shared>, peer: Arc<Peer>, link: Arc<Link>, inbound: Arc<dyn Inbound>) {
    let mut serving = JoinSet::new();
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        let (shared, peer) = (shared.clone(), peer.clone());
        let (link, inbound) = (link.clone(), inbound.clone());
        serving.spawn(async move {
            if let Err(violation) = serve(&shared, &peer, &link, send, recv, &*inbound).await {
                refuse(&peer, &link, &violation);
            }
        });
        while serving.try_join_next().is_some() {}
    }
}

async fn serve(
    shared: &Shared,
    peer: &Arc<Peer>,
    link: &Link,
    mut send: SendStream,
    mut recv: RecvStream,
    inbound: &dyn Inbound,
) -> Result<(), Violation> {
    let kind = timeout(shared.limits.forward_timeout, read_hello(&mut recv, link.version));
    match kind.await.unwrap_or(Ok(None))? {
        Some(Kind::Forward) => forward::serve(shared, peer, send, recv, inbound).await,
        Some(Kind::Bulk) => bulk::serve(shared, peer, link, send, recv, inbound).await,
        Some(Kind::Messages(class)) => Err(Violation::Kind { found: Kind::Messages(class).code() }),
        // The peer has gone away, or says nothing.
        None => {
            let _already_closed = send.reset(Code::Abandoned.number());
            Ok(())
        }
    }
}

/// Reads the hello of a stream, and nothing behind it; `None` if the stream is let go of before.
async fn read_hello(recv: &mut RecvStream, version: u8) -> Result<Option<Kind>, Violation> {
    let mut parser = Parser::new(0);
    for read in 0..HELLO {
        let mut byte = [0];
        match recv.read_exact(&mut byte).await {
            Ok(()) => parser.push(&byte),
            Err(ReadExactError::FinishedEarly(_)) => {
                return Err(Violation::Truncated { missing: HELLO - read });
            }
            Err(ReadExactError::ReadError(_)) => return Ok(None),
        }
        if let Some(kind) = parser.hello(version)? {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// Says why a connection has ended.
fn explain(peer: &Peer, link: &Link, why: &ConnectionError) {
    let from = &link.connection.remote_address();
    match (Cause::of(why), why) {
        (Cause::Us, _) => peer.warn(from, "the connection broke", why),
        (Cause::Peer, ConnectionError::ApplicationClosed(close)) => {
            peer.warn(from, "the peer refuses this node", &quoted(&close.reason));
        }
        // Its TLS doesn't like this node's certificate: that is learnt only after the own side of the handshake.
        (Cause::Peer, _) => peer.warn(from, "the peer refuses this node", why),
        // Whoever closed it has said why.
        (Cause::Nobody, ConnectionError::LocallyClosed) => {}
        (Cause::Nobody, ConnectionError::Reset) => info!(peer = %peer.id, %from, "the peer was restarted"),
        (Cause::Nobody, ConnectionError::TimedOut) => {
            info!(peer = %peer.id, %from, "the peer is not heard any more");
        }
        (Cause::Nobody, ConnectionError::ApplicationClosed(close))
            if Code::from_number(close.error_code) == Some(Code::Shutdown) =>
        {
            info!(peer = %peer.id, %from, "the peer stops");
        }
        (Cause::Nobody, ConnectionError::ApplicationClosed(close))
            if Code::from_number(close.error_code) == Some(Code::Certificate) =>
        {
            info!(peer = %peer.id, %from, "the peer wants to see a certificate again: {}", quoted(&close.reason));
        }
        (Cause::Nobody, _) => debug!(peer = %peer.id, %from, "the peer uses another connection"),
    }
}

/// What a peer has written, fit for a log: short, on one line, without control characters.
pub(crate) fn quoted(text: &[u8]) -> String {
    const LONGEST: usize = 300;
    format!("\"{}\"", text[..text.len().min(LONGEST)].escape_ascii())
}

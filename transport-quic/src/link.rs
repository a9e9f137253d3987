//! One connection at work: a stream out for each class, streams in, requests in; and the end of it, explained.

use std::{array, sync::Arc, time::Instant};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, WriteError};
use quorate_core::{Class, NodeId, wire};
use quorate_runtime_tokio::Inbound;
use tokio::task::JoinSet;
use tracing::{debug, info};

use crate::{
    code::{Cause, Code},
    forward,
    peer::{Link, Peer},
    shared::Shared,
    stream::{ENVELOPE, Kind, Packer, Parser, Violation, hello},
};

/// How many bytes of messages are handed to a stream at a time: enough for few writes, little enough that what is
/// queued behind can still be dropped. One message may be longer.
const BATCH: usize = 256 << 10;

/// How many pieces of a stream are taken at a time; a piece is at most a packet's worth.
pub(crate) const PIECES: usize = 32;

/// Uses a new connection to `peer`, unless there is a better one.
pub(crate) fn adopt(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    connection: Connection,
    dialled_by: NodeId,
) -> bool {
    let Some(inbound) = shared.inbound() else {
        return false;
    };
    let link = Arc::new(Link { connection, dialled_by, since: Instant::now() });
    if !peer.install(shared.id, &link, &shared.limits) {
        link.connection.close(Code::Duplicate.number(), b"there is a connection already");
        return false;
    }
    info!(peer = %peer.id, address = %link.connection.remote_address(), "connected");
    shared.tasks.spawn(run(shared.clone(), peer.clone(), link, inbound));
    true
}

/// Higher goes first, when both have something to say.
pub(crate) const fn priority(kind: Kind) -> i32 {
    match kind {
        Kind::Messages(Class::Control) => 2,
        Kind::Forward => 1,
        Kind::Messages(Class::Append) => 0,
    }
}

/// The peer has broken the rules: closes the connection and says why, to the peer and in the log.
pub(crate) fn refuse(peer: &Peer, link: &Link, violation: &Violation) {
    peer.violations.add(1);
    peer.mark_steady(false);
    peer.warn(
        link.connection.remote_address(),
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
    tasks.spawn(forward::accept(shared, peer.clone(), link.clone(), inbound.clone()));
    let why = link.connection.closed().await;
    tasks.shutdown().await;
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
    stream.write_all(&hello(kind)).await?;
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
                peer.warn(link.connection.remote_address(), "dropping a message to the peer", &longest);
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
            if let Err(violation) = read(stream, &peer, &*inbound).await {
                refuse(&peer, &link, &violation);
            }
        });
        while readers.try_join_next().is_some() {}
    }
}

async fn read(mut stream: RecvStream, peer: &Peer, inbound: &dyn Inbound) -> Result<(), Violation> {
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
                None => match parser.hello()? {
                    Some(Kind::Messages(class)) => *lane.insert(&peer.lane(class).counters),
                    Some(Kind::Forward) => {
                        return Err(Violation::Kind { found: Kind::Forward.code() });
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

/// Says why a connection has ended.
fn explain(peer: &Peer, link: &Link, why: &ConnectionError) {
    let from = link.connection.remote_address();
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
        (Cause::Nobody, _) => debug!(peer = %peer.id, %from, "the peer uses another connection"),
    }
}

/// What a peer has written, fit for a log: short, on one line, without control characters.
fn quoted(text: &[u8]) -> String {
    const LONGEST: usize = 300;
    format!("\"{}\"", text[..text.len().min(LONGEST)].escape_ascii())
}

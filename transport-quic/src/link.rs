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
    peer::{Installed, Link, Peer},
    probe,
    shared::Shared,
    stream::{ENVELOPE, HELLO, Kind, Packer, Parser, Violation, hello},
};

/// How many bytes of messages are handed to a stream at a time: enough for few writes, little enough that what is
/// queued behind can still be dropped. One message may be longer.
const BATCH: usize = 256 << 10;

/// How many pieces of a stream are taken at a time; a piece is at most a packet's worth.
pub(crate) const PIECES: usize = 32;

/// Uses a new connection to `peer`, unless there is a better one, or it would not be made any more; says whether it does.
pub(crate) fn adopt(shared: &Arc<Shared>, peer: &Arc<Peer>, link: Link) -> bool {
    let Some(inbound) = shared.inbound() else {
        return false;
    };
    let link = Arc::new(link);
    let _told_in_order = peer.in_order();
    match peer.install(shared.id, &link, &shared.limits) {
        Installed::New => {}
        // The peer has dialled again: what was under way to it is lost, and it may have been restarted. Whoever keeps
        // silent because of what the peer knew must hear of it.
        Installed::Instead => inbound.unreachable(peer.id),
        Installed::Not => {
            link.connection.close(Code::Duplicate.number(), b"there is a connection already");
            debug!(peer = %peer.id, from = %link.connection.remote_address(), "a second connection is not needed");
            return false;
        }
    }
    // What is asked for may have changed since its handshake. Then nothing is read from it: closed as it is, it would
    // still hand out what has arrived already.
    if !audit::check(shared, peer, &link) {
        peer.settle(&link);
        peer.uninstall(&link);
        return false;
    }
    info!(
        peer = %peer.id,
        address = %link.connection.remote_address(),
        version = link.version,
        "connected"
    );
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
    explain(&peer, &link, &why);
    let _told_in_order = peer.in_order();
    // Of one that another has replaced, the node was told then.
    if peer.uninstall(&link) {
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr, sync::Mutex};

    use quinn::{Connection, Endpoint};
    use quorate_core::{Body, GroupId, Index, Message, NodeId, Term};
    use quorate_runtime_tokio::{BoxFuture, ForwardError, Transport as _};

    use super::*;
    use crate::{
        ClusterId, Limits, Options, QuicTransport, node_name,
        pki::{Ca, Identity},
        tls::Credentials,
        version::{KNOWN_VERSIONS, Versions},
    };

    const CLUSTER: ClusterId = ClusterId(0xabc);
    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    /// What the node is told.
    #[derive(Default)]
    struct Inbox(Mutex<Vec<&'static str>>);

    impl Inbox {
        fn told(&self, what: &'static str) {
            self.0.lock().unwrap().push(what);
        }
    }

    impl Inbound for Inbox {
        fn receive(&self, _group: GroupId, _from: NodeId, _message: Message) {
            self.told("a message");
        }

        fn unreachable(&self, _peer: NodeId) {
            self.told("lost");
        }

        fn reachable(&self, _peer: NodeId) {
            self.told("made");
        }

        fn forwarded(&self, _: GroupId, to: NodeId, _: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
            Box::pin(async move { Err(ForwardError::Busy { to, why: "nobody asks".into() }) })
        }
    }

    /// A connection that the other node has dialled, as both see it: past its handshake, and not in use yet.
    async fn dialled(identity: impl Fn(NodeId) -> Identity) -> (Connection, Connection) {
        let (limits, versions) = (Limits::default(), Versions::new(KNOWN_VERSIONS).unwrap());
        let [mine, other] =
            [ME, OTHER].map(|id| Credentials::new(&identity(id), (CLUSTER, id), &limits, &versions).unwrap());
        let listens = Endpoint::server(mine.1, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let dials = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let at = listens.local_addr().unwrap();
        let dialling = dials.connect_with(other.0.client, at, &node_name(CLUSTER, ME)).unwrap();
        let (here, there) = tokio::join!(async { listens.accept().await.unwrap().await }, dialling);
        (here.unwrap(), there.unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_taken_from_a_connection_that_would_not_be_made_any_more_once_it_is() {
        let [ca, new] = [(); 2].map(|()| Ca::generate(CLUSTER).unwrap());
        let identity = |id| ca.issue(id).unwrap().identity().unwrap();
        let disallow: &dyn Fn(&QuicTransport) = &|node| node.set_allowed(Some(BTreeSet::new()));
        let distrust: &dyn Fn(&QuicTransport) =
            &|node| node.set_identity(&new.issue(ME).unwrap().identity().unwrap()).unwrap();
        for (change, code) in [(disallow, Code::NotAllowed), (distrust, Code::Certificate)] {
            let node =
                QuicTransport::bind(Options::new((Ipv4Addr::LOCALHOST, 0).into(), identity(ME))).unwrap();
            let inbox = Arc::new(Inbox::default());
            node.start(inbox.clone());
            let (here, there) = dialled(identity).await;
            let version = node.shared.versions.agreed(&here).unwrap();

            // A message has arrived with the connection, whole.
            let body = Body::Heartbeat { commit: Index(0), round: 1, quiesce: false };
            let mut packer = Packer::default();
            assert!(packer.push(GroupId(7), &Message { term: Term(1), body }));
            let mut stream = there.open_uni().await.unwrap();
            stream.write_all(&hello(version, Kind::Messages(Class::Control))).await.unwrap();
            stream.write_all_chunks(packer.pieces()).await.unwrap();
            stream.finish().unwrap();
            assert_eq!(stream.stopped().await, Ok(None), "all of it is acknowledged");

            let shared = &node.shared;
            let peer = shared.peer_or_new(OTHER, None).unwrap();
            change(&node);
            assert!(!adopt(shared, &peer, Link::new(here, OTHER, version, &shared.limits)));
            assert!(peer.link().is_none());
            match there.closed().await {
                ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, code.number()),
                other => panic!("{other}"),
            }
            node.shutdown().await;
            assert_eq!(*inbox.0.lock().unwrap(), [""; 0]);
        }
    }
}

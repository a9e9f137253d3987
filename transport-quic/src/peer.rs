//! One other node: what waits for it, the connection to it, and its account.

use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use quinn::Connection;
use quorate_core::{Class, GroupId, Message, NodeId};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    address::{PeerAddress, canonical},
    code::Code,
    limits::Limits,
    queue::{Overflow, Queue},
    quiet::Quiet,
    stats::{BulkCounters, ConnectionStats, Counter, Counters, PeerStats},
};

/// One other node. Its connections come and go.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// Where it listens; `None` for a node that isn't in the address book: it has to dial.
    address: watch::Sender<Option<PeerAddress>>,
    /// What that meant when it was last looked up.
    resolved: Mutex<Vec<SocketAddr>>,
    /// Somebody dials it, or waits to.
    dialled: AtomicBool,
    /// Nobody needs to dial it any more: there is no account of it.
    pub(crate) forgotten: CancellationToken,
    /// How many times it may still connect, for now.
    arrivals: Quiet,
    control: Lane,
    append: Lane,
    /// The connection in use.
    link: watch::Sender<Option<Arc<Link>>>,
    /// See [`Peer::in_order`].
    order: Mutex<()>,
    /// Its last connection was of use: the next one may be dialled at once.
    steady: AtomicBool,
    warnings: Quiet,
    pub(crate) connections: Counter,
    pub(crate) violations: Counter,
    pub(crate) found_ended: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) served: Counter,
    pub(crate) forward_sent_bytes: Counter,
    pub(crate) forward_received_bytes: Counter,
    pub(crate) bulk: BulkCounters,
    /// On connections that have ended.
    sent_packets: Counter,
    lost_packets: Counter,
}

/// One class of messages.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: Queue,
    pub(crate) counters: Counters,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) dialled_by: NodeId,
    /// The transport version that both sides have agreed upon.
    pub(crate) version: u8,
    pub(crate) since: Instant,
    /// How many requests may still be on their way: no more than the peer serves, if it has the same limits. So those
    /// that wait leave streams for others.
    pub(crate) forwards: Semaphore,
    /// How many more may wait until they may be on their way.
    pub(crate) waiting: Semaphore,
    /// How many bulk streams may still be opened from here.
    pub(crate) bulk_out: Arc<Semaphore>,
    /// How many bulk streams may still be opened by the peer.
    pub(crate) bulk_in: Arc<Semaphore>,
}

impl Link {
    pub(crate) fn new(connection: Connection, dialled_by: NodeId, version: u8, limits: &Limits) -> Self {
        let permits = |count: u32| Semaphore::new(count as usize);
        Self {
            connection,
            dialled_by,
            version,
            since: Instant::now(),
            forwards: permits(limits.forwards),
            waiting: permits(limits.forwards_waiting),
            bulk_out: Arc::new(permits(limits.bulk_streams)),
            bulk_in: Arc::new(permits(limits.bulk_streams)),
        }
    }
}

/// How many warnings about one peer, and in what time.
const WARNINGS: (u32, Duration) = (5, Duration::from_secs(10));

/// In what time a peer's connections are counted.
const ARRIVALS: Duration = Duration::from_secs(10);

/// What is known of an address without looking it up.
fn fixed(address: Option<&PeerAddress>) -> Vec<SocketAddr> {
    match address {
        Some(PeerAddress::Socket(address)) => vec![*address],
        Some(PeerAddress::Name { .. }) | None => Vec::new(),
    }
}

impl Peer {
    pub(crate) fn new(id: NodeId, address: Option<PeerAddress>, limits: &Limits) -> Self {
        let lane =
            |limit, overflow| Lane { queue: Queue::new(limit, overflow), counters: Counters::default() };
        Self {
            id,
            resolved: Mutex::new(fixed(address.as_ref())),
            address: watch::Sender::new(address),
            dialled: AtomicBool::new(false),
            forgotten: CancellationToken::new(),
            arrivals: Quiet::new(limits.reconnects, ARRIVALS),
            control: lane(limits.control, Overflow::Oldest),
            append: lane(limits.append, Overflow::Newest),
            link: watch::Sender::new(None),
            order: Mutex::new(()),
            steady: AtomicBool::new(true),
            warnings: Quiet::new(WARNINGS.0, WARNINGS.1),
            connections: Counter::default(),
            violations: Counter::default(),
            found_ended: Counter::default(),
            forwarded: Counter::default(),
            served: Counter::default(),
            forward_sent_bytes: Counter::default(),
            forward_received_bytes: Counter::default(),
            bulk: BulkCounters::default(),
            sent_packets: Counter::default(),
            lost_packets: Counter::default(),
        }
    }

    /// Where it listens, now and when that changes.
    pub(crate) fn address(&self) -> watch::Receiver<Option<PeerAddress>> {
        self.address.subscribe()
    }

    /// It listens there from now on; or nobody is to dial it any more. Nothing happens if that is known.
    pub(crate) fn set_address(&self, address: Option<PeerAddress>) {
        self.address.send_if_modified(|known| {
            let is_new = *known != address;
            if is_new {
                self.resolved_to(fixed(address.as_ref()));
                *known = address;
            }
            is_new
        });
    }

    /// What its address means now.
    pub(crate) fn resolved_to(&self, addresses: Vec<SocketAddr>) {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Does it listen there, by the address book?
    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.iter().any(|&known| canonical(known) == canonical(address))
    }

    /// Is there nobody yet who dials it? Says so once.
    pub(crate) fn needs_dialler(&self) -> bool {
        !self.dialled.swap(true, Relaxed)
    }

    /// It has connected: is that not too often?
    pub(crate) fn may_connect(&self) -> bool {
        self.arrivals.allows()
    }

    /// Neither in the address book nor connected: of no use but for its figures.
    pub(crate) fn is_idle_stranger(&self) -> bool {
        self.address.borrow().is_none() && self.link.borrow().is_none()
    }

    pub(crate) const fn lane(&self, class: Class) -> &Lane {
        match class {
            Class::Control => &self.control,
            Class::Append => &self.append,
        }
    }

    /// Queues a message, or drops one.
    pub(crate) fn send(&self, group: GroupId, message: Message) {
        let lane = self.lane(message.class());
        let dropped = lane.queue.push(group, message);
        if dropped > 0 {
            lane.counters.dropped.add(dropped);
        }
    }

    /// The connection in use.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    /// Waits until there is a connection.
    pub(crate) async fn connected(&self) {
        self.wait(Option::is_some).await;
    }

    /// Waits until there is none.
    pub(crate) async fn disconnected(&self) {
        self.wait(Option::is_none).await;
    }

    /// Hold it from a change of the connection in use until the node has been told: else one that ends and one that begins
    /// may be told the wrong way round, and the node would take a peer that is there for one that is lost.
    pub(crate) fn in_order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `new` the connection to use, unless there is a better one.
    pub(crate) fn install(&self, me: NodeId, new: &Arc<Link>, limits: &Limits) -> Installed {
        let mut replaced = None;
        let installed = self.link.send_if_modified(|link| {
            let taken = link.as_ref().is_none_or(|old| {
                let old = Held {
                    dialled_by: old.dialled_by,
                    age: old.since.elapsed(),
                    closed: old.connection.close_reason().is_some(),
                };
                takes_over(&old, new.dialled_by, me.min(self.id), limits.dial_timeout)
            });
            if taken {
                replaced = link.replace(new.clone());
            }
            taken
        });
        if !installed {
            return Installed::Not;
        }
        self.connections.add(1);
        for lane in [&self.control, &self.append] {
            lane.counters.dropped.add(lane.queue.drop_older(limits.stale));
        }
        let Some(old) = replaced else {
            return Installed::New;
        };
        old.connection.close(Code::Duplicate.number(), b"replaced by a newer connection");
        Installed::Instead
    }

    /// Keeps the figures of a connection that has ended.
    pub(crate) fn settle(&self, link: &Link) {
        let path = link.connection.stats().path;
        self.sent_packets.add(path.sent_packets);
        self.lost_packets.add(path.lost_packets);
    }

    /// `link` has ended; says whether it was the one in use, so that none is left.
    pub(crate) fn uninstall(&self, link: &Arc<Link>) -> bool {
        self.link.send_if_modified(|current| {
            let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
            if is_current {
                *current = None;
            }
            is_current
        })
    }

    /// The peer has answered in a way that makes sense.
    pub(crate) fn mark_steady(&self, steady: bool) {
        self.steady.store(steady, Relaxed);
    }

    /// Was the last connection of use? Asked once for each.
    pub(crate) fn was_steady(&self) -> bool {
        self.steady.swap(false, Relaxed)
    }

    /// Says what is wrong with this peer, but not too often.
    pub(crate) fn warn(&self, from: &dyn Display, what: &str, why: &dyn Display) {
        if let Some(suppressed) = self.warnings.speak() {
            warn!(peer = %self.id, %from, suppressed, "{what}: {why}");
        }
    }

    pub(crate) fn stats(&self) -> PeerStats {
        let class = |lane: &Lane| lane.counters.stats(lane.queue.len());
        let link = self.link();
        let path = link.as_ref().map(|link| link.connection.stats().path);
        let (sent, lost) = path.map_or((0, 0), |path| (path.sent_packets, path.lost_packets));
        let connection = link.zip(path).map(|(link, path)| ConnectionStats {
            address: link.connection.remote_address(),
            dialled_by: link.dialled_by,
            version: link.version,
            age: link.since.elapsed(),
            rtt: path.rtt,
        });
        PeerStats {
            peer: self.id,
            connected: connection.is_some(),
            connection,
            connections: self.connections.count(),
            violations: self.violations.count(),
            found_ended: self.found_ended.count(),
            sent_packets: self.sent_packets.count() + sent,
            lost_packets: self.lost_packets.count() + lost,
            forwarded: self.forwarded.count(),
            forward_sent_bytes: self.forward_sent_bytes.count(),
            served: self.served.count(),
            forward_received_bytes: self.forward_received_bytes.count(),
            control: class(&self.control),
            append: class(&self.append),
            bulk: self.bulk.stats(),
        }
    }

    async fn wait(&self, condition: impl Fn(&Option<Arc<Link>>) -> bool) {
        // The sender is in `self`: it can't be gone.
        let _seen = self.link.subscribe().wait_for(|link| condition(link)).await.is_ok();
    }
}

/// What has become of a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Installed {
    /// It is in use, and there was none.
    New,
    /// It is in use instead of another, which is lost.
    Instead,
    /// It is not: there is a better one.
    Not,
}

/// What counts about the connection that a new one would replace.
struct Held {
    dialled_by: NodeId,
    age: Duration,
    closed: bool,
}

/// Does a new connection take over from the one held? Both nodes must come to the same answer, whatever each of them
/// has seen first. `tie` is how long after a connection was made another one may still be under way.
///
/// A node dials only when it has no connection, and a dial takes `tie` at most. So if the peer has dialled again, what is
/// held is dead on its side, unless both have dialled at the same time: then the one that the lower id dialled is used.
fn takes_over(held: &Held, new_by: NodeId, lower: NodeId, tie: Duration) -> bool {
    let same_side = held.dialled_by == new_by;
    held.closed || same_side || new_by == lower || held.age > tie
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_connections_dialled_at_once_both_keep_the_one_of_the_lower_id() {
        let (a, b, tie) = (NodeId(1), NodeId(2), Duration::from_secs(2));
        let held = |dialled_by| Held { dialled_by, age: Duration::from_millis(3), closed: false };
        // Node a has its own first, then b's comes; node b has its own first, then a's comes.
        assert!(!takes_over(&held(a), b, a, tie));
        assert!(takes_over(&held(b), a, a, tie));
    }

    #[test]
    fn a_peer_that_dials_again_has_lost_what_it_had() {
        let (a, b, tie) = (NodeId(1), NodeId(2), Duration::from_secs(2));
        let held = |dialled_by, age, closed| Held { dialled_by, age, closed };
        assert!(takes_over(&held(b, Duration::ZERO, false), b, a, tie));
        assert!(takes_over(&held(a, Duration::ZERO, true), b, a, tie));
        assert!(takes_over(&held(a, Duration::from_secs(3), false), b, a, tie));
    }
}

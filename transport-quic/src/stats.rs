//! What a transport has done, counted.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use quorate_core::{Class, NodeId};

/// What a transport has done since it was bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Peer by peer, by id.
    pub peers: Vec<PeerStats>,
    /// Connections that the endpoint holds, those that are just closing included.
    pub open_connections: usize,
    /// Attempts from outside that are in their handshake now.
    pub handshakes: usize,
    /// Messages to nodes that are neither in the address book nor connected.
    pub unroutable: u64,
    /// Connections from outside that were never used, and why.
    pub refused: RefusalStats,
    /// How many times connections were closed because their peer's certificate would not be taken any more.
    pub outdated: u64,
    /// How many times connections were closed because their peer was taken off the list of those allowed.
    pub disallowed: u64,
}

/// Why connections from outside were not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RefusalStats {
    /// TLS doesn't take what the other side shows: an unknown authority, an expired certificate, none at all; or what it
    /// speaks is no transport version that this node knows.
    pub tls: u64,
    /// The other side doesn't take what this node shows.
    pub by_peer: u64,
    /// A certificate of another cluster, of this very node, or of no node.
    pub identity: u64,
    /// A node that is not on the list of those allowed.
    pub not_allowed: u64,
    /// A node with which there is no transport version in common.
    pub version: u64,
    /// Too many handshakes at a time, in all or from one address.
    pub crowded: u64,
    /// A peer that has connected too many times in a short while.
    pub too_often: u64,
    /// There is no room for the account of one more peer.
    pub no_room: u64,
}

impl RefusalStats {
    /// All together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.tls
            + self.by_peer
            + self.identity
            + self.not_allowed
            + self.version
            + self.crowded
            + self.too_often
            + self.no_room
    }
}

/// What was exchanged with one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStats {
    /// Which.
    pub peer: NodeId,
    /// Is there a connection?
    pub connected: bool,
    /// The connection in use, if there is one.
    pub connection: Option<ConnectionStats>,
    /// How many connections there have been.
    pub connections: u64,
    /// How many times it broke the rules, which closed its connection.
    pub violations: u64,
    /// How many times its process was found to have ended, by its port being closed.
    pub found_ended: u64,
    /// UDP packets sent to it, over all connections, those that were sent again included.
    pub sent_packets: u64,
    /// Those of them that were lost.
    pub lost_packets: u64,
    /// Requests forwarded to it.
    pub forwarded: u64,
    /// Bytes of these requests, and of the answers to what it forwarded here.
    pub forward_sent_bytes: u64,
    /// Requests that it forwarded here.
    pub served: u64,
    /// Bytes of these requests, and of the answers that it gave.
    pub forward_received_bytes: u64,
    /// Votes, heartbeats, acknowledgements, reads.
    pub control: ClassStats,
    /// Entries.
    pub append: ClassStats,
    /// Bulk streams.
    pub bulk: BulkStats,
}

/// One connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionStats {
    /// Where the peer is.
    pub address: SocketAddr,
    /// Which of the two nodes dialled.
    pub dialled_by: NodeId,
    /// The transport version that is spoken on it.
    pub version: u8,
    /// For how long there has been this connection.
    pub age: Duration,
    /// How long it takes to the peer and back, as estimated now.
    pub rtt: Duration,
}

/// Messages of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassStats {
    /// Messages handed to the connection; whether they arrived is not known.
    pub sent: u64,
    /// Their bytes on the stream.
    pub sent_bytes: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Their bytes on the stream.
    pub received_bytes: u64,
    /// Messages dropped: they didn't fit into the queue, waited too long for a connection, or are too long.
    pub dropped: u64,
    /// Messages that wait now.
    pub queued: usize,
    /// Their entries' bytes, plus 64 a message.
    pub queued_bytes: usize,
}

/// Bulk streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BulkStats {
    /// Streams opened to the peer and taken by it.
    pub opened: u64,
    /// Streams that the peer has opened and this node has taken.
    pub accepted: u64,
    /// Streams of the peer that were refused, for there were too many.
    pub refused: u64,
    /// Streams open now, whoever opened them, and those that are being opened.
    pub open: u64,
    /// Bytes taken by streams to the peer.
    pub sent_bytes: u64,
    /// Bytes read from streams of the peer.
    pub received_bytes: u64,
}

/// Counts one class of one peer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) dropped: Counter,
}

impl Counters {
    pub(crate) fn stats(&self, (queued, queued_bytes): (usize, usize)) -> ClassStats {
        ClassStats {
            sent: self.sent.count(),
            sent_bytes: self.sent_bytes.count(),
            received: self.received.count(),
            received_bytes: self.received_bytes.count(),
            dropped: self.dropped.count(),
            queued,
            queued_bytes,
        }
    }
}

/// Counts the bulk streams of one peer.
#[derive(Debug, Default)]
pub(crate) struct BulkCounters {
    pub(crate) opened: Counter,
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) begun: Counter,
    pub(crate) ended: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
}

impl BulkCounters {
    pub(crate) fn stats(&self) -> BulkStats {
        let ended = self.ended.count();
        BulkStats {
            opened: self.opened.count(),
            accepted: self.accepted.count(),
            refused: self.refused.count(),
            open: self.begun.count().saturating_sub(ended),
            sent_bytes: self.sent_bytes.count(),
            received_bytes: self.received_bytes.count(),
        }
    }
}

/// Counts what was refused before it was used.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) tls: Counter,
    pub(crate) by_peer: Counter,
    pub(crate) identity: Counter,
    pub(crate) not_allowed: Counter,
    pub(crate) version: Counter,
    pub(crate) crowded: Counter,
    pub(crate) too_often: Counter,
    pub(crate) no_room: Counter,
}

impl Refusals {
    pub(crate) fn stats(&self) -> RefusalStats {
        RefusalStats {
            tls: self.tls.count(),
            by_peer: self.by_peer.count(),
            identity: self.identity.count(),
            not_allowed: self.not_allowed.count(),
            version: self.version.count(),
            crowded: self.crowded.count(),
            too_often: self.too_often.count(),
            no_room: self.no_room.count(),
        }
    }
}

impl PeerStats {
    /// One class of it.
    #[must_use]
    pub const fn class(&self, class: Class) -> &ClassStats {
        match class {
            Class::Control => &self.control,
            Class::Append => &self.append,
        }
    }
}

/// Only goes up. Nothing is ordered by it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

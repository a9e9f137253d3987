//! What a transport has done, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quorate_core::{Class, NodeId};

/// What a transport has done since it was bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Peer by peer, by id.
    pub peers: Vec<PeerStats>,
    /// Connections that the endpoint holds, those that are just closing included.
    pub open_connections: usize,
    /// Messages to nodes that are neither in the address book nor connected.
    pub unroutable: u64,
    /// Connections from outside that failed before their peer was known for certain: either side has refused the other's
    /// certificate, or there were too many at a time.
    pub refused: u64,
}

/// What was exchanged with one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStats {
    /// Which.
    pub peer: NodeId,
    /// Is there a connection?
    pub connected: bool,
    /// How many connections there have been.
    pub connections: u64,
    /// How many times it broke the rules, which closed its connection.
    pub violations: u64,
    /// Requests forwarded to it.
    pub forwarded: u64,
    /// Requests that it forwarded here.
    pub served: u64,
    /// Votes, heartbeats, acknowledgements, reads.
    pub control: ClassStats,
    /// Entries.
    pub append: ClassStats,
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

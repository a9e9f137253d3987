//! What a transport is made with, and what bounds it.

use std::{net::SocketAddr, time::Duration};

use quorate_core::NodeId;

use crate::{names::ClusterId, pki::Identity};

/// What [`QuicTransport::bind`](crate::QuicTransport::bind) needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node; the identity must be for it.
    pub id: NodeId,
    /// Its cluster; the identity must be for it.
    pub cluster: ClusterId,
    /// The UDP address to listen on, IPv4 or IPv6; it is dialled from too. Port 0 takes any.
    pub listen: SocketAddr,
    /// The address book: where the other nodes listen. This node's own entry, if it is there, is left out.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// Certificate, key, and authorities.
    pub identity: Identity,
    /// Bounds and times.
    pub limits: Limits,
}

/// A bound on a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimit {
    /// How many messages.
    pub messages: usize,
    /// How many bytes of entries, plus 64 a message.
    pub bytes: usize,
}

/// Bounds and times. The defaults suit nodes in one datacentre.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// What may wait for one peer in control messages; the oldest are dropped.
    pub control: QueueLimit,
    /// What may wait for one peer in appends; the newest are dropped. One append is taken whatever its size.
    pub append: QueueLimit,
    /// What has waited for a connection for longer than this is not sent any more: its author has said it again.
    pub stale: Duration,
    /// The longest forwarded request, and the longest answer, in bytes.
    pub forward_bytes: usize,
    /// For how long a forwarded request is waited for.
    pub forward_timeout: Duration,
    /// How many forwarded requests of one peer are served at a time; further ones wait with the peer.
    pub forwards: u32,
    /// How many bytes of requests, of all peers together, are held while they are served; beyond it they are refused.
    pub forward_memory: usize,
    /// How long an attempt to connect may take.
    pub dial_timeout: Duration,
    /// How long to wait after a first failed attempt; doubled each time, with jitter.
    pub backoff_min: Duration,
    /// How long to wait at most.
    pub backoff_max: Duration,
    /// A connection on which nothing has come for this long is dead.
    pub idle_timeout: Duration,
    /// How often to say something on a quiet connection; well below `idle_timeout`.
    pub keep_alive: Duration,
    /// How many bytes may be under way on one stream. A connection may have four times as much under way, so that a
    /// stream that has used up its own leaves room for the others.
    pub stream_window: u32,
    /// The size to ask for of the UDP socket's buffers. The operating system may give less; then bursts lose packets,
    /// which are sent again.
    pub socket_buffer: usize,
    /// How many connections may be in their handshake at a time; half of it, and addresses have to be proved first.
    pub handshakes: usize,
    /// How many peers to keep account of: the address book, and nodes of the cluster that aren't in it.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control: QueueLimit { messages: 8192, bytes: 4 << 20 },
            append: QueueLimit { messages: 4096, bytes: 64 << 20 },
            stale: Duration::from_millis(500),
            forward_bytes: 4 << 20,
            forward_timeout: Duration::from_secs(5),
            forwards: 256,
            forward_memory: 64 << 20,
            dial_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_millis(750),
            stream_window: 4 << 20,
            socket_buffer: 4 << 20,
            handshakes: 64,
            peers: 128,
        }
    }
}

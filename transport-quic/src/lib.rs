//! Peers over QUIC: [`QuicTransport`] carries the messages of a quorate cluster.
//!
//! # Who may speak
//! Both sides of every connection show a certificate (TLS 1.3; there is no mode without). A certificate is for one node of
//! one cluster: its only DNS name is [`node_name`]`(cluster, node)`, and it is signed by an authority that the
//! [`Identity`](pki::Identity) names. The side that dials accepts exactly the node that it meant; the side that is dialled
//! accepts any node of its own cluster, and takes everything on that connection as said by that node. Nothing inside a
//! message says who sent it. Whoever is refused is told why, and the log says so too, a few lines at a time.
//! [`pki`] has a certificate authority for development.
//!
//! # Connections
//! Two nodes share one connection, and each may have dialled it. If both dial at once, the one dialled by the lower id
//! stays. While there is none, both keep dialling, with a pause that doubles up to a second, with jitter. A peer that is
//! silent for the idle timeout is given up; one that was restarted says so when it gets a packet of the old connection.
//!
//! # Streams
//! | stream | opened by | what is on it | priority |
//! | --- | --- | --- | --- |
//! | control | each side, one-way | a hello, then frames: messages of [`Class::Control`](quorate_core::Class::Control) | first |
//! | forward | whoever asks, two-way, one a request | a hello, one frame: the request. Back: the answer | second |
//! | append | each side, one-way | a hello, then frames: messages of [`Class::Append`](quorate_core::Class::Append) | last |
//!
//! Messages of one class arrive in the order in which they were sent, as long as one connection lasts; between classes
//! there is no order. So a big append never delays a heartbeat: they share neither a stream, nor a queue, nor the window
//! that bounds how much is under way.
//!
//! # What is on the wire
//! Integers are little-endian. ALPN is `quorate`.
//!
//! | hello | bytes |
//! | --- | --- |
//! | magic | 4: `qrte` |
//! | transport version | 1: [`TRANSPORT_VERSION`] |
//! | kind of stream | 1: 0 control, 1 append, 2 forward |
//!
//! | frame | bytes |
//! | --- | --- |
//! | length of what follows | 4: at least 8, at most 8 + [`wire::MAX_FRAME`](quorate_core::wire::MAX_FRAME) (or the limit on requests) |
//! | group | 8 |
//! | body | a message as [`wire::encode`](quorate_core::wire::encode) writes it, which has a version of its own; or a request |
//!
//! | answer | bytes |
//! | --- | --- |
//! | status | 1: 0 answered, 1 not delivered, 2 not known what was done |
//! | body, to the end of the stream | the answer; or in UTF-8 why there is none |
//!
//! | code with which a connection or stream is closed | meaning |
//! | --- | --- |
//! | 0 | not wanted any more: a dial that is given up, a request that nobody waits for |
//! | 1 | the node stops |
//! | 2 | the two nodes use another connection |
//! | 3 | a certificate of another cluster, or of a node that was not meant |
//! | 4 | a stream with an unknown beginning |
//! | 5 | a stream of an unknown transport version |
//! | 6 | a frame of a forbidden length, or one that ends early |
//! | 7 | a message that can't be read |
//! | 8 | (stream) the request was not looked at: there are too many |
//!
//! # Bounds
//! Each peer has one queue per class, bounded in messages and bytes ([`Limits`]). Sending never waits. From a full queue of
//! control messages the oldest are dropped: the newest say what is true now. From a full queue of appends the newest are
//! dropped: an append is of use only behind those before it, and what is dropped is sent again once the peer says where
//! its log ends. What has waited for a connection for too long is dropped when there is one. What arrives is buffered as it comes, never by the length that was announced.
//!
//! # What is not here
//! Certificates are verified when a connection is made; one that expires or is withdrawn later doesn't end it, and there are
//! no revocation lists. The address book is fixed when the transport is bound. A node of the cluster that isn't in it can
//! dial and be answered, but not be dialled.

mod accept;
mod address;
mod admission;
mod audit;
mod bulk;
mod code;
mod dial;
mod forward;
mod limits;
mod link;
mod names;
mod options;
mod peer;
pub mod pki;
mod probe;
mod queue;
mod quiet;
mod shared;
mod socket;
mod stats;
mod stream;
mod tls;
mod transport;
mod version;

pub use address::{PeerAddress, PeerAddressError, Resolver};
pub use limits::{Limits, LimitsError, QueueLimit};
pub use names::{ClusterId, NameError, node_name, node_of};
pub use options::Options;
pub use stats::{BulkStats, ClassStats, ConnectionStats, PeerStats, RefusalStats, Stats};
pub use transport::{BindError, QuicTransport, TooManyPeers};
pub use version::{KNOWN_VERSIONS as KNOWN_TRANSPORT_VERSIONS, VERSION as TRANSPORT_VERSION};

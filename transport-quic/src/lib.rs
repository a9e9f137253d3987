//! Peers over QUIC: [`QuicTransport`] carries the messages of a quorate cluster.
//!
//! # Who may speak
//! Both sides of every connection show a certificate (TLS 1.3; there is no mode without). A certificate is for one node of
//! one cluster: its only DNS name is [`node_name`]`(cluster, node)`, and it is signed by an authority that the
//! [`Identity`](pki::Identity) names. The side that dials accepts exactly the node that it meant; the side that is dialled
//! accepts any node of its own cluster, or of a [list](Options::allow) of these, and takes everything on that connection as
//! said by that node. Nothing inside a message says who sent it. Whoever is refused is told why, and the log says so too, a few
//! lines at a time. [`pki`] has a certificate authority for development.
//!
//! All of it can be changed without a restart: [certificate, key and authorities](QuicTransport::set_identity), and the
//! [list](QuicTransport::set_allowed). Connections that would not be made under the new rules are closed, and so are those whose
//! certificate has expired since; both nodes dial again at once, and show what they have now.
//!
//! # Where peers are
//! The [address book](Options::peers) says where to dial: an address, or a name that is looked up at each attempt, all of whose
//! addresses are tried in turn. It can be [changed](QuicTransport::set_peer) while the transport runs; a connection that works is
//! left alone. A node of the cluster that isn't in the book can dial and be answered, from wherever it is. IPv4 and IPv6 both
//! work; a node that listens on `[::]` reaches, and is reached by, both.
//!
//! # Connections
//! Two nodes share one connection, and each may have dialled it. If both dial at once, the one dialled by the lower id
//! stays. While there is none, both keep dialling, with a pause that doubles up to a second, with jitter. How the loss of a peer
//! is noticed:
//!
//! | what happened | noticed by | after |
//! | --- | --- | --- |
//! | it stops in good order | its farewell | at once |
//! | its process has ended, its host runs | its host says that the port is closed ([`Limits::probe`]) | up to [`Limits::keep_alive`] until it owes an answer, and three quarters of it more |
//! | it was restarted | a reset in answer to a packet of the old connection, or its dialling | at once |
//! | its host or the network is gone, or its process is stopped | silence | [`Limits::idle_timeout`] |
//!
//! The reset is made with a key that comes from the private key at the start: after a restart with another one only the rest
//! helps.
//!
//! # Versions
//! Two nodes speak the newest transport version that both know (of [`KNOWN_TRANSPORT_VERSIONS`], or of those that
//! [`Options::versions`] leaves), as TLS negotiates it: ALPN `quorate` is version 1, `quorate/2` is version 2. Version 2 has bulk
//! streams; towards a node of version 1, opening one says so. Nodes without a version in common agree on `quorate/none`, on which
//! the one that dials opens a one-way stream with the magic and the versions that it knows, a byte each; the other closes with
//! code 5 and what both of them know, for both logs. (A node of the very first release doesn't know `quorate/none` and would just
//! see the handshake fail.)
//!
//! # Streams
//! | stream | opened by | what is on it | priority |
//! | --- | --- | --- | --- |
//! | control | each side, one-way | a hello, then frames: messages of [`Class::Control`](quorate_core::Class::Control) | first |
//! | forward | whoever asks, two-way, one a request | a hello, one frame: the request. Back: the answer | second |
//! | append | each side, one-way | a hello, then frames: messages of [`Class::Append`](quorate_core::Class::Append) | third |
//! | bulk | either side, two-way, a few at a time | a hello, the group (8 bytes), then what the node wants. Back: a byte, 0, when it is taken; then what the node wants | last |
//!
//! Messages of one class arrive in the order in which they were sent, as long as one connection lasts; between classes
//! there is no order. So a big append never delays a heartbeat: they share neither a stream, nor a queue, nor the window
//! that bounds how much is under way.
//!
//! A bulk stream ([`Transport::open`](quorate_runtime_tokio::Transport::open)) is held up by its reader, and holds up nobody else.
//! It ends well only if its writer shuts it down: dropped before, or with its connection, it ends with an error at the other end.
//!
//! # What is on the wire
//! Integers are little-endian.
//!
//! | hello | bytes |
//! | --- | --- |
//! | magic | 4: `qrte` |
//! | transport version | 1: the one that was agreed upon |
//! | kind of stream | 1: 0 control, 1 append, 2 forward, 3 bulk |
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
//! | 0 | not wanted any more: a dial that is given up, a request that nobody waits for, a stream that is dropped |
//! | 1 | the node stops |
//! | 2 | the two nodes use another connection |
//! | 3 | a certificate of another cluster, or of a node that was not meant |
//! | 4 | a stream with an unknown beginning |
//! | 5 | a stream of another transport version than was agreed upon, or no version in common |
//! | 6 | a frame of a forbidden length, or one that ends early |
//! | 7 | a message that can't be read |
//! | 8 | (stream) nothing was done about the request: there are too many; (connection) the node connects too often |
//! | 9 | the node is not on the list of those allowed |
//! | 10 | the certificate shown on this connection would not be taken any more: connect again |
//! | 11 | (stream) there are as many bulk streams as the node takes |
//!
//! # Bounds
//! Each peer has one queue per class, bounded in messages and bytes ([`Limits`]). Sending never waits. From a full queue of
//! control messages the oldest are dropped: the newest say what is true now. From a full queue of appends the newest are
//! dropped: an append is of use only behind those before it, and what is dropped is sent again once the peer says where
//! its log ends. What has waited for a connection for too long is dropped when there is one. What arrives is buffered as it comes,
//! never by the length that was announced. Bulk streams beyond their number are refused, by whoever opens them and by whoever is
//! asked.
//!
//! So many handshakes are looked at at a time, and few from one address, which has to be proved before it is used twice; a
//! quarter of them is for addresses in the book, from which peers dial. A peer that connects too often is refused for a
//! while. A node that dials in without being in the book has an account, which makes room for another's when it has gone.
//!
//! # What is not here
//! There are no revocation lists: a node is kept out by the [list](QuicTransport::set_allowed), and for that the list must be
//! said on every node. Whoever has the private key of a node can keep that node from connecting, by connecting too often
//! under its name. A storm from many addresses, beside a peer that is not in the address book, can keep that peer out. The
//! processor's time that strangers' handshakes take is bounded only by how many run at a time. A system whose firewall answers
//! in the place of closed ports needs [`Limits::probe`] off. A bulk stream that nobody reads or writes is left alone as long as
//! its connection lasts.

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

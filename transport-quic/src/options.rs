//! What a transport is made with.

use std::{collections::BTreeSet, net::SocketAddr};

use quorate_core::NodeId;

use crate::{
    address::{PeerAddress, Resolver},
    limits::Limits,
    names::ClusterId,
    pki::Identity,
    version::KNOWN_VERSIONS,
};

/// What [`QuicTransport::bind`](crate::QuicTransport::bind) needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node; the identity must be for it.
    pub id: NodeId,
    /// Its cluster; the identity must be for it.
    pub cluster: ClusterId,
    /// The UDP address to listen on, IPv4 or IPv6; it is dialled from too. Port 0 takes any. `[::]` is for both families,
    /// where the system has them.
    pub listen: SocketAddr,
    /// The address book: where the other nodes listen. This node's own entry, if it is there, is left out. See
    /// [`QuicTransport::set_peer`](crate::QuicTransport::set_peer).
    pub peers: Vec<(NodeId, PeerAddress)>,
    /// How the names in the address book become addresses: by asking the operating system, unless something else is put here.
    pub resolver: Resolver,
    /// Which nodes may speak with this one, of those that have a certificate of the cluster; `None` for all. See
    /// [`QuicTransport::set_allowed`](crate::QuicTransport::set_allowed).
    pub allow: Option<BTreeSet<NodeId>>,
    /// The transport versions to speak, out of [`KNOWN_TRANSPORT_VERSIONS`](crate::KNOWN_TRANSPORT_VERSIONS): with each
    /// peer, the newest that both speak. All of them, unless a release has to be kept from using what is new.
    pub versions: Vec<u8>,
    /// Certificate, key, and authorities. See [`QuicTransport::set_identity`](crate::QuicTransport::set_identity).
    pub identity: Identity,
    /// Bounds and times.
    pub limits: Limits,
}

impl Options {
    /// For the node that the identity is for: nobody in the address book, all of the cluster allowed, all versions, and the
    /// default limits.
    #[must_use]
    pub fn new(listen: SocketAddr, identity: Identity) -> Self {
        Self {
            id: identity.node(),
            cluster: identity.cluster(),
            listen,
            peers: Vec::new(),
            resolver: Resolver::default(),
            allow: None,
            versions: KNOWN_VERSIONS.to_vec(),
            identity,
            limits: Limits::default(),
        }
    }
}

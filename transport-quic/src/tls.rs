//! TLS 1.3, both sides with certificates; there is no other mode.
//!
//! The provider is `ring`, passed explicitly. Sessions are never resumed: each connection proves both identities anew.

use std::{sync::Arc, time::Duration};

use quinn::{
    ClientConfig, Connection, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quorate_core::NodeId;
use rustls::{
    CertificateError, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};

use crate::{
    limits::Limits,
    names::{self, ClusterId, NameError},
    peer::Link,
    pki::{Identity, PkiError},
    shared::Shared,
    version::Versions,
};

/// What this node shows when it dials, and what it takes from others. What it shows when it is dialled is the endpoint's.
pub(crate) struct Credentials {
    pub(crate) client: ClientConfig,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Credentials {
    /// From an identity that the peers will take: anything else is said now, rather than letting every peer refuse the node.
    pub(crate) fn new(
        identity: &Identity,
        (cluster, id): (ClusterId, NodeId),
        limits: &Limits,
        versions: &Versions,
    ) -> Result<(Self, ServerConfig), PkiError> {
        let roots = roots(identity)?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
        let servers = servers.build().map_err(|err| own(&err))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let clients = clients.build().map_err(|err| tls(&err))?;
        check(identity, (cluster, id), &servers, &*clients)?;
        let transport = Arc::new(transport_config(limits));
        let client = client_config(identity, servers.clone(), versions, transport.clone())?;
        let server = server_config(identity, clients.clone(), versions, transport, limits)?;
        Ok((Self { client, servers, clients }, server))
    }

    /// Would the certificate that the peer has shown on this connection be taken now, too?
    pub(crate) fn still_accept(&self, link: &Link, shared: &Shared) -> Result<(), rustls::Error> {
        let chain = shown(&link.connection).unwrap_or_default();
        let (end, rest) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = UnixTime::now();
        if link.dialled_by == shared.id {
            let (cluster, node) = names::node_of(end)
                .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let name = names::server_name(cluster, node);
            self.servers.verify_server_cert(end, rest, &name, &[], now).map(|_| ())
        } else {
            self.clients.verify_client_cert(end, rest, now).map(|_| ())
        }
    }
}

/// Would the peers take it? They see it from both sides: when they dial this node, and when it dials them.
fn check(
    identity: &Identity,
    (cluster, id): (ClusterId, NodeId),
    servers: &WebPkiServerVerifier,
    clients: &dyn ClientCertVerifier,
) -> Result<(), PkiError> {
    if (identity.cluster(), identity.node()) != (cluster, id) {
        return Err(own(&format!(
            "it is for node {} of cluster {}, but this is node {id} of cluster {cluster}",
            identity.node(),
            identity.cluster()
        )));
    }
    let (end, rest) = identity.chain.split_first().ok_or_else(|| own(&"it is missing"))?;
    let (name, now) = (names::server_name(cluster, id), UnixTime::now());
    servers.verify_server_cert(end, rest, &name, &[], now).map_err(|err| unfit("serverAuth", &err))?;
    clients.verify_client_cert(end, rest, now).map_err(|err| unfit("clientAuth", &err))?;
    Ok(())
}

/// Why this node's certificate can't be used by the side that needs this usage.
fn unfit(usage: &'static str, err: &rustls::Error) -> PkiError {
    match err {
        rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => PkiError::Usage { missing: usage },
        other => own(other),
    }
}

fn own(err: &dyn ToString) -> PkiError {
    PkiError::Crypto { what: "this node's certificate".into(), why: err.to_string() }
}

fn tls(err: &dyn ToString) -> PkiError {
    PkiError::Crypto { what: "TLS".into(), why: err.to_string() }
}

/// How this node dials.
fn client_config(
    identity: &Identity,
    servers: Arc<WebPkiServerVerifier>,
    versions: &Versions,
    transport: Arc<TransportConfig>,
) -> Result<ClientConfig, PkiError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|err| tls(&err))?
        .with_webpki_verifier(servers)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|err| tls(&err))?;
    config.alpn_protocols = versions.protocols();
    config.resumption = Resumption::disabled();
    let config = QuicClientConfig::try_from(config).map_err(|err| tls(&err))?;
    let mut config = ClientConfig::new(Arc::new(config));
    config.transport_config(transport);
    Ok(config)
}

/// How this node is dialled.
fn server_config(
    identity: &Identity,
    clients: Arc<dyn ClientCertVerifier>,
    versions: &Versions,
    transport: Arc<TransportConfig>,
    limits: &Limits,
) -> Result<ServerConfig, PkiError> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|err| tls(&err))?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|err| tls(&err))?;
    config.alpn_protocols = versions.protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let config = QuicServerConfig::try_from(config).map_err(|err| tls(&err))?;
    let mut config = ServerConfig::with_crypto(Arc::new(config));
    // A node's address doesn't change under a connection; if it does, it connects again.
    config.migration(false).max_incoming(limits.handshakes.saturating_mul(4));
    config.transport_config(transport);
    Ok(config)
}

/// Whose certificate the other side of a connection has shown. Its chain has been verified by the handshake.
pub(crate) fn peer_of(connection: &Connection) -> Result<(ClusterId, NodeId), NameError> {
    let shown = shown(connection);
    let end = shown.as_deref().and_then(|chain| chain.first());
    names::node_of(end.ok_or(NameError::NotOneNode { found: Vec::new() })?)
}

fn shown(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    for root in &identity.roots {
        roots.add(root.clone()).map_err(|err| PkiError::Crypto {
            what: "an authority's certificate".into(),
            why: err.to_string(),
        })?;
    }
    Ok(Arc::new(roots))
}

fn transport_config(limits: &Limits) -> TransportConfig {
    /// One stream a class is in use; the rest is for versions to come.
    const STREAMS: u32 = 8;
    /// Before the first sample. A handshake packet that is lost is sent again after three times this.
    const INITIAL_RTT: Duration = Duration::from_millis(30);

    let window = limits.stream_window;
    // More than those can use up that may be stuck, on both sides: else an append, or snapshots, that have filled their
    // windows would hold up a heartbeat. Either side may have opened a bulk stream; both ways of it are used.
    let stuck = limits.bulk_streams.saturating_mul(2);
    let whole = window.saturating_mul(4_u32.saturating_add(stuck));
    let streams = limits.forwards.saturating_add(limits.bulk_streams);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .stream_receive_window(VarInt::from_u32(window))
        .receive_window(VarInt::from_u32(whole))
        .send_window(u64::from(whole))
        .max_idle_timeout(IdleTimeout::try_from(limits.idle_timeout).ok())
        .keep_alive_interval(Some(limits.keep_alive))
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(None);
    config
}

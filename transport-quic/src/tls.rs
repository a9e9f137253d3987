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
    RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

use crate::{
    names::{self, ClusterId, NameError},
    options::Limits,
    pki::{Identity, PkiError},
};

/// What is spoken, as TLS negotiates it. Its version is in each stream's hello, where a refusal can say why.
const ALPN: &[u8] = b"quorate";

/// Is this a certificate that the peers will take? Says so now, rather than letting every peer refuse the node.
pub(crate) fn check(identity: &Identity, cluster: ClusterId, id: NodeId) -> Result<(), PkiError> {
    let failed = |err: &dyn ToString| PkiError::Crypto {
        what: "this node's certificate".into(),
        why: err.to_string(),
    };
    if (identity.cluster(), identity.node()) != (cluster, id) {
        return Err(failed(&format!(
            "it is for node {} of cluster {}, but this is node {id} of cluster {cluster}",
            identity.node(),
            identity.cluster()
        )));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider());
    let verifier = verifier.build().map_err(|err| failed(&err))?;
    let (end, rest) = identity.chain.split_first().ok_or_else(|| failed(&"it is missing"))?;
    let name = names::server_name(cluster, id);
    verifier.verify_server_cert(end, rest, &name, &[], UnixTime::now()).map_err(|err| failed(&err))?;
    Ok(())
}

/// How this node dials.
pub(crate) fn client_config(identity: &Identity, limits: &Limits) -> Result<ClientConfig, PkiError> {
    let failed = |err: &dyn ToString| PkiError::Crypto { what: "TLS".into(), why: err.to_string() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|err| failed(&err))?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|err| failed(&err))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    let tls = QuicClientConfig::try_from(tls).map_err(|err| failed(&err))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport_config(limits)));
    Ok(config)
}

/// How this node is dialled.
pub(crate) fn server_config(identity: &Identity, limits: &Limits) -> Result<ServerConfig, PkiError> {
    let failed = |err: &dyn ToString| PkiError::Crypto { what: "TLS".into(), why: err.to_string() };
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider())
        .build()
        .map_err(|err| failed(&err))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|err| failed(&err))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|err| failed(&err))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let tls = QuicServerConfig::try_from(tls).map_err(|err| failed(&err))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    // A node's address doesn't change under a connection; if it does, it connects again.
    config.migration(false).max_incoming(limits.handshakes.saturating_mul(4));
    config.transport_config(Arc::new(transport_config(limits)));
    Ok(config)
}

/// Whose certificate the other side of a connection has shown. Its chain has been verified by the handshake.
pub(crate) fn peer_of(connection: &Connection) -> Result<(ClusterId, NodeId), NameError> {
    let shown =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let end = shown.as_deref().and_then(|chain| chain.first());
    names::node_of(end.ok_or(NameError::NotOneNode { found: Vec::new() })?)
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
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.forwards))
        .stream_receive_window(VarInt::from_u32(window))
        // More than one stream can use up, on both sides: else an append that has filled its window
        // would hold up a heartbeat.
        .receive_window(VarInt::from_u32(window.saturating_mul(4)))
        .send_window(u64::from(window).saturating_mul(4))
        .max_idle_timeout(IdleTimeout::try_from(limits.idle_timeout).ok())
        .keep_alive_interval(Some(limits.keep_alive))
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(None);
    config
}

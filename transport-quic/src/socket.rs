//! The UDP socket, and what identifies this endpoint to those that spoke with it before it was restarted.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

use crate::pki::Identity;

/// Binds `listen` and starts to serve it. Must be called within a tokio runtime.
pub(crate) fn open(
    listen: SocketAddr,
    buffer: usize,
    identity: &Identity,
    server: ServerConfig,
) -> io::Result<Endpoint> {
    Endpoint::new(endpoint_config(identity), Some(server), bind(listen, buffer)?, Arc::new(TokioRuntime))
}

fn bind(listen: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        // Both families, whatever the system's default. Where it can't be had, IPv6 alone is better than nothing.
        let _best_effort = socket.set_only_v6(false);
    }
    size_buffers(&socket, buffer);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Linux gives 208 KiB by default, which one burst on loopback overruns. Asking for more than the system allows is cut
/// down on Linux and refused elsewhere: then ask for less.
fn size_buffers(socket: &Socket, wanted: usize) {
    const ENOUGH: usize = 128 << 10;
    let ask = |set: &dyn Fn(usize) -> io::Result<()>| {
        let mut size = wanted;
        while let Err(err) = set(size) {
            debug!("can't have a UDP buffer of {size} bytes: {err}");
            size /= 2;
            if size < ENOUGH {
                break;
            }
        }
    };
    ask(&|size| socket.set_recv_buffer_size(size));
    ask(&|size| socket.set_send_buffer_size(size));
}

/// Reset tokens are made with a key that stays the same when the node is restarted, so that it can tell a peer at once that
/// an old connection is gone (RFC 9000, 10.3), where the peer would else wait for a timeout.
fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, identity.key.secret_der());
    let derived = hmac::sign(&secret, b"quorate stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    config
}

/// Makes connection ids that say nothing. Those that quinn makes by default are recognised only by the process that made
/// them, and a packet with another's gets no answer: no reset would ever be sent after a restart.
struct RandomIds(SystemRandom);

impl RandomIds {
    const LEN: usize = 8;
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; Self::LEN];
        self.0.fill(&mut id).expect("the system has given randomness to the TLS keys before");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        Self::LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

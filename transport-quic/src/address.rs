//! Where a peer listens: an address, or a name that is looked up at each attempt to connect.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use quorate_runtime_tokio::BoxFuture;
use tokio::net::lookup_host;

/// Where a peer listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerAddress {
    /// There.
    Socket(SocketAddr),
    /// Wherever the name says at the moment of dialling; all its addresses are tried, one after the other.
    Name {
        /// The host's name.
        host: String,
        /// The UDP port.
        port: u16,
    },
}

/// A text that is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not the address of a peer: IP:PORT, [IPv6]:PORT or NAME:PORT, with a port from 1 to 65535")]
pub struct PeerAddressError(pub String);

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        let wrong = || PeerAddressError(text.into());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(wrong()) } else { Ok(Self::Socket(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // What isn't a name is left to nobody's guess; what is one, the resolver knows.
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let port = port.parse().ok().filter(|&port| port > 0).ok_or_else(wrong)?;
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_name) || host.parse::<IpAddr>().is_ok()
        {
            return Err(wrong());
        }
        Ok(Self::Name { host: host.into(), port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How names become addresses.
#[derive(Clone)]
pub struct Resolver(Arc<Lookup>);

type Lookup = dyn Fn(String, u16) -> BoxFuture<io::Result<Vec<SocketAddr>>> + Send + Sync;

impl Resolver {
    /// Asks `lookup`, with host and port, at each attempt to connect to a peer that is known by its name. Of each peer there is
    /// one question at a time; an answer that takes longer than [`Limits::dial_timeout`](crate::Limits::dial_timeout) is used
    /// when it comes.
    pub fn new<F, A>(lookup: F) -> Self
    where
        F: Fn(String, u16) -> A + Send + Sync + 'static,
        A: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |host, port| Box::pin(lookup(host, port))))
    }

    /// The addresses that a peer's address means now, all of them.
    pub(crate) fn resolve(&self, address: &PeerAddress) -> BoxFuture<io::Result<Vec<SocketAddr>>> {
        match address.clone() {
            PeerAddress::Socket(address) => Box::pin(async move { Ok(vec![address]) }),
            PeerAddress::Name { host, port } => (self.0)(host, port),
        }
    }
}

/// Asks the operating system.
impl Default for Resolver {
    fn default() -> Self {
        Self::new(|host, port| async move { Ok(lookup_host((host.as_str(), port)).await?.collect()) })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// The same place, however it is written: `::ffff:192.0.2.1` is `192.0.2.1`.
pub(crate) fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// Those that a socket bound to `local` can reach; one on `[::]` reaches both families.
pub(crate) fn reachable(addresses: Vec<SocketAddr>, local: SocketAddr) -> Vec<SocketAddr> {
    let dual = local.is_ipv6() && local.ip().is_unspecified();
    let can = |address: &SocketAddr| dual || address.ip().to_canonical().is_ipv4() == local.is_ipv4();
    addresses.into_iter().filter(can).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_what_it_writes() {
        for text in ["192.0.2.1:4000", "[2001:db8::1]:4000", "node-3.example.org:1", "localhost:65535"] {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(matches!(address, PeerAddress::Name { .. }), text.starts_with(['n', 'l']));
        }
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "1.2.3.4:0",
            "::1:5",
            "a b:1",
            "http://h:1",
            "1.2.3.4",
        ] {
            assert_eq!(text.parse::<PeerAddress>(), Err(PeerAddressError(text.into())), "{text}");
        }
    }

    #[test]
    fn a_socket_reaches_its_own_family_and_an_open_one_both() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = vec![at("192.0.2.1:1"), at("[2001:db8::1]:1")];
        assert_eq!(reachable(all.clone(), at("127.0.0.1:9")), all[..1]);
        assert_eq!(reachable(all.clone(), at("[::1]:9")), all[1..]);
        assert_eq!(reachable(all.clone(), at("[::]:9")), all);
    }
}

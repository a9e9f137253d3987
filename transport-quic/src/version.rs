//! Which version two nodes speak: the newest that both know, as TLS negotiates it (ALPN), so that nobody on the way can
//! talk them down to an older one.

use std::time::Duration;

use quinn::{Connection, ConnectionError, crypto::rustls::HandshakeData};
use quorate_core::NodeId;
use tokio::time::timeout;

use crate::{code::Code, link::quoted, stream::MAGIC};

/// The newest version that is spoken.
pub const VERSION: u8 = 2;

/// The versions that are spoken, oldest first. Version 2 has bulk streams; version 1 doesn't.
pub const KNOWN_VERSIONS: &[u8] = &[1, 2];

/// Since when there are bulk streams.
pub(crate) const BULK_SINCE: u8 = 2;

/// Agreed upon by nodes that have no version in common: they connect only to tell each other so.
const NONE_IN_COMMON: &[u8] = b"quorate/none";

/// The versions that one node speaks: at least one, newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Versions(Vec<u8>);

impl Versions {
    /// `None` if there are none, or some that aren't known.
    pub(crate) fn new(spoken: &[u8]) -> Option<Self> {
        let known = !spoken.is_empty() && spoken.iter().all(|version| KNOWN_VERSIONS.contains(version));
        let mut versions = spoken.to_vec();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.dedup();
        known.then_some(Self(versions))
    }

    /// What to offer, and what to take, the best first.
    pub(crate) fn protocols(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|&version| protocol(version)).chain([NONE_IN_COMMON.to_vec()]).collect()
    }

    /// The version that was agreed upon with the other side; `None` if there is none in common.
    pub(crate) fn agreed(&self, connection: &Connection) -> Option<u8> {
        let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let agreed = data.protocol?;
        self.0.iter().copied().find(|&version| protocol(version) == agreed)
    }

    /// Why a handshake has failed, in words of ours where those of TLS say too little.
    pub(crate) fn hint(&self, err: &ConnectionError) -> String {
        /// No protocol in common (RFC 9001, 8.1): not even the one for telling each other so, which version 1 didn't have yet.
        const NO_PROTOCOL: u64 = 0x178;
        let code = match err {
            ConnectionError::TransportError(err) => err.code.into(),
            ConnectionError::ConnectionClosed(close) => close.error_code.into(),
            _ => 0_u64,
        };
        if code == NO_PROTOCOL {
            format!("the other side speaks none of the transport versions {self} that this node knows: {err}")
        } else {
            err.to_string()
        }
    }

    /// The dialling side, with a peer that speaks none of these: says which these are, and brings back why that won't do.
    pub(crate) async fn part(&self, connection: &Connection, patience: Duration) -> String {
        let said = async {
            let mut stream = connection.open_uni().await.ok()?;
            stream.write_all(&[&MAGIC[..], &self.0].concat()).await.ok()?;
            stream.finish().ok()?;
            match connection.closed().await {
                ConnectionError::ApplicationClosed(close) => Some(quoted(&close.reason)),
                _ => None,
            }
        };
        let said = timeout(patience, said).await.ok().flatten();
        connection.close(Code::Version.number(), b"no transport version in common");
        said.unwrap_or_else(|| {
            format!("no transport version in common: this node knows {self}, and the peer hasn't said what it knows")
        })
    }

    /// The other side of it: hears which versions the peer knows, says that there is none in common, and returns that.
    pub(crate) async fn refuse(
        &self,
        connection: &Connection,
        (me, peer): (NodeId, NodeId),
        patience: Duration,
    ) -> String {
        let heard = async {
            let mut stream = connection.accept_uni().await.ok()?;
            let bytes = stream.read_to_end(MAGIC.len() + usize::from(u8::MAX)).await.ok()?;
            bytes.strip_prefix(&MAGIC).map(|versions| Self(versions.to_vec()))
        };
        let heard = timeout(patience, heard).await.ok().flatten();
        let theirs = heard.map_or("others".into(), |versions| versions.to_string());
        let why =
            format!("no transport version in common: node {me} knows {self}, node {peer} knows {theirs}");
        connection.close(Code::Version.number(), why.as_bytes());
        why
    }
}

/// Oldest first, as people count.
impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().rev()).finish()
    }
}

/// How TLS calls a version.
fn protocol(version: u8) -> Vec<u8> {
    match version {
        // From before there was a second.
        1 => b"quorate".to_vec(),
        newer => format!("quorate/{newer}").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_only_known_ones_are_spoken() {
        assert!(KNOWN_VERSIONS.contains(&VERSION) && KNOWN_VERSIONS.contains(&BULK_SINCE));
        let both = Versions::new(&[1, 2, 1]).unwrap();
        assert_eq!(both.protocols(), [&b"quorate/2"[..], b"quorate", b"quorate/none"]);
        assert_eq!(both.to_string(), "[1, 2]");
        assert_eq!(Versions::new(&[]), None);
        assert_eq!(Versions::new(&[1, 9]), None);
    }
}

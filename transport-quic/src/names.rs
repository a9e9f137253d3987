//! Who a certificate is for: cluster and node are its DNS name, and nothing else in it counts.

use std::{fmt, str::FromStr};

use quorate_core::NodeId;
use rustls::pki_types::{CertificateDer, ServerName};

/// Which cluster. Written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = NameError;

    fn from_str(digits: &str) -> Result<Self, NameError> {
        let id = u64::from_str_radix(digits, 16).ok().map(Self);
        // Only the canonical spelling: one cluster, one name.
        id.filter(|id| id.to_string() == digits).ok_or_else(|| NameError::Cluster(digits.into()))
    }
}

/// Why a name or a certificate is for no node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// A cluster id that is none.
    #[error("{0:?} is not a cluster id: 16 hexadecimal digits in lower case")]
    Cluster(String),
    /// A certificate that can't be read.
    #[error("the certificate can't be read: {0}")]
    Unreadable(String),
    /// A certificate with some other name, or with several.
    #[error("the certificate is for {found:?}, not for one node (node-<id>.<cluster>.{SUFFIX})")]
    NotOneNode {
        /// The names in it.
        found: Vec<String>,
    },
}

/// The end of every node's name. `.internal` is set aside for private use: no public authority signs for it.
const SUFFIX: &str = "quorate.internal";

/// The name in the certificate of `node`: `node-<id>.<cluster>.quorate.internal`.
#[must_use]
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.{SUFFIX}")
}

/// The one node that a certificate is for. Says nothing about who signed it.
///
/// # Errors
/// If the certificate can't be read, or its names are not exactly one node's name.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<(ClusterId, NodeId), NameError> {
    let unreadable = |err: webpki::Error| NameError::Unreadable(err.to_string());
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(unreadable)?;
    let mut names = certificate.valid_dns_names();
    let found = match (names.next().and_then(parse), names.next()) {
        (Some((cluster, node)), None) => (cluster, node),
        _ => {
            let found = certificate.valid_dns_names().take(4).map(String::from).collect();
            return Err(NameError::NotOneNode { found });
        }
    };
    // The names above are as presented; whether the certificate holds for one is webpki's to say.
    let name = server_name(found.0, found.1);
    certificate.verify_is_valid_for_subject_name(&name).map_err(unreadable)?;
    Ok(found)
}

/// The name to ask for when dialling `node`.
pub(crate) fn server_name(cluster: ClusterId, node: NodeId) -> ServerName<'static> {
    ServerName::try_from(node_name(cluster, node))
        .expect("digits, letters, hyphens and dots, below 64 a label")
}

fn parse(name: &str) -> Option<(ClusterId, NodeId)> {
    let (node, rest) = name.strip_prefix("node-")?.split_once('.')?;
    let cluster: ClusterId = rest.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok()?;
    let node = NodeId(node.parse().ok()?);
    (node.0 > 0 && node_name(cluster, node) == name).then_some((cluster, node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_cluster_and_node_and_has_one_spelling() {
        let (cluster, node) = (ClusterId(0xc0ffee), NodeId(u64::MAX));
        let name = node_name(cluster, node);
        assert_eq!(name, "node-18446744073709551615.0000000000c0ffee.quorate.internal");
        assert_eq!(parse(&name), Some((cluster, node)));
        for other in [
            "node-01.0000000000c0ffee.quorate.internal",
            "node-+1.0000000000c0ffee.quorate.internal",
            "node-0.0000000000c0ffee.quorate.internal",
            "node-1.0000000000C0FFEE.quorate.internal",
            "node-1.c0ffee.quorate.internal",
            "node-1.0000000000c0ffee.xquorate.internal",
            "node-1.0000000000c0ffee.quorate.internal.example.org",
            "*.0000000000c0ffee.quorate.internal",
            "node-1",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_cluster_id_reads_back_what_it_writes() {
        assert_eq!("00000000deadbeef".parse(), Ok(ClusterId(0xdead_beef)));
        assert_eq!("deadbeef".parse::<ClusterId>(), Err(NameError::Cluster("deadbeef".into())));
    }

    #[test]
    fn every_node_id_makes_a_server_name() {
        for node in [1, 42, u64::MAX] {
            assert!(matches!(server_name(ClusterId(u64::MAX), NodeId(node)), ServerName::DnsName(_)));
        }
    }
}

//! What one node is told when it starts: a TOML file, or flags that say the same.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use quorate_runtime_tokio::{SnapshotConfigError, SnapshotLimits, SnapshotPolicy};
use quorate_transport_quic::PeerAddress;
use serde::{Deserialize, Serialize};

use super::{Failure, Result, failure::Context as _};

/// The format of the file that this version reads and writes.
pub(crate) const FORMAT: u32 = 1;

/// Where a node listens for clients, unless told otherwise: on this machine only.
pub(crate) const DEFAULT_CLIENT: &str = "127.0.0.1:2379";

/// Where a node listens for its peers, unless told otherwise: on this machine only.
pub(crate) const DEFAULT_PEER: &str = "127.0.0.1:2380";

/// Where a node tells Prometheus about itself, if it is to and no address is said: on this machine only.
pub(crate) const DEFAULT_METRICS: &str = "127.0.0.1:2381";

/// One node's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NodeConfig {
    /// The format of this file: 1.
    #[serde(deserialize_with = "format")]
    pub(crate) format: u32,
    /// The node's id, from 1, never used before in this cluster.
    #[serde(deserialize_with = "node_id")]
    pub(crate) id: u64,
    /// The cluster's id: 16 hexadecimal digits.
    #[serde(with = "cluster_id")]
    pub(crate) cluster: u64,
    /// The directory of the node's store.
    pub(crate) data: PathBuf,
    /// Where clients are served (TCP).
    #[serde(default = "default_client")]
    pub(crate) listen_client: SocketAddr,
    /// Where peers are met (UDP).
    #[serde(default = "default_peer")]
    pub(crate) listen_peer: SocketAddr,
    /// Where Prometheus is told about it (TCP, HTTP), if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Who this node is, to its peers. A node that is alone needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
    /// When to take snapshots, and how much of the log to keep.
    #[serde(default, skip_serializing_if = "Snapshots::is_default")]
    pub(crate) snapshots: Snapshots,
    /// Everyone in the cluster at its beginning, this node included.
    pub(crate) members: Vec<Member>,
}

/// Certificate files, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The cluster's certificate authority.
    pub(crate) ca: PathBuf,
    /// The node's certificate.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// When a node takes snapshots of its own accord, and what stays in its log then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Snapshots {
    /// After so many entries since the last one; 0: never of its own accord. As etcd's `snapshot-count`.
    pub(crate) entries: u64,
    /// Or when they have so many bytes.
    pub(crate) bytes: u64,
    /// So many entries before a snapshot stay in the log, for nodes that lag a little. As etcd's `snapshot-catchup-entries`.
    pub(crate) keep_entries: u64,
    /// So many bytes a second are written of those taken, sent and received, each; 0: as fast as it goes, at the cost of clients.
    pub(crate) rate: u64,
}

/// What [`Snapshots::entries`] is unless told otherwise.
pub(crate) const SNAPSHOT_ENTRIES: u64 = 100_000;
/// What [`Snapshots::bytes`] is unless told otherwise.
pub(crate) const SNAPSHOT_BYTES: u64 = 64 << 20;
/// What [`Snapshots::keep_entries`] is unless told otherwise.
pub(crate) const SNAPSHOT_KEEP: u64 = 10_000;
/// What [`Snapshots::rate`] is unless told otherwise.
pub(crate) const SNAPSHOT_RATE: u64 = 32 << 20;

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            entries: SNAPSHOT_ENTRIES,
            bytes: SNAPSHOT_BYTES,
            keep_entries: SNAPSHOT_KEEP,
            rate: SNAPSHOT_RATE,
        }
    }
}

impl Snapshots {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The same for the node.
    pub(crate) fn policy(self) -> SnapshotPolicy {
        let Self { entries, bytes, keep_entries, rate: _ } = self;
        let policy = SnapshotPolicy { keep_entries, ..SnapshotPolicy::default() };
        if entries == 0 {
            SnapshotPolicy { automatic: false, ..policy }
        } else {
            SnapshotPolicy { entries, bytes, ..policy }
        }
    }

    /// How much they may take of the process.
    pub(crate) fn limits(self) -> SnapshotLimits {
        let rate = NonZeroU64::new(self.rate);
        SnapshotLimits { take_rate: rate, send_rate: rate, receive_rate: rate, ..SnapshotLimits::default() }
    }

    fn validate(self) -> Result<()> {
        let wrong = |error: SnapshotConfigError| Failure::new(error.to_string());
        self.policy().validate().map_err(wrong)?;
        let least = self.limits().chunk_bytes as u64;
        if self.rate != 0 && self.rate < least {
            let rate = self.rate;
            return Err(Failure::new(format!("snapshots: rate must be 0 or at least {least}, not {rate}")));
        }
        self.limits().validate().map_err(wrong)
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// Its id.
    #[serde(deserialize_with = "node_id")]
    pub(crate) id: u64,
    /// Where its peers find it, as a `PeerAddress` is written. A name is looked up at each dial.
    #[serde(deserialize_with = "host_port")]
    pub(crate) peer: String,
    /// Where clients find it, as a URL; told to clients that ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
}

impl NodeConfig {
    /// Reads a file. Relative paths in it are relative to the file.
    ///
    /// # Errors
    /// If it can't be read or is not a valid configuration: says the file, the line and the field.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).context(format_args!("can't read {}", path.display()))?;
        let mut config: Self = from_toml(&text, path)?;
        config.validate().map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let Self { data, tls, .. } = &mut config;
        let certificates = tls.iter_mut().flat_map(|Tls { ca, cert, key }| [ca, cert, key]);
        for file in certificates.chain([data]) {
            *file = folder.join(&*file);
        }
        Ok(config)
    }

    /// Rules between fields.
    pub(crate) fn validate(&self) -> Result<()> {
        let mut ids = BTreeSet::new();
        for member in &self.members {
            if !ids.insert(member.id) {
                return Err(Failure::new(format!("members: node {} is there twice", member.id)));
            }
        }
        if !ids.contains(&self.id) {
            return Err(Failure::new(format!("members: this node, id {}, is not among them", self.id)));
        }
        if self.members.len() > 1 && self.tls.is_none() {
            return Err(Failure::new("tls: a node that has peers needs ca, cert and key"));
        }
        self.snapshots.validate()
    }
}

/// Parses TOML; an error names the file, the line and what stands there.
pub(crate) fn from_toml<T: for<'de> Deserialize<'de>>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
        let found = text.lines().nth(line).unwrap_or_default().trim();
        let message = error.message().replace('\n', " ");
        // A missing field has no line of its own: the table's is shown, if it has one.
        let found = if found.is_empty() { String::new() } else { format!(" (at `{found}`)") };
        Failure::new(format!("{}, line {}: {message}{found}", path.display(), line + 1))
    })
}

fn default_client() -> SocketAddr {
    #[expect(clippy::unwrap_used, reason = "a constant")]
    DEFAULT_CLIENT.parse().unwrap()
}

fn default_peer() -> SocketAddr {
    #[expect(clippy::unwrap_used, reason = "a constant")]
    DEFAULT_PEER.parse().unwrap()
}

fn format<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        other => {
            Err(serde::de::Error::custom(format_args!("unknown format {other}; this version knows {FORMAT}")))
        }
    }
}

fn node_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(serde::de::Error::custom("node ids begin at 1")),
        id => Ok(id),
    }
}

fn host_port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let address = String::deserialize(deserializer)?;
    check_peer(&address).map_err(serde::de::Error::custom)?;
    Ok(address)
}

/// Is it something that can be dialled?
pub(crate) fn check_peer(address: &str) -> Result<(), String> {
    address.parse::<PeerAddress>().map(drop).map_err(|error| error.to_string())
}

/// Is it `HOST:PORT`?
pub(crate) fn check_host_port(address: &str) -> Result<(), String> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err(format!("\"{address}\" is not HOST:PORT")),
    }
}

/// A cluster id is written as 16 hexadecimal digits, as etcd shows it.
pub(crate) mod cluster_id {
    use std::{fs::File, io::Read as _};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::cli::failure::{Context as _, Result as Outcome};

    /// One that was never used.
    pub(crate) fn random() -> Outcome<u64> {
        let mut bytes = [0; 8];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        read.context("no randomness for a cluster id: /dev/urandom")?;
        Ok(u64::from_ne_bytes(bytes).max(1))
    }

    /// The digits of one as a store has it.
    pub(crate) fn show_wide(id: u128) -> String {
        u64::try_from(id).map_or_else(|_| format!("{id:032x}"), show)
    }

    /// Parses the digits; zero is no cluster.
    pub(crate) fn parse(text: &str) -> Result<u64, String> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(id) if digits && id > 0 => Ok(id),
            _ => Err(format!("\"{text}\" is not a cluster id: 16 hexadecimal digits, not all zero")),
        }
    }

    /// The digits.
    pub(crate) fn show(id: u64) -> String {
        format!("{id:016x}")
    }

    pub(crate) fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&show(*id))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"format = 1
id = 2
cluster = "00c0ffee00c0ffee"
data = "store"
listen-client = "127.0.0.1:2389"
metrics = "127.0.0.1:2391"

[tls]
ca = "../ca.pem"
cert = "cert.pem"
key = "key.pem"

[[members]]
id = 1
peer = "127.0.0.1:2380"

[[members]]
id = 2
peer = "localhost:2390"
client = "http://127.0.0.1:2389"
"#;

    fn read(text: &str) -> Result<NodeConfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        fs::write(&path, text).unwrap();
        NodeConfig::read(&path)
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        let message = read(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message.split_once("node.toml").unwrap().1.to_owned()
    }

    #[test]
    fn a_good_file_is_read_and_written_back() {
        let config = read(GOOD).unwrap();
        assert_eq!((config.id, config.cluster), (2, 0x00c0_ffee_00c0_ffee));
        assert_eq!(config.listen_peer.to_string(), DEFAULT_PEER);
        assert_eq!(config.metrics.map(|address| address.port()), Some(2391));
        assert!(config.data.is_absolute() && config.data.ends_with("store"));
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(config.snapshots.policy(), SnapshotPolicy::default());
        assert_eq!(config.snapshots.limits(), SnapshotLimits::default());
    }

    #[test]
    fn snapshots_are_as_often_as_it_says() {
        let with = |text: &str| read(&GOOD.replacen("[tls]", &format!("[snapshots]\n{text}\n[tls]"), 1));
        let config = with("entries = 500\nkeep-entries = 7").unwrap();
        let policy = config.snapshots.policy();
        assert!(policy.automatic);
        assert_eq!((policy.entries, policy.bytes, policy.keep_entries), (500, SNAPSHOT_BYTES, 7));
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert!(!with("entries = 0").unwrap().snapshots.policy().automatic);
        let message = with("bytes = 0").unwrap_err().to_string();
        assert!(message.ends_with("snapshots: bytes must be at least 1, not 0"), "{message}");
        let limits = with("rate = 1048576").unwrap().snapshots.limits();
        assert_eq!([limits.take_rate, limits.send_rate, limits.receive_rate], [NonZeroU64::new(1 << 20); 3]);
        assert_eq!(with("rate = 0").unwrap().snapshots.limits().send_rate, None);
        let message = with("rate = 1000").unwrap_err().to_string();
        assert!(message.ends_with("snapshots: rate must be 0 or at least 131072, not 1000"), "{message}");
        let message = with("count = 5").unwrap_err().to_string();
        assert!(message.contains("unknown field `count`"), "{message}");
    }

    #[test]
    fn errors_name_file_line_and_field() {
        assert_eq!(
            refused("id = 2", "id = \"two\""),
            ", line 2: invalid type: string \"two\", expected u64 (at `id = \"two\"`)"
        );
        let unknown = refused("listen-client", "listen-clients");
        assert!(
            unknown.starts_with(", line 5: unknown field `listen-clients`, expected one of"),
            "{unknown}"
        );
        assert_eq!(
            refused("format = 1", "format = 7"),
            ", line 1: unknown format 7; this version knows 1 (at `format = 7`)"
        );
        assert!(refused("id = 2\n", "").contains("missing field `id`"));
        assert!(refused("00c0ffee00c0ffee", "c0ffee").contains("line 3: \"c0ffee\" is not a cluster id"));
        assert!(refused("127.0.0.1:2389", "127.0.0.1").contains("line 5: invalid socket address"));
        let message = refused("localhost:2390", "localhost");
        assert_eq!(
            message,
            ", line 19: \"localhost\" is not the address of a peer: IP:PORT, [IPv6]:PORT or NAME:PORT, with a port from 1 to \
             65535 (at `peer = \"localhost\"`)"
        );
        assert!(refused("127.0.0.1:2391", "2391").contains("line 6: invalid socket address"));
        assert!(refused("id = 1", "id = 0").contains("line 14: node ids begin at 1"));
        assert_eq!(refused("id = 1", "id = 2"), ": members: node 2 is there twice");
        assert_eq!(refused("id = 2", "id = 3"), ": members: this node, id 3, is not among them");
        assert!(refused("id = 2", "id = = 2").contains("line 2: "));
        let (before, tls) = GOOD.split_once("[tls]").unwrap();
        let members = tls.split_once("\n\n").unwrap().1;
        let message = read(&format!("{before}{members}")).unwrap_err().to_string();
        assert!(
            message.ends_with("node.toml: tls: a node that has peers needs ca, cert and key"),
            "{message}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = NodeConfig::read(Path::new("no/such.toml")).unwrap_err().to_string();
        assert!(message.starts_with("can't read no/such.toml: "), "{message}");
    }
}

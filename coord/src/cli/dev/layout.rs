//! The directory of a development cluster.
//!
//! ```text
//! cluster.toml         what cluster this is; written last, so where it is, everything else is too
//! lock                 held by the `quorate dev` that runs here; holds its pid
//! ca/                  the certificate authority, with its key
//! node-N/node.toml     for `quorate serve --config`; written anew at each start
//! node-N/*.pem, *.key  the node's certificate
//! node-N/store/        its data
//! node-N/log, log.1    what it has logged
//! node-N/flight        what its core was told, with `--record`
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quorate_core::NodeId;
use quorate_storage_redb::RedbStore;
use quorate_transport_quic::{ClusterId, pki::Ca};
use serde::{Deserialize, Deserializer, Serialize};

use crate::cli::{
    Failure, Result,
    config::{self, Member, NodeConfig, Tls, cluster_id},
    failure::Context as _,
    serve,
};

/// The format of `cluster.toml` that this version reads and writes.
const FORMAT: u32 = 1;

const DEFAULT_NODES: u32 = 3;
const DEFAULT_PORT: u16 = 2379;

/// How long the ports of a cluster that ran before may take to be free again.
const LINGER: Duration = Duration::from_secs(5);

/// A development cluster's directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// Its nodes, in order of their ids.
    pub(crate) nodes: Vec<Plan>,
    /// Was it made just now?
    pub(crate) fresh: bool,
    /// The cluster's id.
    pub(crate) cluster: u64,
    _lock: File,
}

/// One of its nodes.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Its id.
    pub(crate) id: u64,
    /// Its own directory.
    pub(crate) dir: PathBuf,
    /// Where it serves clients.
    pub(crate) client: SocketAddr,
    /// Where it tells Prometheus about itself.
    pub(crate) metrics: Option<SocketAddr>,
}

/// `cluster.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ClusterFile {
    #[serde(deserialize_with = "format")]
    format: u32,
    #[serde(with = "cluster_id")]
    cluster: u64,
    nodes: u32,
    base_port: u16,
}

impl Layout {
    /// Opens the cluster in `dir`, or makes one where there is nothing.
    ///
    /// # Errors
    /// If the directory can't be used, is something else's, is in use, is of another number of nodes, or is damaged; or
    /// if a port is in use. Nothing is changed then.
    pub(crate) fn open(dir: &Path, nodes: Option<u32>, base_port: Option<u16>) -> Result<Self> {
        let path = dir.join("cluster.toml");
        fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))?;
        if !path.exists() {
            is_empty(dir)?;
        }
        let lock = lock(dir)?;
        // Only now: another one may have been making it.
        let found = match fs::read_to_string(&path) {
            Ok(text) => Some(config::from_toml::<ClusterFile>(&text, &path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::new(format!("can't read {}: {error}", path.display()))),
        };
        let fresh = found.is_none();
        let mut file = match found {
            Some(file) => file,
            None => ClusterFile {
                format: FORMAT,
                cluster: cluster_id::random()?,
                nodes: nodes.unwrap_or(DEFAULT_NODES),
                base_port: DEFAULT_PORT,
            },
        };
        if let Some(nodes) = nodes.filter(|nodes| *nodes != file.nodes) {
            return Err(Failure::new(format!(
                "{} holds a cluster of {} nodes, not {nodes}: leave --nodes out, or choose another directory with --data",
                dir.display(),
                file.nodes
            )));
        }
        let moved = base_port.is_some_and(|port| port != file.base_port);
        file.base_port = base_port.unwrap_or(file.base_port);
        let configs = file.configs()?;
        check_ports(&configs, if fresh { Duration::ZERO } else { LINGER })?;
        let written = if fresh { make(dir, &file, &configs) } else { resume(dir, &file, &configs, moved) };
        written?;
        let nodes = configs.iter().map(|config| Plan {
            id: config.id,
            dir: node_dir(dir, config.id),
            client: config.listen_client,
            metrics: config.metrics,
        });
        Ok(Self { dir: dir.to_owned(), nodes: nodes.collect(), fresh, cluster: file.cluster, _lock: lock })
    }
}

impl Plan {
    /// The file for `quorate serve --config`.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }
}

impl ClusterFile {
    /// Each node's configuration; its paths are relative to its directory.
    fn configs(&self) -> Result<Vec<NodeConfig>> {
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = |id: u32| {
            u16::try_from(u32::from(self.base_port) + 10 * (id - 1)).ok().filter(|port| *port < u16::MAX - 1)
        };
        let mut members = Vec::new();
        for id in 1..=self.nodes {
            let port = port(id).ok_or_else(|| {
                Failure::new(format!(
                    "there is no port for node {id}: choose a lower --base-port than {}",
                    self.base_port
                ))
            })?;
            members.push((
                port,
                Member {
                    id: id.into(),
                    peer: local(port + 1).to_string(),
                    client: Some(format!("http://{}", local(port))),
                },
            ));
        }
        let all: Vec<Member> = members.iter().map(|(_, member)| member.clone()).collect();
        let config = |(port, member): (u16, Member)| NodeConfig {
            format: config::FORMAT,
            id: member.id,
            cluster: self.cluster,
            data: "store".into(),
            listen_client: local(port),
            listen_peer: local(port + 1),
            metrics: Some(local(port + 2)),
            tls: Some(Tls { ca: "ca.pem".into(), cert: "node.pem".into(), key: "node.key".into() }),
            snapshots: crate::cli::config::Snapshots::default(),
            members: all.clone(),
        };
        Ok(members.into_iter().map(config).collect())
    }

    fn write(&self, dir: &Path) -> Result {
        let head = "# A cluster of `quorate dev`. Without this file its directory can't be used any more.\n";
        write_file(&dir.join("cluster.toml"), head, self)
    }
}

/// The first start: everything, and `cluster.toml` last.
fn make(dir: &Path, file: &ClusterFile, configs: &[NodeConfig]) -> Result {
    let pki = |error: quorate_transport_quic::pki::PkiError| Failure::new(error.to_string());
    let ca = Ca::generate(ClusterId(file.cluster)).map_err(pki)?;
    ca.save(&dir.join("ca")).map_err(pki)?;
    for config in configs {
        let node = node_dir(dir, config.id);
        ca.issue(NodeId(config.id)).and_then(|issued| issued.save(&node)).map_err(pki)?;
        write_config(&node, config)?;
        let config = NodeConfig { data: node.join(&config.data), ..config.clone() };
        serve::bootstrap(&config)?;
    }
    file.write(dir)
}

/// Any other start: is everything there, and of this cluster? The ports may have changed.
fn resume(dir: &Path, file: &ClusterFile, configs: &[NodeConfig], moved: bool) -> Result {
    let expected = quorate_storage_redb::Identity { cluster: file.cluster.into(), node: NodeId(0) };
    for config in configs {
        let node = node_dir(dir, config.id);
        for name in ["ca.pem", "node.pem", "node.key"] {
            if !node.join(name).exists() {
                return Err(Failure::new(format!("{} is missing: {ADVICE}", node.join(name).display())));
            }
        }
        let store = node.join(&config.data);
        let found = RedbStore::identity_in(&store)
            .map_err(|error| Failure::new(format!("{}: {error}", store.display())))?
            .ok_or_else(|| Failure::new(format!("{} holds no store any more: {ADVICE}", store.display())))?;
        let expected = quorate_storage_redb::Identity { node: NodeId(config.id), ..expected };
        if found != expected {
            return Err(Failure::new(format!(
                "{} is the store of {found}, not of {expected}: {ADVICE}",
                store.display()
            )));
        }
        write_config(&node, config)?;
    }
    if moved { file.write(dir) } else { Ok(()) }
}

const ADVICE: &str = "put back what was there, or begin anew in another directory with --data";

fn node_dir(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("node-{id}"))
}

fn write_config(node: &Path, config: &NodeConfig) -> Result {
    let head = "# Written by `quorate dev` at each of its starts: to change something, take a copy.\n";
    write_file(&node.join("node.toml"), head, config)
}

/// All of it or nothing, and durable.
fn write_file(path: &Path, head: &str, content: &impl Serialize) -> Result {
    let text = toml::to_string(content).context(path.display())?;
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(head.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().context(format_args!("can't write {}", path.display()))
}

/// Is there nothing yet? A lock alone is left by a start that failed early.
fn is_empty(dir: &Path) -> Result {
    let entries = fs::read_dir(dir).context(format_args!("can't read {}", dir.display()))?;
    let mut ours = false;
    for entry in entries {
        let name = entry.context(format_args!("can't read {}", dir.display()))?.file_name();
        let name = name.to_string_lossy();
        match &*name {
            "lock" => {}
            "ca" => ours = true,
            name if name.starts_with("node-") => ours = true,
            _ => {
                return Err(Failure::new(format!(
                    "{} holds something else ({name}), and no cluster: choose another directory with --data",
                    dir.display()
                )));
            }
        }
    }
    if ours {
        return Err(Failure::new(format!(
            "{} has no cluster.toml: its first start did not come to its end, or the file was removed; put it back, or \
             delete the directory if nothing in it is needed",
            dir.display()
        )));
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|error| unwritable(dir, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _unknown = file.read_to_string(&mut pid);
            return Err(Failure::new(format!(
                "another `quorate dev` (pid {}) runs in {}: stop it first, or choose another directory with --data",
                pid.trim(),
                dir.display()
            )));
        }
        Err(TryLockError::Error(error)) => {
            return Err(Failure::new(format!("can't lock {}: {error}", path.display())));
        }
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(|error| unwritable(dir, &error))?;
    Ok(file)
}

fn unwritable(dir: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("can't write in {}: {error}: choose another directory with --data", dir.display()))
}

/// Are the ports free, or will they be within `patience`?
fn check_ports(configs: &[NodeConfig], patience: Duration) -> Result {
    let deadline = Instant::now() + patience;
    for config in configs {
        let (client, peer) = (config.listen_client, config.listen_peer);
        loop {
            let metrics = config.metrics.map(TcpListener::bind).transpose();
            let taken = match (TcpListener::bind(client), UdpSocket::bind(peer), metrics) {
                (Ok(_), Ok(_), Ok(_)) => break,
                (Err(error), _, _) => {
                    format!("TCP port {} (node {}, clients): {error}", client.port(), config.id)
                }
                (_, Err(error), _) => {
                    format!("UDP port {} (node {}, peers): {error}", peer.port(), config.id)
                }
                (_, _, Err(error)) => {
                    let port = config.metrics.map_or(0, |address| address.port());
                    format!("TCP port {port} (node {}, metrics): {error}", config.id)
                }
            };
            if Instant::now() >= deadline {
                return Err(Failure::new(format!(
                    "{taken}: stop what runs there, or choose others with --base-port"
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        other => {
            let message =
                format_args!("unknown format {other}; this version of quorate knows {FORMAT}").to_string();
            Err(serde::de::Error::custom(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port with nothing on it, or on those after it that three nodes use.
    fn free() -> u16 {
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = ClusterFile { format: 1, cluster: 1, nodes: 3, base_port: port };
            if file.configs().is_ok_and(|configs| check_ports(&configs, Duration::ZERO).is_ok()) {
                return port;
            }
        }
    }

    fn refused(dir: &Path, nodes: Option<u32>, port: Option<u16>) -> String {
        let message = Layout::open(dir, nodes, port).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn what_was_made_is_found_again_also_on_other_ports() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("new/data");
        let port = free();
        let made = Layout::open(dir, None, Some(port)).unwrap();
        assert!(made.fresh && made.nodes.len() == 3);
        let config = NodeConfig::read(&made.nodes[1].config()).unwrap();
        assert_eq!((config.id, config.cluster), (2, made.cluster));
        assert_eq!((config.listen_client.port(), config.listen_peer.port()), (port + 10, port + 11));
        assert!(config.listen_client.ip().is_loopback() && config.listen_peer.ip().is_loopback());
        let cluster = made.cluster;
        drop(made);

        let port = free();
        let found = Layout::open(dir, Some(3), Some(port)).unwrap();
        assert!(!found.fresh && found.cluster == cluster && found.nodes[0].client.port() == port);
        drop(found);
        assert_eq!(Layout::open(dir, None, None).unwrap().nodes[2].client.port(), port + 20);
    }

    #[test]
    fn another_count_a_second_dev_and_an_unknown_format_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let made = Layout::open(dir, Some(1), Some(free())).unwrap();
        let busy = refused(dir, None, None);
        assert!(busy.contains(&format!("another `quorate dev` (pid {})", std::process::id())), "{busy}");
        drop(made);
        assert!(refused(dir, Some(3), None).contains("a cluster of 1 nodes, not 3: leave --nodes out"));
        let file = dir.join("cluster.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("format = 1", "format = 2")).unwrap();
        assert!(refused(dir, None, None).contains("unknown format 2; this version of quorate knows 1"));
    }

    #[test]
    fn what_is_missing_or_of_another_cluster_is_named() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for dir in &dirs {
            Layout::open(dir.path(), Some(1), Some(free())).unwrap();
        }
        let [one, other] = dirs.each_ref().map(tempfile::TempDir::path);
        let store = "node-1/store/quorate.store";
        fs::copy(other.join(store), one.join(store)).unwrap();
        assert!(refused(one, None, None).contains("is the store of node 1 of cluster"));
        fs::write(one.join(store), "damaged").unwrap();
        assert!(refused(one, None, None).contains("node-1"), "{}", refused(one, None, None));
        fs::remove_file(one.join(store)).unwrap();
        assert!(refused(one, None, None).contains("holds no store any more"));
        fs::remove_file(one.join("node-1/node.key")).unwrap();
        assert!(refused(one, None, None).contains("node.key is missing"));
        fs::remove_file(one.join("cluster.toml")).unwrap();
        assert!(refused(one, None, None).contains("has no cluster.toml"));
        // Nothing was thrown away meanwhile.
        assert!(one.join("node-1/node.pem").exists());
    }

    #[test]
    fn a_directory_of_something_else_and_a_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(refused(dir.path(), None, None).contains("holds something else (thesis.tex)"));
        assert!(!dir.path().join("lock").exists());
        assert!(
            refused(&dir.path().join("thesis.tex"), None, None)
                .contains("choose another directory with --data")
        );
    }

    #[test]
    fn a_port_in_use_is_named_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = refused(dir.path(), Some(1), Some(port));
        assert!(message.contains(&format!("TCP port {port} (node 1, clients)")), "{message}");
        assert!(message.ends_with("choose others with --base-port"), "{message}");
        assert!(!dir.path().join("node-1").exists());
        assert!(refused(dir.path(), Some(3), Some(65_530)).contains("there is no port for node 2"));
    }
}

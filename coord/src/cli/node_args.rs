//! The flags that say what one node is: for `serve` and `restore`.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    Failure, Result,
    config::{self, FORMAT, Member, NodeConfig, Snapshots, Tls},
};

/// What a node is, in a file or in flags. Whoever takes these has a flag `cluster` as well.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// Read everything from this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "cluster", "data", "listen_client", "listen_peer",
        "peer", "client_url", "ca", "cert", "key", "snapshot_entries", "snapshot_bytes", "snapshot_keep",
        "snapshot_rate"])]
    pub(crate) config: Option<PathBuf>,

    /// The node's id, from 1
    #[arg(long, value_name = "ID", required_unless_present = "config", value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
    /// The directory of the node's store
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    data: Option<PathBuf>,
    /// Where to serve clients
    #[arg(long, value_name = "IP:PORT", default_value = config::DEFAULT_CLIENT)]
    listen_client: SocketAddr,
    /// Where to meet peers
    #[arg(long, value_name = "IP:PORT", default_value = config::DEFAULT_PEER)]
    listen_peer: SocketAddr,
    /// Another node, and where it meets its peers; once for each. A name is looked up whenever the node is dialled
    #[arg(long, value_name = "ID=HOST:PORT", value_parser = peer, requires = "ca")]
    peer: Vec<(u64, String)>,
    /// Where a node serves clients, to be told to clients that ask; once for each
    #[arg(long, value_name = "ID=URL", value_parser = client_url)]
    client_url: Vec<(u64, String)>,
    /// The cluster's certificate authority, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    ca: Option<PathBuf>,
    /// The node's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "ca")]
    key: Option<PathBuf>,
    /// Take a snapshot after so many log entries; 0: never
    #[arg(long, value_name = "COUNT", default_value_t = config::SNAPSHOT_ENTRIES)]
    snapshot_entries: u64,
    /// Or when they have so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = config::SNAPSHOT_BYTES)]
    snapshot_bytes: u64,
    /// Keep so many entries before a snapshot, for nodes that lag a little
    #[arg(long, value_name = "COUNT", default_value_t = config::SNAPSHOT_KEEP)]
    snapshot_keep: u64,
    /// Write, send and receive so many bytes of snapshots a second; 0: as fast as it goes
    #[arg(long, value_name = "BYTES", default_value_t = config::SNAPSHOT_RATE)]
    snapshot_rate: u64,
}

impl NodeArgs {
    /// The configuration; `cluster` is what the flag says.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn config(self, cluster: Option<u64>) -> Result<NodeConfig> {
        if let Some(path) = self.config {
            return NodeConfig::read(&path);
        }
        // clap has seen to it that they are there.
        let (Some(id), Some(cluster), Some(data)) = (self.id, cluster, self.data) else {
            return Err(Failure::new("--id, --cluster and --data are needed, or --config"));
        };
        let tls = match (self.ca, self.cert, self.key) {
            (Some(ca), Some(cert), Some(key)) => Some(Tls { ca, cert, key }),
            _ => None,
        };
        let mut members: Vec<Member> =
            self.peer.into_iter().map(|(id, peer)| Member { id, peer, client: None }).collect();
        if members.iter().all(|member| member.id != id) {
            members.push(Member { id, peer: self.listen_peer.to_string(), client: None });
        }
        members.sort_by_key(|member| member.id);
        for (id, url) in self.client_url {
            let member = members.iter_mut().find(|member| member.id == id);
            let member =
                member.ok_or_else(|| Failure::new(format!("--client-url {id}=…: no --peer has this id")))?;
            member.client = Some(url);
        }
        let config = NodeConfig {
            format: FORMAT,
            id,
            cluster,
            data,
            listen_client: self.listen_client,
            listen_peer: self.listen_peer,
            metrics: None,
            tls,
            snapshots: Snapshots {
                entries: self.snapshot_entries,
                bytes: self.snapshot_bytes,
                keep_entries: self.snapshot_keep,
                rate: self.snapshot_rate,
            },
            members,
        };
        config.validate()?;
        Ok(config)
    }
}

fn peer(text: &str) -> Result<(u64, String), String> {
    let (id, address) = id_and(text)?;
    config::check_peer(address)?;
    Ok((id, address.to_owned()))
}

fn client_url(text: &str) -> Result<(u64, String), String> {
    let (id, url) = id_and(text)?;
    url.parse::<super::client::Endpoint>()?;
    Ok((id, url.to_owned()))
}

/// `ID=…`
fn id_and(text: &str) -> Result<(u64, &str), String> {
    let (id, rest) = text.split_once('=').ok_or_else(|| format!("\"{text}\" has no =: ID=… is expected"))?;
    match id.parse() {
        Ok(0) | Err(_) => Err(format!("\"{id}\" is not a node's id")),
        Ok(id) => Ok((id, rest)),
    }
}

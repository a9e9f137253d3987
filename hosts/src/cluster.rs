//! Node processes: `quorate serve`, each on a host of its own; stopped, killed and started again.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use quorate_coord::pb::etcdserverpb::{
    HashKvRequest, StatusRequest, StatusResponse, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use quorate_core::NodeId;
use quorate_transport_quic::{ClusterId, pki::Ca};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{net::Net, sandbox::command_in};

const CLUSTER: u64 = 0x7e57_0000_0000_0077;
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The election timeout of `quorate serve`: a follower that hears nothing for one to two of these begins an election.
pub const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// The library that makes a process's syncs slow.
const SLOW_SYNC: &[u8] = include_bytes!(env!("SLOW_SYNC_LIBRARY"));

/// Processes on a network.
#[derive(Debug)]
pub struct Cluster {
    /// What is between them.
    pub net: Net,
    /// The processes, by their place: node 1 is at 0.
    pub nodes: Vec<Node>,
    keep: bool,
    dir: Option<TempDir>,
}

/// One process.
#[derive(Debug)]
pub struct Node {
    place: usize,
    dir: PathBuf,
    program: PathBuf,
    child: Option<Child>,
    bootstrapped: bool,
    stopped: bool,
    maintenance: MaintenanceClient<Channel>,
}

impl Cluster {
    /// Starts so many nodes on hosts of their own, and waits for their leader.
    ///
    /// # Errors
    /// If a host, the certificates or a process can't be made, or no leader is there in time.
    pub async fn start(program: &Path, nodes: usize, seed: u64) -> Result<Self> {
        Self::start_with(program, nodes, seed, "").await
    }

    /// The same, with more in each node's configuration: tables, in TOML.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with(program: &Path, nodes: usize, seed: u64, tables: &str) -> Result<Self> {
        ensure!((1..=9).contains(&nodes), "from 1 to 9 nodes");
        let dir = tempfile::Builder::new().prefix("quorate-hosts-").tempdir()?;
        let net = Net::new(nodes, seed)?;
        let ca = Ca::generate(ClusterId(CLUSTER))?;
        fs::write(dir.path().join("slow_sync.so"), SLOW_SYNC)?;
        let members: String = (0..nodes).map(member).collect();
        let mut made = Vec::new();
        for place in 0..nodes {
            let (id, address) = (place as u64 + 1, Net::address(place));
            let node_dir = dir.path().join(format!("node-{id}"));
            ca.issue(NodeId(id))?.save(&node_dir)?;
            let text = format!(
                "format = 1\nid = {id}\ncluster = \"{CLUSTER:016x}\"\ndata = \"store\"\n\
                 listen-client = \"{address}:{CLIENT_PORT}\"\nlisten-peer = \"{address}:{PEER_PORT}\"\n\
                 [tls]\nca = \"ca.pem\"\ncert = \"node.pem\"\nkey = \"node.key\"\n{tables}{members}"
            );
            fs::write(node_dir.join("node.toml"), text)?;
            fs::write(node_dir.join("slow"), "0")?;
            made.push(Node {
                place,
                dir: node_dir,
                program: program.to_owned(),
                child: None,
                bootstrapped: false,
                stopped: false,
                maintenance: MaintenanceClient::new(channel(place)?),
            });
        }
        let mut cluster = Self { net, nodes: made, keep: false, dir: Some(dir) };
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.wait_for_leader(Duration::from_secs(30)).await?;
        Ok(cluster)
    }

    /// Keeps the directory, with stores and logs, and says where it is.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Waits until every node that runs knows the same leader, in the same term; its place is returned.
    ///
    /// # Errors
    /// If they don't agree in time.
    pub async fn wait_for_leader(&self, limit: Duration) -> Result<usize> {
        let deadline = Instant::now() + limit;
        loop {
            let mut known = BTreeSet::new();
            for node in self.nodes.iter().filter(|node| node.runs()) {
                known.insert(node.status().await.map_or((0, 0), |status| (status.raft_term, status.leader)));
            }
            match known.first() {
                Some((_, leader)) if known.len() == 1 && *leader > 0 => return Ok(*leader as usize - 1),
                _ if Instant::now() >= deadline => {
                    bail!("no leader within {limit:?}: terms and leaders that are known: {known:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Who leads, as the node with the highest term says.
    pub async fn leader(&self) -> Option<usize> {
        let mut newest = (0, 0);
        for node in self.nodes.iter().filter(|node| node.runs()) {
            if let Some(status) = node.status().await.filter(|status| status.leader > 0) {
                newest = newest.max((status.raft_term, status.leader));
            }
        }
        newest.1.checked_sub(1).map(|place| place as usize)
    }

    /// The highest term that a node is in.
    pub async fn term(&self) -> u64 {
        let mut term = 0;
        for node in self.nodes.iter().filter(|node| node.runs()) {
            term = term.max(node.status().await.map_or(0, |status| status.raft_term));
        }
        term
    }

    /// Waits until all nodes have the same, by their digests.
    ///
    /// # Errors
    /// If they don't in time.
    pub async fn wait_for_agreement(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let mut digests = BTreeSet::new();
            for node in &self.nodes {
                digests.insert(node.digest().await.ok());
            }
            if digests.len() == 1 && !digests.contains(&None) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the nodes don't have the same within {limit:?}: {digests:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Nothing is wrong any more: links, stopped processes, slow disks; killed processes are started.
    ///
    /// # Errors
    /// If a process can't be started.
    pub fn heal(&mut self) -> Result<()> {
        self.net.heal();
        for node in &mut self.nodes {
            node.slow_disk(Duration::ZERO)?;
            if !node.runs() {
                node.start()?;
            }
            node.go_on()?;
        }
        Ok(())
    }

    /// The last lines that each node has logged.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let tails = self.nodes.iter().map(|node| {
            let text = fs::read_to_string(node.log()).unwrap_or_default();
            let all: Vec<&str> = text.lines().collect();
            let tail = all[all.len().saturating_sub(lines)..].join("\n");
            format!("--- node {}\n{tail}\n", node.place + 1)
        });
        tails.collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _gone = node.kill();
        }
        if let Some(dir) = self.dir.take()
            && (self.keep || std::thread::panicking())
        {
            eprintln!("stores and logs are kept in {}", dir.keep().display());
        }
    }
}

impl Node {
    /// Starts its process; the first time, with an empty store.
    ///
    /// # Errors
    /// If it runs already or can't be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.place + 1);
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = command_in(&Net::name(self.place), self.program.as_os_str());
        command.args(["serve", "--config"]).arg(self.dir.join("node.toml"));
        if !self.bootstrapped {
            command.arg("--bootstrap");
        }
        command.env("LD_PRELOAD", self.dir.with_file_name("slow_sync.so"));
        command.env("SLOW_SYNC_FILE", self.dir.join("slow"));
        command.env_remove("QUORATE_ENDPOINTS").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().context("can't start nsenter")?);
        self.bootstrapped = true;
        self.stopped = false;
        Ok(())
    }

    /// Was it started, and not killed since?
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its process's id, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL, and the end of it. Nothing, if it doesn't run.
    ///
    /// # Errors
    /// If it had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        let status = child.wait()?;
        ensure!(status.signal() == Some(9), "node {} had ended by itself: {status}", self.place + 1);
        Ok(())
    }

    /// SIGTERM: an orderly end.
    ///
    /// # Errors
    /// If it doesn't run, or ends in another way, or not in time.
    pub async fn terminate(&mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + limit;
        while let Some(child) = &mut self.child {
            match child.try_wait()? {
                Some(status) => {
                    self.child = None;
                    ensure!(status.success(), "node {} ended with {status}", self.place + 1);
                }
                None => {
                    ensure!(
                        Instant::now() < deadline,
                        "node {} doesn't end within {limit:?}",
                        self.place + 1
                    );
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        Ok(())
    }

    /// SIGSTOP: it does nothing any more, and all its connections stay.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.stopped = true;
        Ok(())
    }

    /// SIGCONT, if it was stopped.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn go_on(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.stopped, false) {
            self.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Each sync of its disk takes so much longer, from now on.
    ///
    /// # Errors
    /// If the file that says so can't be written.
    pub fn slow_disk(&self, by: Duration) -> Result<()> {
        // In one step: it is read at any time.
        let new = self.dir.join("slow.new");
        fs::write(&new, by.as_millis().to_string())?;
        Ok(fs::rename(new, self.dir.join("slow"))?)
    }

    /// How it is, if it answers soon.
    pub async fn status(&self) -> Option<StatusResponse> {
        if self.stopped {
            return None;
        }
        let mut client = self.maintenance.clone();
        let answer = tokio::time::timeout(Duration::from_secs(1), client.status(StatusRequest {})).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// Revision and hash of all that it has.
    async fn digest(&self) -> Result<(i64, u32)> {
        let mut client = self.maintenance.clone();
        let asked = client.hash_kv(HashKvRequest { revision: 0 });
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await??.into_inner();
        Ok((answer.hash_revision, answer.hash))
    }

    /// Bytes of memory that it holds (resident), if it runs.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    /// Where its store is.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or_else(|| anyhow!("node {} doesn't run", self.place + 1))?;
        Ok(kill_process(pid, signal)?)
    }
}

/// A connection to a node's clients' port, made when it is used, and again when it is lost.
///
/// # Errors
/// If there is no such node.
pub fn channel(place: usize) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}:{CLIENT_PORT}", Net::address(place)))?;
    Ok(endpoint.connect_timeout(Duration::from_millis(500)).tcp_nodelay(true).connect_lazy())
}

/// For keys and values.
///
/// # Errors
/// If there is no such node.
pub fn kv(place: usize) -> Result<KvClient<Channel>> {
    Ok(KvClient::new(channel(place)?).max_decoding_message_size(64 << 20))
}

fn member(place: usize) -> String {
    let (id, address) = (place + 1, Net::address(place));
    format!(
        "[[members]]\nid = {id}\npeer = \"{address}:{PEER_PORT}\"\nclient = \"http://{address}:{CLIENT_PORT}\"\n"
    )
}

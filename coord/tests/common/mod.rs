//! Node processes for tests: started, killed and started again, and gone when the test is.
#![allow(dead_code, reason = "each test uses its own part")]

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use quorate_coord::pb::etcdserverpb::{
    StatusRequest, StatusResponse, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use quorate_core::NodeId;
use quorate_transport_quic::{ClusterId, pki::Ca};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// The cluster that tests make.
pub(crate) const CLUSTER: u64 = 0x7e57_0000_0000_0001;

/// The program, ready to be told what to do.
pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_remove("QUORATE_ENDPOINTS").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the program to its end with this on its stdin.
pub(crate) fn quorate_with(input: &str, args: &[&str]) -> Output {
    let mut command = quorate();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without having read it.
    let _ignored = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A port such that it, ten after it, and so on are free for clients, those after them for peers, and those after these for
/// metrics; never handed out twice. Below the range from which the system hands out ports itself.
pub(crate) fn free_ports(nodes: u16) -> u16 {
    static TAKEN: OnceLock<Mutex<BTreeSet<u16>>> = OnceLock::new();
    let mut taken = TAKEN.get_or_init(Mutex::default).lock().unwrap();
    let start = u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    for n in 0..2_000 {
        let base = 10_000 + (start + n * 10) % 20_000;
        let ports: Vec<u16> = (0..nodes).map(|node| base + node * 10).collect();
        let free = ports.iter().all(|port| {
            !taken.contains(port)
                && TcpListener::bind(("127.0.0.1", *port)).is_ok()
                && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok()
                && TcpListener::bind(("127.0.0.1", port + 2)).is_ok()
        });
        if free {
            taken.extend(ports);
            return base;
        }
    }
    panic!("no free ports");
}

/// Asks `what` again and again until it says so, or fails the test.
pub(crate) async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a signal to a process: its name as in `kill -KILL`.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// A cluster of `quorate serve` processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) nodes: Vec<Node>,
}

/// One node of it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    child: Option<Child>,
    /// It has a store.
    pub(crate) started: bool,
}

impl Cluster {
    /// Certificates and configurations for so many nodes; none is started.
    pub(crate) fn make(count: u16) -> Self {
        Self::make_as(CLUSTER, count)
    }

    /// The same, of another cluster.
    pub(crate) fn make_as(cluster: u64, count: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = free_ports(count);
        let ca = Ca::generate(ClusterId(cluster)).unwrap();
        let members: String = (1..=count)
            .map(|id| {
                let port = base + 10 * (id - 1);
                format!(
                    "[[members]]\nid = {id}\npeer = \"127.0.0.1:{}\"\nclient = \"http://127.0.0.1:{port}\"\n",
                    port + 1
                )
            })
            .collect();
        let node = |id: u16| {
            let port = base + 10 * (id - 1);
            let node_dir = dir.path().join(format!("node-{id}"));
            ca.issue(NodeId(id.into())).unwrap().save(&node_dir).unwrap();
            let text = format!(
                "format = 1\nid = {id}\ncluster = \"{cluster:016x}\"\ndata = \"store\"\n\
                 listen-client = \"127.0.0.1:{port}\"\nlisten-peer = \"127.0.0.1:{}\"\n\
                 [tls]\nca = \"ca.pem\"\ncert = \"node.pem\"\nkey = \"node.key\"\n{members}",
                port + 1
            );
            fs::write(node_dir.join("node.toml"), text).unwrap();
            Node { id: id.into(), dir: node_dir, port, child: None, started: false }
        };
        let nodes = (1..=count).map(node).collect();
        Self { dir, nodes }
    }

    /// The same, all of them started, with a leader.
    pub(crate) async fn start(count: u16) -> Self {
        let mut cluster = Self::make(count);
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.wait_for_leader().await;
        cluster
    }

    /// Waits until every node that runs knows the same leader, in the same term; returns its id.
    pub(crate) async fn wait_for_leader(&self) -> u64 {
        let mut leader = 0;
        until("all nodes that run agree on a leader", Duration::from_secs(30), async || {
            let mut known = BTreeSet::new();
            for node in self.nodes.iter().filter(|node| node.child.is_some()) {
                known.insert(node.status().await.map_or((0, 0), |status| (status.raft_term, status.leader)));
            }
            leader = known.first().map_or(0, |(_, leader)| *leader);
            known.len() == 1 && leader > 0
        })
        .await;
        leader
    }

    /// Who leads now, if any node knows.
    pub(crate) async fn leader(&self) -> Option<u64> {
        let mut newest = (0, 0);
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            if let Some(status) = node.status().await
                && status.leader > 0
            {
                newest = newest.max((status.raft_term, status.leader));
            }
        }
        Some(newest.1).filter(|leader| *leader > 0)
    }
}

impl Node {
    /// Where its store is.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("store")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// Starts its process; without a store with `--bootstrap`.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with more flags.
    pub(crate) fn start_with(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "node {} runs already", self.id);
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = quorate();
        // Under supervision it ends with the test, however that ends.
        command.args(["serve", "--supervised", "--config"]).arg(self.dir.join("node.toml")).args(more);
        if !std::mem::replace(&mut self.started, true) {
            command.arg("--bootstrap");
        }
        command.stdin(Stdio::piped()).stdout(File::create(self.dir.join("events")).unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "node {} had ended by itself: {status}", self.id);
    }

    /// SIGTERM, or SIGINT as by Ctrl-C, and the end of it.
    pub(crate) fn stop(&mut self, name: &str) {
        let mut child = self.child.take().unwrap();
        signal(child.id(), name);
        let status = child.wait().unwrap();
        assert!(status.success(), "node {}: {status}", self.id);
    }

    /// Its process's id, while it runs.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection that is made when it is used, and again when it is lost.
    pub(crate) fn channel(&self) -> Channel {
        channel(self.port)
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel()).max_decoding_message_size(64 << 20)
    }

    /// How it is, if it answers soon.
    pub(crate) async fn status(&self) -> Option<StatusResponse> {
        status(self.port).await
    }
}

/// How the node at this port is, if it answers soon.
pub(crate) async fn status(port: u16) -> Option<StatusResponse> {
    let mut client = MaintenanceClient::new(channel(port));
    let answer = tokio::time::timeout(Duration::from_secs(1), client.status(StatusRequest {})).await;
    answer.ok()?.ok().map(tonic::Response::into_inner)
}

pub(crate) fn channel(port: u16) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect_lazy()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ended = child.kill();
                let _status = child.wait();
            }
            if std::thread::panicking() {
                eprintln!("--- node {}'s log ends so:", node.id);
                eprintln!("{}", tail(&node.log(), 25));
            }
        }
    }
}

pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let skip = text.lines().count().saturating_sub(lines);
    text.lines().skip(skip).collect::<Vec<_>>().join("\n")
}

//! One of the three processes.

use std::{
    io::{BufRead, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use quorate_core::{Entry, GroupId, Membership, NodeId, RoleKind, StateMachine};
use quorate_runtime_tokio::{Host, Node};
use quorate_storage_redb::{Identity, RedbStore};
use quorate_transport_quic::{ClusterId, Options, QuicTransport, pki};

use tokio::task::JoinSet;

use super::{Part, Used};

/// Counts what it is given.
struct Count(u64);

impl StateMachine for Count {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }
}

const CLUSTER: ClusterId = ClusterId(1);

pub(super) fn run(part: &Part) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(part))
}

async fn serve(part: &Part) -> Result<()> {
    let id = NodeId(part.id);
    let voters = Membership::of_voters(part.peers.iter().map(|(id, _)| NodeId(*id)));
    let groups: Vec<_> = (1..=part.groups).map(|group| (GroupId(group), voters.clone())).collect();
    let identity = Identity { cluster: CLUSTER.0.into(), node: id };
    let store = RedbStore::create(part.dir.join("store"), identity, &groups)?;
    let listen = part.peers.iter().find(|(peer, _)| *peer == part.id).context("it is one of them")?.1;
    let peers = part.peers.iter().map(|(id, address)| (NodeId(*id), (*address).into())).collect();
    let file = |name: &str| part.dir.join(name);
    let identity = pki::Identity::load(&file("node.pem"), &file("node.key"), &file("ca.pem"))?;
    let options = Options { id, cluster: CLUSTER, peers, ..Options::new(listen, identity) };
    let transport = QuicTransport::bind(options)?;
    let host = Host::builder(id).transport(Arc::new(transport)).start(store)?;
    let mut nodes = Vec::new();
    let (mut before, mut began, mut opened) = ((0.0, 0), Instant::now(), 0.0);
    for line in std::io::stdin().lock().lines() {
        let answer = match line?.as_str() {
            "open" => {
                let start = Instant::now();
                nodes = open(&host, part).await?;
                opened = start.elapsed().as_secs_f64();
                "done".to_owned()
            }
            "work" => {
                for node in nodes.iter().filter(|node| node.group().0 % 3 == part.id % 3) {
                    node.propose("work").await?;
                }
                "done".to_owned()
            }
            "begin" => {
                (before, began) = ((cpu()?, messages(&nodes).await?), Instant::now());
                "done".to_owned()
            }
            "end" => {
                let (cpu, passed) = (cpu()? - before.0, began.elapsed().as_secs_f64());
                let rss_mib = resident_kib()? as f64 / 1024.0;
                let messages = (messages(&nodes).await? - before.1) as f64 / passed;
                let (leads, asleep) = count(&nodes).await?;
                let used = Used {
                    node: part.id,
                    leads,
                    asleep,
                    cpu: 100.0 * cpu / passed,
                    rss_mib,
                    messages,
                    opened,
                };
                serde_json::to_string(&used)?
            }
            other => return Err(anyhow!("what is {other:?}?")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// Many at a time: so their new lives are made durable together.
async fn open(host: &Host, part: &Part) -> Result<Vec<Node<Count>>> {
    let mut opening = JoinSet::new();
    for group in (1..=part.groups).map(GroupId) {
        let builder = host.group(group).quiesce_after(Duration::from_millis(part.quiesce));
        opening.spawn(builder.request_timeout(Duration::from_secs(60)).start(Count(0)));
    }
    let mut nodes = Vec::new();
    while let Some(node) = opening.join_next().await {
        nodes.push(node??);
    }
    Ok(nodes)
}

async fn messages(nodes: &[Node<Count>]) -> Result<u64> {
    let mut sum = 0;
    for node in nodes {
        sum += node.status().await?.counts.messages;
    }
    Ok(sum)
}

async fn count(nodes: &[Node<Count>]) -> Result<(u64, u64)> {
    let (mut leads, mut asleep) = (0, 0);
    for node in nodes {
        let status = node.status().await?;
        leads += u64::from(status.raft.role == RoleKind::Leader);
        asleep += u64::from(status.raft.asleep);
    }
    Ok((leads, asleep))
}

/// Processor time of this process so far, in seconds.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name, which may hold anything and ends with the last parenthesis: utime and stime are fields 14 and 15.
    let rest = stat.rsplit_once(')').context("/proc/self/stat has another form")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse()?)
}

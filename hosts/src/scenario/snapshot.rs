//! A big snapshot on its way to a node that was down for longer than the leader keeps its log, and what the others'
//! clients notice of it.

use std::{fmt, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use quorate_coord::pb::etcdserverpb::{CompactionRequest, PutRequest};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Common, Report,
    compare::{Compared, Window, compare},
};
use crate::{
    cluster::{Cluster, Node, kv},
    judge::{Verdict, judge},
    load::{Load, LoadOptions},
};

/// The size of a value, and how many are written at a time.
const VALUE: usize = 256 << 10;
const WRITERS: u64 = 8;

/// How long anything may take that must happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a snapshot may be on its way, or be taken.
const FLIGHT: Duration = Duration::from_secs(300);

/// How long a run with nothing wrong is.
const CONTROL: Duration = Duration::from_secs(8);

/// For what it takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// For every scenario.
    pub common: Common,
    /// MiB of the snapshot.
    pub mib: u64,
    /// MiB of it a second, if not the program's own.
    pub rate: Option<u64>,
    /// How many pairs of runs.
    pub runs: usize,
    /// How many clients.
    pub clients: usize,
}

/// What came of it.
#[derive(Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// MiB of the state.
    pub mib: u64,
    /// Seconds for which each snapshot was on its way.
    pub flights: Vec<f64>,
    /// The runs.
    pub compared: Option<Compared>,
    /// The judgement of what clients saw.
    pub verdict: Verdict,
    strict: bool,
}

/// Runs it.
///
/// # Errors
/// If the cluster can't be run. What is wrong with it is in the outcome.
pub async fn run(options: &Options) -> Result<Outcome> {
    let Common { program, seed, nodes, keep, strict } = options.common.clone();
    let mut cluster = Cluster::start_with(&program, nodes, seed, &policy(options)).await?;
    if keep {
        cluster.keep();
    }
    let values = (options.mib << 20) / VALUE as u64;
    fill(&(0..nodes).collect::<Vec<_>>(), 0..values).await.with_context(|| cluster.logs(30))?;
    let leader = cluster.wait_for_leader(PATIENCE).await?;
    let away = (leader + 1) % nodes;
    let load = Load::start(&LoadOptions {
        clients: options.clients,
        nodes: (0..nodes).filter(|node| *node != away).collect(),
        pause: Duration::from_millis(5),
        timeout: Duration::from_secs(7),
        seed,
        first_key: 0,
    })?;
    let mut outcome = Outcome { mib: options.mib, strict, ..Outcome::default() };
    let mut windows = Vec::new();
    for _run in 0..options.runs {
        let pair = flight(&mut cluster, &load, leader, away, values).await;
        let pair = pair.with_context(|| cluster.logs(30))?;
        outcome.flights.push((pair[1].to - pair[1].from).as_secs_f64());
        windows.extend(pair);
    }
    let ops = load.finish(&(0..nodes).collect::<Vec<_>>()).await?;
    cluster.wait_for_agreement(PATIENCE).await.with_context(|| cluster.logs(30))?;
    outcome.verdict = judge(&ops);
    outcome.compared = Some(compare("snapshot in flight", &ops, &windows));
    Ok(outcome)
}

/// As the program has it, unless the state is so small that it would not come to a snapshot, or that a node which was away
/// would be sent what stays in the log.
fn policy(options: &Options) -> String {
    let mut text = "[snapshots]\n".to_owned();
    if options.mib < 256 {
        text.push_str(&format!("bytes = {}\nkeep-entries = 4\n", (options.mib << 20) / 4));
    }
    if let Some(rate) = options.rate {
        text.push_str(&format!("rate = {}\n", rate << 20));
    }
    text
}

/// A run with nothing wrong, and one with a snapshot on its way.
async fn flight(
    cluster: &mut Cluster,
    load: &Load,
    leader: usize,
    away: usize,
    values: u64,
) -> Result<[Window; 2]> {
    let others: Vec<usize> = (0..cluster.nodes.len()).filter(|node| *node != away).collect();
    cluster.nodes[away].kill()?;
    // The log is compacted past what the node has: as much again is written, over what is there, until there is another
    // snapshot.
    let had = snapshots(&cluster.nodes[leader], true);
    let deadline = Instant::now() + FLIGHT;
    let mut at = 0;
    while snapshots(&cluster.nodes[leader], true).iter().all(|name| had.contains(name)) {
        ensure!(Instant::now() < deadline, "no newer snapshot within {FLIGHT:?}");
        let some = at..(at + 64).min(values);
        at = if some.end == values { 0 } else { some.end };
        fill(&others, some).await?;
    }
    settled(cluster, away).await?;
    let mut term = cluster.term().await;
    let mut window = async |cluster: &Cluster, from: Duration, disturbed: bool| {
        let to = load.now();
        let now = cluster.term().await.max(term);
        Window { from, to, disturbed, elections: now - std::mem::replace(&mut term, now) }
    };
    let from = load.now();
    sleep(CONTROL).await;
    let control = window(cluster, from, false).await;

    let (from, deadline) = (load.now(), Instant::now() + FLIGHT);
    let before = sent(cluster, away);
    let behind = applied(&cluster.nodes[leader]).await;
    cluster.nodes[away].start()?;
    while applied(&cluster.nodes[away]).await < behind {
        ensure!(Instant::now() < deadline, "node {} has no snapshot within {FLIGHT:?}", away + 1);
        sleep(Duration::from_millis(50)).await;
    }
    let disturbed = window(cluster, from, true).await;
    ensure!(sent(cluster, away) > before, "node {} has come back without a snapshot", away + 1);
    cluster.wait_for_leader(PATIENCE).await?;
    Ok([control, disturbed])
}

/// Waits until no node that runs takes a snapshot, and the log has been cut: that is its own business, and no part of what is
/// compared.
async fn settled(cluster: &Cluster, away: usize) -> Result<()> {
    let deadline = Instant::now() + FLIGHT;
    for (place, node) in cluster.nodes.iter().enumerate().filter(|(place, _)| *place != away) {
        while !snapshots(node, false).is_empty() {
            ensure!(Instant::now() < deadline, "node {} still takes a snapshot", place + 1);
            sleep(Duration::from_millis(100)).await;
        }
    }
    sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// The names of the snapshots in a node's store that are whole, or that it is at.
fn snapshots(node: &Node, whole: bool) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.store()) else { return vec![] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.ends_with(if whole { ".snapshot" } else { ".taking" })).collect()
}

/// How many snapshots the others say that they have sent to a node.
fn sent(cluster: &Cluster, to: usize) -> usize {
    let to = format!(" to={} ", to + 1);
    let logs = cluster.nodes.iter().map(|node| fs::read_to_string(node.log()).unwrap_or_default());
    let says = |line: &&str| line.contains("a snapshot was sent") && line.contains(&to);
    logs.map(|log| log.lines().filter(says).count()).sum()
}

/// How far it has applied the log; 0 if it doesn't say.
async fn applied(node: &Node) -> u64 {
    node.status().await.map_or(0, |status| status.raft_applied_index)
}

/// Writes these values through these nodes, and forgets what they replace.
async fn fill(nodes: &[usize], which: std::ops::Range<u64>) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (mut connection, which) = (kv(nodes[writer as usize % nodes.len()])?, which.clone());
        writers.spawn(async move {
            let mut revision = 0;
            for n in which.filter(|n| n % WRITERS == writer) {
                // Not all the same: a snapshot might be compressed one day.
                let value: Vec<u8> = (0..VALUE as u64).map(|i| (i.wrapping_mul(n + 1) >> 7) as u8).collect();
                let key = Bytes::from(format!("big/{n:08}"));
                let put = PutRequest { key, value: value.into(), ..PutRequest::default() };
                let deadline = Instant::now() + PATIENCE;
                loop {
                    match connection.put(put.clone()).await {
                        Ok(answer) => {
                            revision = answer.into_inner().header.map_or(0, |header| header.revision);
                            break;
                        }
                        Err(status) => ensure!(Instant::now() < deadline, "can't write: {status}"),
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
            let compact = CompactionRequest { revision, physical: false };
            // Another one may have compacted further already.
            let _refused = connection.compact(compact).await;
            Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

impl Report for Outcome {
    fn failures(&self) -> Vec<String> {
        let compared = self.compared.iter().flat_map(|compared| compared.failures(self.strict));
        compared.chain(self.verdict.violations.clone()).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Compared::HEAD)?;
        if let Some(compared) = &self.compared {
            writeln!(f, "{compared}")?;
        }
        writeln!(
            f,
            "{} MiB, on their way for {:.1?} s; {} answers judged, {} violations",
            self.mib,
            self.flights,
            self.verdict.answered,
            self.verdict.violations.len()
        )
    }
}

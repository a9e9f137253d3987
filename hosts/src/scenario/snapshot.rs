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

/// How long it may take until snapshots are there that ought to be.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a snapshot may be on its way.
const FLIGHT: Duration = Duration::from_secs(300);

/// For what it takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// For every scenario.
    pub common: Common,
    /// MiB of the snapshot.
    pub mib: u64,
    /// How many pairs of runs.
    pub runs: usize,
    /// How many clients.
    pub clients: usize,
}

/// What came of it.
#[derive(Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// Why it was not run, if so.
    pub skipped: Option<String>,
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
    let mut cluster = Cluster::start(&program, nodes, seed).await?;
    if keep {
        cluster.keep();
    }
    let mut outcome = Outcome { mib: options.mib, strict, ..Outcome::default() };
    let values = (options.mib << 20) / VALUE as u64;
    let leader = cluster.wait_for_leader(PATIENCE).await?;
    // As little as shows whether there are any.
    let few = values.min((128 << 20) / VALUE as u64);
    fill(nodes, 0..few).await?;
    if !until(PATIENCE, || !published(&cluster.nodes[leader]).is_empty()).await {
        outcome.skipped = Some(format!(
            "{} MiB were written, and no node has taken a snapshot within {PATIENCE:?}: this build takes none by itself",
            (few * VALUE as u64) >> 20
        ));
        return Ok(outcome);
    }
    fill(nodes, few..values).await?;
    let load = Load::start(&LoadOptions {
        clients: options.clients,
        nodes: (0..nodes).filter(|node| *node != (leader + 1) % nodes).collect(),
        pause: Duration::from_millis(5),
        timeout: Duration::from_secs(7),
        seed,
        first_key: 0,
    })?;
    let mut windows = Vec::new();
    let slow = (leader + 1) % nodes;
    for _run in 0..options.runs {
        let pair =
            flight(&mut cluster, &load, leader, slow, values).await.with_context(|| cluster.logs(30))?;
        outcome.flights.push((pair[1].to - pair[1].from).as_secs_f64());
        windows.extend(pair);
    }
    let ops = load.finish(&(0..nodes).collect::<Vec<_>>()).await?;
    outcome.verdict = judge(&ops);
    outcome.compared = Some(compare("snapshot in flight", &ops, &windows));
    Ok(outcome)
}

/// A run with nothing wrong, and one with a snapshot on its way.
async fn flight(
    cluster: &mut Cluster,
    load: &Load,
    leader: usize,
    slow: usize,
    values: u64,
) -> Result<[Window; 2]> {
    cluster.nodes[slow].kill()?;
    // The log is compacted past what the node has: as much again is written, over what is there.
    let had = published(&cluster.nodes[leader]);
    let deadline = Instant::now() + FLIGHT;
    let mut at = 0;
    while published(&cluster.nodes[leader]).iter().all(|name| had.contains(name)) {
        ensure!(Instant::now() < deadline, "no newer snapshot within {FLIGHT:?}");
        let some = at..(at + 64).min(values);
        at = if some.end == values { 0 } else { some.end };
        fill(cluster.nodes.len(), some).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let mut term = cluster.term().await;
    let mut window = async |cluster: &Cluster, from: Duration, disturbed: bool| {
        let to = load.now();
        let now = cluster.term().await.max(term);
        Window { from, to, disturbed, elections: now - std::mem::replace(&mut term, now) }
    };
    let from = load.now();
    sleep(Duration::from_secs(5)).await;
    let control = window(cluster, from, false).await;

    let received = published(&cluster.nodes[slow]);
    let (from, deadline) = (load.now(), Instant::now() + FLIGHT);
    cluster.nodes[slow].start()?;
    while published(&cluster.nodes[slow]).iter().all(|name| received.contains(name)) {
        ensure!(Instant::now() < deadline, "node {} has no snapshot within {FLIGHT:?}", slow + 1);
        sleep(Duration::from_millis(50)).await;
    }
    let disturbed = window(cluster, from, true).await;
    cluster.wait_for_leader(PATIENCE).await?;
    Ok([control, disturbed])
}

/// Writes these values, and forgets what they replace.
async fn fill(nodes: usize, which: std::ops::Range<u64>) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (mut connection, which) = (kv(writer as usize % nodes)?, which.clone());
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

/// The names of the snapshots that a node has whole.
fn published(node: &Node) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.store()) else { return vec![] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".snapshot")).collect()
}

async fn until(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(Duration::from_millis(100)).await;
    }
    true
}

impl Report for Outcome {
    fn failures(&self) -> Vec<String> {
        let compared = self.compared.iter().flat_map(|compared| compared.failures(self.strict));
        compared.chain(self.verdict.violations.clone()).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.skipped {
            return writeln!(f, "skipped: {why}");
        }
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

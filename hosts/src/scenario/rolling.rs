//! Every node is restarted, one after the other, under load, as for an upgrade.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Common, Report};
use crate::{
    cluster::Cluster,
    history::{Op, Outcome as Came, span},
    judge::{Verdict, judge},
    load::{Load, LoadOptions},
};

/// A request may take so long before its client gives up: longer than a node waits itself.
const PATIENCE: Duration = Duration::from_secs(7);

/// For what it takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// For every scenario.
    pub common: Common,
    /// How often every node is restarted.
    pub rounds: usize,
    /// How many clients.
    pub clients: usize,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    /// For what is drawn.
    pub seed: u64,
    /// How many nodes were restarted.
    pub restarts: usize,
    /// Terms that began meanwhile.
    pub elections: u64,
    /// Answered requests per second.
    pub per_second: f64,
    /// Milliseconds for which no request was answered, at most.
    pub longest_gap_ms: f64,
    /// Requests that failed, by how.
    pub failed: BTreeMap<String, usize>,
    /// Those of them that a client can't just send again, in words.
    pub not_retriable: Vec<String>,
    /// The judgement.
    pub verdict: Verdict,
}

/// Runs it.
///
/// # Errors
/// If the cluster can't be run. What is wrong with it is in the outcome.
pub async fn run(options: &Options) -> Result<Outcome> {
    let Common { program, seed, nodes, keep, .. } = options.common.clone();
    let mut cluster = Cluster::start(&program, nodes, seed).await?;
    if keep {
        cluster.keep();
    }
    let first = cluster.term().await;
    let load = Load::start(&LoadOptions {
        clients: options.clients,
        nodes: (0..nodes).collect(),
        pause: Duration::from_millis(5),
        timeout: PATIENCE,
        seed,
        first_key: 0,
    })?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut restarts = 0;
    for _round in 0..options.rounds {
        for place in 0..nodes {
            let ended = restart(&mut cluster, place).await;
            ended.with_context(|| format!("node {}\n{}", place + 1, cluster.logs(30)))?;
            restarts += 1;
        }
    }
    let lasted = load.now();
    let elections = cluster.term().await - first;
    let ops = load.finish(&(0..nodes).collect::<Vec<_>>()).await?;
    let mut verdict = judge(&ops);
    if let Err(error) = cluster.wait_for_agreement(Duration::from_secs(20)).await {
        verdict.violations.push(error.to_string());
    }
    if !verdict.violations.is_empty() {
        cluster.keep();
    }
    let mut failed = BTreeMap::new();
    let mut not_retriable = Vec::new();
    for op in &ops {
        if let Came::Refused(why) | Came::Unknown(why) = &op.outcome {
            *failed.entry(why.clone()).or_insert(0) += 1;
            if !is_retriable(&op.outcome) {
                not_retriable.push(format!("{op:?}"));
            }
        }
    }
    Ok(Outcome {
        seed,
        restarts,
        elections,
        per_second: span(&ops, Duration::ZERO, lasted).per_second,
        longest_gap_ms: longest_gap(&ops, lasted).as_secs_f64() * 1e3,
        failed,
        not_retriable,
        verdict,
    })
}

/// Stops a node in an orderly way, starts it, and waits until it has what the others have.
async fn restart(cluster: &mut Cluster, place: usize) -> Result<()> {
    cluster.nodes[place].terminate(Duration::from_secs(15)).await?;
    cluster.nodes[place].start()?;
    cluster.wait_for_leader(Duration::from_secs(20)).await?;
    let mut committed = 0;
    for node in &cluster.nodes {
        committed = committed.max(node.status().await.map_or(0, |status| status.raft_index));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while cluster.nodes[place].status().await.is_none_or(|status| status.raft_applied_index < committed) {
        ensure!(tokio::time::Instant::now() < deadline, "it doesn't catch up to {committed}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // An operator would look at it for longer.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// May a client that is told so send it again, to another node? etcd's codes for that; a write may then be done twice, if
/// nothing guards it, unless it was refused.
fn is_retriable(outcome: &Came) -> bool {
    match outcome {
        Came::Refused(_) => true,
        // The second is the client library's own: the connection had gone before the request was on it.
        Came::Unknown(why) => {
            why.starts_with("Unavailable: ") || why.starts_with("Cancelled: operation was canceled")
        }
        Came::Read(_) | Came::Written(_) | Came::Compared { .. } => true,
    }
}

fn longest_gap(ops: &[Op], lasted: Duration) -> Duration {
    let mut ends: Vec<Duration> = ops.iter().filter(|op| op.is_ok()).map(|op| op.ended).collect();
    ends.retain(|end| *end <= lasted);
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(lasted)
}

impl Report for Outcome {
    fn failures(&self) -> Vec<String> {
        let mut failures = self.verdict.violations.clone();
        if self.verdict.undecided > 0 {
            failures.push(format!("{} keys could not be decided", self.verdict.undecided));
        }
        if self.verdict.answered == 0 {
            failures.push("no request was answered".to_owned());
        }
        failures.extend(self.not_retriable.iter().take(5).map(|op| format!("can't be sent again: {op}")));
        failures
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, {} restarts, {} elections; {:.0} answers a second, none for {:.0} ms at most",
            self.seed, self.restarts, self.elections, self.per_second, self.longest_gap_ms
        )?;
        let Verdict { requests, answered, refused, unknown, linearizable, violations, .. } = &self.verdict;
        writeln!(
            f,
            "{requests} requests: {answered} answered, {refused} refused, {unknown} of unknown outcome; {linearizable} keys are \
             linearizable; {} violations; {} failed in a way that can't be tried again",
            violations.len(),
            self.not_retriable.len()
        )?;
        for (why, count) in &self.failed {
            writeln!(f, "{count:>7} × {why}")?;
        }
        Ok(())
    }
}

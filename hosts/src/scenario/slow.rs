//! A node that is slow, in one way or another, and what the others' clients notice of it.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use super::{
    Common, Report,
    compare::{Compared, Window, compare},
    machine,
};
use crate::{
    cluster::Cluster,
    judge::{Verdict, judge},
    load::{Load, LoadOptions},
    net::Link,
};

/// What is slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Trouble {
    /// A follower's process is stopped for three quarters of the time, and what it says arrives 50 ms later
    Follower,
    /// Each sync of a follower's disk takes 100 ms longer
    FollowerDisk,
    /// The same of the leader's
    LeaderDisk,
    /// Every node's: then all is slow, and still nobody is elected
    EveryDisk,
    /// A follower's state machine takes 20 ms for each command: in a cluster within this process
    Machine,
}

/// None of which may cost the leader its office.
pub const BEARABLE: [Trouble; 4] =
    [Trouble::Follower, Trouble::FollowerDisk, Trouble::LeaderDisk, Trouble::Machine];

/// A process that is stopped, and goes on.
const STOPPED: Duration = Duration::from_millis(300);
const RUNS: Duration = Duration::from_millis(100);

const LATE: Link = Link { cut: false, loss: 0.0, delay: Duration::from_millis(50) };
const SLOW_SYNC: Duration = Duration::from_millis(100);

const LEADER_DISK: &str = "slow disk, the leader's";
const EVERY_DISK: &str = "slow disks, everybody's";

/// How long a node that was slow has, to catch up.
const SETTLE: Duration = Duration::from_millis(700);

/// Far more keys than clients get through while one thing is slow.
const KEYS_APART: u32 = 10_000_000;

/// For what it takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// For every scenario.
    pub common: Common,
    /// What is slow, one after the other.
    pub troubles: Vec<Trouble>,
    /// How many pairs of runs for each.
    pub runs: usize,
    /// How long a run lasts.
    pub run: Duration,
    /// How many clients.
    pub clients: usize,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    /// By what was slow.
    pub compared: Vec<Compared>,
    /// Of each, the judgement of what clients saw, if they spoke to real processes.
    pub verdicts: Vec<Verdict>,
    strict: bool,
}

/// Runs it.
///
/// # Errors
/// If a cluster can't be run. What is wrong with it is in the outcome.
pub async fn run(options: &Options) -> Result<Outcome> {
    let mut outcome = Outcome { compared: vec![], verdicts: vec![], strict: options.common.strict };
    let mut cluster = None;
    let mut first_key = 0;
    for trouble in &options.troubles {
        if *trouble == Trouble::Machine {
            outcome.compared.push(machine::run(options.runs, options.run, SETTLE, options.clients).await?);
            continue;
        }
        if cluster.is_none() {
            let Common { program, seed, nodes, .. } = &options.common;
            cluster = Some(Cluster::start(program, *nodes, *seed).await?);
        }
        let Some(cluster) = &mut cluster else { continue };
        if options.common.keep {
            cluster.keep();
        }
        let (compared, verdict) =
            one(cluster, *trouble, options, first_key).await.with_context(|| cluster.logs(30))?;
        outcome.compared.push(compared);
        outcome.verdicts.push(verdict);
        first_key += KEYS_APART;
    }
    Ok(outcome)
}

async fn one(
    cluster: &mut Cluster,
    trouble: Trouble,
    options: &Options,
    first_key: u32,
) -> Result<(Compared, Verdict)> {
    let leader = cluster.wait_for_leader(Duration::from_secs(20)).await?;
    let count = cluster.nodes.len();
    let slow = match trouble {
        Trouble::LeaderDisk | Trouble::EveryDisk => leader,
        Trouble::Follower | Trouble::FollowerDisk => (leader + 1) % count,
        Trouble::Machine => bail!("that is run elsewhere"),
    };
    // The clients of the others; but a leader's disk is everybody's.
    let nodes = (0..count).filter(|node| *node != slow || slow == leader).collect();
    let load = Load::start(&LoadOptions {
        clients: options.clients,
        nodes,
        pause: Duration::from_millis(5),
        timeout: Duration::from_secs(7),
        seed: options.common.seed,
        first_key,
    })?;
    sleep(SETTLE).await;
    let mut windows = Vec::new();
    let mut term = cluster.term().await;
    for run in 0..options.runs {
        // Now one comes first, now the other: what changes slowly is no advantage of either.
        for disturbed in [run % 2 == 1, run % 2 == 0] {
            let from = load.now();
            if disturbed {
                disturb(cluster, trouble, slow, options.run).await?;
            } else {
                sleep(options.run).await;
            }
            let to = load.now();
            cluster.heal()?;
            sleep(SETTLE).await;
            let now = cluster.term().await.max(term);
            windows.push(Window { from, to, disturbed, elections: now - std::mem::replace(&mut term, now) });
        }
    }
    let ops = load.finish(&(0..count).collect::<Vec<_>>()).await?;
    Ok((compare(trouble.name(), &ops, &windows), judge(&ops)))
}

/// Makes it slow for so long; the end of it is left to [`Cluster::heal`].
async fn disturb(cluster: &mut Cluster, trouble: Trouble, slow: usize, lasts: Duration) -> Result<()> {
    match trouble {
        Trouble::Follower => {
            cluster.net.set_around(slow, LATE);
            let end = Instant::now() + lasts;
            while Instant::now() < end {
                cluster.nodes[slow].stop()?;
                sleep(STOPPED).await;
                cluster.nodes[slow].go_on()?;
                sleep(RUNS).await;
            }
        }
        Trouble::FollowerDisk | Trouble::LeaderDisk => {
            cluster.nodes[slow].slow_disk(SLOW_SYNC)?;
            sleep(lasts).await;
        }
        Trouble::EveryDisk => {
            cluster.nodes.iter().try_for_each(|node| node.slow_disk(SLOW_SYNC))?;
            sleep(lasts).await;
        }
        Trouble::Machine => {}
    }
    Ok(())
}

impl Trouble {
    const fn name(self) -> &'static str {
        match self {
            Self::Follower => "slow follower",
            Self::FollowerDisk => "slow disk, a follower's",
            Self::LeaderDisk => LEADER_DISK,
            Self::EveryDisk => EVERY_DISK,
            Self::Machine => machine::NAME,
        }
    }
}

impl Report for Outcome {
    fn failures(&self) -> Vec<String> {
        let compared = self.compared.iter().flat_map(|compared| {
            // A node answers when it has the entry on its own disk (only what is durable is applied), and the leader answers
            // everybody: of its disk its clients do notice.
            let noticed = [LEADER_DISK, EVERY_DISK].contains(&compared.what.as_str());
            compared.failures(self.strict && !noticed)
        });
        let judged = self.verdicts.iter().flat_map(|verdict| verdict.violations.clone());
        compared.chain(judged).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Compared::HEAD)?;
        for compared in &self.compared {
            writeln!(f, "{compared}")?;
        }
        let requests: usize = self.verdicts.iter().map(|verdict| verdict.answered).sum();
        let violations: usize = self.verdicts.iter().map(|verdict| verdict.violations.len()).sum();
        writeln!(
            f,
            "{requests} answers judged, {violations} violations. Latencies are the clients', in milliseconds."
        )
    }
}

//! Everything that can happen to hosts, one after the other, and what the clients saw of it.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};
use quorate_coord::pb::etcdserverpb::PutRequest;

use super::{Common, Report};
use crate::{
    cluster::{Cluster, ELECTION_TIMEOUT, kv},
    faults::{Bag, Kind},
    history::{recovery, span},
    judge::{Verdict, judge},
    load::{Load, LoadOptions},
    net::Traffic,
};

/// How much of the throughput of before must be back after a heal, and within how many election timeouts.
const ENOUGH: f64 = 0.8;
const WITHIN: u32 = 3;

/// A write must be done again so soon after a heal, on the busiest machine.
const BOUND: Duration = Duration::from_secs(30);

/// For what it takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// For every scenario.
    pub common: Common,
    /// Time with a fault at work, all in all, at least.
    pub faults: Duration,
    /// How long a fault lasts: from, to.
    pub lasts: (Duration, Duration),
    /// How long there is none after each: the throughput is looked for in it.
    pub calm: Duration,
    /// How many clients.
    pub clients: usize,
    /// How long each waits between an answer and its next request: far below what the cluster can take, the throughput is
    /// theirs, and steady.
    pub pause: Duration,
    /// Only these kinds, if any are given.
    pub only: Vec<Kind>,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    /// The seed that the plan is from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Seconds with a fault at work.
    pub fault_seconds: f64,
    /// Terms that have begun since the first leader: elections that were won, and those that were not.
    pub elections: u64,
    /// By fault.
    pub strikes: Vec<Strike>,
    /// What the router has done.
    pub traffic: Traffic,
    /// The judgement.
    pub verdict: Verdict,
    strict: bool,
}

/// One fault, and what came after it.
#[derive(Debug, serde::Serialize)]
pub struct Strike {
    /// What went wrong.
    pub kind: Kind,
    /// For so many seconds.
    pub seconds: f64,
    /// Answered requests per second before.
    pub before: f64,
    /// During.
    pub during: f64,
    /// Milliseconds from the heal until a write was done; none if that took more than half a minute.
    pub served_ms: Option<f64>,
    /// Milliseconds from the heal until there were four fifths of that before again; none if that was not before the next
    /// fault.
    pub recovery_ms: Option<f64>,
    /// Terms that began meanwhile.
    pub elections: u64,
}

/// When what happened, on the clock of the load.
struct Times {
    kind: Kind,
    begun: Duration,
    healed: Duration,
    served: Option<Duration>,
    ended: Duration,
    elections: u64,
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
    let first_term = cluster.term().await;
    let load = Load::start(&LoadOptions {
        clients: options.clients,
        nodes: (0..nodes).collect(),
        pause: options.pause,
        timeout: Duration::from_millis(1_500),
        seed,
        first_key: 0,
    })?;
    tokio::time::sleep(options.calm).await;
    let mut bag = Bag::new(seed);
    let mut times: Vec<Times> = Vec::new();
    let mut faulty = Duration::ZERO;
    let mut term = first_term;
    while faulty < options.faults {
        let (kind, lasts) = bag.next(options.lasts.0, options.lasts.1);
        if !options.only.is_empty() && !options.only.contains(&kind) {
            continue;
        }
        let begun = load.now();
        bag.strike(&mut cluster, kind, lasts).await.with_context(|| cluster.logs(30))?;
        cluster.heal().with_context(|| cluster.logs(30))?;
        let healed = load.now();
        faulty += healed - begun;
        let served = tokio::time::timeout(BOUND, write(nodes)).await;
        let served = served.ok().transpose()?.map(|()| load.now().saturating_sub(healed));
        tokio::time::sleep(options.calm.saturating_sub(served.unwrap_or_default())).await;
        let now = cluster.term().await.max(term);
        let elections = now - std::mem::replace(&mut term, now);
        times.push(Times { kind, begun, healed, served, ended: load.now(), elections });
    }
    let leads = cluster.wait_for_leader(Duration::from_secs(20)).await;
    leads.with_context(|| cluster.logs(40))?;
    let everybody: Vec<usize> = (0..nodes).collect();
    let ops = load.finish(&everybody).await.with_context(|| cluster.logs(40))?;
    let mut verdict = judge(&ops);
    if let Err(error) = cluster.wait_for_agreement(Duration::from_secs(20)).await {
        verdict.violations.push(error.to_string());
    }
    let strikes = times.iter().enumerate().map(|(n, strike)| {
        let from = n
            .checked_sub(1)
            .map_or(Duration::from_millis(500), |last| times[last].healed + ELECTION_TIMEOUT * WITHIN);
        // Without enough time for a figure, the time right before.
        let from = from.min(strike.begun.saturating_sub(Duration::from_millis(500)));
        let before = span(&ops, from, strike.begun).per_second;
        let back = recovery(&ops, strike.healed, strike.ended, before * ENOUGH);
        Strike {
            kind: strike.kind,
            seconds: (strike.healed - strike.begun).as_secs_f64(),
            before,
            during: span(&ops, strike.begun, strike.healed).per_second,
            served_ms: strike.served.map(|served| served.as_secs_f64() * 1e3),
            recovery_ms: back.map(|back| back.as_secs_f64() * 1e3),
            elections: strike.elections,
        }
    });
    let strikes = strikes.collect();
    let failed = !verdict.violations.is_empty();
    if failed {
        cluster.keep();
    }
    Ok(Outcome {
        seed,
        nodes,
        fault_seconds: faulty.as_secs_f64(),
        elections: term - first_term,
        strikes,
        traffic: cluster.net.traffic(),
        verdict,
        strict,
    })
}

/// Has a write done, through whichever node does it.
async fn write(nodes: usize) -> Result<()> {
    let put = PutRequest { key: "healed".into(), ..PutRequest::default() };
    for place in (0..nodes).cycle() {
        let mut connection = kv(place)?;
        let asked = tokio::time::timeout(Duration::from_secs(2), connection.put(put.clone())).await;
        if matches!(asked, Ok(Ok(_))) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
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
        for Strike { kind, elections, served_ms, .. } in &self.strikes {
            if served_ms.is_none() {
                failures.push(format!("{kind}: no write was done within {BOUND:?} of the heal"));
            }
            if kind.spares_leader() && *elections > 0 {
                failures.push(format!("{kind}: {elections} elections, though the leader had a majority"));
            }
        }
        let limit = (ELECTION_TIMEOUT * WITHIN).as_secs_f64() * 1e3;
        for strike in self.strikes.iter().filter(|_| self.strict) {
            if strike.recovery_ms.is_none_or(|took| took > limit) {
                let took =
                    strike.recovery_ms.map_or("not at all".to_owned(), |took| format!("after {took:.0} ms"));
                failures
                    .push(format!("{}: throughput was back {took}, not within {limit:.0} ms", strike.kind));
            }
        }
        failures
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "fault                      seconds  before/s  during/s  a write after ms  back after ms  terms"
        )?;
        for strike in &self.strikes {
            let back = strike.recovery_ms.map_or("never".to_owned(), |took| format!("{took:.0}"));
            let served = strike.served_ms.map_or("never".to_owned(), |took| format!("{took:.0}"));
            let Strike { kind, seconds, before, during, elections, .. } = strike;
            writeln!(
                f,
                "{:<26} {seconds:>7.1} {before:>9.0} {during:>9.0} {served:>17} {back:>14} {elections:>6}",
                kind.to_string()
            )?;
        }
        let Verdict { requests, answered, refused, unknown, linearizable, undecided, violations } =
            &self.verdict;
        let Traffic { passed, cut, lost } = self.traffic;
        writeln!(
            f,
            "seed {}, {} nodes, {:.0} s of faults, {} elections; packets: {passed} passed, {cut} cut, {lost} lost",
            self.seed, self.nodes, self.fault_seconds, self.elections
        )?;
        writeln!(
            f,
            "{requests} requests: {answered} answered, {refused} refused, {unknown} of unknown outcome; {linearizable} keys are \
             linearizable, {undecided} undecided; {} violations",
            violations.len()
        )
    }
}

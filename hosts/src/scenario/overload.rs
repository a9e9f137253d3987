//! Twice what the cluster can take: the excess is refused, memory stays as it is, and so does the leader.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_coord::pb::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest, kv_client::KvClient};
use tokio::sync::Semaphore;
use tonic::{Code, transport::Channel};

use super::{Common, Report};
use crate::cluster::{Cluster, kv};

/// Connections to each node; each carries up to 256 requests at a time.
const CONNECTIONS: usize = 16;

/// Clients that send one request after the other, to find out what is sustainable.
const CLOSED: usize = 128;

/// Requests under way at most: beyond it, those that would come are not sent, and counted.
const UNDER_WAY: usize = 16_384;

/// A client waits so long: longer than a node does.
const PATIENCE: Duration = Duration::from_secs(8);

/// How often requests are sent, and the memory is looked at.
const BEAT: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(500);

/// For what it takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// For every scenario.
    pub common: Common,
    /// How long it is looked for what is sustainable.
    pub find: Duration,
    /// How long there is too much.
    pub overload: Duration,
    /// How many times what is sustainable.
    pub times: f64,
    /// Bytes of a value.
    pub value_size: usize,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    /// Puts per second that were sustained before.
    pub sustainable: f64,
    /// Bytes of a value.
    pub value_size: usize,
    /// Seconds of overload.
    pub seconds: f64,
    /// Puts sent per second.
    pub offered: f64,
    /// Done per second.
    pub done: f64,
    /// Refused as overloaded, all in all.
    pub overloaded: u64,
    /// Other ends, by what was said.
    pub others: BTreeMap<String, u64>,
    /// Not sent, for too many were under way.
    pub not_sent: u64,
    /// Half of the refusals took less, in milliseconds.
    pub refusal_p50_ms: f64,
    /// Of the ones that were done.
    pub done_p50_ms: f64,
    /// All but one in a hundred of them.
    pub done_p99_ms: f64,
    /// Of each node: MiB of memory when it began, a quarter into it, and at its end; and the most.
    pub memory_mib: Vec<[f64; 4]>,
    /// Of each node: MiB of the state, old revisions included, at the same times. What is not compacted is kept in memory.
    pub state_mib: Vec<[f64; 4]>,
    /// Terms that began meanwhile.
    pub elections: u64,
    /// Milliseconds until a put is done, after it.
    pub after_ms: f64,
}

#[derive(Debug)]
struct Counts {
    done: AtomicU64,
    overloaded: AtomicU64,
    others: Mutex<BTreeMap<String, u64>>,
    took: Mutex<[Histogram<u64>; 2]>,
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
    let mut connections = Vec::new();
    for node in 0..nodes {
        for _ in 0..CONNECTIONS {
            connections.push(kv(node)?);
        }
    }
    let value = Bytes::from(vec![b'v'; options.value_size]);
    let compacting = tokio::spawn(compact(kv(0)?));
    let sustainable = sustain(&connections, &value, options.find).await;
    let term = cluster.term().await;
    let before = look(&cluster).await;

    let rate = sustainable * options.times;
    let counts = Arc::new(Counts {
        done: AtomicU64::new(0),
        overloaded: AtomicU64::new(0),
        others: Mutex::default(),
        took: Mutex::new([histogram()?, histogram()?]),
    });
    let offering = tokio::spawn(offer(connections, value, rate, options.overload, counts.clone()));
    let began = Instant::now();
    let mut looked = Vec::new();
    while began.elapsed() < options.overload {
        tokio::time::sleep(LOOK).await;
        looked.push(look(&cluster).await);
    }
    let done = counts.done.load(Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let (sent, not_sent) = offering.await?;
    compacting.abort();
    let after = Instant::now();
    let mut connection = kv(0)?;
    let put = PutRequest { key: "after".into(), ..PutRequest::default() };
    while connection.put(put.clone()).await.is_err() {
        anyhow::ensure!(
            after.elapsed() < Duration::from_secs(30),
            "no put is done any more\n{}",
            cluster.logs(30)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let after_ms = after.elapsed().as_secs_f64() * 1e3;
    cluster.wait_for_leader(Duration::from_secs(20)).await.with_context(|| cluster.logs(30))?;
    let course = |of: fn(&Looked) -> Option<u64>| -> Vec<[f64; 4]> {
        let course = (0..nodes).map(|node| {
            // A node that has not told how it is, in time, is left out that time.
            let all: Vec<u64> = looked.iter().filter_map(|look| of(look.get(node)?)).collect();
            let quarter = all.get(all.len() / 4);
            [before.get(node).and_then(of), quarter.copied(), all.last().copied(), all.iter().max().copied()]
                .map(|bytes| bytes.unwrap_or(0) as f64 / f64::from(1 << 20))
        });
        course.collect()
    };
    let elections = cluster.term().await - term;
    let took = counts.took.lock().unwrap_or_else(PoisonError::into_inner);
    let ms = |which: usize, quantile: f64| took[which].value_at_quantile(quantile) as f64 / 1e3;
    Ok(Outcome {
        sustainable,
        value_size: options.value_size,
        seconds,
        offered: sent as f64 / seconds,
        done: done as f64 / seconds,
        overloaded: counts.overloaded.load(Relaxed),
        others: counts.others.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        not_sent,
        refusal_p50_ms: ms(1, 0.5),
        done_p50_ms: ms(0, 0.5),
        done_p99_ms: ms(0, 0.99),
        memory_mib: course(|looked| looked.memory),
        state_mib: course(|looked| looked.state),
        elections,
        after_ms,
    })
}

/// Puts per second that clients get done which wait for each; the first quarter of the time is not counted.
async fn sustain(connections: &[KvClient<Channel>], value: &Bytes, lasts: Duration) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    for n in 0..CLOSED {
        let (mut connection, stop, count) =
            (connections[n % connections.len()].clone(), stop.clone(), count.clone());
        let value = value.clone();
        tokio::spawn(async move {
            for round in 0.. {
                if stop.load(Relaxed) {
                    return;
                }
                let done = connection.put(put(n as u64 * 7 + round, &value)).await;
                count.fetch_add(u64::from(done.is_ok()), Relaxed);
            }
        });
    }
    tokio::time::sleep(lasts / 4).await;
    let (from, began) = (count.load(Relaxed), Instant::now());
    tokio::time::sleep(lasts - lasts / 4).await;
    let rate = (count.load(Relaxed) - from) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    rate
}

/// Sends so many a second, whatever becomes of them; how many were sent, and how many not.
async fn offer(
    connections: Vec<KvClient<Channel>>,
    value: Bytes,
    rate: f64,
    lasts: Duration,
    counts: Arc<Counts>,
) -> (u64, u64) {
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let (mut sent, mut not_sent) = (0_u64, 0_u64);
    let began = Instant::now();
    let mut beat = tokio::time::interval(BEAT);
    while began.elapsed() < lasts {
        beat.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        while sent + not_sent < due {
            let Ok(permit) = room.clone().try_acquire_owned() else {
                not_sent += 1;
                continue;
            };
            let mut connection = connections[sent as usize % connections.len()].clone();
            let (request, counts) = (put(sent, &value), counts.clone());
            sent += 1;
            tokio::spawn(async move {
                let asked = Instant::now();
                let answer = tokio::time::timeout(PATIENCE, connection.put(request)).await;
                let took = asked.elapsed();
                drop(permit);
                match answer {
                    Ok(Ok(_)) => {
                        counts.done.fetch_add(1, Relaxed);
                        counts.note(0, took);
                    }
                    Ok(Err(status)) if status.code() == Code::ResourceExhausted => {
                        counts.overloaded.fetch_add(1, Relaxed);
                        counts.note(1, took);
                    }
                    Ok(Err(status)) => counts.other(format!("{:?}: {}", status.code(), status.message())),
                    Err(_) => counts.other("no answer in time".to_owned()),
                }
            });
        }
    }
    // Those under way have an end too.
    let all = u32::try_from(UNDER_WAY).unwrap_or(u32::MAX);
    let _ended = tokio::time::timeout(PATIENCE + Duration::from_secs(2), room.acquire_many(all)).await;
    (sent, not_sent)
}

impl Counts {
    fn note(&self, which: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took.lock().unwrap_or_else(PoisonError::into_inner)[which].saturating_record(micros);
    }

    fn other(&self, what: String) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_insert(0) += 1;
    }
}

/// Latencies up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

fn put(n: u64, value: &Bytes) -> PutRequest {
    PutRequest { key: format!("over/{:04}", n % 1_000).into(), value: value.clone(), ..PutRequest::default() }
}

/// Old revisions are kept in memory until they are compacted, as in etcd: an operator has this done. It is refused like any
/// other request, and tried again, for as long as that takes.
async fn compact(mut connection: KvClient<Channel>) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let read = RangeRequest { key: "compacted".into(), serializable: true, ..RangeRequest::default() };
        let Ok(answer) = connection.range(read).await else { continue };
        let revision = answer.into_inner().header.map_or(0, |header| header.revision);
        let request = CompactionRequest { revision, physical: false };
        while let Err(status) = connection.compact(request).await {
            if status.code() == Code::OutOfRange {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Bytes of one node.
struct Looked {
    memory: Option<u64>,
    state: Option<u64>,
}

async fn look(cluster: &Cluster) -> Vec<Looked> {
    let mut looked = Vec::new();
    for node in &cluster.nodes {
        let status = node.status().await;
        let state = status.and_then(|status| u64::try_from(status.db_size).ok());
        looked.push(Looked { memory: node.memory(), state });
    }
    looked
}

impl Report for Outcome {
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.elections > 0 {
            failures.push(format!("{} elections under overload", self.elections));
        }
        if self.overloaded == 0 {
            failures.push("nothing was refused as overloaded".to_owned());
        }
        if self.done == 0.0 {
            failures.push("nothing was done under overload".to_owned());
        }
        for (node, [_, quarter, end, _]) in self.memory_mib.iter().enumerate() {
            // What caches and allocators do on the way is no growth; what grows with the time is.
            if *end > quarter * 1.25 + 48.0 {
                failures.push(format!("node {}'s memory grew from {quarter:.0} to {end:.0} MiB", node + 1));
            }
        }
        failures
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} B values; sustainable: {:.0} puts a second. For {:.0} s {:.0} a second were sent ({} were not, for too many were \
             under way), {:.0} a second done, {} refused as overloaded; {} elections",
            self.value_size,
            self.sustainable,
            self.seconds,
            self.offered,
            self.not_sent,
            self.done,
            self.overloaded,
            self.elections
        )?;
        writeln!(
            f,
            "done: p50 {:.0} ms, p99 {:.0} ms; refused: p50 {:.0} ms; a put {:.0} ms after it",
            self.done_p50_ms, self.done_p99_ms, self.refusal_p50_ms, self.after_ms
        )?;
        for (what, course) in [("memory", &self.memory_mib), ("state", &self.state_mib)] {
            for (node, [before, quarter, end, most]) in course.iter().enumerate() {
                writeln!(
                    f,
                    "node {}, {what}: {before:.0} MiB before, {quarter:.0} after a quarter, {end:.0} at the end, {most:.0} at most",
                    node + 1
                )?;
            }
        }
        for (what, count) in &self.others {
            writeln!(f, "{count:>7} × {what}")?;
        }
        Ok(())
    }
}

//! A load generator, to see what a cluster takes.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Subcommand;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_coord::pb::etcdserverpb::{PutRequest, kv_client::KvClient};
use serde_json::json;
use tonic::transport::Channel;

use super::{
    Failure, Result,
    client::{Endpoint, Endpoints, print, print_json},
};

const EXAMPLES: &str = "\
The keys bench/00000000 and on are written over and over, and stay:
`quorate del bench/ --prefix` removes them. Client n speaks to endpoint n,
counted round and round, on a connection of its own, and waits for each answer
before it sends the next put. Latencies are the client's, in milliseconds.

Examples:
  quorate bench put                                        one client, ten seconds
  quorate bench put --clients 64 --total 100000
  quorate bench put --clients 64 --seconds 30 --value-size 1024 --json
  quorate bench put --clients 48 --endpoints localhost:2379,localhost:2389";

/// `quorate bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write keys, as fast as the cluster takes them
    Put(Put),
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Put {
    /// How many clients at a time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Stop after so many puts
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    total: Option<u64>,
    /// Stop after so long [default: 10]
    #[arg(long, value_name = "S", value_parser = super::client::seconds)]
    seconds: Option<Duration>,
    /// The size of a value, in bytes
    #[arg(long, value_name = "B", default_value = "256", value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_size: u32,
    /// How many different keys
    #[arg(long, value_name = "K", default_value = "10000", value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Where the nodes serve clients
    #[arg(long, env = "QUORATE_ENDPOINTS", value_name = "A,B,C", default_value = "http://127.0.0.1:2379")]
    endpoints: Endpoints,
    /// Print JSON: one object on one line
    #[arg(long)]
    json: bool,
}

/// A put that fails is followed by a pause, so that a node that is down isn't asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(50);

/// After so many failures in a row a client gives up.
const GIVE_UP: u32 = 100;

/// No put is waited for longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Latencies up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| Failure::new(error.to_string()))
}

/// Runs it.
pub(crate) async fn run(args: Args) -> Result {
    let What::Put(put) = args.what;
    let endpoints: Vec<Endpoint> = put.endpoints.iter().cloned().collect();
    let shared = Arc::new(Shared {
        value: value(put.value_size),
        keys: put.keys,
        left: AtomicU64::new(put.total.unwrap_or(u64::MAX)),
        deadline: match put.total {
            Some(_) => None,
            None => Some(Instant::now() + put.seconds.unwrap_or(Duration::from_secs(10))),
        },
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
    });
    // The connections come first: they are not what is measured.
    let mut clients = Vec::new();
    for n in 0..put.clients as usize {
        let endpoint = endpoints[n % endpoints.len()].clone();
        let channel = endpoint.connect(TIMEOUT).await;
        let channel =
            channel.map_err(|why| Failure::new(format!("{endpoint}: {why}; is the cluster running?")))?;
        clients.push(KvClient::new(channel));
    }
    let started = Instant::now();
    let progress = tokio::spawn(show_progress(shared.clone(), put.total, started));
    let clients: Vec<_> =
        clients.into_iter().map(|client| tokio::spawn(client_loop(client, shared.clone()))).collect();
    let mut report = Report { latencies: histogram()?, failed: 0, last_error: None };
    for client in clients {
        let own = client.await.map_err(|error| Failure::new(error.to_string()))??;
        report.latencies.add(&own.latencies).map_err(|error| Failure::new(error.to_string()))?;
        report.failed += own.failed;
        report.last_error = own.last_error.or(report.last_error);
    }
    let took = started.elapsed();
    progress.abort();
    report.print(&put, endpoints.len().min(put.clients as usize), took)
}

struct Shared {
    value: Bytes,
    keys: u64,
    left: AtomicU64,
    deadline: Option<Instant>,
    next: AtomicU64,
    done: AtomicU64,
}

impl Shared {
    /// The next key to write, if it isn't over.
    fn next(&self) -> Option<Bytes> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()?;
        Some(format!("bench/{:08}", self.next.fetch_add(1, Relaxed) % self.keys).into())
    }
}

struct Report {
    /// Microseconds.
    latencies: Histogram<u64>,
    failed: u64,
    last_error: Option<String>,
}

async fn client_loop(mut client: KvClient<Channel>, shared: Arc<Shared>) -> Result<Report> {
    let mut report = Report { latencies: histogram()?, failed: 0, last_error: None };
    let mut in_a_row = 0;
    while let Some(key) = shared.next() {
        let request = PutRequest { key, value: shared.value.clone(), ..PutRequest::default() };
        let asked = Instant::now();
        let failed = match tokio::time::timeout(TIMEOUT, client.put(request)).await {
            Ok(Ok(_)) => {
                report
                    .latencies
                    .saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
                shared.done.fetch_add(1, Relaxed);
                in_a_row = 0;
                continue;
            }
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "no answer in time".to_owned(),
        };
        report.failed += 1;
        report.last_error = Some(failed);
        in_a_row += 1;
        if in_a_row == GIVE_UP {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(report)
}

impl Report {
    fn print(&self, put: &Put, endpoints: usize, took: Duration) -> Result {
        let seconds = took.as_secs_f64();
        let puts = self.latencies.len();
        let rate = puts as f64 / seconds;
        let ms = |micros: u64| micros as f64 / 1000.0;
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|q| ms(self.latencies.value_at_quantile(q)));
        let max = ms(self.latencies.max());
        if put.json {
            print_json(&json!({
                "clients": put.clients,
                "endpoints": endpoints,
                "value_size": put.value_size,
                "seconds": seconds,
                "puts": puts,
                "failed": self.failed,
                "last_error": self.last_error,
                "puts_per_second": rate,
                "latency_ms": { "p50": p50, "p90": p90, "p99": p99, "p99.9": p999, "max": max },
            }))?;
        } else {
            print(
                format!(
                    "{puts} puts of {} bytes in {seconds:.2} s by {} clients over {endpoints} endpoints\n\
                     {rate:.0} puts/s\n\
                     latency: p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms\n",
                    put.value_size, put.clients
                )
                .as_bytes(),
            )?;
        }
        match &self.last_error {
            Some(last) => {
                Err(Failure::new(format!("{} puts failed, the last one because: {last}", self.failed)))
            }
            None => Ok(()),
        }
    }
}

/// A bar on stderr, if that is a terminal.
async fn show_progress(shared: Arc<Shared>, total: Option<u64>, started: Instant) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = match (total, shared.deadline) {
        (Some(total), _) => ProgressBar::new(total),
        (None, Some(deadline)) => {
            ProgressBar::new(u64::try_from((deadline - started).as_millis()).unwrap_or(u64::MAX))
        }
        (None, None) => return,
    };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}% {msg}") {
        bar.set_style(style);
    }
    let (mut before, mut ticks) = (0, tokio::time::interval(Duration::from_millis(250)));
    // Cleared when the task ends, however it does.
    let bar = Cleared(bar);
    loop {
        ticks.tick().await;
        let done = shared.done.load(Relaxed);
        bar.0.set_message(format!("{} puts/s", (done - before) * 4));
        before = done;
        bar.0.set_position(match total {
            Some(_) => done,
            None => u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
}

struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes that don't compress to nothing, the same in each run (xorshift).
fn value(size: u32) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_after_the_total_or_the_time() {
        let shared = |left, deadline| Shared {
            value: value(3),
            keys: 2,
            left: AtomicU64::new(left),
            deadline,
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
        };
        let three = shared(3, None);
        let keys: Vec<_> = std::iter::from_fn(|| three.next()).collect();
        assert_eq!(keys, ["bench/00000000", "bench/00000001", "bench/00000000"]);
        assert_eq!(shared(3, Some(Instant::now())).next(), None);
    }

    #[test]
    fn a_value_has_its_size_and_is_no_single_byte_repeated() {
        assert_eq!(value(0).len(), 0);
        let value = value(256);
        assert_eq!(value.len(), 256);
        assert!(value.iter().any(|byte| *byte != value[0]));
    }
}

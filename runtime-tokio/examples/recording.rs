//! What the flight recorder costs: a cluster of one on a store in memory, so that nothing else hides it. Rounds with and without it
//! take turns, and the medians are compared.
//!
//!     cargo run --release --example recording -p quorate-runtime-tokio --features record -- [callers] [rounds] [ms] [bytes]
//!
//! With `on`, `out` or `off` in front it does only that, for as many proposals as are given instead of the time: for counting
//! instructions, as in `valgrind --tool=callgrind recording on 64 20000`.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorate_core::{Entry, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::{MemoryStore, Node, Payloads, Recording, RecordingStatus};

struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        Bytes::new()
    }
}

/// When callers stop.
#[derive(Clone, Copy)]
enum Until {
    Passed(Duration),
    /// So many proposals of each.
    Done(u64),
}

/// Proposals a second, by so many callers that each wait for an answer; and how the recording is at the end.
async fn measure(
    callers: u64,
    until: Until,
    bytes: usize,
    record: Option<Payloads>,
) -> (f64, u64, Option<RecordingStatus>) {
    let dir = folder();
    let _none = fs::remove_dir_all(&dir);
    let mut builder = Node::builder(NodeId(1)).store(MemoryStore::new(Membership::of_voters([NodeId(1)])));
    if let Some(payloads) = record {
        builder = builder.record(Recording::to_dir(&dir).payloads(payloads));
    }
    let node = builder.start(Nothing).await.expect("a node on a store in memory starts");
    node.propose("first").await.expect("it is alone");
    let begun = Instant::now();
    let command = Bytes::from(vec![7; bytes]);
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (node, command) = (node.clone(), command.clone());
            tokio::spawn(async move {
                let mut count = 0_u64;
                while match until {
                    Until::Passed(time) => begun.elapsed() < time,
                    Until::Done(proposals) => count < proposals,
                } {
                    node.propose(command.clone()).await.expect("it is alone");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await.expect("no caller panics");
    }
    let seconds = begun.elapsed().as_secs_f64();
    node.shutdown().await;
    let status = node.recording();
    let _gone = fs::remove_dir_all(&dir);
    (count as f64 / seconds, count, status)
}

fn folder() -> PathBuf {
    env::temp_dir().join(format!("quorate-recording-{}", std::process::id()))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main]
async fn main() {
    let mut words = env::args().skip(1).peekable();
    let only = words.next_if(|word| word.parse::<u64>().is_err());
    let mut numbers = words.map_while(|word| word.parse::<u64>().ok());
    let callers = numbers.next().unwrap_or(64);
    if let Some(only) = only {
        let record = match only.as_str() {
            "on" => Some(Payloads::Kept),
            "out" => Some(Payloads::LeftOut),
            _ => None,
        };
        let until = Until::Done(numbers.next().unwrap_or(20_000) / callers);
        let (_, count, status) = measure(callers, until, 256, record).await;
        println!("{count} proposals, {status:?}");
        return;
    }
    let rounds = numbers.next().unwrap_or(15);
    let until = Until::Passed(Duration::from_millis(numbers.next().unwrap_or(500)));
    let bytes = usize::try_from(numbers.next().unwrap_or(256)).unwrap_or(256);
    let (mut without, mut with, mut left_out, mut written) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for _ in 0..rounds {
        without.push(measure(callers, until, bytes, None).await.0);
        let (rate, count, status) = measure(callers, until, bytes, Some(Payloads::Kept)).await;
        with.push(rate);
        let status = status.expect("it is recorded");
        assert_eq!(status.gaps, 0, "the disk can't keep up: {status:?}");
        written = status.bytes as f64 / count as f64;
        left_out.push(measure(callers, until, bytes, Some(Payloads::LeftOut)).await.0);
    }
    let (without, with, left_out) = (median(without), median(with), median(left_out));
    let less = |rate: f64| 100.0 * (1.0 - rate / without);
    println!(
        "{callers} callers, {bytes} B: {without:.0}/s without; {with:.0}/s recorded ({:.1} % less, {written:.0} B for each); \
         {left_out:.0}/s without payloads ({:.1} % less)",
        less(with),
        less(left_out)
    );
}

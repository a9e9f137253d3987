//! What the flight recorder costs: a cluster of one on a store in memory, so that nothing else hides it.
//!
//! `cargo run --release -p quorate-runtime-tokio --features record --example recording`

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::{Entry, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::{MemoryStore, Node, Recording, RecordingEnded};

struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        Bytes::new()
    }
}

/// Proposals a second, by so many callers that each wait for an answer; and the recording's bytes for each.
async fn measure(callers: u64, record: bool) -> (f64, f64) {
    let file = std::env::temp_dir().join(format!("quorate-recording-{}", std::process::id()));
    let _none = std::fs::remove_file(&file);
    let mut builder = Node::builder(NodeId(1)).store(MemoryStore::new(Membership::of_voters([NodeId(1)])));
    if record {
        builder = builder.record(Recording::to_file(&file).max_bytes(u64::MAX));
    }
    let node = builder.start(Nothing).await.expect("a node on a store in memory starts");
    node.propose("first").await.expect("it is alone");
    let begun = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut count = 0_u64;
                while begun.elapsed() < Duration::from_secs(2) {
                    node.propose(vec![7; 256]).await.expect("it is alone");
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
    if status.as_ref().is_some_and(|status| status.ended == Some(RecordingEnded::Gap)) {
        println!("the recorder couldn't keep up, and was let go");
    }
    let bytes = status.map_or(0, |status| status.bytes);
    let _gone = std::fs::remove_file(&file);
    (count as f64 / seconds, bytes as f64 / count as f64)
}

#[tokio::main]
async fn main() {
    for callers in [1, 64] {
        for _ in 0..4 {
            let (without, _) = measure(callers, false).await;
            let (with, bytes) = measure(callers, true).await;
            let cost = 100.0 * (1.0 - with / without);
            println!(
                "{callers:>3} callers: {without:.0}/s without, {with:.0}/s with ({cost:.1}% less), {bytes:.0} B for each"
            );
        }
    }
}

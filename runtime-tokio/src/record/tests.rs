//! Whatever becomes of the disk, the node goes on: disks that are slow, or full.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{Entry, Membership, NodeId, StateMachine};

use super::*;
use crate::{MemoryStore, Node};

struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        Bytes::new()
    }
}

/// A directory that goes away with this.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique = format!("quorate-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Self(std::env::temp_dir().join(unique))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _none = fs::remove_dir_all(&self.0);
    }
}

async fn start(recording: Recording) -> Node<Nothing> {
    let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
    Node::builder(NodeId(1)).store(store).record(recording).start(Nothing).await.unwrap()
}

/// Until the recording is like that; the node must take proposals all the while.
async fn until(node: &Node<Nothing>, bytes: usize, is: impl Fn(&RecordingStatus) -> bool) -> RecordingStatus {
    loop {
        node.propose(vec![7; bytes]).await.unwrap();
        let status = node.recording().unwrap();
        if is(&status) {
            return status;
        }
    }
}

#[tokio::test]
async fn a_recording_that_cannot_be_written_is_given_up() {
    let dir = Temporary::new("full");
    let full = |_: &mut File, _: &[u8]| Err(io::ErrorKind::StorageFull.into());
    let node = start(Recording::to_dir(&dir.0).put(full)).await;
    let status = until(&node, 100, |status| status.ended.is_some()).await;
    assert!(matches!(status.ended, Some(RecordingEnded::Failed { .. })));
    assert!(matches!(node.dump_recording(dir.0.join("dump")).await, Err(DumpError::Ended { .. })));
    node.propose("on").await.unwrap();
    node.shutdown().await;
}

/// The queue is bounded: what doesn't fit is left out, and the recording goes on behind a gap.
#[tokio::test]
async fn a_disk_that_cannot_keep_up_makes_a_gap_and_no_more() {
    let dir = Temporary::new("slow");
    let (go_on, stuck) = mpsc::channel::<()>();
    let mut stuck = Some(stuck);
    let slow = move |file: &mut File, bytes: &[u8]| {
        // The first write takes until somebody lets go.
        if let Some(stuck) = stuck.take() {
            let _until = stuck.recv_timeout(Duration::from_secs(60));
        }
        file.write_all(bytes)
    };
    let node = start(Recording::to_dir(&dir.0).put(slow)).await;
    let status = until(&node, 100_000, |status| status.missing > 300).await;
    assert_eq!((status.gaps, status.ended), (1, None));
    drop(go_on);
    let before = status.steps;
    let status = until(&node, 100, |status| status.steps > before + 50 && status.segments > 1).await;
    assert_eq!((status.gaps, status.segments), (1, 2));
    node.shutdown().await;
    let status = node.recording().unwrap();
    assert_eq!((status.gaps, status.ended), (1, Some(RecordingEnded::Stopped)));
}

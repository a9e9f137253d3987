//! The flight recorder: what it leaves on the disk. That recordings replay is tested where the simulator is: `fuzz/tests/flight`.

#![cfg(feature = "record")]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use quorate_core::{
    Entry, GroupId, Membership, NodeId, StateMachine,
    recording::{MAGIC, VERSION},
};
use quorate_runtime_tokio::{
    DumpError, MemoryStore, Node, Payloads, ProposeError, Recording, RecordingEnded, RecordingStatus,
    StopReason,
};

const SECRET: &[u8] = b"the secret of a client";

struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        assert_ne!(entry.payload.as_ref(), b"panic");
        Bytes::new()
    }
}

/// A directory that goes away with this.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("quorate-record-{name}-{}", std::process::id())))
    }

    fn group(&self) -> PathBuf {
        self.0.join("group-0")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _none = fs::remove_dir_all(&self.0);
    }
}

fn store() -> MemoryStore {
    MemoryStore::new(Membership::of_voters([NodeId(1)]))
}

async fn start(store: MemoryStore, recording: Recording) -> Node<Nothing> {
    let node = Node::builder(NodeId(1)).store(store).record(recording);
    // A small core, so that a small ring has several segments.
    node.config(|config| config.max_cached_bytes = 2000).start(Nothing).await.unwrap()
}

async fn fill(node: &Node<Nothing>, is: impl Fn(&RecordingStatus) -> bool) {
    while !is(&node.recording().unwrap()) {
        node.propose(vec![7; 500]).await.unwrap();
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "flight"));
    found.sort();
    found
}

fn kept(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("kept-"));
    found.sort();
    found
}

fn bytes(dir: &Path) -> u64 {
    segments(dir).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[tokio::test]
async fn the_ring_stays_within_its_bound_and_each_segment_says_what_it_is() {
    let dir = Temporary::new("ring");
    let node = start(store(), Recording::to_dir(&dir.0).max_bytes(100_000)).await;
    fill(&node, |status| status.bytes > 500_000).await;
    node.shutdown().await;
    let status = node.recording().unwrap();
    assert_eq!((status.ended, status.gaps, status.missing), (Some(RecordingEnded::Stopped), 0, 0));
    let (found, total) = (segments(&dir.group()), bytes(&dir.group()));
    assert!(total <= 100_000 && total > 50_000, "{total}");
    assert_eq!((status.on_disk, status.segments), (total, found.len() as u64));
    assert!((2..=5).contains(&found.len()), "{found:?}");
    for path in found {
        let segment = fs::read(path).unwrap();
        assert_eq!(segment[..16], MAGIC);
        assert_eq!(segment[16..20], VERSION.to_le_bytes());
    }
}

#[tokio::test]
async fn another_life_goes_on_in_the_same_ring_and_nobody_else_does_meanwhile() {
    let (dir, store) = (Temporary::new("lives"), store());
    let recording = || Recording::to_dir(&dir.0);
    let first = start(store.clone(), recording()).await;
    let other = start(self::store(), recording()).await;
    fill(&other, |status| status.ended.is_some()).await;
    assert!(matches!(other.recording().unwrap().ended, Some(RecordingEnded::Failed { .. })));
    first.propose("word").await.unwrap();
    first.shutdown().await;
    start(store, recording()).await.shutdown().await;
    let found = segments(&dir.group());
    assert_eq!(found.len(), 2);
    // A store that was made anew counts from one again: what was there is kept aside.
    start(self::store(), recording()).await.shutdown().await;
    assert_eq!(segments(&dir.group()).len(), 1);
    let kept = kept(&dir.group());
    assert_eq!((kept.len(), segments(&kept[0]).len()), (1, 2));
}

#[tokio::test]
async fn each_group_has_a_directory_of_its_own() {
    let dir = Temporary::new("groups");
    for group in [3, 4].map(GroupId) {
        let store = self::store().with_group(group, Membership::of_voters([NodeId(1)]));
        let builder = Node::builder(NodeId(1)).group(group).store(store).record(Recording::to_dir(&dir.0));
        builder.start(Nothing).await.unwrap().shutdown().await;
        assert_eq!(segments(&dir.0.join(format!("group-{group}"))).len(), 1);
    }
}

#[tokio::test]
async fn a_copy_is_made_on_request_while_the_node_runs() {
    let dir = Temporary::new("dump");
    let node = start(store(), Recording::to_dir(&dir.0).max_bytes(100_000)).await;
    fill(&node, |status| status.segments >= 3).await;
    node.propose(SECRET).await.unwrap();
    let to = dir.0.join("some/where");
    let dump = node.dump_recording(&to).await.unwrap();
    assert_eq!((dump.segments as usize, dump.bytes), (segments(&to).len(), bytes(&to)));
    // All of what was done before it was asked for.
    let newest = fs::read(segments(&to).last().unwrap()).unwrap();
    assert!(newest.windows(SECRET.len()).any(|window| window == SECRET));
    // What is there is left alone.
    let again = node.dump_recording(&to).await.unwrap_err();
    assert!(matches!(&again, DumpError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
    // It is a copy: the ring goes on without it.
    let before: Vec<_> = segments(&to).iter().map(|path| fs::read(path).unwrap()).collect();
    fill(&node, |status| status.bytes > 400_000).await;
    let after: Vec<_> = segments(&to).iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after);
    node.shutdown().await;
    assert!(matches!(node.dump_recording(dir.0.join("late")).await, Err(DumpError::Ended { .. })));
    let unrecorded = Node::builder(NodeId(1)).store(store()).start(Nothing).await.unwrap();
    assert!(matches!(unrecorded.dump_recording(dir.0.join("none")).await, Err(DumpError::NotRecorded)));
}

#[tokio::test]
async fn an_end_that_should_not_be_is_kept_and_not_many_of_them() {
    let (dir, store) = (Temporary::new("kept"), store());
    let recording = || Recording::to_dir(&dir.0);
    start(store.clone(), recording()).await.shutdown().await;
    assert!(kept(&dir.group()).is_empty(), "a shutdown is no such end");
    let mut names = std::collections::BTreeSet::new();
    for life in 0..6 {
        // It panics as it applies that again.
        let node = start(store.clone(), recording()).await;
        if life == 0 {
            let error = node.propose("panic").await.unwrap_err();
            assert!(matches!(error, ProposeError::Unknown { .. }), "{error:?}");
        }
        assert!(matches!(node.stopped().await.why, StopReason::Panicked { .. }));
        node.shutdown().await;
        let kept = kept(&dir.group());
        assert_eq!(kept.len(), usize::min(life + 1, 4));
        assert!(names.insert(kept.last().unwrap().clone()), "a name was used twice");
        // The newest has the newest life.
        assert_eq!(
            segments(kept.last().unwrap()).last().unwrap().file_name(),
            segments(&dir.group()).last().unwrap().file_name()
        );
    }
}

#[tokio::test]
async fn no_payload_is_left_in_the_files_if_they_are_left_out() {
    for (payloads, there) in [(Payloads::Kept, true), (Payloads::LeftOut, false)] {
        let dir = Temporary::new(if there { "in" } else { "out" });
        // With the actions as well: they have payloads, too.
        let recording = Recording::to_dir(&dir.0).max_bytes(100_000).payloads(payloads).actions(true);
        let node = start(store(), recording).await;
        for _ in 0..3 {
            node.propose(SECRET).await.unwrap();
        }
        fill(&node, |status| status.segments >= 2).await;
        // In a core at the beginning of a segment, too.
        let begun = node.recording().unwrap().bytes;
        while node.recording().unwrap().bytes < begun + 60_000 {
            node.propose(SECRET).await.unwrap();
        }
        node.shutdown().await;
        let all: Vec<u8> = segments(&dir.group()).iter().flat_map(|path| fs::read(path).unwrap()).collect();
        let half = &SECRET[..SECRET.len() / 2];
        assert_eq!(all.windows(half.len()).any(|window| window == half), there);
    }
}

/// Nobody records into what isn't there to be recorded into.
#[tokio::test]
async fn a_directory_that_cannot_be_made_is_said_and_the_node_goes_on() {
    let dir = Temporary::new("file");
    fs::write(&dir.0, "precious").unwrap();
    let node = start(store(), Recording::to_dir(&dir.0)).await;
    fill(&node, |status| status.ended.is_some()).await;
    assert!(matches!(node.recording().unwrap().ended, Some(RecordingEnded::Failed { .. })));
    node.shutdown().await;
    assert_eq!(fs::read_to_string(&dir.0).unwrap(), "precious");
    fs::remove_file(&dir.0).unwrap();
}

//! The flight recorder: whatever becomes of the recording, the node goes on. That recordings replay is tested where the simulator is:
//! `fuzz/tests/flight`.

#![cfg(feature = "record")]

use std::{
    fs, io,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{Entry, Membership, NodeId, StateMachine};
use quorate_runtime_tokio::{MemoryStore, Node, Recording, RecordingEnded, RecordingStatus};

struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, _: &Entry) -> Bytes {
        Bytes::new()
    }
}

async fn start(recording: Recording) -> Node<Nothing> {
    let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
    Node::builder(NodeId(1)).store(store).record(recording).start(Nothing).await.unwrap()
}

/// Until the recording is over; the node must take proposals all the while.
async fn ended(node: &Node<Nothing>) -> RecordingStatus {
    loop {
        node.propose(vec![7; 1000]).await.unwrap();
        let status = node.recording().unwrap();
        if status.ended.is_some() {
            return status;
        }
    }
}

/// A writer that keeps what it gets, as it likes.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn all_steps_are_written_when_the_node_has_stopped() {
    let written = Shared::default();
    let node = start(Recording::to_writer(written.clone())).await;
    node.propose("word").await.unwrap();
    node.shutdown().await;
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("{\"quorate-flight\":1,\"release\":\""), "{}", lines[0]);
    assert_eq!(lines.last(), Some(&"{\"end\":\"stopped\"}"));
    let steps = lines.iter().filter(|line| line.starts_with('[')).count() as u64;
    let status = node.recording().unwrap();
    assert_eq!((status.steps, status.ended), (steps, Some(RecordingEnded::Stopped)));
    assert!(text.contains("{\"Propose\":{\"first_token\":"), "{text}");
}

#[tokio::test]
async fn at_its_bound_the_recording_ends_and_says_so() {
    let folder = std::env::temp_dir().join(format!("quorate-record-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("flight");
    let recording = || Recording::to_file(&file).max_bytes(20_000);
    let node = start(recording()).await;
    let status = ended(&node).await;
    assert_eq!(status.ended, Some(RecordingEnded::Limit { bound: 20_000 }));
    node.propose("on").await.unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with("\n{\"end\":\"limit\"}\n") && text.len() <= 20_000, "{} bytes", text.len());
    node.shutdown().await;
    // It is more than half full: it makes room.
    let node = start(recording()).await;
    node.shutdown().await;
    assert_eq!(fs::read_to_string(folder.join("flight.old")).unwrap(), text);
    assert!(fs::read_to_string(&file).unwrap().ends_with("\n{\"end\":\"stopped\"}\n"));
    // And another life in it.
    start(recording()).await.shutdown().await;
    assert_eq!(fs::read_to_string(&file).unwrap().matches("quorate-flight").count(), 2);
    // Anything else is left alone; so is what another node records into.
    fs::write(&file, "precious").unwrap();
    let node = start(recording()).await;
    assert!(matches!(ended(&node).await.ended, Some(RecordingEnded::Failed { .. })));
    node.shutdown().await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    fs::remove_dir_all(&folder).unwrap();
}

/// A disk that is full, or slow.
struct Odd(Option<mpsc::Receiver<()>>);

impl io::Write for Odd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stuck) = &self.0 else { return Err(io::ErrorKind::StorageFull.into()) };
        let _until = stuck.recv_timeout(Duration::from_secs(60));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_recording_that_cannot_be_written_is_given_up() {
    let node = start(Recording::to_writer(Odd(None))).await;
    assert!(matches!(ended(&node).await.ended, Some(RecordingEnded::Failed { .. })));
    node.propose("on").await.unwrap();
    node.shutdown().await;
}

#[tokio::test]
async fn a_recorder_that_cannot_keep_up_is_let_go() {
    let (go_on, stuck) = mpsc::channel();
    let node = start(Recording::to_writer(Odd(Some(stuck)))).await;
    assert_eq!(ended(&node).await.ended, Some(RecordingEnded::Gap));
    node.propose("on").await.unwrap();
    drop(go_on);
    node.shutdown().await;
}

//! State machines that keep their state in storage of their own.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_core::{Entry, LogId, Membership, NodeId, StateError, StateMachine, Term};
use quorate_runtime_tokio::{MemoryStore, Node, ProposeError, StartError, StopReason};

use crate::support::{alone, within};

/// Words, and up to where in the log they are.
#[derive(Clone, Default, PartialEq, Debug)]
struct Saved {
    words: Vec<Bytes>,
    applied: LogId,
}

/// What is on the disk of a state machine.
#[derive(Clone, Default)]
struct Disk {
    saved: Arc<Mutex<Saved>>,
    /// Of these many flushes only the last reaches the disk.
    lazy: usize,
    fails: Arc<Mutex<bool>>,
}

/// Its state, which it saves now and then, with its place in the log.
struct OnDisk {
    disk: Disk,
    state: Saved,
    flushes: usize,
}

impl Disk {
    fn machine(&self) -> OnDisk {
        OnDisk { disk: self.clone(), state: self.saved.lock().unwrap().clone(), flushes: 0 }
    }

    fn words(&self) -> Vec<Bytes> {
        self.saved.lock().unwrap().words.clone()
    }
}

impl StateMachine for OnDisk {
    type Command = Bytes;
    type Reply = Bytes;

    fn applied(&self) -> LogId {
        self.state.applied
    }

    fn apply(&mut self, entry: &Entry) -> Bytes {
        assert!(entry.id.index > self.state.applied.index, "{} is applied twice", entry.id);
        self.state.applied = entry.id;
        self.state.words.push(entry.payload.clone());
        entry.payload.clone()
    }

    fn flush(&mut self) -> Result<(), StateError> {
        if *self.disk.fails.lock().unwrap() {
            return Err("no space left".into());
        }
        self.flushes += 1;
        if self.flushes.is_multiple_of(self.disk.lazy + 1) {
            *self.disk.saved.lock().unwrap() = self.state.clone();
        }
        Ok(())
    }
}

async fn start(store: &MemoryStore, disk: &Disk) -> Result<Node<OnDisk>, StartError> {
    within(Node::builder(NodeId(1)).store(store.clone()).start(disk.machine())).await
}

#[tokio::test]
async fn what_it_holds_is_not_applied_again_and_what_it_lost_is() {
    let (store, disk) = (alone(), Disk { lazy: 2, ..Disk::default() });
    let (mut words, mut lost) = (Vec::new(), 0);
    for round in 0..10 {
        lost += words.len() - disk.words().len();
        let node = start(&store, &disk).await.unwrap();
        for n in 0..round {
            let word = Bytes::from(format!("{round}.{n}"));
            assert_eq!(within(node.propose(word.clone())).await.unwrap(), word);
            words.push(word);
        }
        let there = within(node.read(|machine| machine.state.words.clone())).await.unwrap();
        assert_eq!(there, words, "round {round}");
        // What it had not saved is lost with it.
        within(node.shutdown()).await;
    }
    assert!(!disk.words().is_empty() && lost > 0, "it saves now and then");
}

#[tokio::test]
async fn a_state_of_another_log_is_refused() {
    let (store, disk) = (alone(), Disk::default());
    let node = start(&store, &disk).await.unwrap();
    for word in ["one", "two"] {
        within(node.propose(word)).await.unwrap();
    }
    within(node.shutdown()).await;
    let applied = disk.saved.lock().unwrap().applied;
    // A log that doesn't reach so far: its node has lost something, or this is not its state machine.
    let refused = start(&alone(), &disk).await.err();
    assert!(
        matches!(refused, Some(StartError::Foreign { applied: found, last: LogId::ZERO }) if found == applied),
        "{refused:?}"
    );
    // An entry of another term in its place.
    disk.saved.lock().unwrap().applied = LogId { term: Term(9), ..applied };
    let refused = start(&store, &disk).await.err();
    assert!(matches!(refused, Some(StartError::Foreign { .. })), "{refused:?}");
    disk.saved.lock().unwrap().applied = applied;
    let node = start(&store, &disk).await.unwrap();
    assert_eq!(within(node.read(|machine| machine.state.words.clone())).await.unwrap(), ["one", "two"]);
}

#[tokio::test]
async fn storage_that_fails_stops_the_node() {
    let (store, disk) = (MemoryStore::new(Membership::of_voters([NodeId(1)])), Disk::default());
    let node = start(&store, &disk).await.unwrap();
    within(node.propose("kept")).await.unwrap();
    *disk.fails.lock().unwrap() = true;
    // Applied or not, it is in the log; and its state is not used any more.
    let _either = within(node.propose("in the log")).await;
    let stopped = within(node.stopped()).await;
    assert!(
        matches!(&stopped.why, StopReason::StateMachine { message, .. } if &**message == "no space left"),
        "{stopped:?}"
    );
    assert_eq!(within(node.propose("late")).await, Err(ProposeError::Stopped(stopped)));
    *disk.fails.lock().unwrap() = false;
    let node = start(&store, &disk).await.unwrap();
    let words = within(node.read(|machine| machine.state.words.clone())).await.unwrap();
    assert_eq!(words, ["kept", "in the log"]);
}

//! Stores and state machines that fail.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use quorate_core::{
    GroupId, Load, Loaded, LogReader, Membership, NodeId, Recovered, Run, Store, Term, Write,
};
use quorate_runtime_tokio::{
    MemorySnapshots, MemoryStore, MemoryStoreError, MemoryStoreReader, Node, ProposeError, ReadError,
    StopReason, Stopped,
};

use crate::support::{Cluster, GROUP, Place, Words, alone, start_alone, within};

pub(crate) fn storage(why: &str) -> Stopped {
    Stopped { why: StopReason::Storage(Arc::from(why)) }
}

/// Every call says so, at once.
pub(crate) async fn assert_stopped(node: &Node<Words>, stopped: &Stopped) {
    assert_eq!(within(node.stopped()).await, *stopped);
    assert_eq!(within(node.propose("late")).await, Err(ProposeError::Stopped(stopped.clone())));
    assert_eq!(within(node.read(Words::texts)).await, Err(ReadError::Stopped(stopped.clone())));
    assert_eq!(within(node.read_stale(Words::texts)).await, Err(ReadError::Stopped(stopped.clone())));
    assert_eq!(within(node.status()).await, Err(stopped.clone()));
    within(node.shutdown()).await;
    assert_eq!(within(node.stopped()).await, *stopped, "the first reason stays");
}

#[tokio::test]
async fn a_failed_store_stops_its_node_and_those_who_wait_hear_unknown() {
    let store = alone();
    let node = start_alone(&store).await;
    assert_eq!(node.propose("kept").await, Ok(Place(1)));
    store.set_commit_time(Duration::from_millis(100));
    store.fail("no space left");
    let waiting: Vec<_> = (0..5)
        .map(|n| {
            let node = node.clone();
            tokio::spawn(async move { node.propose(format!("{n}")).await })
        })
        .collect();
    for waiting in waiting {
        let outcome = within(waiting).await.unwrap();
        assert!(
            matches!(&outcome, Err(ProposeError::Unknown { why }) if why.contains("store")),
            "{outcome:?}"
        );
    }
    assert_stopped(&node, &storage("no space left")).await;
    // A new start goes on with what was acknowledged.
    store.repair();
    store.set_commit_time(Duration::ZERO);
    assert_eq!(start_alone(&store).await.read(Words::texts).await.unwrap(), ["kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_store_fails_is_replaced() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.node(leader).propose("first").await.unwrap();
    cluster.stores[&leader].fail("I/O error");
    // Its followers may yet commit it: unknown, or done, and both are true.
    let outcome = within(cluster.node(leader).propose("second")).await;
    assert!(matches!(outcome, Ok(_) | Err(ProposeError::Unknown { .. })), "{outcome:?}");
    assert_stopped(cluster.node(leader), &storage("I/O error")).await;
    cluster.nodes.remove(&leader);
    let next = cluster.leader_of(&cluster.others(leader)).await;
    within(cluster.node(next).propose("third")).await.unwrap();
    cluster.stores[&leader].repair();
    cluster.start_node(leader, |builder| builder).await;
    let words = within(cluster.converged()).await;
    assert!(words == ["first", "second", "third"] || words == ["first", "third"], "{words:?}");
    assert!(outcome.is_err() || words.len() == 3, "what was acknowledged is there");
}

#[tokio::test]
async fn a_state_machine_that_panics_stops_its_node() {
    let node = start_alone(&alone()).await;
    node.propose("fine").await.unwrap();
    let outcome = within(node.propose("panic")).await;
    let Err(ProposeError::Unknown { why }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(why, "the node has stopped: its state machine panicked at entry 3@T1: no such word");
    let stopped = within(node.stopped()).await;
    assert!(matches!(&stopped.why, StopReason::Panicked { at, .. } if at.index.0 == 3), "{stopped:?}");
    assert_stopped(&node, &stopped).await;
}

/// A store with a fault of its own.
pub(crate) struct Faulty {
    store: MemoryStore,
    panics: bool,
    /// How long it takes to open a group.
    opens_in: Duration,
    /// Nothing, if its log can be read.
    reads: Option<FaultyReader>,
    /// There as long as it is: the lock of one on a disk.
    _held: Arc<()>,
}

/// Opens once, when something is sent.
type Gate = Arc<Mutex<mpsc::Receiver<()>>>;

#[derive(Clone)]
pub(crate) enum FaultyReader {
    Well(MemoryStoreReader),
    /// What is in the log can't be read.
    Damaged,
    /// Something else is read, once the gate opens.
    Lies(Gate),
}

impl Faulty {
    const fn new(store: MemoryStore, held: Arc<()>) -> Self {
        Self { store, panics: false, opens_in: Duration::ZERO, reads: None, _held: held }
    }

    /// Its log can't be read back.
    pub(crate) fn unreadable(store: MemoryStore) -> Self {
        Self { reads: Some(FaultyReader::Damaged), ..Self::new(store, Arc::default()) }
    }

    /// It takes so long to open a group. As long as it is there, it has a share in `held`.
    pub(crate) fn slow(store: MemoryStore, opens_in: Duration, held: &Arc<()>) -> Self {
        Self { opens_in, ..Self::new(store, held.clone()) }
    }
}

impl Store for Faulty {
    type Error = MemoryStoreError;
    type Reader = FaultyReader;
    type Snapshots = MemorySnapshots;

    fn groups(&self) -> Result<Vec<GroupId>, MemoryStoreError> {
        self.store.groups()
    }

    fn create(&mut self, group: GroupId, membership: &Membership) -> Result<(), MemoryStoreError> {
        self.store.create(group, membership)
    }

    fn remove(&mut self, group: GroupId) -> Result<(), MemoryStoreError> {
        self.store.remove(group)
    }

    fn recover(&mut self, group: GroupId) -> Result<Recovered, MemoryStoreError> {
        thread::sleep(self.opens_in);
        self.store.recover(group)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), MemoryStoreError> {
        assert!(!self.panics, "disk on fire");
        self.store.commit(writes)
    }

    fn refused(error: &MemoryStoreError) -> Option<GroupId> {
        MemoryStore::refused(error)
    }

    fn reader(&self) -> FaultyReader {
        self.reads.clone().unwrap_or_else(|| FaultyReader::Well(self.store.reader()))
    }

    fn snapshots(&self) -> MemorySnapshots {
        self.store.snapshots()
    }
}

impl LogReader for FaultyReader {
    type Error = MemoryStoreError;

    fn load(&self, group: GroupId, load: &Load) -> Result<Loaded, MemoryStoreError> {
        match self {
            Self::Well(reader) => reader.load(group, load),
            Self::Damaged => Err(MemoryStoreError::Failed(format!("entry {} is damaged", load.first))),
            Self::Lies(gate) => {
                let _opened = gate.lock().unwrap().recv();
                Ok(Loaded::Entries([Run::noop(Term(99), load.first)].into_iter().collect()))
            }
        }
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_read_stops_its_node() {
    let store = alone();
    let node = start_alone(&store).await;
    node.propose("there").await.unwrap();
    within(node.shutdown()).await;
    // What was there before the restart must be read again to be applied.
    let faulty = Faulty::unreadable(store);
    let node = Node::builder(NodeId(1)).store(faulty).start(Words::default()).await.unwrap();
    assert_stopped(&node, &storage("entry 1 is damaged")).await;
}

/// The driver hears of both in the same turn.
#[tokio::test]
async fn a_failure_is_told_although_a_shutdown_comes_with_it() {
    let store = alone();
    let node = start_alone(&store).await;
    node.propose("there").await.unwrap();
    within(node.shutdown()).await;
    let (open, gate) = mpsc::channel();
    let lies = FaultyReader::Lies(Arc::new(Mutex::new(gate)));
    let faulty = Faulty { reads: Some(lies), ..Faulty::unreadable(store) };
    let node = Node::builder(NodeId(1)).store(faulty).start(Words::default()).await.unwrap();
    within(async { while node.status().await.unwrap().counts.loads == 0 {} }).await;
    open.send(()).unwrap();
    // This runtime stands still, and the thread that reads does not.
    thread::sleep(Duration::from_millis(200));
    within(node.shutdown()).await;
    let why = within(node.stopped()).await.why;
    assert!(matches!(why, StopReason::Storage(_)), "{why:?}");
}

#[tokio::test]
async fn a_store_that_panics_has_failed() {
    let faulty = Faulty { panics: true, ..Faulty::unreadable(alone()) };
    let node = Node::builder(NodeId(1)).store(faulty).start(Words::default()).await.unwrap();
    assert_stopped(&node, &storage("it panicked: disk on fire")).await;
}

#[tokio::test]
async fn a_node_that_another_has_taken_the_store_from_stops() {
    let store = alone();
    let old = start_alone(&store).await;
    old.propose("old").await.unwrap();
    let new = start_alone(&store).await;
    let outcome = within(old.propose("too late")).await;
    assert!(matches!(outcome, Err(ProposeError::Unknown { .. })), "{outcome:?}");
    assert_stopped(&old, &storage("a write of 1 came after 2 had opened group 0")).await;
    assert_eq!(new.propose("new").await, Ok(Place(2)));
    assert_eq!(store.log(GROUP).last().unwrap().term().0, 2);
}

/// A runtime that is shut down takes its nodes with it: who asks from elsewhere is told.
#[test]
fn a_node_whose_runtime_is_gone_says_so() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let node = first.block_on(async { start_alone(&alone()).await });
    first.shutdown_timeout(Duration::from_secs(30));
    let stopped = Stopped { why: StopReason::Died };
    second.block_on(assert_stopped(&node, &stopped));
}

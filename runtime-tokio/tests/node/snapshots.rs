//! Snapshots taken, sent and installed, and logs cut to them.

use std::{
    io,
    num::NonZeroU64,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{
    Body, ChangeOp, Entry, Frozen, GroupId, Index, LogId, Membership, MembershipChange, Message, NodeId,
    RoleKind, Run, Sink, Snapshot, Source, StateError, StateMachine, Term,
};
use quorate_runtime_tokio::{
    BoxFuture, BoxStream, Builder, ForwardError, Host, Inbound, MemoryStore, Node, SnapshotError,
    SnapshotLimits, SnapshotPolicy, SnapshotSourcing, StartError, StopReason, Transport,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    task::yield_now,
    time::sleep,
};

use crate::support::{Cluster, ELECTION, GROUP, Place, Words, alone, start_alone, until, within};

/// Takes one every 100 entries, and keeps 20.
fn often() -> SnapshotPolicy {
    SnapshotPolicy {
        entries: 100,
        size_percent: 0,
        min_pause: Duration::ZERO,
        keep_entries: 20,
        ..SnapshotPolicy::default()
    }
}

fn small_chunks() -> SnapshotLimits {
    SnapshotLimits { chunk_bytes: 4 << 10, sync_bytes: 4 << 10, ..SnapshotLimits::default() }
}

async fn start(cluster: &mut Cluster, id: NodeId, limits: &SnapshotLimits) {
    let limits = limits.clone();
    cluster.start_node(id, |builder| builder.snapshots(often()).snapshot_limits(limits)).await;
}

async fn cluster(limits: &SnapshotLimits) -> Cluster {
    let mut cluster = Cluster::of(3);
    for id in cluster.ids() {
        start(&mut cluster, id, limits).await;
    }
    cluster
}

/// Words of 1,000 bytes or so, no two the same.
async fn propose<S: StateMachine<Command = Bytes, Reply = Place>>(
    node: &Node<S>,
    words: std::ops::Range<u32>,
) {
    for n in words {
        within(node.propose(Bytes::from(format!("{n:-<1000}")))).await.unwrap();
    }
}

fn entries(store: &MemoryStore, group: GroupId) -> u64 {
    store.log(group).iter().map(Run::count).sum()
}

/// Cuts a node off, and has the others go on until what it lacks is gone. Returns who leads.
async fn leave_behind(cluster: &Cluster, left: NodeId, words: std::ops::Range<u32>) -> NodeId {
    cluster.network.isolate(left);
    let others = cluster.others(left);
    let leader = cluster.leader_of(&others).await;
    let before = cluster.node(leader).status().await.unwrap().raft.last.index;
    propose(cluster.node(leader), words).await;
    for id in others {
        within(async {
            while cluster.node(id).status().await.unwrap().raft.base.index <= before {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    leader
}

/// How many commands a node has applied itself, and how many words it has.
async fn applied(node: &Node<Words>) -> (usize, usize) {
    node.read(|machine: &Words| (machine.applied, machine.words.len())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_however_much_is_written_and_a_restart_begins_at_the_snapshot() {
    let store = alone();
    let builder = || Node::builder(NodeId(1)).store(store.clone()).snapshots(often());
    let node = builder().start(Words::default()).await.unwrap();
    let mut longest = 0;
    for round in 0..20 {
        propose(&node, round * 100..(round + 1) * 100).await;
        longest = longest.max(entries(&store, GROUP));
    }
    // What comes while one is being written stays, too.
    assert!(longest < 1_000, "{longest} entries in the log");
    until(|| (entries(&store, GROUP) < 300).then_some(())).await;
    let counts = node.snapshot_counts();
    assert!((2..=20).contains(&counts.taken) && counts.takes_failed == 0, "{counts:?}");
    let status = node.status().await.unwrap().raft;
    assert!(status.snapshot.index.0 - status.base.index.0 >= 20, "some are kept: {status:?}");
    within(node.shutdown()).await;
    drop(node);
    let node = builder().start(Words::default()).await.unwrap();
    let (applied, words) = applied(&node).await;
    assert_eq!(words, 2_000);
    assert!(applied < 300, "{applied} were applied again");
    within(node.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_bytes_as_well_and_never_when_switched_off() {
    let store = alone();
    let bytes = SnapshotPolicy { entries: u64::MAX, bytes: 50_000, keep_bytes: 5_000, ..often() };
    let node = Node::builder(NodeId(1)).store(store.clone()).snapshots(bytes).start(Words::default());
    let node = node.await.unwrap();
    propose(&node, 0..200).await;
    until(|| (entries(&store, GROUP) < 120).then_some(())).await;
    within(node.shutdown()).await;

    let store = alone();
    let off = SnapshotPolicy { automatic: false, ..often() };
    let node = Node::builder(NodeId(1)).store(store.clone()).snapshots(off).start(Words::default());
    let node = node.await.unwrap();
    propose(&node, 0..300).await;
    assert_eq!((entries(&store, GROUP), node.snapshot_counts().taken), (301, 0));
    within(node.shutdown()).await;
}

#[tokio::test]
async fn one_can_be_asked_for_and_says_where_it_is() {
    let store = alone();
    let node = start_alone(&store).await;
    propose(&node, 0..3).await;
    let last = within(node.snapshot()).await.unwrap();
    assert_eq!(last, LogId::new(Term(1), Index(4)));
    assert_eq!(within(node.snapshot()).await, Ok(last), "nothing has happened since");
    propose(&node, 3..4).await;
    let (one, two) = within(async { tokio::join!(node.snapshot(), node.snapshot()) }).await;
    assert_eq!((one, two), (Ok(LogId::new(Term(1), Index(5))), Ok(LogId::new(Term(1), Index(5)))));
    assert_eq!(node.status().await.unwrap().raft.snapshot.index, Index(5));
    assert_eq!((node.snapshot_counts().taken, node.snapshot_progress()), (2, vec![]));
    within(node.shutdown()).await;
    assert!(matches!(node.snapshot().await, Err(SnapshotError::Stopped(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_gets_a_snapshot_while_writes_go_on() {
    let mut cluster = cluster(&small_chunks()).await;
    let left = cluster.others(cluster.leader().await)[0];
    let leader = leave_behind(&cluster, left, 0..400).await;
    cluster.network.heal();
    propose(cluster.node(leader), 400..600).await;
    assert_eq!(cluster.converged().await.len(), 600);
    let (applied, words) = applied(cluster.node(left)).await;
    assert!(applied < 500, "{applied} of {words} it has applied itself");
    let sent: u64 = cluster.nodes.values().map(|node| node.snapshot_counts().sent).sum();
    let received = cluster.node(left).snapshot_counts();
    assert!(sent > 0 && received.received > 0, "{sent} sent, {received:?}");
    // It starts from there, too.
    within(cluster.nodes.remove(&left).unwrap().shutdown()).await;
    start(&mut cluster, left, &small_chunks()).await;
    assert_eq!(cluster.converged().await.len(), 600);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_joins_by_a_snapshot() {
    let mut cluster = cluster(&small_chunks()).await;
    let leader = cluster.leader().await;
    propose(cluster.node(leader), 0..300).await;
    until(|| (entries(&cluster.stores[&leader], GROUP) < 250).then_some(())).await;
    let new = NodeId(4);
    cluster.stores.insert(new, MemoryStore::new(Membership::of_voters(cluster.ids())));
    start(&mut cluster, new, &small_chunks()).await;
    let change = MembershipChange::new(vec![ChangeOp::Join(new)]);
    within(cluster.node(leader).change_membership(change)).await.unwrap();
    until(|| {
        let all = cluster.stores[&new].log(GROUP);
        (!all.is_empty()).then_some(())
    })
    .await;
    propose(cluster.node(leader), 300..310).await;
    assert_eq!(cluster.converged().await.len(), 310);
    let (applied, _) = applied(cluster.node(new)).await;
    assert!(applied < 250, "{applied} it has applied itself");
    assert!(cluster.node(new).status().await.unwrap().raft.membership.contains(new));
    cluster.shutdown().await;
}

/// Streams break after so many bytes, as long as there are any to break.
#[derive(Debug)]
struct Brittle {
    inner: Arc<dyn Transport>,
    breaks: Arc<AtomicI64>,
    opened: Arc<AtomicU64>,
    after: usize,
}

impl Transport for Brittle {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        self.inner.start(inbound);
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        self.inner.send(group, to, message);
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        self.inner.forward(group, to, request)
    }

    fn open(&self, group: GroupId, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>> {
        self.opened.fetch_add(1, SeqCst);
        let breaks = self.breaks.fetch_sub(1, SeqCst) > 0;
        let left = if breaks { self.after } else { usize::MAX };
        let opening = self.inner.open(group, to);
        Box::pin(async move { Ok(Box::new(Short { inner: opening.await?, left }) as BoxStream) })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        self.inner.shutdown()
    }
}

struct Short {
    inner: BoxStream,
    left: usize,
}

impl AsyncRead for Short {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Short {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let part = buf.len().min(self.left);
        if part == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let polled = Pin::new(&mut self.inner).poll_write(cx, &buf[..part]);
        if let Poll::Ready(Ok(written)) = &polled {
            self.left -= written;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_is_cut_short_again_and_again_goes_on_where_it_was() {
    let mut cluster = Cluster::of(3);
    let (breaks, opened) = (Arc::new(AtomicI64::new(5)), Arc::new(AtomicU64::new(0)));
    for id in cluster.ids() {
        let (breaks, opened) = (breaks.clone(), opened.clone());
        let inner = cluster.network.transport(id);
        let brittle = Arc::new(Brittle { inner, breaks, opened, after: 60_000 });
        let change = |builder: Builder<Words>| builder.snapshots(often()).snapshot_limits(small_chunks());
        cluster.start_over(id, brittle, change).await;
    }
    let left = cluster.others(cluster.leader().await)[0];
    // Its state is of about 400 KB.
    leave_behind(&cluster, left, 0..400).await;
    cluster.network.heal();
    assert_eq!(cluster.converged().await.len(), 400);
    let received = cluster.node(left).snapshot_counts();
    assert!(opened.load(SeqCst) >= 6 && received.receives_failed >= 5, "{received:?}");
    // Each attempt alone would have needed all of it: what is staged twice is less than a chunk for each cut.
    let state = cluster.node(left).read(|words: &Words| words.words.len() * 1_001).await.unwrap() as u64;
    assert!(received.received_bytes < state + 6 * (64 << 10), "{received:?} of {state}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_transfer_holds_up_nobody_and_deposes_nobody() {
    let slow = SnapshotLimits { receive_rate: NonZeroU64::new(200_000), ..small_chunks() };
    let mut cluster = cluster(&slow).await;
    let left = cluster.others(cluster.leader().await)[0];
    let leader = leave_behind(&cluster, left, 0..300).await;
    cluster.network.heal();
    // Who was cut off may have a later term: then there is an election, and it is over before the transfer begins.
    let receiving = || cluster.node(left).snapshot_progress().into_iter().find(|entry| entry.done > 0);
    until(receiving).await;
    let leader = if cluster.node(leader).leadership().borrow().role == RoleKind::Leader {
        leader
    } else {
        cluster.leader().await
    };
    let term = cluster.node(leader).leadership().borrow().term;
    let mut meanwhile = 300;
    while receiving().is_some() {
        propose(cluster.node(leader), meanwhile..meanwhile + 1).await;
        meanwhile += 1;
    }
    assert!(meanwhile > 350, "only {} words could be written meanwhile", meanwhile - 300);
    assert_eq!(cluster.converged().await.len(), meanwhile as usize);
    assert_eq!(cluster.node(leader).leadership().borrow().term, term, "nobody else was elected");
    // What came after the snapshot was held back in the log: it was not needed twice.
    assert_eq!(cluster.node(left).snapshot_counts().received, 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_in_the_middle_leaves_the_rest_to_the_next() {
    let slow = SnapshotLimits { receive_rate: NonZeroU64::new(100_000), ..small_chunks() };
    let mut cluster = cluster(&slow).await;
    let left = cluster.others(cluster.leader().await)[0];
    leave_behind(&cluster, left, 0..300).await;
    cluster.network.heal();
    let progress = until(|| {
        let progress = cluster.node(left).snapshot_progress();
        progress.into_iter().find(|entry| entry.done > 50_000)
    });
    progress.await;
    let leader = cluster.leader().await;
    within(cluster.nodes.remove(&leader).unwrap().shutdown()).await;
    assert_eq!(cluster.converged().await.len(), 300);
    let (applied, _) = applied(cluster.node(left)).await;
    assert!(applied < 300, "{applied} it has applied itself");
    start(&mut cluster, leader, &slow).await;
    assert_eq!(cluster.converged().await.len(), 300);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_follower_sends_its_snapshot_for_the_leader() {
    let always = SnapshotLimits { source: SnapshotSourcing::Always, ..small_chunks() };
    let mut cluster = cluster(&always).await;
    let left = cluster.others(cluster.leader().await)[0];
    leave_behind(&cluster, left, 0..400).await;
    cluster.network.heal();
    let leader = cluster.leader().await;
    propose(cluster.node(leader), 400..450).await;
    assert_eq!(cluster.converged().await.len(), 450);
    let counts: Vec<_> = cluster.nodes.values().map(|node| (node.id(), node.snapshot_counts())).collect();
    let asked = counts.iter().find(|(_, counts)| counts.relayed > 0);
    let (asked, theirs) = asked.unwrap_or_else(|| panic!("nobody has asked another: {counts:?}"));
    assert_eq!(theirs.sent_bytes, 0, "node {asked} has asked, and sent something itself: {counts:?}");
    cluster.shutdown().await;
}

/// Takes no snapshot on.
struct Refuses;

impl StateMachine for Refuses {
    type Command = Bytes;
    type Reply = Place;

    fn apply(&mut self, _: &Entry) -> Place {
        Place(1)
    }

    fn restore(&mut self, _: &mut dyn Source) -> Result<(), StateError> {
        Err("of another release".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_machine_can_not_take_the_snapshot_stops_and_says_so() {
    let mut cluster = Cluster::of(3);
    for id in [NodeId(1), NodeId(2)] {
        start(&mut cluster, id, &small_chunks()).await;
    }
    let leader = cluster.leader_of(&[NodeId(1), NodeId(2)]).await;
    propose(cluster.node(leader), 0..300).await;
    until(|| (entries(&cluster.stores[&leader], GROUP) < 250).then_some(())).await;
    let third = NodeId(3);
    let builder = || {
        Node::<Refuses>::builder(third)
            .election_timeout(ELECTION)
            .transport(cluster.network.transport(third))
            .store(cluster.stores[&third].clone())
    };
    let node = builder().start(Refuses).await.unwrap();
    let why = within(node.stopped()).await.why;
    let StopReason::Restore { at, message } = &why else { panic!("{why}") };
    assert!(at.index > Index(50) && message.contains("of another release"), "{why}");
    within(node.shutdown()).await;
    drop(node);
    // Nor does it start from it.
    let again = builder().start(Refuses).await.map(|_| ());
    assert!(matches!(again, Err(StartError::Restore { .. })), "{again:?}");
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_machine_that_takes_none_keeps_its_log_and_says_so_when_asked() {
    let store = alone();
    let node = Node::builder(NodeId(1)).store(store.clone()).snapshots(often()).start(Refuses).await.unwrap();
    propose(&node, 0..300).await;
    assert_eq!(within(node.snapshot()).await, Err(SnapshotError::Unsupported));
    assert_eq!(entries(&store, GROUP), 301);
    within(node.shutdown()).await;
}

/// Hands in whatever it is told to.
#[derive(Debug, Default)]
struct Puppet(Mutex<Option<Door>>);

struct Door(Arc<dyn Inbound>);

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

impl Transport for Puppet {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        *self.0.lock().unwrap() = Some(Door(inbound));
    }

    fn send(&self, _: GroupId, _: NodeId, _: Message) {}

    fn forward(&self, _: GroupId, to: NodeId, _: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(async move { Err(ForwardError::NotDelivered { to, why: "a puppet".into() }) })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_snapshot_that_is_announced_without_its_bytes_is_refused() {
    let store = MemoryStore::new(Membership::of_voters([NodeId(1), NodeId(2)]));
    let puppet = Arc::new(Puppet::default());
    let builder = Node::builder(NodeId(1)).store(store).transport(puppet.clone());
    let node = builder.election_timeout(Duration::from_secs(60)).start(Words::default()).await.unwrap();
    let snapshot = Snapshot {
        last: LogId::new(Term(3), Index(100)),
        membership: Membership::of_voters([NodeId(1), NodeId(2)]),
    };
    let message = Message { term: Term(3), body: Body::InstallSnapshot { snapshot: Box::new(snapshot) } };
    puppet.0.lock().unwrap().as_ref().unwrap().0.receive(GROUP, NodeId(2), message);
    let status = node.status().await.unwrap();
    assert_eq!((status.raft.last, status.raft.term), (LogId::ZERO, Term(0)));
    assert_eq!(status.counts.messages_refused, 1);
    within(node.shutdown()).await;
}

/// Counts how many of its kind are being written.
#[derive(Default)]
struct Watched(Arc<Gauge>);

#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl StateMachine for Watched {
    type Command = Bytes;
    type Reply = Place;

    fn apply(&mut self, _: &Entry) -> Place {
        Place(1)
    }

    fn freeze(&self) -> Option<Box<dyn Frozen>> {
        Some(Box::new(Self(self.0.clone())))
    }
}

impl Frozen for Watched {
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        let now = self.0.now.fetch_add(1, SeqCst) + 1;
        self.0.most.fetch_max(now, SeqCst);
        for _ in 0..10 {
            out.put(b"x")?;
            thread::sleep(Duration::from_millis(5));
        }
        self.0.now.fetch_sub(1, SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_takes_one_at_a_time_of_all_its_groups() {
    let host = Host::builder(NodeId(1)).start(MemoryStore::default()).unwrap();
    let gauge = Arc::new(Gauge::default());
    let mut nodes = Vec::new();
    for group in (1..=5).map(GroupId) {
        host.create(group, Membership::of_voters([NodeId(1)])).await.unwrap();
        let node = host.group(group).start(Watched(gauge.clone())).await.unwrap();
        within(node.propose("word")).await.unwrap();
        nodes.push(node);
    }
    let taking: Vec<_> =
        nodes.into_iter().map(|node| tokio::spawn(async move { (node.snapshot().await, node) })).collect();
    for taking in taking {
        let (taken, _node) = within(taking).await.unwrap();
        assert_eq!(taken, Ok(LogId::new(Term(1), Index(2))));
    }
    assert_eq!((gauge.most.load(SeqCst), host.snapshot_counts().taken), (1, 5));
    within(host.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_a_snapshot_to_be_written() {
    let limits = SnapshotLimits { take_rate: NonZeroU64::new(1_000), chunk_bytes: 4 << 10, ..small_chunks() };
    let store = alone();
    let builder = Node::builder(NodeId(1)).store(store.clone()).snapshot_limits(limits);
    let node = builder.start(Words::default()).await.unwrap();
    propose(&node, 0..500).await;
    let asked = tokio::spawn({
        let node = node.clone();
        async move { node.snapshot().await }
    });
    // It would take 500 seconds.
    until(|| node.snapshot_progress().first().filter(|entry| entry.done > 0).cloned()).await;
    within(node.shutdown()).await;
    assert!(matches!(asked.await.unwrap(), Err(SnapshotError::Stopped(_))));
    assert_eq!((node.snapshot_counts().taken, node.snapshot_progress()), (0, vec![]));
}

/// Waits at a gate where a command tells it to.
struct Gated {
    reached: mpsc::UnboundedSender<()>,
    gate: std::sync::mpsc::Receiver<()>,
}

impl StateMachine for Gated {
    type Command = Bytes;
    type Reply = Place;

    fn apply(&mut self, entry: &Entry) -> Place {
        if entry.payload == "gate" {
            let (_heard, _opened) = (self.reached.send(()), self.gate.recv());
        }
        Place(1)
    }

    fn freeze(&self) -> Option<Box<dyn Frozen>> {
        Some(Box::new(Watched::default()))
    }
}

/// A snapshot may be durable before the core has heard that so much is applied: the log is cut when it has.
#[tokio::test]
async fn the_log_is_cut_although_the_snapshot_comes_before_the_news_of_what_is_applied() {
    let ((open, gate), (reached, mut at_gate)) = (std::sync::mpsc::channel(), mpsc::unbounded_channel());
    let policy = SnapshotPolicy { keep_entries: 0, keep_bytes: 0, ..SnapshotPolicy::manual() };
    let builder = Node::builder(NodeId(1)).store(alone()).snapshots(policy);
    let node = builder.start(Gated { reached, gate }).await.unwrap();
    let propose = async |word: &'static str, index: u64| {
        let proposing = node.clone();
        drop(tokio::spawn(async move { proposing.propose(word).await }));
        within(node.until(|now| now.commit.0 >= index)).await.unwrap();
    };
    within(node.until_applied(Index(1))).await.unwrap();
    propose("gate", 2).await;
    within(at_gate.recv()).await.unwrap();
    // All of this is there when the gate opens, and is done in one go.
    propose("word", 3).await;
    let taking = node.clone();
    let taking = tokio::spawn(async move { taking.snapshot().await });
    // So often that all tasks have come to where they wait for the state machine.
    for _ in 0..100 {
        yield_now().await;
    }
    propose("gate", 4).await;
    open.send(()).unwrap();
    let last = within(taking).await.unwrap().unwrap();
    assert_eq!(last.index, Index(3));
    let status = within(node.status()).await.unwrap().raft;
    assert_eq!((status.applied, status.base), (Index(2), LogId::ZERO), "it is in the middle of it");
    open.send(()).unwrap();
    within(async { while node.status().await.unwrap().raft.base != last {} }).await;
    within(node.shutdown()).await;
}

/// A leader's snapshot takes the place of the log at once, and that of the state only when it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_a_leaders_snapshot_and_its_state_none_is_taken() {
    let mut cluster = cluster(&small_chunks()).await;
    let left = cluster.others(cluster.leader().await)[0];
    let before = within(cluster.node(left).status()).await.unwrap().raft.last.index;
    leave_behind(&cluster, left, 0..400).await;
    cluster.stores[&left].set_commit_time(Duration::from_secs(2));
    cluster.network.heal();
    within(async { while cluster.node(left).status().await.unwrap().raft.snapshot.index <= before {} }).await;
    assert_eq!(within(cluster.node(left).snapshot()).await, Err(SnapshotError::Superseded));
    cluster.stores[&left].set_commit_time(Duration::ZERO);
    assert_eq!(cluster.converged().await.len(), 400);
    cluster.shutdown().await;
}

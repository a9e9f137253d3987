//! A replica that goes astray: what online comparison is to find.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{
    Entry, Frozen, GroupId, Index, Membership, Message, NodeId, Sink, Source, StateError, StateMachine,
};
use quorate_runtime_tokio::{
    BoxFuture, Builder, Divergence, ForwardError, Inbound, MemoryNetwork, MemoryStore, Node, SnapshotPolicy,
};

use crate::support::{ELECTION, GROUP, LONG, until, within};

/// Adds up bytes; but what it adds depends on something that is not in the log, as a bug would have it.
struct Sums {
    sum: u64,
    commands: u64,
    /// After so many commands it adds one too much, once.
    wrong_after: Option<u64>,
    /// Set, it does so with the next one.
    nudge: Arc<AtomicBool>,
    /// At which entry it did.
    astray: Option<Index>,
}

impl Sums {
    fn new(wrong_after: Option<u64>) -> Self {
        Self { sum: 0, commands: 0, wrong_after, nudge: Arc::default(), astray: None }
    }
}

impl StateMachine for Sums {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        self.commands += 1;
        self.sum += entry.payload.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        if self.wrong_after == Some(self.commands) || self.nudge.swap(false, SeqCst) {
            self.sum += 1;
            self.astray = Some(entry.id.index);
        }
        Bytes::new()
    }

    fn state_hash(&self) -> Option<u64> {
        Some(self.sum.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn freeze(&self) -> Option<Box<dyn Frozen>> {
        Some(Box::new(FrozenSum(self.sum)))
    }

    fn restore(&mut self, state: &mut dyn Source) -> Result<(), StateError> {
        let mut bytes = [0; 8];
        if state.read(&mut bytes)? < 8 {
            return Err("this is no sum".into());
        }
        self.sum = u64::from_le_bytes(bytes);
        Ok(())
    }
}

struct FrozenSum(u64);

impl Frozen for FrozenSum {
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        out.put(&self.0.to_le_bytes())
    }
}

/// Three nodes, of which `wrong` goes astray after so many commands.
async fn start(
    wrong: NodeId,
    after: u64,
    change: impl Fn(Builder<Sums>) -> Builder<Sums>,
) -> Vec<Node<Sums>> {
    let (network, ids) = (MemoryNetwork::new(), [1, 2, 3].map(NodeId));
    let mut nodes = Vec::new();
    for id in ids {
        let store = MemoryStore::new(Membership::of_voters(ids));
        let builder = Node::builder(id).election_timeout(ELECTION).request_timeout(LONG / 2);
        let machine = Sums::new((id == wrong).then_some(after));
        let builder = change(builder.transport(network.transport(id)));
        nodes.push(builder.store(store).start(machine).await.unwrap());
    }
    nodes
}

/// Has so many commands applied by all of them, and returns at which entry the one went astray.
async fn run(nodes: &[Node<Sums>], commands: u64) -> Index {
    for n in 0..commands {
        within(nodes[0].propose(vec![n as u8, 1])).await.unwrap();
    }
    let mut astray = None;
    for node in nodes {
        astray = astray.or(within(node.read(|sums| sums.astray)).await.unwrap());
    }
    astray.expect("one of them goes astray")
}

/// What node `me` is to say about `wrong`, which went astray at `since`, when all hash after every `every` entries.
fn assert_found(me: NodeId, found: &Divergence, wrong: NodeId, since: Index, every: u64) {
    let Divergence { node, last_equal, first_different, ours, theirs, minority } = found;
    assert!(if me == wrong { *node != wrong } else { *node == wrong }, "node {me} says: {found}");
    assert!(*last_equal < since && since <= *first_different, "since {since}: {found}");
    assert_eq!((last_equal.0 % every, first_different.0 % every), (0, 0), "{found}");
    assert_ne!(ours, theirs);
    assert!(minority.is_empty() || *minority == [wrong], "{found}");
}

/// The machine does what it is for: all hash to the same before it, and one to something else after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_astray_and_its_hash_shows_it() {
    let wrong = NodeId(2);
    let nodes = start(wrong, 20, |builder| builder).await;
    for (commands, differs) in [(19, false), (5, true)] {
        for n in 0..commands {
            within(nodes[0].propose(vec![n, 1])).await.unwrap();
        }
        let mut hashes = Vec::new();
        for node in &nodes {
            hashes.push(within(node.read(|sums| sums.state_hash().unwrap())).await.unwrap());
        }
        assert_eq!((hashes[0] == hashes[2], hashes[0] != hashes[1]), (true, differs), "{hashes:?}");
    }
    assert!(nodes.iter().all(|node| node.divergences().borrow().is_empty()), "nobody was asked to compare");
}

/// Everybody finds it, also the one that went astray itself; and says where, once for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_astray_and_everybody_finds_that() {
    let (wrong, every) = (NodeId(2), 8);
    let nodes =
        start(wrong, 20, |builder| builder.compare_state_every(NonZeroU64::new(every).unwrap())).await;
    assert!(nodes.iter().all(|node| node.divergences().borrow().is_empty()));
    let mut watching = nodes[0].divergences();
    let reacting =
        tokio::spawn(
            async move { within(watching.wait_for(|found| !found.is_empty())).await.unwrap().clone() },
        );
    let since = run(&nodes, 60).await;
    // A report that was lost is made good by the next one.
    let expected = |me| if me == wrong { 2 } else { 1 };
    for node in &nodes {
        let me = node.id();
        found(&nodes, |all| {
            let all: Vec<_> = all.iter().filter(|(id, _)| *id == me).collect();
            all.len() == expected(me) && all.iter().all(|(_, found)| found.minority == [wrong])
        })
        .await;
    }
    let all = divergences(&nodes);
    assert_eq!(all.len(), 4, "{all:?}");
    for (me, found) in &all {
        assert_found(*me, found, wrong, since, every);
        // They began the same, and it is the first place where they differ that is told.
        assert!(found.first_different.0 - found.last_equal.0 <= every, "{found}");
    }
    let told = reacting.await.unwrap();
    assert_eq!((told.len(), told[0].node, told[0].first_different), (1, wrong, all[0].1.first_different));
    // It goes on all the same, and nobody is alarmed again.
    run(&nodes, 20).await;
    assert_eq!(divergences(&nodes), all);
}

/// What each node has found.
fn divergences(nodes: &[Node<Sums>]) -> Vec<(NodeId, Divergence)> {
    let of = |node: &Node<Sums>| {
        let id = node.id();
        node.divergences().borrow().iter().map(|found| (id, found.clone())).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(of).collect()
}

/// Goes on until they have found what is wanted.
async fn found(nodes: &[Node<Sums>], wanted: impl Fn(&[(NodeId, Divergence)]) -> bool) {
    within(async {
        while !wanted(&divergences(nodes)) {
            nodes[0].propose("one more").await.unwrap();
        }
    })
    .await;
}

/// Some nodes of which one may be cut off, stopped, or nudged to go astray.
struct Trio {
    network: MemoryNetwork,
    stores: Vec<MemoryStore>,
    nudge: Vec<Arc<AtomicBool>>,
    nodes: Vec<Node<Sums>>,
}

impl Trio {
    const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    /// The group has these members at first.
    async fn start(members: &[NodeId]) -> Self {
        let store = |_| MemoryStore::new(Membership::of_voters(members.iter().copied()));
        let stores = Self::IDS.into_iter().map(store).collect();
        let nudge = Self::IDS.map(|_| Arc::default()).into();
        let mut trio = Self { network: MemoryNetwork::new(), stores, nudge, nodes: Vec::new() };
        for at in 0..3 {
            trio.nodes.push(trio.node(at).await);
        }
        trio
    }

    async fn node(&self, at: usize) -> Node<Sums> {
        let policy = SnapshotPolicy {
            entries: 40,
            min_pause: Duration::ZERO,
            size_percent: 0,
            keep_entries: 4,
            ..SnapshotPolicy::default()
        };
        let builder = Node::builder(Self::IDS[at]).election_timeout(ELECTION).request_timeout(LONG / 2);
        let builder = builder.snapshots(policy).compare_state_every(NonZeroU64::new(4).unwrap());
        let builder = builder.transport(self.network.transport(Self::IDS[at])).store(self.stores[at].clone());
        let machine = Sums { nudge: self.nudge[at].clone(), ..Sums::new(None) };
        builder.start(machine).await.unwrap()
    }

    /// Cuts it off until the others' logs don't reach back to where it is, and joins them again.
    async fn leave_behind(&self, left: usize) {
        let (id, others) = (Self::IDS[left], [(left + 1) % 3, (left + 2) % 3]);
        let last = within(self.nodes[left].status()).await.unwrap().raft.last.index;
        self.network.isolate(id);
        let led = |at: usize| self.nodes[at].leadership().borrow().leader.is_some_and(|leader| leader != id);
        until(|| led(others[0]).then_some(())).await;
        within(async {
            for other in others {
                while self.nodes[other].status().await.unwrap().raft.base.index <= last.plus(100) {
                    self.nodes[others[0]].propose("on and on").await.unwrap();
                }
            }
        })
        .await;
        self.network.heal();
    }

    /// All have the same state.
    async fn agree(&self) {
        let sum = within(self.nodes[0].read(|sums| sums.sum)).await.unwrap();
        for node in &self.nodes {
            assert_eq!(within(node.read(|sums| sums.sum)).await.unwrap(), sum, "node {}", node.id());
        }
    }
}

/// Whatever is done to a cluster, who is the same is not alarmed; and who is not the same afterwards is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_snapshots_and_other_leaders_alarm_nobody() {
    let mut trio = Trio::start(&Trio::IDS).await;
    within(trio.nodes[0].propose("first")).await.unwrap();
    for round in 0..6_usize {
        let left = round % 3;
        trio.leave_behind(left).await;
        // It comes back as it is, or from its store; and is restored from a snapshot, as no log reaches back so far.
        if round % 2 == 0 {
            within(trio.nodes[left].shutdown()).await;
            trio.nodes[left] = trio.node(left).await;
        }
        trio.agree().await;
        assert!(trio.nodes[left].snapshot_counts().received > 0, "in round {round}");
        let leader = within(trio.nodes[left].until_led()).await.unwrap();
        let _refused_if_it_leads_no_more =
            within(trio.nodes[leader.0 as usize - 1].transfer_leadership(None)).await;
        for n in 0..12 {
            within(trio.nodes[left].propose(vec![n])).await.unwrap();
        }
        assert_eq!(divergences(&trio.nodes), [], "in round {round}");
    }
    // All the while they were compared: one that goes astray is found.
    let (wrong, mut last) = (1, Index(0));
    for time in 0..2 {
        trio.nudge[wrong].store(true, SeqCst);
        let news = |(me, found): &(NodeId, Divergence)| {
            *me == NodeId(1) && found.node == Trio::IDS[wrong] && found.first_different > last
        };
        found(&trio.nodes, |all| all.iter().any(news)).await;
        last = trio.nodes[0].divergences().borrow()[0].first_different;
        // Restored, it is the same again; and if it goes astray once more, that is found once more.
        if time == 0 {
            trio.leave_behind(wrong).await;
            trio.agree().await;
        }
    }
    for node in &trio.nodes {
        within(node.shutdown()).await;
    }
}

/// Who joins later is compared from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_goes_astray_is_found() {
    let trio = Trio::start(&Trio::IDS[..2]).await;
    let learner = Trio::IDS[2];
    let leader = within(trio.nodes[0].until_led()).await.unwrap();
    within(trio.nodes[leader.0 as usize - 1].add_learner(learner)).await.unwrap();
    for n in 0..12 {
        within(trio.nodes[0].propose(vec![n])).await.unwrap();
    }
    assert_eq!(divergences(&trio.nodes), []);
    trio.nudge[2].store(true, SeqCst);
    // By the others, and by itself: reports go both ways.
    found(&trio.nodes, |all| all.len() == 4).await;
    for (me, found) in divergences(&trio.nodes) {
        assert!((me == learner) != (found.node == learner), "node {me} says: {found}");
    }
}

/// A report is for members, and must be one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_are_none_are_refused_and_those_of_strangers_ignored() {
    let (network, me, stranger) = (MemoryNetwork::new(), NodeId(1), NodeId(9));
    let transport = network.transport(stranger);
    transport.start(Arc::new(Silent));
    for compares in [true, false] {
        let mut builder = Node::builder(me).store(MemoryStore::new(Membership::of_voters([me])));
        if compares {
            builder = builder.compare_state_every(NonZeroU64::MIN);
        }
        let node = builder.transport(network.transport(me)).start(Sums::new(None)).await.unwrap();
        within(node.propose("one")).await.unwrap();
        let ask = async |request: &[u8]| {
            within(transport.forward(GROUP, me, Bytes::copy_from_slice(request))).await.unwrap()
        };
        // Incarnation 1, no snapshot, one hash: at entry 2.
        let report = [&[1, 3][..], &word(1), &word(0), &[1], &word(2), &word(77)].concat();
        assert_eq!(ask(&report).await, [1, 0][..], "accepted");
        let refused = ask(&report[..report.len() - 1]).await;
        assert_eq!(refused == [1, 0][..], !compares, "{refused:?}");
        assert_eq!(*node.divergences().borrow(), []);
        within(node.propose("two")).await.unwrap();
        let applied = within(node.read(|sums| sums.commands)).await.unwrap();
        assert_eq!(applied, 2, "no report is taken for a command");
        within(node.shutdown()).await;
    }
}

/// Answers nothing.
struct Silent;

impl Inbound for Silent {
    fn receive(&self, _: GroupId, _: NodeId, _: Message) {}

    fn forwarded(&self, _: GroupId, _: NodeId, _: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        Box::pin(std::future::pending())
    }
}

const fn word(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

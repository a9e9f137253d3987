//! A replica that goes astray: what online comparison is to find.

use bytes::Bytes;
use quorate_core::{Entry, Frozen, Index, Membership, NodeId, Sink, Source, StateError, StateMachine};
use quorate_runtime_tokio::{Builder, Divergence, MemoryNetwork, MemoryStore, Node};

use crate::support::{ELECTION, LONG, until, within};

/// Adds up bytes; but what it adds depends on something that is not in the log, as a bug would have it.
pub(crate) struct Sums {
    pub(crate) sum: u64,
    commands: u64,
    /// After so many commands it adds one too much, once.
    wrong_after: Option<u64>,
    /// At which entry it did.
    pub(crate) astray: Option<Index>,
}

impl Sums {
    pub(crate) fn new(wrong_after: Option<u64>) -> Self {
        Self { sum: 0, commands: 0, wrong_after, astray: None }
    }
}

impl StateMachine for Sums {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        self.commands += 1;
        self.sum += entry.payload.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        if self.wrong_after == Some(self.commands) {
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
pub(crate) async fn start(
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
pub(crate) async fn run(nodes: &[Node<Sums>], commands: u64) -> Index {
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
pub(crate) fn assert_found(me: NodeId, found: &Divergence, wrong: NodeId, since: Index, every: u64) {
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
    let since = run(&nodes, 1).await;
    let found = Divergence {
        node: wrong,
        last_equal: since.prev(),
        first_different: since,
        ours: 1,
        theirs: 2,
        minority: vec![wrong],
    };
    assert_found(NodeId(1), &found, wrong, since, 1);
    until(|| nodes.iter().all(|node| node.leadership().borrow().leader.is_some()).then_some(())).await;
}

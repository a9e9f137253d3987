//! A state machine that can be watched and made to misbehave, and clusters of it.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use quorate_core::{
    Entry, Frozen, GroupId, Membership, NodeId, RoleKind, Sink, Source, StateError, StateMachine,
};
use quorate_runtime_tokio::{Builder, MemoryNetwork, MemoryStore, Node, Transport};
use tokio::time::{sleep, timeout};

/// Long enough for anything that ends at all, on a busy machine too.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Short enough to wait for, long enough for a busy machine.
pub(crate) const ELECTION: Duration = Duration::from_millis(400);

/// Keeps every command. Some it takes differently: see [`Words::apply`].
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) words: Vec<Bytes>,
    /// How many commands were applied here, and not restored.
    pub(crate) applied: usize,
    /// Dropped with the state machine.
    pub(crate) _alive: Arc<()>,
}

/// The place of a word, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(pub(crate) u64);

impl From<Place> for Bytes {
    fn from(place: Place) -> Self {
        Self::copy_from_slice(&place.0.to_be_bytes())
    }
}

impl TryFrom<Bytes> for Place {
    type Error = String;

    fn try_from(bytes: Bytes) -> Result<Self, String> {
        let number = bytes.as_ref().try_into().map_err(|_| format!("{} bytes are no place", bytes.len()))?;
        match u64::from_be_bytes(number) {
            0 => Err("places begin at 1".to_owned()),
            place => Ok(Self(place)),
        }
    }
}

impl StateMachine for Words {
    type Command = Bytes;
    type Reply = Place;

    fn apply(&mut self, entry: &Entry) -> Place {
        match entry.payload.as_ref() {
            b"panic" => panic!("no such word"),
            b"slow" => thread::sleep(Duration::from_millis(20)),
            b"unreadable" => return Place(0),
            _ => {}
        }
        self.words.push(entry.payload.clone());
        self.applied += 1;
        Place(self.words.len() as u64)
    }

    fn freeze(&self) -> Option<Box<dyn Frozen>> {
        Some(Box::new(FrozenWords(self.words.clone())))
    }

    fn restore(&mut self, state: &mut dyn Source) -> Result<(), StateError> {
        let (mut text, mut chunk) = (Vec::new(), [0; 3]);
        loop {
            match state.read(&mut chunk)? {
                0 => break,
                read => text.extend_from_slice(&chunk[..read]),
            }
        }
        let text = String::from_utf8(text)?;
        assert!(text != "panic", "no such state");
        let text = text.strip_prefix("words:").ok_or("these are no words")?;
        self.words = text.lines().map(|line| Bytes::copy_from_slice(line.as_bytes())).collect();
        Ok(())
    }
}

/// A line for each.
struct FrozenWords(Vec<Bytes>);

impl Frozen for FrozenWords {
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        out.put(b"words:")?;
        for word in &self.0 {
            out.put(word)?;
            out.put(b"\n")?;
        }
        Ok(())
    }
}

impl Words {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

/// A store for a cluster of one.
pub(crate) fn alone() -> MemoryStore {
    MemoryStore::new(Membership::of_voters([NodeId(1)]))
}

/// A node of a cluster of one.
pub(crate) async fn start_alone(store: &MemoryStore) -> Node<Words> {
    Node::builder(NodeId(1)).store(store.clone()).start(Words::default()).await.unwrap()
}

/// Some nodes, each with a store that outlives it.
pub(crate) struct Cluster {
    pub(crate) network: MemoryNetwork,
    pub(crate) stores: BTreeMap<NodeId, MemoryStore>,
    pub(crate) nodes: BTreeMap<NodeId, Node<Words>>,
}

impl Cluster {
    /// A cluster of these many, none of them started.
    pub(crate) fn of(count: u64) -> Self {
        let ids = (1..=count).map(NodeId);
        let store = |id| (id, MemoryStore::new(Membership::of_voters(ids.clone())));
        Self {
            network: MemoryNetwork::new(),
            stores: ids.clone().map(store).collect(),
            nodes: BTreeMap::new(),
        }
    }

    /// A cluster of these many, all started.
    pub(crate) async fn start(count: u64) -> Self {
        let mut cluster = Self::of(count);
        cluster.start_all().await;
        cluster
    }

    pub(crate) async fn start_all(&mut self) {
        for id in self.ids() {
            self.start_node(id, |builder| builder).await;
        }
    }

    pub(crate) async fn start_node(
        &mut self,
        id: NodeId,
        change: impl FnOnce(Builder<Words>) -> Builder<Words>,
    ) {
        self.start_over(id, self.network.transport(id), change).await;
    }

    pub(crate) async fn start_over(
        &mut self,
        id: NodeId,
        transport: Arc<dyn Transport>,
        change: impl FnOnce(Builder<Words>) -> Builder<Words>,
    ) {
        let builder =
            Node::builder(id).election_timeout(ELECTION).request_timeout(LONG / 2).transport(transport);
        let node = change(builder).store(self.stores[&id].clone()).start(Words::default()).await.unwrap();
        self.nodes.insert(id, node);
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.stores.keys().copied().collect()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node<Words> {
        &self.nodes[&id]
    }

    /// Who leads among these, once somebody does and all of them know.
    pub(crate) async fn leader_of(&self, ids: &[NodeId]) -> NodeId {
        until(|| {
            let seen: Vec<_> = ids.iter().map(|id| *self.node(*id).leadership().borrow()).collect();
            let agreed = seen.windows(2).all(|pair| {
                let [a, b] = pair else { return false };
                (a.term, a.leader) == (b.term, b.leader)
            });
            let leader = seen.first().and_then(|leadership| leadership.leader)?;
            let leads = self.nodes.get(&leader)?.leadership().borrow().role == RoleKind::Leader;
            (agreed && leads && ids.contains(&leader)).then_some(leader)
        })
        .await
    }

    pub(crate) async fn leader(&self) -> NodeId {
        self.leader_of(&self.ids()).await
    }

    /// Everyone but `id`.
    pub(crate) fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// Waits until all nodes have applied the same, and returns it.
    pub(crate) async fn converged(&self) -> Vec<String> {
        let words = self.nodes.values().next().unwrap().read(Words::texts).await.unwrap();
        for node in self.nodes.values() {
            let wanted = words.clone();
            assert_eq!(node.read(Words::texts).await.unwrap(), wanted, "on node {}", node.id());
        }
        words
    }

    pub(crate) async fn shutdown(&mut self) {
        for node in std::mem::take(&mut self.nodes).into_values() {
            within(node.shutdown()).await;
        }
    }
}

/// Group 0.
pub(crate) const GROUP: GroupId = GroupId(0);

/// Waits until there is an answer.
pub(crate) async fn until<T>(mut answer: impl FnMut() -> Option<T>) -> T {
    within(async move {
        loop {
            if let Some(answer) = answer() {
                return answer;
            }
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// Fails instead of hanging.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("it must end, but didn't")
}

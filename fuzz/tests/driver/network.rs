//! A network with weather. What it does with a message comes from the seed alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use quorate_core::{GroupId, Message, NodeId};
use quorate_runtime_tokio::{BoxFuture, ForwardError, Inbound, Transport};
use tokio::time::sleep;

use crate::Dice;

#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Inner>>);

struct Inner {
    dice: Dice,
    nodes: BTreeMap<NodeId, (Arc<AtomicBool>, Arc<dyn Inbound>)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// In percent.
    loss: u64,
    repeats: u64,
    /// In µs.
    delay: u64,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let (nodes, cut) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(Inner {
            dice: Dice::new(seed, 1),
            nodes,
            cut,
            loss: 0,
            repeats: 0,
            delay: 500,
        })))
    }

    /// The transport of one life of a node, which ends with `alive`.
    pub(crate) fn transport(&self, id: NodeId, alive: Arc<AtomicBool>) -> Arc<dyn Transport> {
        Arc::new(End { id, alive, network: self.clone() })
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    pub(crate) fn isolate(&self, id: NodeId, size: u64) {
        for other in (1..=size).map(NodeId).filter(|other| *other != id) {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    pub(crate) fn heal(&self) {
        let mut inner = self.lock();
        inner.cut.clear();
        (inner.loss, inner.repeats, inner.delay) = (0, 0, 500);
    }

    pub(crate) fn weather(&self, dice: &mut Dice) {
        let mut inner = self.lock();
        inner.loss = dice.below(30);
        inner.repeats = dice.below(20);
        inner.delay = 200 + dice.below(150_000);
    }

    /// How long each copy of a message takes on its way; none at all if it is lost.
    fn ways(&self, from: NodeId, to: NodeId) -> Vec<Duration> {
        let inner = &mut *self.lock();
        if inner.cut.contains(&(from, to)) || inner.dice.chance(inner.loss) {
            return Vec::new();
        }
        let copies = 1 + u64::from(inner.dice.chance(inner.repeats));
        (0..copies).map(|_| Duration::from_micros(50) + inner.dice.micros(inner.delay)).collect()
    }

    fn node(&self, id: NodeId) -> Option<Arc<dyn Inbound>> {
        let inner = self.lock();
        inner.nodes.get(&id).filter(|(alive, _)| alive.load(SeqCst)).map(|(_, inbound)| inbound.clone())
    }

    /// Everyone else learns of it, as of a connection that breaks or is made.
    fn tell(&self, id: NodeId, lost: bool) {
        let others: Vec<_> = {
            let inner = self.lock();
            let alive = inner.nodes.iter().filter(|(other, (alive, _))| **other != id && alive.load(SeqCst));
            alive.map(|(_, (_, inbound))| inbound.clone()).collect()
        };
        for other in others {
            if lost { other.unreachable(id) } else { other.reachable(id) }
        }
    }

    /// This life of a node is over.
    pub(crate) fn died(&self, id: NodeId) {
        self.tell(id, true);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

struct End {
    id: NodeId,
    alive: Arc<AtomicBool>,
    network: Network,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "End({})", self.id)
    }
}

impl Transport for End {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        self.network.lock().nodes.insert(self.id, (self.alive.clone(), inbound));
        self.network.tell(self.id, false);
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        if !self.alive.load(SeqCst) {
            return;
        }
        for way in self.network.ways(self.id, to) {
            let (network, from, message) = (self.network.clone(), self.id, message.clone());
            tokio::spawn(async move {
                sleep(way).await;
                if let Some(node) = network.node(to) {
                    node.receive(group, from, message);
                }
            });
        }
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        let (network, from, alive) = (self.network.clone(), self.id, self.alive.clone());
        Box::pin(async move {
            let refused = |why: &str| Err(ForwardError::NotDelivered { to, why: why.to_owned() });
            let unknown = |why: &str| Err(ForwardError::Unknown { to, why: why.to_owned() });
            let (Some(there), true) = (network.ways(from, to).first().copied(), alive.load(SeqCst)) else {
                return refused("cut");
            };
            sleep(there).await;
            let Some(node) = network.node(to) else { return refused("not running") };
            let answer = node.forwarded(group, from, request).await?;
            match network.ways(to, from).first().copied() {
                Some(back) if network.node(to).is_some() => {
                    sleep(back).await;
                    Ok(answer)
                }
                _ => unknown("the answer was lost"),
            }
        })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

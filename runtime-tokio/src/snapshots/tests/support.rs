//! Nodes that have nothing but snapshots, and streams between them that can be made to fail.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use quorate_core::{
    Body, GroupId, Index, LogId, Membership, Message, NodeId, Snapshot, SnapshotInfo, SnapshotReader as _,
    SnapshotWriter as _, Snapshots, Store as _, Term,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::{
    desk::{Desk, SnapshotLimits},
    erased::AnySnapshots,
    frame::Which,
    outgoing::{Errand, Ways},
    receive::Inlet,
    serve::{Local, serve},
};
use crate::{
    MemoryStore,
    lane::Runner,
    metrics::Meter,
    transport::{BoxFuture, BoxStream, ForwardError},
};

pub(super) const GROUP: GroupId = GroupId(0);
pub(super) const OTHER: GroupId = GroupId(1);
pub(super) const TERM: Term = Term(5);
pub(super) const CHUNK: usize = 4 << 10;
/// Not a multiple of a chunk.
pub(super) const SIZE: usize = 40_000;

/// Small chunks, nothing throttled, synced at each chunk.
pub(super) fn limits() -> SnapshotLimits {
    SnapshotLimits {
        take_rate: None,
        send_rate: None,
        receive_rate: None,
        chunk_bytes: CHUNK,
        sync_bytes: CHUNK as u64,
        ..SnapshotLimits::default()
    }
}

/// Nodes 1 to 4, each with two groups.
pub(super) struct World {
    pub(super) stores: BTreeMap<NodeId, MemoryStore>,
    pub(super) ears: BTreeMap<(NodeId, GroupId), Arc<Ear>>,
    pub(super) desks: BTreeMap<NodeId, Arc<Desk>>,
    locals: Mutex<BTreeMap<(NodeId, GroupId), Arc<Local>>>,
    flaws: Mutex<BTreeMap<(NodeId, NodeId), VecDeque<Flaw>>>,
    /// Streams opened, in order.
    pub(super) opened: Mutex<Vec<(NodeId, NodeId)>>,
}

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flaw {
    Nothing,
    /// It can't be opened.
    Refused,
    /// It breaks after so many bytes from whoever opened it.
    CutThere(usize),
    /// It breaks after so many bytes back.
    CutBack(usize),
    /// This bit of what the opener sends is flipped.
    Flip(usize),
    /// Nobody reads at the other end.
    Deaf,
}

/// What a core was told.
pub(super) struct Ear {
    store: MemoryStore,
    group: GroupId,
    pub(super) applied: AtomicU64,
    pub(super) told: Mutex<Vec<(NodeId, Message)>>,
}

impl Inlet for Ear {
    fn applied(&self) -> Index {
        Index(self.applied.load(SeqCst))
    }

    fn deliver(&self, from: NodeId, message: Message) {
        let Body::InstallSnapshot { snapshot } = &message.body else { panic!("{message:?}") };
        let staged = listed(&self.store, self.group).iter().any(|info| info.snapshot == **snapshot);
        assert!(staged || self.applied() >= snapshot.last.index, "told before it was published");
        self.told.lock().unwrap().push((from, message));
    }
}

impl World {
    pub(super) fn new(limits: &SnapshotLimits) -> Arc<Self> {
        Self::with(limits, |_, store| Arc::new(store.snapshots()))
    }

    /// With stores that are wrapped into something.
    pub(super) fn with(
        limits: &SnapshotLimits,
        wrap: impl Fn(NodeId, &MemoryStore) -> Arc<dyn AnySnapshots>,
    ) -> Arc<Self> {
        let ids = || (1..=4).map(NodeId);
        let store = || MemoryStore::new(membership()).with_group(OTHER, membership());
        let stores: BTreeMap<_, _> = ids().map(|id| (id, store())).collect();
        let places = || ids().flat_map(|id| [(id, GROUP), (id, OTHER)]);
        let ear = |(id, group): (NodeId, GroupId)| {
            let ear =
                Ear { store: stores[&id].clone(), group, applied: AtomicU64::new(0), told: Mutex::default() };
            ((id, group), Arc::new(ear))
        };
        let world = Arc::new(Self {
            ears: places().map(ear).collect(),
            desks: ids()
                .map(|id| (id, Desk::new(limits.clone(), Runner::Threads(tokio::runtime::Handle::current()))))
                .collect(),
            stores,
            locals: Mutex::default(),
            flaws: Mutex::default(),
            opened: Mutex::default(),
        });
        for (id, group) in places() {
            let local = Local {
                desk: world.desks[&id].clone(),
                meter: Arc::new(Meter::off()),
                id,
                group,
                store: wrap(id, &world.stores[&id]),
                inlet: world.ears[&(id, group)].clone(),
                ways: world.ways(id, group),
            };
            world.locals.lock().unwrap().insert((id, group), Arc::new(local));
        }
        world
    }

    pub(super) fn ways(self: &Arc<Self>, id: NodeId, group: GroupId) -> Arc<dyn Ways> {
        Arc::new(Road { world: Arc::downgrade(self), id, group })
    }

    pub(super) fn local(&self, id: NodeId, group: GroupId) -> Arc<Local> {
        self.locals.lock().unwrap()[&(id, group)].clone()
    }

    /// The next streams from one node to another have these flaws; those after them none.
    pub(super) fn flawed(&self, from: u64, to: u64, flaws: impl IntoIterator<Item = Flaw>) {
        self.flaws.lock().unwrap().entry((NodeId(from), NodeId(to))).or_default().extend(flaws);
    }

    /// Opens a stream, and lets the other serve it.
    pub(super) fn open(&self, from: NodeId, to: NodeId, group: GroupId) -> Result<BoxStream, ForwardError> {
        self.opened.lock().unwrap().push((from, to));
        let flaw = self.flaws.lock().unwrap().get_mut(&(from, to)).and_then(VecDeque::pop_front);
        let (mine, theirs) = tokio::io::duplex(8 << 10);
        match flaw.unwrap_or(Flaw::Nothing) {
            Flaw::Refused => Err(ForwardError::NotDelivered { to, why: "no way".into() }),
            Flaw::Deaf => {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(86_400)).await;
                    drop(theirs);
                });
                Ok(Box::new(mine))
            }
            flaw => {
                let local = self.local(to, group);
                tokio::spawn(async move { serve(&local, from, Box::new(theirs)).await });
                Ok(Box::new(Flawed { inner: mine, flaw, sent: 0, heard: 0 }))
            }
        }
    }

    /// Node 1 leads, and sends what it has at `last` to `to`.
    pub(super) fn errand(
        self: &Arc<Self>,
        to: u64,
        group: GroupId,
        which: &Which,
        helpers: &[u64],
    ) -> Errand {
        Errand {
            desk: self.desks[&NodeId(1)].clone(),
            meter: Arc::new(Meter::off()),
            id: NodeId(1),
            group,
            store: self.local(NodeId(1), group).store.clone(),
            ways: self.ways(NodeId(1), group),
            to: NodeId(to),
            message: which.message(),
            least: Index(50),
            helpers: helpers.iter().copied().map(NodeId).collect(),
        }
    }

    pub(super) fn told(&self, id: u64, group: GroupId) -> Vec<(NodeId, Message)> {
        self.ears[&(NodeId(id), group)].told.lock().unwrap().clone()
    }

    pub(super) fn has(&self, id: u64, group: GroupId) -> Vec<SnapshotInfo> {
        listed(&self.stores[&NodeId(id)], group)
    }

    /// The bytes of one.
    pub(super) fn bytes(&self, id: u64, group: GroupId, last: LogId) -> Vec<u8> {
        let mut reader =
            Snapshots::open(&self.stores[&NodeId(id)].snapshots(), group, last).unwrap().unwrap();
        let mut bytes = vec![0; usize::try_from(reader.info().bytes).unwrap()];
        assert_eq!(reader.read_at(0, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    /// Puts a snapshot into a node's store, as taken there.
    pub(super) fn publish(&self, id: u64, group: GroupId, index: u64, bytes: &[u8]) -> Which {
        let mut writer =
            Snapshots::take(&self.stores[&NodeId(id)].snapshots(), group, &snapshot(index)).unwrap();
        writer.write(bytes).unwrap();
        let info = writer.publish().unwrap();
        Which { term: TERM, info }
    }

    /// Nothing is going on any more, anywhere.
    pub(super) async fn idle(&self) {
        while self.desks.values().any(|desk| !desk.board.progress().is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Road {
    world: std::sync::Weak<World>,
    id: NodeId,
    group: GroupId,
}

impl Ways for Road {
    fn open(&self, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>> {
        let world = self.world.upgrade().unwrap();
        let (id, group) = (self.id, self.group);
        Box::pin(async move { world.open(id, to, group) })
    }
}

pub(super) fn membership() -> Membership {
    Membership::of_voters((1..=4).map(NodeId))
}

pub(super) fn snapshot(index: u64) -> Snapshot {
    Snapshot { last: LogId::new(Term(3), Index(index)), membership: membership() }
}

pub(super) fn listed(store: &MemoryStore, group: GroupId) -> Vec<SnapshotInfo> {
    Snapshots::list(&store.snapshots(), group).unwrap()
}

/// Bytes that are nowhere the same.
pub(super) fn state(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(x >> 56).unwrap()
    };
    (0..len).map(|_| next()).collect()
}

struct Flawed {
    inner: tokio::io::DuplexStream,
    flaw: Flaw,
    sent: usize,
    heard: usize,
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut")
}

impl AsyncRead for Flawed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = match self.flaw {
            Flaw::CutBack(most) => most - self.heard,
            Flaw::CutThere(most) if self.sent >= most => 0,
            _ => usize::MAX,
        };
        if most == 0 {
            return Poll::Ready(Err(broken()));
        }
        let mut bytes = vec![0; buf.remaining().min(most)];
        let mut part = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut part);
        self.heard += part.filled().len();
        buf.put_slice(part.filled());
        polled
    }
}

impl AsyncWrite for Flawed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut out = buf.to_vec();
        match self.flaw {
            Flaw::CutThere(most) => out.truncate(most - self.sent),
            Flaw::Flip(bit) => {
                if let Some(at) = (bit / 8).checked_sub(self.sent)
                    && let Some(byte) = out.get_mut(at)
                {
                    *byte ^= 1 << (bit % 8);
                }
            }
            _ => {}
        }
        if out.is_empty() {
            return Poll::Ready(Err(broken()));
        }
        let polled = Pin::new(&mut self.inner).poll_write(cx, &out);
        if let Poll::Ready(Ok(written)) = &polled {
            self.sent += written;
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

//! The core over this store: three nodes on a network that loses messages, killed and partitioned, with merged commits,
//! entries read back from the log, and logs that begin later. What the core writes is what the store takes, and the nodes
//! agree.

mod common;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use common::{Rng, faults::Medium, voters};
use quorate_core::{
    Action, Body, Config, EntryKind, GroupId, Index, Input, Instant, LogReader, Message, NodeId, Proposal,
    Raft, Rebase, RoleKind, Snapshot, Store, Token, Write,
};
use quorate_storage_redb::{Identity, Options, RedbStore};

const GROUP: GroupId = GroupId(4);

struct Node {
    medium: Medium,
    store: RedbStore,
    raft: Raft,
    writes: Vec<Write>,
    /// What its state machine holds: every payload up to where it is.
    applied: Vec<Bytes>,
    snapshots: Snapshots,
}

/// The bytes of a node's snapshots, which the store does not keep. They outlive a kill.
#[derive(Clone, Default)]
struct Snapshots {
    /// The newest.
    published: Option<(Snapshot, Vec<Bytes>)>,
    /// Those that have come, and are not adopted, or not yet known to be.
    staged: BTreeMap<Index, (Snapshot, Vec<Bytes>)>,
}

impl Snapshots {
    fn publish(&mut self, snapshot: Snapshot, bytes: Vec<Bytes>) {
        if self.published.as_ref().is_none_or(|(newest, _)| newest.last.index < snapshot.last.index) {
            self.staged.retain(|index, _| *index > snapshot.last.index);
            self.published = Some((snapshot, bytes));
        }
    }

    /// The staged one is adopted: its write is durable.
    fn adopt(&mut self, last: Index) {
        let (snapshot, bytes) = self.staged.remove(&last).expect("it was staged before the core heard of it");
        self.publish(snapshot, bytes);
    }
}

struct Net {
    nodes: BTreeMap<NodeId, Node>,
    /// Messages, and with one that tells of a snapshot its bytes.
    wire: VecDeque<(NodeId, NodeId, Message, Vec<Bytes>)>,
    now: Instant,
    rng: Rng,
    cut: Option<NodeId>,
    committed: BTreeMap<Index, Bytes>,
    loads: u64,
    truncations: u64,
    compactions: u64,
    installs: u64,
}

fn identity(id: NodeId) -> Identity {
    Identity { cluster: 1, node: id }
}

/// Starts a core from its store, and its state machine from its newest snapshot: that goes before what the store knows.
fn start(id: NodeId, store: &mut RedbStore, snapshots: &mut Snapshots, now: Instant) -> (Raft, Vec<Bytes>) {
    let mut recovered = store.recover(GROUP).unwrap();
    if snapshots.staged.contains_key(&recovered.base.index) {
        // The crash came between the write and the word that it is durable.
        snapshots.adopt(recovered.base.index);
    }
    let mut state = Vec::new();
    if let Some((snapshot, bytes)) = &snapshots.published {
        assert!(snapshot.last.index >= recovered.base.index, "the log begins after all snapshots");
        recovered.snapshot = Some(snapshot.clone());
        recovered.applied = snapshot.last.index;
        state.clone_from(bytes);
    }
    assert!(recovered.base.index <= recovered.applied);
    let mut config = Config::new(id);
    config.group = GROUP;
    config.max_cached_bytes = 200;
    (Raft::new(config, recovered, now).unwrap(), state)
}

impl Net {
    fn new(seed: u64) -> Self {
        let mut nodes = BTreeMap::new();
        for id in (1..=3).map(NodeId) {
            let medium = Medium::untraced(Vec::new());
            let groups = [(GROUP, voters(&[1, 2, 3]))];
            let mut store =
                RedbStore::create_on(Options::default(), medium.clone(), identity(id), &groups).unwrap();
            let mut snapshots = Snapshots::default();
            let (raft, applied) = start(id, &mut store, &mut snapshots, Instant(0));
            nodes.insert(id, Node { medium, store, raft, writes: Vec::new(), applied, snapshots });
        }
        Self {
            nodes,
            wire: VecDeque::new(),
            now: Instant(0),
            rng: Rng(seed),
            cut: None,
            committed: BTreeMap::new(),
            loads: 0,
            truncations: 0,
            compactions: 0,
            installs: 0,
        }
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let node = self.nodes.get_mut(&id).unwrap();
        // Refusals are part of life: not the leader, or too much at once.
        let _ = node.raft.step(self.now, input);
        self.run(id);
    }

    fn run(&mut self, id: NodeId) {
        loop {
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(action) = node.raft.poll() else { break };
            let answer = match action {
                Action::Send { to, message } => {
                    self.wire.push_back((id, to, message, Vec::new()));
                    None
                }
                Action::Write(write) => {
                    self.truncations += u64::from(write.truncate.is_some());
                    match write.rebase.as_deref() {
                        Some(Rebase::Compact(_)) => self.compactions += 1,
                        Some(Rebase::Install(_)) => self.installs += 1,
                        None => {}
                    }
                    node.writes.push(write);
                    None
                }
                Action::Restore(snapshot) => {
                    node.snapshots.adopt(snapshot.last.index);
                    let (newest, bytes) = node.snapshots.published.as_ref().unwrap();
                    assert_eq!(*newest, *snapshot);
                    node.applied.clone_from(bytes);
                    Some(Input::Applied { up_to: snapshot.last.index })
                }
                Action::SendSnapshot(send) => {
                    let (newest, bytes) = node.snapshots.published.clone().unwrap();
                    let asked = Body::InstallSnapshot { snapshot: Box::new(newest) };
                    assert_eq!(send.message.body, asked, "the newest one is asked for");
                    self.wire.push_back((id, send.to, send.message, bytes));
                    Some(Input::SnapshotSent { id: send.id, arrived: self.cut.is_none() })
                }
                Action::Load(load) => {
                    self.loads += 1;
                    let result = node.store.reader().load(GROUP, &load).unwrap();
                    Some(Input::Loaded { id: load.id, result })
                }
                Action::Apply(apply) => {
                    for entry in apply.entries.iter().flat_map(quorate_core::Run::entries) {
                        let index = entry.id.index;
                        assert_eq!(index.0, node.applied.len() as u64 + 1);
                        node.applied.push(entry.payload.clone());
                        if entry.kind == EntryKind::Command {
                            let agreed = self.committed.entry(index).or_insert_with(|| entry.payload.clone());
                            assert_eq!(
                                *agreed, entry.payload,
                                "node {id} has applied something else at {index}"
                            );
                        }
                    }
                    Some(Input::Applied { up_to: apply.last() })
                }
                Action::Resolve { .. } | Action::Event(_) => None,
            };
            if let Some(answer) = answer {
                node.raft.step(self.now, answer).unwrap();
            }
        }
    }

    /// One commit of all that is queued.
    fn persist(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let writes = std::mem::take(&mut node.writes);
        if writes.is_empty() {
            return;
        }
        node.store.commit(&writes).unwrap();
        let receipts = writes.into_iter().map(Write::into_receipt);
        let merged = receipts.reduce(|all, next| all.merge(next).unwrap()).unwrap();
        node.raft.step(self.now, Input::Persisted(merged)).unwrap();
        self.run(id);
    }

    fn kill(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let image = node.medium.image();
        node.medium.freeze();
        node.medium = Medium::untraced(image);
        node.store = RedbStore::open_on(Options::default(), node.medium.clone(), identity(id)).unwrap();
        (node.raft, node.applied) = start(id, &mut node.store, &mut node.snapshots, self.now);
        node.writes.clear();
        self.run(id);
    }

    /// A snapshot of what a node has applied: it is durable, then its core hears of it.
    fn snapshot(&mut self, id: NodeId) {
        let keep = self.rng.below(10);
        let node = self.nodes.get_mut(&id).unwrap();
        let index = Index(node.applied.len() as u64);
        let Some(term) = node.raft.term_at(index).filter(|_| index.0 > 0) else { return };
        let last = quorate_core::LogId::new(term, index);
        let membership = node.raft.membership().clone();
        node.snapshots.publish(Snapshot { last, membership }, node.applied.clone());
        self.input(id, Input::Compact { snapshot: index, keep });
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node| node.raft.role() == RoleKind::Leader;
        self.nodes.values().filter(leads).max_by_key(|node| node.raft.term()).map(|node| node.raft.id())
    }

    fn step(&mut self, faults: bool) {
        self.now = self.now.plus(1_000 + self.rng.below(20_000));
        for id in (1..=3).map(NodeId) {
            if self.rng.chance(60) {
                self.persist(id);
            }
            while self.nodes[&id].raft.deadline().is_some_and(|(due, _)| due <= self.now) {
                let before = self.nodes[&id].raft.deadline();
                self.input(id, Input::Tick);
                if self.nodes[&id].raft.deadline() == before {
                    break;
                }
            }
        }
        for _ in 0..self.wire.len() {
            let Some((from, to, message, bytes)) = self.wire.pop_front() else { break };
            let cut = self.cut.is_some_and(|cut| cut == from || cut == to);
            let lost = cut || (faults && self.rng.chance(5));
            if !lost {
                if let Body::InstallSnapshot { snapshot } = &message.body {
                    let staged = &mut self.nodes.get_mut(&to).unwrap().snapshots.staged;
                    staged.insert(snapshot.last.index, ((**snapshot).clone(), bytes));
                }
                self.input(to, Input::Receive { from, message });
            }
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.nodes[&id].raft.role() == RoleKind::Leader && self.rng.chance(40) {
                let token = Token(self.rng.next() >> 8);
                let commands: Vec<Vec<u8>> = (0..=self.rng.below(4))
                    .map(|n| format!("{token}+{n}").repeat(1 + self.rng.below(20) as usize).into_bytes())
                    .collect();
                self.input(id, Input::Propose(Proposal::new(token, commands.iter().collect())));
            }
        }
        if faults {
            let any = NodeId(1 + self.rng.below(3));
            match self.rng.below(300) {
                0..=2 => self.kill(any),
                3 => self.cut = self.leader(),
                4..=6 => self.cut = None,
                7..=20 => self.snapshot(any),
                _ => {}
            }
        }
    }
}

#[test]
fn three_nodes_agree_through_kills_partitions_truncations_and_compactions() {
    let (mut loads, mut truncations, mut compactions, mut installs) = (0, 0, 0, 0);
    for seed in 0..4 {
        let mut net = Net::new(seed);
        for _ in 0..2_500 {
            net.step(true);
        }
        net.cut = None;
        for _ in 0..600 {
            net.step(false);
        }
        assert!(net.committed.len() > 300, "seed {seed}: only {} commands committed", net.committed.len());
        let shortest = net.nodes.values().map(|node| node.applied.len()).min().unwrap();
        assert!(
            shortest as u64 + 100 > net.committed.keys().last().unwrap().0,
            "seed {seed}: a node lags behind"
        );
        for (id, node) in &net.nodes {
            for (at, agreed) in &net.committed {
                let has = node.applied.get(at.0 as usize - 1);
                assert!(
                    has.is_none_or(|has| has == agreed),
                    "seed {seed}: node {id} holds something else at {at}"
                );
            }
        }
        loads += net.loads;
        truncations += net.truncations;
        compactions += net.compactions;
        installs += net.installs;
    }
    let met = format!(
        "{loads} loads, {truncations} truncations, {compactions} compactions, {installs} snapshots installed"
    );
    assert!(loads > 10 && truncations > 2 && compactions > 20 && installs > 2, "{met}");
    println!("{met}");
}

//! The core over this store: three nodes on a network that loses messages, killed and partitioned, with merged commits and
//! entries read back from the log. What the core writes is what the store takes, and the nodes agree.

mod common;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use common::{Rng, faults::Medium, voters};
use quorate_core::{
    Action, Config, EntryKind, GroupId, Index, Input, Instant, LogReader, Message, NodeId, Proposal, Raft,
    RoleKind, Store, Token, Write,
};
use quorate_storage_redb::{Identity, Options, RedbStore};

const GROUP: GroupId = GroupId(4);

struct Node {
    medium: Medium,
    store: RedbStore,
    raft: Raft,
    writes: Vec<Write>,
    /// What its state machine has seen in this life.
    applied: Vec<(Index, Bytes)>,
}

struct Net {
    nodes: BTreeMap<NodeId, Node>,
    wire: VecDeque<(NodeId, NodeId, Message)>,
    now: Instant,
    rng: Rng,
    cut: Option<NodeId>,
    committed: BTreeMap<Index, Bytes>,
    loads: u64,
    truncations: u64,
}

fn identity(id: NodeId) -> Identity {
    Identity { cluster: 1, node: id }
}

fn start(id: NodeId, store: &mut RedbStore, now: Instant) -> Raft {
    let mut config = Config::new(id);
    config.group = GROUP;
    config.max_cached_bytes = 200;
    Raft::new(config, store.recover(GROUP).unwrap(), now).unwrap()
}

impl Net {
    fn new(seed: u64) -> Self {
        let mut nodes = BTreeMap::new();
        for id in (1..=3).map(NodeId) {
            let medium = Medium::untraced(Vec::new());
            let groups = [(GROUP, voters(&[1, 2, 3]))];
            let mut store =
                RedbStore::create_on(Options::default(), medium.clone(), identity(id), &groups).unwrap();
            let raft = start(id, &mut store, Instant(0));
            nodes.insert(id, Node { medium, store, raft, writes: Vec::new(), applied: Vec::new() });
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
                    self.wire.push_back((id, to, message));
                    None
                }
                Action::Write(write) => {
                    self.truncations += u64::from(write.truncate.is_some());
                    node.writes.push(write);
                    None
                }
                Action::Restore(_) | Action::SendSnapshot(_) => panic!("nothing is compacted: {action:?}"),
                Action::Load(load) => {
                    self.loads += 1;
                    let result = node.store.reader().load(GROUP, &load).unwrap();
                    Some(Input::Loaded { id: load.id, result })
                }
                Action::Apply(apply) => {
                    for entry in apply.entries.iter().flat_map(|run| run.entries()) {
                        let index = entry.id.index;
                        assert_eq!(index.0, node.applied.len() as u64 + 1);
                        node.applied.push((index, entry.payload.clone()));
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
        node.raft = start(id, &mut node.store, self.now);
        node.writes.clear();
        node.applied.clear();
        self.run(id);
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
            let Some((from, to, message)) = self.wire.pop_front() else { break };
            let cut = self.cut.is_some_and(|cut| cut == from || cut == to);
            let lost = cut || (faults && self.rng.chance(5));
            if !lost {
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
                _ => {}
            }
        }
    }
}

#[test]
fn three_nodes_agree_through_kills_partitions_and_truncations() {
    let (mut loads, mut truncations) = (0, 0);
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
        loads += net.loads;
        truncations += net.truncations;
    }
    assert!(loads > 10 && truncations > 2, "{loads} loads, {truncations} truncations");
    println!("{loads} loads, {truncations} truncations");
}

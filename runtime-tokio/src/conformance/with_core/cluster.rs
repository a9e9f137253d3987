//! Three nodes on a network that loses messages.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_core::{
    Action, Body, Config, EntryKind, Index, Input, Instant, LogId, Membership, Message, NodeId, Proposal,
    Raft, Rebase, RoleKind, Run, Snapshot, SnapshotInfo, Token, Write,
};

use crate::conformance::{Rng, Setup, Started, model::voters, subject::GROUP};

/// Three cores, each over a store of its own, on a network that loses messages, killed and partitioned: with merged commits,
/// entries read back from the log, snapshots taken, sent, received and installed, and logs that begin later. What the cores write is
/// what the stores take; what the state machines are put back to after a kill is the newest snapshot in the store; and the
/// nodes agree.
///
/// # Panics
/// If not.
pub fn agrees_in_a_cluster(setup: &impl Setup) {
    let mut met = Met::default();
    for seed in 0..8 {
        let mut net = Net::new(setup, seed);
        for _ in 0..2_500 {
            net.step(true);
        }
        net.cut = None;
        for _ in 0..600 {
            net.step(false);
        }
        let committed = net.committed.len();
        assert!(committed > 250, "seed {seed}: only {committed} commands committed");
        let shortest = net.nodes.values().map(|node| node.applied.len() as u64).min().unwrap_or(0);
        let longest = net.committed.last_key_value().map_or(0, |(index, _)| index.0);
        assert!(shortest + 100 > longest, "seed {seed}: a node has applied {shortest} of {longest}");
        met = met.and(net.met);
    }
    let Met { loads, truncations, compactions, installs } = met;
    let enough = loads > 10 && truncations > 0 && compactions > 30 && installs > 2;
    assert!(enough, "too little was met: {met:?}");
}

/// What has happened on the way.
#[derive(Clone, Copy, Default, Debug)]
struct Met {
    loads: u64,
    truncations: u64,
    compactions: u64,
    installs: u64,
}

impl Met {
    const fn and(mut self, other: Self) -> Self {
        self.loads += other.loads;
        self.truncations += other.truncations;
        self.compactions += other.compactions;
        self.installs += other.installs;
        self
    }
}

struct Node<'a> {
    started: Started<'a>,
    raft: Raft,
    writes: Vec<Write>,
    /// What its state machine holds: every payload up to where it is.
    applied: Vec<Bytes>,
    /// The memberships that were applied.
    memberships: BTreeMap<Index, Membership>,
}

/// From, to, what; and with a message that tells of a snapshot its bytes.
type Sent = (NodeId, NodeId, Message, Option<(SnapshotInfo, Vec<u8>)>);

struct Net<'a> {
    nodes: BTreeMap<NodeId, Node<'a>>,
    wire: VecDeque<Sent>,
    now: Instant,
    rng: Rng,
    cut: Option<NodeId>,
    committed: BTreeMap<Index, Bytes>,
    met: Met,
}

/// A state machine's state: its payloads, one after the other.
fn frozen(applied: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    for payload in applied {
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(payload);
    }
    out
}

fn thawed(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut applied = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (payload, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        applied.push(Bytes::copy_from_slice(payload));
        bytes = rest;
    }
    applied
}

impl<'a> Node<'a> {
    /// Starts a core from its store, and its state machine from the newest snapshot in it.
    fn start(id: NodeId, mut started: Started<'a>, now: Instant) -> Self {
        let recovered = started.store().recover(GROUP);
        let recovered = recovered.unwrap_or_else(|error| panic!("node {id} can't be recovered: {error}"));
        let mut config = Config::new(id);
        config.group = GROUP;
        config.max_cached_bytes = 200;
        let newest = recovered.snapshot.clone();
        let raft = Raft::new(config, recovered, now).expect("what a store recovers can be started");
        let (applied, memberships) = (Vec::new(), BTreeMap::new());
        let mut node = Self { started, raft, writes: Vec::new(), applied, memberships };
        if let Some(snapshot) = newest {
            node.restore(&snapshot);
        }
        node
    }

    /// A snapshot that is published, with its bytes.
    fn read(&mut self, last: LogId) -> (SnapshotInfo, Vec<u8>) {
        let opened = self.started.store().snapshots().open(GROUP, last);
        let opened = opened.unwrap_or_else(|error| panic!("the snapshot at {last}: {error}"));
        let mut source = opened.unwrap_or_else(|| panic!("there is no snapshot at {last}"));
        let info = source.info().clone();
        let mut bytes = vec![0; info.bytes as usize];
        let read =
            source.read_at(0, &mut bytes).unwrap_or_else(|error| panic!("the snapshot at {last}: {error}"));
        assert_eq!(read, bytes.len(), "a snapshot is read whole");
        (info, bytes)
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        let (info, bytes) = self.read(snapshot.last);
        assert_eq!(info.snapshot, *snapshot, "the one that was asked for");
        self.applied = thawed(&bytes);
        assert_eq!(self.applied.len() as u64, snapshot.last.index.0, "it holds all up to its entry");
        self.memberships = BTreeMap::from([(snapshot.last.index, snapshot.membership.clone())]);
    }
}

impl<'a> Net<'a> {
    fn new(setup: &'a impl Setup, seed: u64) -> Self {
        let start = |id| {
            let started = setup.start(&[(GROUP, voters(3))]);
            (id, Node::start(id, started, Instant(0)))
        };
        Self {
            nodes: (1..=3).map(NodeId).map(start).collect(),
            wire: VecDeque::new(),
            now: Instant(0),
            rng: Rng::new(seed),
            cut: None,
            committed: BTreeMap::new(),
            met: Met::default(),
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node<'a> {
        self.nodes.get_mut(&id).expect("a node of this network")
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let now = self.now;
        // Refusals are part of life: not the leader, or too much at once.
        let _refused = self.node(id).raft.step(now, input);
        self.run(id);
    }

    fn run(&mut self, id: NodeId) {
        while let Some(action) = self.node(id).raft.poll() {
            if let Some(answer) = self.act(id, action) {
                let now = self.now;
                self.node(id).raft.step(now, answer).expect("an answer that it waits for");
            }
        }
    }

    fn act(&mut self, id: NodeId, action: Action) -> Option<Input> {
        let cut = self.cut.is_some();
        let node = self.nodes.get_mut(&id).expect("a node of this network");
        match action {
            Action::Send { to, message } => {
                self.wire.push_back((id, to, message, None));
                None
            }
            Action::Write(write) => {
                self.met.truncations += u64::from(write.truncate.is_some());
                match write.rebase.as_deref() {
                    Some(Rebase::Compact(_)) => self.met.compactions += 1,
                    Some(Rebase::Install(_)) => self.met.installs += 1,
                    None => {}
                }
                node.writes.push(write);
                None
            }
            Action::Restore(snapshot) => {
                node.restore(&snapshot);
                Some(Input::Applied { up_to: snapshot.last.index })
            }
            Action::SendSnapshot(send) => {
                let Body::InstallSnapshot { snapshot } = &send.message.body else {
                    panic!("a snapshot is sent by InstallSnapshot")
                };
                let with = node.read(snapshot.last);
                self.wire.push_back((id, send.to, send.message, Some(with)));
                Some(Input::SnapshotSent { id: send.id, arrived: !cut })
            }
            Action::Load(load) => {
                self.met.loads += 1;
                let result = node.started.store().reader().load(GROUP, &load);
                let result = result.unwrap_or_else(|error| panic!("node {id}, {load:?}: {error}"));
                Some(Input::Loaded { id: load.id, result })
            }
            Action::Apply(apply) => {
                for entry in apply.entries.iter().flat_map(Run::entries) {
                    let index = entry.id.index;
                    assert_eq!(index.0, node.applied.len() as u64 + 1, "node {id} applies in order");
                    node.applied.push(entry.payload.clone());
                    match entry.kind {
                        EntryKind::Command => {
                            let agreed = self.committed.entry(index).or_insert_with(|| entry.payload.clone());
                            assert_eq!(
                                *agreed, entry.payload,
                                "node {id} has applied something else at {index}"
                            );
                        }
                        EntryKind::Membership => {
                            let membership = Membership::decode(&entry.payload).expect("it is in the log");
                            node.memberships.insert(index, membership);
                        }
                        EntryKind::Noop => {}
                    }
                }
                Some(Input::Applied { up_to: apply.last() })
            }
            Action::Resolve { .. } | Action::Event(_) => None,
        }
    }

    /// One commit of all that is queued.
    fn persist(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.node(id);
        let writes = std::mem::take(&mut node.writes);
        if writes.is_empty() {
            return;
        }
        let committed = node.started.store().commit(&writes);
        committed.unwrap_or_else(|error| panic!("what node {id} writes is refused: {error}: {writes:?}"));
        let receipts = writes.into_iter().map(Write::into_receipt);
        let merged = receipts.reduce(|all, next| all.merge(next).expect("they follow one another"));
        let merged = merged.expect("there is one at least");
        node.raft.step(now, Input::Persisted(merged)).expect("a receipt that it waits for");
        self.run(id);
    }

    fn kill(&mut self, id: NodeId) {
        let mut node = self.nodes.remove(&id).expect("a node of this network");
        node.started.reopen();
        self.nodes.insert(id, Node::start(id, node.started, self.now));
        self.run(id);
    }

    /// A snapshot of what a node has applied: it is published, then its core hears of it.
    fn snapshot(&mut self, id: NodeId) {
        let keep = self.rng.below(10);
        let node = self.node(id);
        let index = Index(node.applied.len() as u64);
        let Some(term) = node.raft.term_at(index).filter(|_| index.0 > 0) else { return };
        let membership = node.memberships.range(..=index).next_back().map(|(_, it)| it.clone());
        let snapshot =
            Snapshot { last: LogId::new(term, index), membership: membership.unwrap_or_else(|| voters(3)) };
        let bytes = frozen(&node.applied);
        let snapshots = node.started.store().snapshots();
        // There may be one already, or one that waits to be installed.
        let Ok(mut writer) = snapshots.take(GROUP, &snapshot) else { return };
        let written = writer.write(&bytes).and_then(|()| writer.publish());
        written.unwrap_or_else(|error| panic!("node {id}: a snapshot at {}: {error}", snapshot.last));
        self.input(id, Input::Compact { snapshot: index, keep });
    }

    /// What came with a message is published before the core hears of it.
    fn receive(&mut self, id: NodeId, info: &SnapshotInfo, bytes: &[u8]) -> bool {
        let snapshots = self.node(id).started.store().snapshots();
        // There may be a later one.
        let Ok(mut writer) = snapshots.receive(GROUP, info) else { return false };
        let rest = bytes.get(writer.staged() as usize..).unwrap_or_default();
        let written = writer.write(rest).and_then(|()| writer.publish());
        written.unwrap_or_else(|error| panic!("node {id}: receiving {}: {error}", info.snapshot.last));
        true
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node<'_>| node.raft.role() == RoleKind::Leader;
        self.nodes.values().filter(leads).max_by_key(|node| node.raft.term()).map(|node| node.raft.id())
    }

    fn step(&mut self, faults: bool) {
        self.now = self.now.plus(1_000 + self.rng.below(20_000));
        for id in (1..=3).map(NodeId) {
            if self.rng.chance(60) {
                self.persist(id);
            }
            while let Some(due) = self.nodes[&id].raft.deadline().filter(|(due, _)| *due <= self.now) {
                self.input(id, Input::Tick);
                if self.nodes[&id].raft.deadline() == Some(due) {
                    break;
                }
            }
        }
        for _ in 0..self.wire.len() {
            let Some((from, to, message, with)) = self.wire.pop_front() else { break };
            let cut = self.cut.is_some_and(|cut| cut == from || cut == to);
            let lost = cut || (faults && self.rng.chance(5));
            let staged = match with {
                Some((info, bytes)) if !lost => self.receive(to, &info, &bytes),
                _ => !lost,
            };
            if staged {
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

//! Cores side by side, with a network and disks that do what a test tells them to.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod messages;

use std::collections::{BTreeMap, VecDeque};

use quorate_core::{
    Action, Apply, Body, Config, Event, Few, HardState, Incarnation, Index, Input, Instant, Load, Loaded,
    LogId, Membership, MembershipChange, Message, NodeId, Outcome, Proposal, Raft, Rebase, Recovered,
    Rejected, RoleKind, Run, SendSnapshot, Snapshot, Term, TermStart, Token, Write,
};

/// A disk: what is durable, and what was issued.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    pub hard_state: HardState,
    pub log: Vec<Run>,
    /// Where the log begins, and the membership there.
    pub base: Option<Snapshot>,
    /// The newest snapshot; its bytes are the commands applied up to there.
    pub snapshot: Option<Snapshot>,
    pub state: Vec<Vec<u8>>,
    pub incarnation: u64,
}

impl Disk {
    pub fn apply(&mut self, write: &Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        match write.rebase.as_deref() {
            Some(Rebase::Compact(base)) => {
                let first = base.last.index.next();
                self.log = self.log.iter().filter_map(|run| run.starting_at(first)).collect();
                self.base = Some(base.clone());
            }
            Some(Rebase::Install(snapshot)) => {
                self.log.clear();
                self.base = Some(snapshot.clone());
                self.snapshot = Some(snapshot.clone());
            }
            None => {}
        }
        if let Some(from) = write.truncate {
            self.log = self.log.iter().filter_map(|run| run.ending_before(from)).collect();
        }
        self.log.extend(write.entries.iter().cloned());
    }

    pub fn last(&self) -> LogId {
        self.log.last().map_or(self.base_id(), Run::last_id)
    }

    pub fn base_id(&self) -> LogId {
        self.base.as_ref().map_or(LogId::ZERO, |base| base.last)
    }

    pub fn recover(&mut self, membership: Membership) -> Recovered {
        self.incarnation += 1;
        let mut recovered = Recovered::fresh(Incarnation(self.incarnation), membership);
        recovered.hard_state = self.hard_state;
        recovered.snapshot = self.snapshot.clone();
        if let Some(base) = &self.base {
            recovered.base = base.last;
            recovered.base_membership = base.membership.clone();
        }
        // The state machine is restored from the newest snapshot.
        recovered.applied = self.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
        recovered.last = self.last().index;
        for run in &self.log {
            if recovered.terms.last().is_none_or(|start| start.term != run.term()) {
                recovered.terms.push(TermStart { first: run.first(), term: run.term() });
            }
            recovered.memberships.extend(run.memberships());
        }
        recovered
    }

    pub fn load(&self, load: &Load) -> Loaded {
        if load.first <= self.base_id().index {
            return Loaded::Compacted;
        }
        let mut left = load.max_bytes;
        let mut entries = Few::new();
        for run in &self.log {
            let Some(part) = run.starting_at(load.first).filter(|part| part.first() <= load.last) else {
                continue;
            };
            if run.last() < load.first {
                continue;
            }
            let Some(part) = part.ending_before(load.last.next()) else {
                continue;
            };
            if !entries.is_empty() && part.bytes() > left {
                break;
            }
            let fits = part.within(left);
            left = left.saturating_sub(fits.bytes());
            let cut = fits.count() < part.count();
            entries.push(fits);
            if cut {
                break;
            }
        }
        Loaded::Entries(entries)
    }
}

#[derive(Debug)]
pub struct Node {
    pub raft: Raft,
    pub disk: Disk,
    /// Writes that were issued and are not durable yet.
    pub pending: VecDeque<Write>,
    /// Commands applied, in order.
    pub applied: Vec<Vec<u8>>,
    pub done: Vec<Token>,
    pub outcomes: Vec<(Token, Outcome)>,
    pub events: Vec<Event>,
    /// Snapshots that it was asked to send, and that are not on their way yet.
    pub sending: Vec<SendSnapshot>,
    /// The state that came with a snapshot, until it is adopted.
    staged: Vec<Vec<u8>>,
}

/// A few nodes; messages lie in `wire` until they are delivered.
#[derive(Debug)]
pub struct Cluster {
    pub now: Instant,
    pub nodes: BTreeMap<u64, Node>,
    pub wire: VecDeque<(NodeId, NodeId, Message)>,
    /// Writes become durable at once, unless a node is in here.
    pub slow_disks: Vec<u64>,
    /// State machines that are handed entries and never say that they are done.
    pub stuck_machines: Vec<u64>,
    /// Snapshots arrive at once, unless this is set.
    pub hold_snapshots: bool,
    pub configure: fn(&mut Config),
    membership: Membership,
}

impl Cluster {
    pub fn new(size: u64) -> Self {
        Self::with(size, |_| {})
    }

    pub fn with(size: u64, configure: fn(&mut Config)) -> Self {
        let membership = Membership::of_voters((1..=size).map(NodeId));
        let mut cluster = Self {
            now: Instant(0),
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            slow_disks: Vec::new(),
            stuck_machines: Vec::new(),
            hold_snapshots: false,
            configure,
            membership,
        };
        for id in 1..=size {
            cluster.start(id, Disk::default());
        }
        cluster
    }

    /// Starts a node from what is on a disk.
    pub fn start(&mut self, id: u64, disk: Disk) {
        self.start_as(id, disk, self.membership.clone());
    }

    /// Starts a node that takes this for the membership, until its log says otherwise.
    pub fn start_as(&mut self, id: u64, mut disk: Disk, membership: Membership) {
        let mut config = Config::new(NodeId(id));
        (self.configure)(&mut config);
        let recovered = disk.recover(membership);
        let applied = disk.state.clone();
        let raft = Raft::new(config, recovered, self.now).unwrap();
        let node = Node {
            raft,
            disk,
            pending: VecDeque::new(),
            applied,
            done: Vec::new(),
            outcomes: Vec::new(),
            events: Vec::new(),
            sending: Vec::new(),
            staged: Vec::new(),
        };
        self.nodes.insert(id, node);
    }

    /// Crashes a node, which loses what isn't durable, and starts it again.
    pub fn restart(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        self.start(id, node.disk);
    }

    pub fn raft(&self, id: u64) -> &Raft {
        &self.nodes[&id].raft
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// One input, and all that follows from it on this node.
    pub fn step(&mut self, id: u64, input: Input) -> Result<(), Rejected> {
        let now = self.now;
        let result = self.node(id).raft.step(now, input);
        self.settle(id);
        result
    }

    pub fn receive(&mut self, from: u64, to: u64, term: u64, body: Body) -> Result<(), Rejected> {
        let message = Message { term: Term(term), body };
        self.step(to, Input::Receive { from: NodeId(from), message })
    }

    pub fn propose(&mut self, id: u64, token: u64, command: &[u8]) -> Result<(), Rejected> {
        self.step(id, Input::Propose(Proposal::one(Token(token), command)))
    }

    /// Does what a node wants done; its disk may be slow.
    pub fn settle(&mut self, id: u64) {
        let now = self.now;
        loop {
            let slow = self.slow_disks.contains(&id);
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(action) = node.raft.poll() else {
                if !slow && let Some(write) = node.pending.pop_front() {
                    node.persist(now, write);
                    continue;
                }
                break;
            };
            match action {
                Action::Send { to, message } => self.wire.push_back((NodeId(id), to, message)),
                Action::Write(write) => node.pending.push_back(write),
                Action::Apply(_) if self.stuck_machines.contains(&id) => {}
                Action::Apply(apply) => node.apply(now, &apply),
                Action::Restore(snapshot) => {
                    node.applied = node.disk.state.clone();
                    node.raft.step(now, Input::Applied { up_to: snapshot.last.index }).unwrap();
                }
                Action::SendSnapshot(send) => {
                    node.sending.push(send);
                    if !self.hold_snapshots {
                        self.send_snapshots(id, true);
                    }
                }
                Action::Load(load) => {
                    let result = node.disk.load(&load);
                    let _stale = node.raft.step(now, Input::Loaded { id: load.id, result });
                }
                Action::Resolve { tokens, outcome } => {
                    node.outcomes.extend(tokens.iter().map(|token| (token, outcome)));
                }
                Action::Event(event) => node.events.push(event),
            }
        }
    }

    /// What a node was asked to send arrives, bytes first, or gets lost.
    pub fn send_snapshots(&mut self, id: u64, arrived: bool) {
        let (now, node) = (self.now, self.nodes.get_mut(&id).unwrap());
        let (sends, state) = (std::mem::take(&mut node.sending), node.disk.state.clone());
        for send in sends {
            if arrived && let Some(peer) = self.nodes.get_mut(&send.to.0) {
                peer.staged.clone_from(&state);
                self.wire.push_back((NodeId(id), send.to, send.message));
            }
            let _stale = self.node(id).raft.step(now, Input::SnapshotSent { id: send.id, arrived });
        }
    }

    /// A node takes a snapshot of all that it has applied, and keeps that many entries.
    pub fn compact(&mut self, id: u64, keep: u64) {
        let status = self.raft(id).status();
        let last = LogId::new(self.raft(id).term_at(status.applied).unwrap(), status.applied);
        let node = self.node(id);
        node.disk.state.clone_from(&node.applied);
        node.disk.snapshot = Some(Snapshot { last, membership: status.membership });
        self.step(id, Input::Compact { snapshot: status.applied, keep }).unwrap();
    }

    pub fn change(&mut self, id: u64, token: u64, change: MembershipChange) -> Result<(), Rejected> {
        self.step(id, Input::ChangeMembership { token: Token(token), change })
    }

    /// The oldest write of a slow disk becomes durable.
    pub fn persist_one(&mut self, id: u64) -> bool {
        let now = self.now;
        let Some(write) = self.node(id).pending.pop_front() else {
            return false;
        };
        self.node(id).persist(now, write);
        self.settle(id);
        true
    }

    pub fn persist_all(&mut self, id: u64) {
        while self.persist_one(id) {}
    }

    /// Delivers what lies on the wire, and what follows from it, but for what `lose` is true of.
    pub fn deliver_unless(&mut self, lose: impl Fn(NodeId, NodeId, &Message) -> bool) {
        for _ in 0..100_000 {
            let Some((from, to, message)) = self.wire.pop_front() else {
                return;
            };
            if !lose(from, to, &message) && self.nodes.contains_key(&to.0) {
                let _refused = self.step(to.0, Input::Receive { from, message });
            }
        }
        panic!("the cluster never comes to rest");
    }

    pub fn deliver(&mut self) {
        self.deliver_unless(|_, _, _| false);
    }

    /// Time passes for one node until its next deadline.
    pub fn fire(&mut self, id: u64) {
        if let Some((at, _)) = self.raft(id).deadline() {
            self.now = self.now.max(at);
            self.step(id, Input::Tick).unwrap();
        }
    }

    /// Makes `id` the leader: it alone feels time pass.
    pub fn elect(&mut self, id: u64) {
        self.now = self.now.plus(3_600_000_000);
        for _ in 0..20 {
            if self.raft(id).role() == RoleKind::Leader {
                return;
            }
            self.fire(id);
            self.deliver();
        }
        panic!("node {id} could not be elected: {:?}", self.raft(id).status());
    }

    /// Time passes for everyone, from deadline to deadline, for `us`.
    pub fn run(&mut self, us: u64) {
        self.run_unless(us, |_, _, _| false);
    }

    pub fn run_unless(&mut self, us: u64, lose: impl Fn(NodeId, NodeId, &Message) -> bool) {
        let end = self.now.plus(us);
        self.deliver_unless(&lose);
        loop {
            let next = self.nodes.values().filter_map(|node| node.raft.deadline()).map(|(at, _)| at).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                if self.raft(id).deadline().is_some_and(|(at, _)| at <= self.now) {
                    self.step(id, Input::Tick).unwrap();
                }
            }
            self.deliver_unless(&lose);
        }
        self.now = end;
    }

    pub fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.iter().filter(|(_, node)| node.raft.role() == RoleKind::Leader);
        leaders.max_by_key(|(_, node)| node.raft.term()).map(|(id, _)| *id)
    }
}

impl Node {
    fn persist(&mut self, now: Instant, write: Write) {
        self.disk.apply(&write);
        if let Some(Rebase::Install(_)) = write.rebase.as_deref() {
            self.disk.state.clone_from(&self.staged);
        }
        self.raft.step(now, Input::Persisted(write.into_receipt())).unwrap();
    }

    fn apply(&mut self, now: Instant, apply: &Apply) {
        for entry in apply.entries.iter().flat_map(Run::entries) {
            if entry.kind == quorate_core::EntryKind::Command {
                self.applied.push(entry.payload.to_vec());
            }
        }
        self.done.extend(apply.done.iter().flat_map(|done| done.tokens.iter()));
        self.raft.step(now, Input::Applied { up_to: apply.last() }).unwrap();
    }
}

/// The index `n`.
pub const fn i(n: u64) -> Index {
    Index(n)
}

/// The entry `index` of `term`.
pub const fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// A run of one-byte commands.
pub fn run(term: u64, first: u64, count: u64) -> Run {
    let commands: Vec<Vec<u8>> = (0..count).map(|n| vec![(first + n) as u8]).collect();
    Run::commands(Term(term), Index(first), &commands).unwrap()
}

/// A RequestVote of a candidate that has nothing committed.
pub const fn vote(last: LogId) -> Body {
    Body::Vote { last, commit: LogId::ZERO, transfer: false }
}

/// The answer to one, from a node that has nothing committed.
pub const fn voted(granted: bool) -> Body {
    Body::VoteReply { granted, commit: LogId::ZERO }
}

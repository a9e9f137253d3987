//! The nodes of a script, their disks, state machines and the wire between them. Everything is said as it happens, and
//! what must never be is an error even if the script expects it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_core::{
    Action, Apply, Config, EntryKind, Index, Input, Instant, Membership, Message, NodeId, Outcome, Raft,
    Rebase, Receipt, Rejected, RoleKind, Run, SendSnapshot, Snapshot, Term, Tokens, Write,
};

use super::show;
use crate::common::Disk;

#[derive(Debug)]
pub struct Node {
    pub raft: Raft,
    pub disk: Disk,
    /// Writes that a slow disk has not done.
    pub pending: VecDeque<Write>,
    /// What a stalled state machine was handed and has not applied.
    pub handed: VecDeque<Index>,
    /// The commands applied: the state.
    pub state: Vec<Vec<u8>>,
    /// Snapshots that it was asked to send.
    pub sending: VecDeque<SendSnapshot>,
    /// The state that came with a snapshot.
    staged: Vec<Vec<u8>>,
}

/// How a node is started, each time.
#[derive(Debug, Clone)]
pub struct Setup {
    pub config: Config,
    pub membership: Membership,
    /// What its state machine has applied durably at its first start.
    pub applied: u64,
}

#[derive(Debug)]
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
}

/// Some messages: empty lists mean any.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub kinds: Vec<String>,
    pub from: Vec<u64>,
    pub to: Vec<u64>,
}

impl Filter {
    pub fn matches(&self, envelope: &Envelope) -> bool {
        let among = |list: &[u64], id: NodeId| list.is_empty() || list.contains(&id.0);
        let kind = show::kind(&envelope.message.body);
        (self.kinds.is_empty() || self.kinds.iter().any(|name| name == kind))
            && among(&self.from, envelope.from)
            && among(&self.to, envelope.to)
    }
}

#[derive(Debug, Default)]
pub struct World {
    pub now: Instant,
    pub setups: BTreeMap<u64, Setup>,
    pub nodes: BTreeMap<u64, Node>,
    /// The disks of crashed nodes.
    pub down: BTreeMap<u64, Disk>,
    pub wire: VecDeque<Envelope>,
    pub held: VecDeque<Envelope>,
    /// What is held back as it is sent.
    pub holds: Vec<Filter>,
    /// Nodes that only reach each other.
    pub cut: Vec<BTreeSet<u64>>,
    pub slow_disks: BTreeSet<u64>,
    pub stalled: BTreeSet<u64>,
    /// Every request, and its end.
    pub requests: BTreeMap<u64, Option<String>>,
    leaders: BTreeMap<Term, u64>,
    applied: BTreeMap<Index, (Term, Bytes)>,
    lines: Vec<String>,
    depth: usize,
}

impl World {
    // ---- what is said ----

    pub fn say(&mut self, id: u64, text: &str) {
        let indent = "  ".repeat(self.depth);
        self.lines.push(format!("{indent}n{id} {text}"));
    }

    /// Says a line, and what follows from it further in.
    pub fn under(
        &mut self,
        id: u64,
        text: &str,
        then: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.say(id, text);
        self.depth += 1;
        let result = then(self);
        self.depth -= 1;
        result
    }

    pub fn print(&mut self, line: String) {
        self.lines.push(line);
    }

    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    // ---- what happens ----

    pub fn node(&mut self, id: u64) -> Result<&mut Node, String> {
        self.nodes.get_mut(&id).ok_or_else(|| format!("no node {id}"))
    }

    pub fn raft(&self, id: u64) -> Result<&Raft, String> {
        self.nodes.get(&id).map(|node| &node.raft).ok_or_else(|| format!("no node {id}"))
    }

    /// Starts a node from a disk.
    pub fn start(&mut self, id: u64, mut disk: Disk) -> Result<(), String> {
        let setup = self.setups.get(&id).ok_or_else(|| format!("no node {id}"))?;
        let mut recovered = disk.recover(setup.membership.clone());
        recovered.applied = recovered.applied.max(Index(setup.applied));
        let raft = Raft::new(setup.config.clone(), recovered, self.now)
            .map_err(|error| format!("node {id}: {error}"))?;
        let state = disk.state.clone();
        let node = Node {
            raft,
            disk,
            state,
            pending: VecDeque::new(),
            handed: VecDeque::new(),
            sending: VecDeque::new(),
            staged: Vec::new(),
        };
        self.nodes.insert(id, node);
        Ok(())
    }

    pub fn crash(&mut self, id: u64) -> Result<(), String> {
        let node = self.nodes.remove(&id).ok_or_else(|| format!("no node {id}"))?;
        let lost: Vec<String> = node.pending.iter().map(|write| format!("w{}", write.seq())).collect();
        let lost = if lost.is_empty() { String::new() } else { format!(" and loses {}", lost.join(" ")) };
        self.say(id, &format!("crashes{lost}"));
        self.down.insert(id, node.disk);
        Ok(())
    }

    /// A new request, named.
    pub fn request(&mut self) -> u64 {
        let token = self.requests.len() as u64 + 1;
        self.requests.insert(token, None);
        token
    }

    /// A request that takes several tokens.
    pub fn requests(&mut self, count: u64) -> u64 {
        let first = self.request();
        for _ in 1..count {
            self.request();
        }
        first
    }

    /// A request as a step: if it is refused, that is its end.
    pub fn ask(&mut self, id: u64, tokens: Tokens, input: Input) -> Result<(), String> {
        if let Err(rejected) = self.step(id, input)? {
            self.say(id, &format!("refuses {}: {rejected}", show::tokens(tokens)));
            self.end(tokens, &format!("refused: {rejected}"))?;
        }
        Ok(())
    }

    /// A step that is no request.
    pub fn tell(&mut self, id: u64, input: Input) -> Result<(), String> {
        if let Err(rejected) = self.step(id, input)? {
            self.say(id, &format!("refuses: {rejected}"));
        }
        Ok(())
    }

    /// One input, and all that follows from it on this node.
    pub fn step(&mut self, id: u64, input: Input) -> Result<Result<(), Rejected>, String> {
        let now = self.now;
        let result = self.node(id)?.raft.step(now, input);
        self.settle(id)?;
        Ok(result)
    }

    pub fn deliver(&mut self, envelope: Envelope) -> Result<(), String> {
        let Envelope { from, to, message } = envelope;
        let text = format!("← {} {}", show::node(from), show::brief(&message));
        if !self.nodes.contains_key(&to.0) {
            self.say(to.0, &format!("{text} (but it is down)"));
            return Ok(());
        }
        self.under(to.0, &text, |world| {
            if let Err(rejected) = world.step(to.0, Input::Receive { from, message })? {
                world.say(to.0, &format!("rejects it: {rejected}"));
            }
            Ok(())
        })
    }

    pub fn tick(&mut self, id: u64) -> Result<(), String> {
        let why = self.raft(id)?.deadline().filter(|(at, _)| *at <= self.now);
        let why = why.map_or("nothing is due".into(), |(_, reason)| format!("{reason:?}"));
        self.under(id, &format!("wakes: {why}"), |world| world.tell(id, Input::Tick))
    }

    /// The oldest writes of a slow disk are durable, as one commit.
    pub fn persist(&mut self, id: u64, count: usize) -> Result<(), String> {
        let node = self.node(id)?;
        let writes: Vec<Write> = (0..count).map_while(|_| node.pending.pop_front()).collect();
        let seqs: Vec<String> = writes.iter().map(|write| format!("w{}", write.seq())).collect();
        if seqs.is_empty() {
            return Err(format!("node {id} has nothing to write"));
        }
        let receipt = self.write_down(id, writes)?;
        self.under(id, &format!("persisted {}", seqs.join(" ")), |world| {
            world.tell(id, Input::Persisted(receipt))
        })
    }

    fn write_down(&mut self, id: u64, writes: Vec<Write>) -> Result<Receipt, String> {
        let node = self.node(id)?;
        let mut receipt: Option<Receipt> = None;
        for write in writes {
            node.disk.apply(&write);
            if let Some(Rebase::Install(_)) = write.rebase.as_deref() {
                node.disk.state.clone_from(&node.staged);
            }
            let next = write.into_receipt();
            receipt = Some(match receipt {
                None => next,
                Some(before) => before.merge(next).map_err(|_| "writes out of order")?,
            });
        }
        receipt.ok_or_else(|| "nothing to write".into())
    }

    /// Does what a node wants done, and says it.
    fn settle(&mut self, id: u64) -> Result<(), String> {
        for _ in 0..10_000 {
            let slow = self.slow_disks.contains(&id);
            let node = self.node(id)?;
            if let Some(action) = node.raft.poll() {
                self.act(id, action)?;
            } else if !slow && let Some(write) = node.pending.pop_front() {
                let receipt = self.write_down(id, vec![write])?;
                self.tell_quietly(id, Input::Persisted(receipt))?;
            } else {
                return self.check(id);
            }
        }
        Err(format!("node {id} never comes to rest"))
    }

    fn act(&mut self, id: u64, action: Action) -> Result<(), String> {
        match action {
            Action::Send { to, message } => self.post(Envelope { from: NodeId(id), to, message }),
            Action::Write(write) => {
                self.say(id, &format!("writes {}", show::write(&write)));
                self.node(id)?.pending.push_back(write);
            }
            Action::Apply(apply) => self.apply(id, &apply)?,
            Action::Restore(snapshot) => {
                self.say(id, &format!("restores {}", show::log_id(snapshot.last)));
                let node = self.node(id)?;
                node.state.clone_from(&node.disk.state);
                self.applied_up_to(id, snapshot.last.index)?;
            }
            Action::SendSnapshot(send) => {
                self.say(id, &format!("sends a snapshot to {}", show::node(send.to)));
                self.node(id)?.sending.push_back(send);
            }
            Action::Load(load) => {
                self.say(id, &format!("loads {}..{}", load.first, load.last));
                let result = self.node(id)?.disk.load(&load);
                self.tell_quietly(id, Input::Loaded { id: load.id, result })?;
            }
            Action::Resolve { tokens, outcome } => self.resolve(id, tokens, outcome)?,
            Action::Event(event) => self.say(id, &format!("* {}", show::event(&event))),
        }
        Ok(())
    }

    fn tell_quietly(&mut self, id: u64, input: Input) -> Result<(), String> {
        let now = self.now;
        let result = self.node(id)?.raft.step(now, input);
        result.map_err(|rejected| format!("node {id} refuses what it asked for: {rejected}"))
    }

    fn post(&mut self, envelope: Envelope) {
        let text = format!("→ {} {}", show::node(envelope.to), show::message(&envelope.message));
        let (from, to) = (envelope.from.0, envelope.to.0);
        if self.cut.iter().any(|group| group.contains(&from) != group.contains(&to)) {
            self.say(from, &format!("{text} (lost)"));
        } else if self.holds.iter().any(|filter| filter.matches(&envelope)) {
            self.say(from, &format!("{text} (held)"));
            self.held.push_back(envelope);
        } else {
            self.say(from, &text);
            self.wire.push_back(envelope);
        }
    }

    fn apply(&mut self, id: u64, apply: &Apply) -> Result<(), String> {
        self.say(id, &format!("applies {}", show::apply(apply)));
        for entry in apply.entries.iter().flat_map(Run::entries) {
            let this = (entry.id.term, entry.payload.clone());
            let first = self.applied.entry(entry.id.index).or_insert_with(|| this.clone());
            if *first != this {
                return Err(format!("node {id} applies another entry at {} than others", entry.id.index));
            }
            if entry.kind == EntryKind::Command {
                self.node(id)?.state.push(entry.payload.to_vec());
            }
        }
        for done in &apply.done {
            self.end(done.tokens, "done")?;
        }
        self.applied_up_to(id, apply.last())
    }

    fn applied_up_to(&mut self, id: u64, up_to: Index) -> Result<(), String> {
        if self.stalled.contains(&id) {
            self.node(id)?.handed.push_back(up_to);
            return Ok(());
        }
        self.tell_quietly(id, Input::Applied { up_to })
    }

    fn resolve(&mut self, id: u64, tokens: Tokens, outcome: Outcome) -> Result<(), String> {
        let outcome = show::outcome(outcome);
        self.say(id, &format!("answers {}: {outcome}", show::tokens(tokens)));
        self.end(tokens, &outcome)
    }

    /// Each request ends once.
    fn end(&mut self, tokens: Tokens, outcome: &str) -> Result<(), String> {
        for token in tokens.iter() {
            match self.requests.get_mut(&token.0) {
                Some(end @ None) => *end = Some(outcome.to_owned()),
                Some(Some(before)) => return Err(format!("t{token} ends twice: {before}; {outcome}")),
                None => return Err(format!("an outcome for t{token}, which nobody asked for: {outcome}")),
            }
        }
        Ok(())
    }

    /// At most one leader a term, ever.
    fn check(&mut self, id: u64) -> Result<(), String> {
        let raft = self.raft(id)?;
        if raft.role() != RoleKind::Leader {
            return Ok(());
        }
        let term = raft.term();
        let first = *self.leaders.entry(term).or_insert(id);
        if first == id { Ok(()) } else { Err(format!("nodes {first} and {id} both lead term {term}")) }
    }

    /// Takes a snapshot of all that was applied, and hands it to the core.
    pub fn compact(&mut self, id: u64, keep: u64) -> Result<(), String> {
        let node = self.node(id)?;
        let status = node.raft.status();
        let (_, membership) = membership_at(node, status.applied);
        let term = node.raft.term_at(status.applied).ok_or("nothing was applied")?;
        let last = quorate_core::LogId::new(term, status.applied);
        node.disk.state.clone_from(&node.state);
        node.disk.snapshot = Some(Snapshot { last, membership });
        self.tell(id, Input::Compact { snapshot: status.applied, keep })
    }

    /// The oldest snapshot under way from a node arrives, bytes first, or gets lost; the node hears of that, or not.
    pub fn snapshot(&mut self, id: u64, arrived: bool, told: bool) -> Result<(), String> {
        let node = self.node(id)?;
        let send = node.sending.pop_front().ok_or_else(|| format!("node {id} sends no snapshot"))?;
        let state = node.disk.state.clone();
        if arrived {
            let peer = self.node(send.to.0)?;
            peer.staged = state;
            self.post(Envelope { from: NodeId(id), to: send.to, message: send.message });
        }
        if told { self.tell(id, Input::SnapshotSent { id: send.id, arrived }) } else { Ok(()) }
    }
}

/// The membership in force at an index of a node's durable log.
fn membership_at(node: &Node, index: Index) -> (Index, Membership) {
    let logged = node.disk.log.iter().flat_map(Run::memberships).filter(|(at, _)| *at <= index).last();
    let base = || node.disk.base.as_ref().map(|base| (base.last.index, base.membership.clone()));
    logged.or_else(base).unwrap_or_else(|| (Index(0), node.raft.membership().clone()))
}

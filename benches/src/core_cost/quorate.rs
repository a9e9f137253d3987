//! quorate: three [`Raft`]s and the smallest driver that gives them their due.

use std::{collections::VecDeque, fmt, mem};

use anyhow::{Result, ensure};
use bytes::Bytes;
use quorate_core::{
    Action, Apply, Batch, Config, EntryKind, Incarnation, Input, Instant, Membership, Message, NodeId,
    Proposal, Raft, Recovered, RoleKind, Run, Token, Write, wire,
};

use super::{Applied, Case, Cluster, NODES};

/// Runs of entries that a store keeps.
const KEPT_RUNS: usize = 16;

/// How a message gets from node to node.
pub trait Hop {
    /// A message under way.
    type Packet: fmt::Debug;
    /// Its author lets go of it.
    fn pack(message: Message) -> Self::Packet;
    /// It arrives.
    ///
    /// # Errors
    /// If it can't be read any more.
    fn unpack(packet: Self::Packet) -> Result<Message>;
}

/// As it is.
#[derive(Debug)]
pub struct Direct;

impl Hop for Direct {
    type Packet = Message;

    fn pack(message: Message) -> Message {
        message
    }

    fn unpack(packet: Message) -> Result<Message> {
        Ok(packet)
    }
}

/// As contiguous bytes.
#[derive(Debug)]
pub struct Encoded;

impl Hop for Encoded {
    type Packet = Bytes;

    fn pack(message: Message) -> Bytes {
        wire::encode(&message).to_bytes()
    }

    fn unpack(packet: Bytes) -> Result<Message> {
        Ok(wire::decode(&packet)?)
    }
}

/// Three nodes; the first leads.
#[derive(Debug)]
pub struct Nodes<H: Hop> {
    nodes: [Node; NODES],
    wire: VecDeque<Delivery<H::Packet>>,
    now: Instant,
    next_token: u64,
}

#[derive(Debug)]
struct Delivery<P> {
    from: NodeId,
    to: NodeId,
    packet: P,
}

#[derive(Debug)]
struct Node {
    raft: Raft,
    /// The newest runs, as they would be on a disk.
    store: VecDeque<Run>,
    applied: Applied,
}

impl<H: Hop> Nodes<H> {
    /// Three fresh nodes, and an election.
    ///
    /// # Errors
    /// If the first node does not get to lead.
    pub fn new(case: Case) -> Result<Self> {
        let ids = [1, 2, 3].map(NodeId);
        let start = |id: NodeId| -> Result<Node> {
            let mut config = Config::new(id);
            // Any batch of ours is one message, as it is for the peers.
            config.max_append_bytes = 1 << 20;
            // Small, so that it is full when the warm-up is over: entries then leave it as fast as they come.
            config.max_cached_bytes = (128 << 10).max(4 * case.batch * (case.payload + 16));
            let recovered = Recovered::fresh(Incarnation(1), Membership::of_voters(ids));
            let raft = Raft::new(config, recovered, Instant(0))?;
            Ok(Node { raft, store: VecDeque::new(), applied: Applied::default() })
        };
        let nodes = [start(ids[0])?, start(ids[1])?, start(ids[2])?];
        let mut nodes = Self { nodes, wire: VecDeque::new(), now: Instant(0), next_token: 1 };
        nodes.now = nodes.nodes[0].raft.deadline().map_or(nodes.now, |(at, _)| at);
        nodes.step(0, Input::Tick)?;
        nodes.deliver()?;
        ensure!(nodes.nodes[0].raft.role() == RoleKind::Leader, "the first node was not elected");
        Ok(nodes)
    }

    /// Hands a node an input, and does what it wants done.
    fn step(&mut self, at: usize, input: Input) -> Result<()> {
        let Self { nodes, wire, now, .. } = self;
        let node = &mut nodes[at];
        node.raft.step(*now, input)?;
        while let Some(action) = node.raft.poll() {
            match action {
                Action::Send { to, message } => {
                    wire.push_back(Delivery { from: node.raft.id(), to, packet: H::pack(message) });
                }
                Action::Write(write) => node.write(*now, write)?,
                Action::Apply(apply) => node.apply(*now, &apply)?,
                // The log is never read back and nothing is asked for but proposals. News of roles may be ignored.
                _ => {}
            }
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<()> {
        while let Some(Delivery { from, to, packet }) = self.wire.pop_front() {
            let message = H::unpack(packet)?;
            self.step(to.0 as usize - 1, Input::Receive { from, message })?;
        }
        Ok(())
    }
}

impl Node {
    fn write(&mut self, now: Instant, mut write: Write) -> Result<()> {
        for run in mem::take(&mut write.entries) {
            if self.store.len() >= KEPT_RUNS {
                self.store.pop_front();
            }
            self.store.push_back(run);
        }
        Ok(self.raft.step(now, Input::Persisted(write.into_receipt()))?)
    }

    fn apply(&mut self, now: Instant, apply: &Apply) -> Result<()> {
        for entry in apply.entries.iter().flat_map(Run::entries) {
            if entry.kind == EntryKind::Command {
                self.applied.apply(&entry.payload);
            }
        }
        Ok(self.raft.step(now, Input::Applied { up_to: apply.last() })?)
    }
}

impl<H: Hop> Cluster for Nodes<H> {
    fn drive(&mut self, commands: &[Bytes]) -> Result<()> {
        self.now = self.now.plus(1);
        let first_token = Token(self.next_token);
        self.next_token += commands.len() as u64;
        self.step(0, Input::Propose(Proposal::new(first_token, Batch::from(commands))))?;
        self.deliver()
    }

    fn applied(&self) -> [Applied; NODES] {
        self.nodes.each_ref().map(|node| node.applied)
    }
}

//! quorate: three [`Raft`]s and the smallest driver that gives them their due.

use std::{collections::VecDeque, marker::PhantomData, mem};

use anyhow::{Result, ensure};
use bytes::Bytes;
use quorate_core::{
    Action, Apply, Batch, Config, EntryKind, Few, Incarnation, Input, Instant, Membership, Message, NodeId,
    Proposal, Raft, Recovered, RoleKind, Run, Token, Write, wire,
};

use super::{Applied, Case, Cluster, NODES};

/// Writes that a store keeps.
const KEPT_WRITES: usize = 16;

/// How a message gets from node to node.
pub trait Hop {
    /// A message as it arrives.
    ///
    /// # Errors
    /// If it can't be read any more.
    fn hop(message: Message) -> Result<Message>;
}

/// As it is.
#[derive(Debug)]
pub struct Direct;

impl Hop for Direct {
    fn hop(message: Message) -> Result<Message> {
        Ok(message)
    }
}

/// As contiguous bytes.
#[derive(Debug)]
pub struct Encoded;

impl Hop for Encoded {
    fn hop(message: Message) -> Result<Message> {
        let bytes = wire::encode(&message).to_bytes();
        drop(message);
        Ok(wire::decode(&bytes)?)
    }
}

/// Three nodes; the first leads.
#[derive(Debug)]
pub struct Nodes<H> {
    nodes: [Node; NODES],
    now: Instant,
    next_token: u64,
    hop: PhantomData<H>,
}

#[derive(Debug)]
struct Node {
    raft: Raft,
    /// The newest writes, as they would be on a disk.
    store: VecDeque<Few<Run>>,
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
        let mut nodes = Self { nodes, now: Instant(0), next_token: 1, hop: PhantomData };
        nodes.now = nodes.nodes[0].raft.deadline().map_or(nodes.now, |(at, _)| at);
        nodes.nodes[0].raft.step(nodes.now, Input::Tick)?;
        nodes.run()?;
        ensure!(nodes.nodes[0].raft.role() == RoleKind::Leader, "the first node was not elected");
        Ok(nodes)
    }

    /// Does what they want done, until none of them wants anything. A message is in time to be heard by the next step of
    /// whom it is for: the network is a function call.
    fn run(&mut self) -> Result<()> {
        let now = self.now;
        let mut busy = true;
        while busy {
            busy = false;
            for at in 0..NODES {
                while let Some(action) = self.nodes[at].raft.poll() {
                    busy = true;
                    match action {
                        Action::Send { to, message } => {
                            let from = NodeId(at as u64 + 1);
                            let input = Input::Receive { from, message: H::hop(message)? };
                            self.nodes[to.0 as usize - 1].raft.step(now, input)?;
                        }
                        Action::Write(write) => self.nodes[at].write(now, write)?,
                        Action::Apply(apply) => self.nodes[at].apply(now, &apply)?,
                        // The log is never read back and nothing is asked for but proposals. News of roles may be
                        // ignored.
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

impl Node {
    // Where the action is, so that it isn't moved once more.
    #[inline(always)]
    fn write(&mut self, now: Instant, mut write: Write) -> Result<()> {
        if self.store.len() >= KEPT_WRITES {
            self.store.pop_front();
        }
        self.store.push_back(mem::take(&mut write.entries));
        Ok(self.raft.step(now, Input::Persisted(write.into_receipt()))?)
    }

    #[inline(always)]
    fn apply(&mut self, now: Instant, apply: &Apply) -> Result<()> {
        for run in &apply.entries {
            for entry in run {
                if entry.kind == EntryKind::Command {
                    self.applied.apply(entry.payload);
                }
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
        let proposal = Proposal::new(first_token, Batch::from(commands));
        self.nodes[0].raft.step(self.now, Input::Propose(proposal))?;
        self.run()
    }

    fn applied(&self) -> [Applied; NODES] {
        self.nodes.each_ref().map(|node| node.applied)
    }
}

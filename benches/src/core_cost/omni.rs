//! omnipaxos, at its best: batches of exactly a drive's size, payloads shared and never copied, and a bounded store.

use std::{collections::VecDeque, error::Error, fmt, mem};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use omnipaxos::{
    ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig,
    ballot_leader_election::Ballot,
    messages::Message,
    storage::{Entry, NoSnapshot, StopSign, Storage, StorageOp, StorageResult},
    util::LogEntry,
};

use super::{Applied, Case, Cluster, KEPT_ENTRIES, NODES};

#[derive(Clone, Debug)]
struct Command(Bytes);

impl Entry for Command {
    type Snapshot = NoSnapshot;
}

/// Three nodes; the first leads.
pub struct Nodes {
    nodes: [Node; NODES],
    /// Messages under way, and room for those that they lead to.
    wire: Vec<Message<Command>>,
    outgoing: Vec<Message<Command>>,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("wire", &self.wire).finish_non_exhaustive()
    }
}

struct Node {
    paxos: OmniPaxos<Command, Store>,
    read_up_to: usize,
    applied: Applied,
}

impl Nodes {
    /// Three fresh nodes, and an election.
    ///
    /// # Errors
    /// If the first node does not get to lead.
    pub fn new(case: Case) -> Result<Self> {
        let start = |pid: u64| -> Result<Node> {
            let cluster_config =
                ClusterConfig { configuration_id: 1, nodes: vec![1, 2, 3], flexible_quorum: None };
            // A follower's batch is filled by the one message that carries a leader's.
            let server_config = ServerConfig { pid, batch_size: case.batch, ..ServerConfig::default() };
            let config = OmniPaxosConfig { cluster_config, server_config };
            let paxos = config.build(Store::default()).map_err(|error| anyhow!("{error:?}"))?;
            Ok(Node { paxos, read_up_to: 0, applied: Applied::default() })
        };
        let nodes = [start(1)?, start(2)?, start(3)?];
        let mut nodes = Self { nodes, wire: Vec::new(), outgoing: Vec::new() };
        nodes.nodes[0].paxos.try_become_leader();
        nodes.run(0);
        let leader = nodes.nodes[0].paxos.get_current_leader();
        ensure!(leader == Some((1, true)), "the first node was not elected: {leader:?}");
        Ok(nodes)
    }

    /// Does everything until nothing is left to do, after something was asked of node `first`. Whoever has been told
    /// something is asked what it has to say once it has heard all of it, and nobody else: omnipaxos merges what it
    /// has to say until then, and to ask is not free.
    fn run(&mut self, first: usize) {
        let Self { nodes, wire, outgoing } = self;
        let mut told = [false; NODES];
        told[first] = true;
        while told != [false; NODES] {
            for (node, told) in nodes.iter_mut().zip(&mut told) {
                if mem::take(told) {
                    node.paxos.take_outgoing_messages(outgoing);
                    wire.append(outgoing);
                }
            }
            for message in wire.drain(..) {
                let to = message.get_receiver() as usize - 1;
                nodes[to].paxos.handle_incoming(message);
                told[to] = true;
            }
        }
        for node in nodes {
            node.apply();
        }
    }
}

impl Node {
    fn apply(&mut self) {
        let entries = self.paxos.read_decided_suffix(self.read_up_to).unwrap_or_default();
        for entry in &entries {
            if let LogEntry::Decided(Command(command)) = entry {
                self.applied.apply(command);
            }
        }
        self.read_up_to += entries.len();
    }
}

impl Cluster for Nodes {
    fn drive(&mut self, commands: &[Bytes]) -> Result<()> {
        for command in commands {
            let appended = self.nodes[0].paxos.append(Command(command.clone()));
            appended.map_err(|error| anyhow!("refused: {error:?}"))?;
        }
        self.run(0);
        Ok(())
    }

    fn applied(&self) -> [Applied; NODES] {
        self.nodes.each_ref().map(|node| node.applied)
    }
}

/// As omnipaxos's own `MemoryStorage`, but bounded. It forgets by itself what every node has applied long ago: a trim by
/// message would only add to what is counted.
#[derive(Default)]
struct Store {
    log: VecDeque<Command>,
    /// How many entries have been forgotten.
    forgotten: usize,
    promise: Option<Ballot>,
    accepted_round: Option<Ballot>,
    decided: usize,
}

impl Store {
    fn forget_old(&mut self) {
        while self.log.len() >= KEPT_ENTRIES {
            self.log.pop_front();
            self.forgotten += 1;
        }
    }

    fn position(&self, index: usize) -> usize {
        index.saturating_sub(self.forgotten).min(self.log.len())
    }
}

impl Storage<Command> for Store {
    fn write_atomically(&mut self, ops: Vec<StorageOp<Command>>) -> StorageResult<()> {
        for op in ops {
            match op {
                StorageOp::AppendEntry(entry) => self.append_entry(entry)?,
                StorageOp::AppendEntries(entries) => self.append_entries(entries)?,
                StorageOp::AppendOnPrefix(from, entries) => self.append_on_prefix(from, entries)?,
                StorageOp::SetPromise(ballot) => self.set_promise(ballot)?,
                StorageOp::SetDecidedIndex(index) => self.set_decided_idx(index)?,
                StorageOp::SetAcceptedRound(ballot) => self.set_accepted_round(ballot)?,
                StorageOp::SetStopsign(stop) => self.set_stopsign(stop)?,
                StorageOp::SetCompactedIdx(_) | StorageOp::Trim(_) | StorageOp::SetSnapshot(_) => {
                    return Err(unused());
                }
            }
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: Command) -> StorageResult<()> {
        self.forget_old();
        self.log.push_back(entry);
        Ok(())
    }

    fn append_entries(&mut self, entries: Vec<Command>) -> StorageResult<()> {
        self.forget_old();
        self.log.extend(entries);
        Ok(())
    }

    fn append_on_prefix(&mut self, from: usize, entries: Vec<Command>) -> StorageResult<()> {
        self.log.truncate(self.position(from));
        self.append_entries(entries)
    }

    fn set_promise(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.promise = Some(ballot);
        Ok(())
    }

    fn set_decided_idx(&mut self, index: usize) -> StorageResult<()> {
        self.decided = index;
        Ok(())
    }

    fn get_decided_idx(&self) -> StorageResult<usize> {
        Ok(self.decided)
    }

    fn set_accepted_round(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.accepted_round = Some(ballot);
        Ok(())
    }

    fn get_accepted_round(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.accepted_round)
    }

    fn get_entries(&self, from: usize, to: usize) -> StorageResult<Vec<Command>> {
        Ok(self.log.range(self.position(from)..self.position(to)).cloned().collect())
    }

    fn get_log_len(&self) -> StorageResult<usize> {
        Ok(self.forgotten + self.log.len())
    }

    fn get_suffix(&self, from: usize) -> StorageResult<Vec<Command>> {
        Ok(self.log.range(self.position(from)..).cloned().collect())
    }

    fn get_promise(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.promise)
    }

    fn set_stopsign(&mut self, stop: Option<StopSign>) -> StorageResult<()> {
        if stop.is_some() { Err(unused()) } else { Ok(()) }
    }

    fn get_stopsign(&self) -> StorageResult<Option<StopSign>> {
        Ok(None)
    }

    fn trim(&mut self, _index: usize) -> StorageResult<()> {
        Err(unused())
    }

    fn set_compacted_idx(&mut self, _index: usize) -> StorageResult<()> {
        Err(unused())
    }

    fn get_compacted_idx(&self) -> StorageResult<usize> {
        Ok(0)
    }

    fn set_snapshot(&mut self, _snapshot: Option<NoSnapshot>) -> StorageResult<()> {
        Err(unused())
    }

    fn get_snapshot(&self) -> StorageResult<Option<NoSnapshot>> {
        Ok(None)
    }
}

fn unused() -> Box<dyn Error> {
    "nothing in this workload compacts or stops a log".into()
}

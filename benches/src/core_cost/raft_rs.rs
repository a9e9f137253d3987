//! raft-rs, at its best: one message for all the commands of a drive, payloads shared and never copied, no limit that
//! would have sizes counted, no log lines, appends acknowledged by the asynchronous way of a `Ready`, and a store without
//! locks that takes entries over instead of copying them.

use std::{collections::VecDeque, fmt};

use anyhow::{Result, ensure};
use bytes::Bytes;
use protobuf::Message as _;
use raft::{
    Config, Error, GetEntriesContext, RaftState, RawNode, StateRole, Storage, StorageError,
    eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot},
};
use slog::{Discard, Logger, o};

use super::{Applied, Cluster, KEPT_ENTRIES, NODES};

/// How a message gets from node to node.
pub trait Hop {
    /// A message under way.
    type Packet: fmt::Debug;
    /// Its author lets go of it.
    ///
    /// # Errors
    /// If it can't be encoded.
    fn pack(message: Message) -> Result<Self::Packet>;
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

    fn pack(message: Message) -> Result<Message> {
        Ok(message)
    }

    fn unpack(packet: Message) -> Result<Message> {
        Ok(packet)
    }
}

/// As contiguous bytes, into which the decoded entries point.
#[derive(Debug)]
pub struct Encoded;

impl Hop for Encoded {
    type Packet = (u64, Bytes);

    fn pack(message: Message) -> Result<(u64, Bytes)> {
        Ok((message.to, Bytes::from(message.write_to_bytes()?)))
    }

    fn unpack((_, bytes): (u64, Bytes)) -> Result<Message> {
        Ok(Message::parse_from_carllerche_bytes(&bytes)?)
    }
}

/// Three nodes; the first leads.
pub struct Nodes<H: Hop> {
    nodes: [Node; NODES],
    wire: VecDeque<(u64, H::Packet)>,
}

impl<H: Hop> fmt::Debug for Nodes<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("wire", &self.wire).finish_non_exhaustive()
    }
}

struct Node {
    raw: RawNode<Store>,
    applied: Applied,
}

impl<H: Hop> Nodes<H> {
    /// Three fresh nodes, and an election.
    ///
    /// # Errors
    /// If the first node does not get to lead.
    pub fn new() -> Result<Self> {
        let logger = Logger::root(Discard, o!());
        let start = |id: u64| -> Result<Node> {
            let config = Config {
                id,
                max_size_per_msg: raft::NO_LIMIT,
                // As quorate has them, though nothing here ever times out.
                check_quorum: true,
                pre_vote: true,
                ..Config::default()
            };
            let store = Store::new(vec![1, 2, 3]);
            Ok(Node { raw: RawNode::new(&config, store, &logger)?, applied: Applied::default() })
        };
        let mut nodes = Self { nodes: [start(1)?, start(2)?, start(3)?], wire: VecDeque::new() };
        nodes.nodes[0].raw.campaign()?;
        nodes.run()?;
        ensure!(nodes.nodes[0].raw.raft.state == StateRole::Leader, "the first node was not elected");
        Ok(nodes)
    }

    /// Does everything until nothing is left to do. What has come is taken in before anyone is asked what it wants:
    /// fewer, bigger `Ready`s.
    fn run(&mut self) -> Result<()> {
        loop {
            while let Some((to, packet)) = self.wire.pop_front() {
                self.nodes[to as usize - 1].raw.step(H::unpack(packet)?)?;
            }
            for node in &mut self.nodes {
                node.ready::<H>(&mut self.wire)?;
            }
            if self.wire.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Node {
    fn ready<H: Hop>(&mut self, wire: &mut VecDeque<(u64, H::Packet)>) -> Result<()> {
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            send::<H>(wire, ready.take_messages())?;
            let entries = ready.take_entries();
            let committed = ready.take_committed_entries();
            let store = self.raw.mut_store();
            if let Some(hard_state) = ready.hs() {
                store.hard_state = hard_state.clone();
            }
            store.append(entries);
            send::<H>(wire, ready.take_persisted_messages())?;
            let number = ready.number();
            self.raw.advance_append_async(ready);
            self.raw.on_persist_ready(number);
            if !committed.is_empty() {
                for entry in &committed {
                    if entry.entry_type == EntryType::EntryNormal && !entry.data.is_empty() {
                        self.applied.apply(&entry.data);
                    }
                }
                self.raw.advance_apply();
            }
        }
        Ok(())
    }
}

fn send<H: Hop>(wire: &mut VecDeque<(u64, H::Packet)>, messages: Vec<Message>) -> Result<()> {
    for message in messages {
        wire.push_back((message.to, H::pack(message)?));
    }
    Ok(())
}

impl<H: Hop> Cluster for Nodes<H> {
    fn drive(&mut self, commands: &[Bytes]) -> Result<()> {
        let entries: Vec<Entry> =
            commands.iter().map(|command| Entry { data: command.clone(), ..Entry::default() }).collect();
        let proposal = Message {
            msg_type: MessageType::MsgPropose,
            from: 1,
            entries: entries.into(),
            ..Message::default()
        };
        self.nodes[0].raw.step(proposal)?;
        self.run()
    }

    fn applied(&self) -> [Applied; NODES] {
        self.nodes.each_ref().map(|node| node.applied)
    }
}

/// As raft-rs's own `MemStorage`, but without its lock, bounded, and taking entries over.
struct Store {
    hard_state: HardState,
    members: ConfState,
    entries: VecDeque<Entry>,
    /// The entry before the first that is kept.
    compacted: (u64, u64),
}

impl Store {
    fn new(voters: Vec<u64>) -> Self {
        Self {
            hard_state: HardState::default(),
            members: ConfState { voters, ..ConfState::default() },
            entries: VecDeque::new(),
            compacted: (0, 0),
        }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        // All that is in it was applied everywhere in the last drive.
        while self.entries.len() >= KEPT_ENTRIES {
            if let Some(entry) = self.entries.pop_front() {
                self.compacted = (entry.index, entry.term);
            }
        }
        self.entries.extend(entries);
    }

    fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    fn offset(&self, index: u64) -> Result<usize, Error> {
        if index <= self.compacted.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        Ok((index - self.compacted.0 - 1) as usize)
    }
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState, Error> {
        Ok(RaftState::new(self.hard_state.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        _no_limit: impl Into<Option<u64>>,
        _always_at_once: GetEntriesContext,
    ) -> Result<Vec<Entry>, Error> {
        Ok(self.entries.range(self.offset(low)?..self.offset(high)?).cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64, Error> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        let entry = self.entries.get(self.offset(index)?);
        entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64, Error> {
        Ok(self.compacted.0 + 1)
    }

    fn last_index(&self) -> Result<u64, Error> {
        Ok(self.last())
    }

    fn snapshot(&self, _index: u64, _to: u64) -> Result<Snapshot, Error> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

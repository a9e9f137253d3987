//! A node as a machine: a disk, and perhaps a process that runs.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_core::{Apply, Instant, Load, Raft, Receipt, Snapshot, Write};

use crate::{
    disk::{Disk, Picture},
    lab::{Query, Told, Vigil},
    workload::{Replica, State},
};

/// What a node's machine holds.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) disk: Disk,
    /// What its clock showed when the process looked last.
    pub(crate) seen: Instant,
    /// Counts its processes: an event for an earlier one is for nobody.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    /// Receipts of earlier lives within the same process, which may be handed in at any time.
    pub(crate) stale: Vec<Receipt>,
    /// Its state machine: with the process, or durable of its own.
    pub(crate) machine: Option<Box<dyn Replica>>,
}

impl Node {
    pub(crate) fn raft(&self) -> Option<&Raft> {
        self.process.as_ref().map(|process| &process.raft)
    }
}

/// Something for a state machine.
#[derive(Debug)]
pub(crate) enum Work {
    Apply(Apply),
    /// A snapshot, as the disk has it: its state is known from when it was opened.
    Restore(Box<Snapshot>, Option<Picture>),
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) raft: Raft,
    /// Writes that the disk has not done.
    pub(crate) writes: VecDeque<Write>,
    pub(crate) work: VecDeque<Work>,
    /// Questions to the log that are not answered.
    pub(crate) loads: Vec<Load>,
    /// Up to here its state machine is, and in what state.
    pub(crate) machine: (u64, u64),
    /// What a snapshot that is being written down shows.
    pub(crate) picture: Option<(u64, u64, State)>,
    /// Reads that were taken with a query, and those that wait for the state machine.
    pub(crate) reads: Vec<(u64, Bytes)>,
    pub(crate) queries: Vec<Query>,
    /// What its core has told it.
    pub(crate) told: Told,
    /// Who sleeps, by what it was told and has said.
    pub(crate) vigil: Vigil,
}

impl Process {
    pub(crate) fn new(raft: Raft, machine: (u64, u64), now: Instant) -> Self {
        Self {
            told: Told::new(&raft),
            vigil: Vigil::new(now),
            raft,
            writes: VecDeque::new(),
            work: VecDeque::new(),
            loads: Vec::new(),
            machine,
            picture: None,
            reads: Vec::new(),
            queries: Vec::new(),
        }
    }
}

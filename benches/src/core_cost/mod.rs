//! The cost of the protocol alone: three nodes in one thread, messages that arrive at once, storage that is durable at
//! once, and a leader that never changes. What is left is what the library itself does for an entry.
//!
//! One **drive** hands the leader some commands, in the way its API likes best, then delivers everything until nothing
//! is left to do: every node has committed and applied all of them by then, which is checked. Commands are made
//! beforehand. Who copies them into its log pays for that; who can share them does so.
//!
//! [`quorate`](mod@quorate) and [`raft_rs`] run with and without their codecs on every hop, [`omni`] without, and
//! [`copies`] is what is left when there is no protocol at all. [`idle`] is about groups with nothing to do but their
//! timers.

pub mod cli;
pub mod copies;
pub mod idle;
pub mod omni;
pub mod quorate;
pub mod raft_rs;

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;

/// Nodes of a cluster; the first is its leader.
pub const NODES: usize = 3;

/// Entries that a store keeps, besides the newest batch: enough for anyone who lags, and no growth without end.
const KEPT_ENTRIES: usize = 1024;

/// What runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum System {
    /// quorate; messages are handed over as they are.
    Quorate,
    /// quorate; every message is encoded to contiguous bytes and decoded again.
    QuorateCodec,
    /// raft-rs; messages are handed over as they are.
    RaftRs,
    /// raft-rs; every message is encoded to contiguous bytes and decoded again.
    RaftRsCodec,
    /// omnipaxos; messages are handed over as they are.
    Omnipaxos,
    /// Three copies of each command and nothing else.
    Copies,
}

/// Three nodes and all that is between them.
pub trait Cluster {
    /// Replicates these commands: when it returns, every node has applied them.
    ///
    /// # Errors
    /// If a node refuses something: then nothing that was measured is worth anything.
    fn drive(&mut self, commands: &[Bytes]) -> Result<()>;

    /// What each node has applied since the start.
    fn applied(&self) -> [Applied; NODES];
}

/// A state machine that looks at each command and keeps nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Applied {
    /// How many commands.
    pub commands: u64,
    /// Their lengths and their first bytes, summed.
    pub digest: u64,
}

impl Applied {
    /// Applies one command.
    pub fn apply(&mut self, command: &[u8]) {
        self.commands += 1;
        self.digest += command.len() as u64 + u64::from(command.first().copied().unwrap_or_default());
    }
}

/// One case: what runs, and on what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// What runs.
    pub system: System,
    /// Bytes in a command.
    pub payload: usize,
    /// Commands in a drive.
    pub batch: usize,
    /// Drives before the measured ones, so that queues have grown and caches are full.
    pub warmup: usize,
    /// Drives that are measured.
    pub drives: usize,
}

impl Case {
    /// Runs it; `around` is handed what is to be measured and calls it once.
    ///
    /// # Errors
    /// If a node refuses something, or not every node has applied every command in the end.
    pub fn run<T>(self, around: impl FnOnce(&mut dyn FnMut()) -> T) -> Result<T> {
        match self.system {
            System::Quorate => self.run_on(quorate::Nodes::<quorate::Direct>::new(self)?, around),
            System::QuorateCodec => self.run_on(quorate::Nodes::<quorate::Encoded>::new(self)?, around),
            System::RaftRs => self.run_on(raft_rs::Nodes::<raft_rs::Direct>::new()?, around),
            System::RaftRsCodec => self.run_on(raft_rs::Nodes::<raft_rs::Encoded>::new()?, around),
            System::Omnipaxos => self.run_on(omni::Nodes::new(self)?, around),
            System::Copies => self.run_on(copies::Nodes::default(), around),
        }
    }

    fn run_on<C: Cluster, T>(self, mut cluster: C, around: impl FnOnce(&mut dyn FnMut()) -> T) -> Result<T> {
        let commands = self.commands();
        for _ in 0..self.warmup {
            cluster.drive(&commands)?;
        }
        let mut result = Ok(());
        let measured = around(&mut || result = measured_workload(&mut cluster, &commands, self.drives));
        result?;

        let mut expected = Applied::default();
        for command in &commands {
            expected.apply(command);
        }
        let rounds = (self.warmup + self.drives) as u64;
        expected.commands *= rounds;
        expected.digest *= rounds;
        for (node, applied) in cluster.applied().into_iter().enumerate() {
            ensure!(applied == expected, "node {node} has applied {applied:?}, not {expected:?}");
        }
        Ok(measured)
    }

    fn commands(self) -> Vec<Bytes> {
        (0..self.batch).map(|n| Bytes::from(vec![n as u8; self.payload])).collect()
    }
}

/// What the profiler counts, found by its name: so it is a function of its own, and nothing in it is one of that name.
#[inline(never)]
fn measured_workload<C: Cluster>(cluster: &mut C, commands: &[Bytes], drives: usize) -> Result<()> {
    for _ in 0..drives {
        cluster.drive(commands)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_of_every_system_applies_every_command() {
        for &system in System::value_variants() {
            for (payload, batch) in [(64, 1), (1, 16), (1024, 256)] {
                let mut measured = 0;
                let case = Case { system, payload, batch, warmup: 2, drives: 3 };
                case.run(|workload| {
                    measured += 1;
                    workload();
                })
                .unwrap();
                assert_eq!(measured, 1, "{case:?}");
                // Without the measured drives, that they are missing is noticed.
                let lost = case.run(|_workload| {}).unwrap_err();
                assert!(lost.to_string().contains("has applied"), "{case:?}: {lost}");
            }
        }
    }

    #[test]
    fn idle_groups_live_on_without_an_election() {
        let mut groups = idle::Groups::new(3).unwrap();
        groups.idle_workload(5).unwrap();
        assert!(groups.leaders_stay());
    }
}

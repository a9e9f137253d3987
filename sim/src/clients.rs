//! Clients: they ask whom they take for the leader, or anyone, for writes and reads.

use bytes::Bytes;
use quorate_core::{Index, ReadKind};

use crate::{
    op::What,
    stats::{Count, Counts},
    violation::Verdict,
    world::{Event, World},
};

impl World {
    /// The next request, and when the one after it comes.
    pub(crate) fn request(&mut self) -> Verdict {
        let delay = 1 + self.client_rng.exponential(self.plan.request_every);
        self.push(delay, Event::Request);
        if self.rest.is_quiet() {
            return Ok(());
        }
        let slot = self.choose_node();
        if !self.is_running(slot) {
            return Ok(());
        }
        let reads = self.now < self.no_writes_before || self.client_rng.chance(self.plan.read_share);
        if reads { self.ask_read(slot) } else { self.ask_write(slot) }
    }

    /// Mostly somebody who leads: where there are two, for one of them doesn't know yet, the one as likely as the other.
    fn choose_node(&mut self) -> usize {
        let anyone = self.client_rng.index(self.hosts.len());
        if self.client_rng.chance(0.2) {
            return anyone;
        }
        let leaders = self.leaders();
        if leaders.is_empty() { anyone } else { self.client_rng.pick(&leaders) }
    }

    pub(crate) fn ask_write(&mut self, slot: usize) -> Verdict {
        let count = self.client_rng.between(1, self.plan.largest_batch);
        let commands = (0..count)
            .map(|_| Bytes::from(vec![b'.'; self.client_rng.below(self.plan.longest_command) as usize]))
            .collect();
        // Now and then only for the term in which it was asked: a leader's own decision.
        let term = self.raft(slot).map(quorate_core::Raft::term);
        let term = term.filter(|_| self.client_rng.chance(0.05));
        self.ask(slot, What::Propose { commands, term })
    }

    fn ask_read(&mut self, slot: usize) -> Verdict {
        let kind = match self.client_rng.below(10) {
            // What somebody has seen: on any node, of any age.
            0 => {
                if self.client_rng.chance(0.1) {
                    self.ask(slot, What::CancelRead)?;
                }
                ReadKind::AtLeast(Index(self.client_rng.below(self.lab.ghost.committed() + 2)))
            }
            1..=6 if self.plan.setup.config.lease_reads => ReadKind::Lease,
            _ => ReadKind::Linearizable,
        };
        self.ask(slot, What::Read { kind })
    }
}

/// The least that a whole run commits.
pub(crate) const LEAST_COMMITS: u64 = 200;

/// The fewest leaders that go in a run with faults.
pub(crate) const LEAST_LEADER_CHANGES: u64 = 3;

/// The least that a run with faults must have met, or it proves little.
pub(crate) fn reached_enough(counts: &Counts, calm: bool) -> Result<(), String> {
    let least = [
        (Count::Commits, LEAST_COMMITS),
        (Count::LeaderChanges, if calm { 0 } else { LEAST_LEADER_CHANGES }),
    ];
    for (count, least) in least {
        if counts[count] < least {
            return Err(format!("only {} {}, but {least} are the least", counts[count], count.name()));
        }
    }
    Ok(())
}

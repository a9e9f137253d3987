//! Clients: they ask whom they take for the leader, or anyone, for writes and reads.

use quorate_core::{Batch, Index, Input, Proposal, ReadKind, RoleKind, Token};

use crate::{
    ghost::{Floor, Kind},
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
        if self.nodes[slot].process.is_none() {
            return Ok(());
        }
        let reads = self.now < self.no_writes_before || self.client_rng.chance(self.plan.read_share);
        if reads { self.ask_read(slot) } else { self.ask_write(slot) }
    }

    /// Mostly somebody who leads: where there are two, for one of them doesn't know yet, the one as likely as the other.
    fn choose_node(&mut self) -> usize {
        let anyone = self.client_rng.index(self.nodes.len());
        if self.client_rng.chance(0.2) {
            return anyone;
        }
        let leads = |slot: &usize| {
            self.nodes[*slot].process.as_ref().is_some_and(|process| process.raft.role() == RoleKind::Leader)
        };
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(leads).collect();
        if leaders.is_empty() { anyone } else { self.client_rng.pick(&leaders) }
    }

    pub(crate) fn ask_write(&mut self, slot: usize) -> Verdict {
        let count = self.client_rng.between(1, self.plan.largest_batch);
        let first = self.ghost.next_token();
        self.ghost.ask(slot, self.nodes[slot].life, Kind::Proposal, count);
        let commands: Vec<Vec<u8>> = (first..first + count)
            .map(|token| {
                let mut command = token.to_le_bytes().to_vec();
                command.resize(8 + self.client_rng.below(self.plan.longest_command) as usize, b'.');
                command
            })
            .collect();
        let proposal = Proposal::new(Token(first), Batch::from(commands.as_slice()));
        self.feed(slot, Input::Propose(proposal))
    }

    fn ask_read(&mut self, slot: usize) -> Verdict {
        let floor = self.ghost.floor();
        let (kind, floor, why) = match self.client_rng.below(10) {
            // What somebody has seen: on any node, of any age.
            0 => {
                let index = self.client_rng.below(self.ghost.committed() + 1);
                (ReadKind::AtLeast(Index(index)), index, Floor::Asked)
            }
            1..=6 if self.plan.config.lease_reads => (ReadKind::Lease, floor, Floor::Leased),
            _ => (ReadKind::Linearizable, floor, Floor::Acknowledged),
        };
        self.read(slot, kind, floor, why)
    }

    /// A lease read, at once.
    pub(crate) fn ask_leased(&mut self, slot: usize) -> Verdict {
        self.read(slot, ReadKind::Lease, self.ghost.floor(), Floor::Leased)
    }

    fn read(&mut self, slot: usize, kind: ReadKind, floor: u64, why: Floor) -> Verdict {
        let token = Token(self.ghost.next_token());
        self.ghost.ask(slot, self.nodes[slot].life, Kind::Read { floor, why }, 1);
        self.feed(slot, Input::Read { token, kind })
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

//! A node as a machine: a disk, a clock, and perhaps a process that runs.

use std::collections::VecDeque;

use quorate_core::{
    Apply, Few, HardState, Incarnation, Index, Input, Instant, Load, Loaded, LogId, Membership, Raft,
    Recovered, Run, TermStart, Write,
};

/// What a node's machine holds.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// Counts its processes: an event for an earlier one is for nobody.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    /// A stopped process (as by SIGSTOP): what comes waits.
    pub(crate) paused: bool,
    pub(crate) inbox: VecDeque<Input>,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) raft: Raft,
    /// Writes that the disk has not begun.
    pub(crate) queued: VecDeque<Write>,
    /// Writes that the disk is at.
    pub(crate) syncing: VecDeque<Write>,
    /// How many times the disk has taken up something.
    pub(crate) syncs: u64,
    pub(crate) applies: VecDeque<Apply>,
    pub(crate) applying: bool,
    /// When it will look at its clock next, in true time.
    pub(crate) wake_at: u64,
}

impl Process {
    pub(crate) const fn new(raft: Raft) -> Self {
        Self {
            raft,
            queued: VecDeque::new(),
            syncing: VecDeque::new(),
            syncs: 0,
            applies: VecDeque::new(),
            applying: false,
            wake_at: u64::MAX,
        }
    }
}

/// What is durable.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) log: Vec<Run>,
    incarnation: u64,
    /// Up to here the state machine's own state is durable.
    pub(crate) applied: u64,
}

impl Disk {
    /// Does a write: all of it.
    pub(crate) fn apply(&mut self, write: &Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = write.truncate {
            let kept = self.log.partition_point(|run| run.last() < from);
            let cut = self.log.get(kept).and_then(|run| run.ending_before(from));
            self.log.truncate(kept);
            self.log.extend(cut);
        }
        self.log.extend(write.entries.iter().cloned());
    }

    fn last(&self) -> LogId {
        self.log.last().map_or(LogId::ZERO, Run::last_id)
    }

    /// Opens the store: another incarnation.
    pub(crate) fn recover(&mut self, membership: Membership) -> Recovered {
        self.incarnation += 1;
        let mut recovered = Recovered::fresh(Incarnation(self.incarnation), membership);
        recovered.hard_state = self.hard_state;
        recovered.last = self.last().index;
        recovered.applied = Index(self.applied);
        for run in &self.log {
            if recovered.terms.last().is_none_or(|start| start.term != run.term()) {
                recovered.terms.push(TermStart { first: run.first(), term: run.term() });
            }
            recovered.memberships.extend(run.memberships());
        }
        recovered
    }

    /// Reads entries back.
    pub(crate) fn load(&self, load: &Load) -> Loaded {
        let mut left = load.max_bytes;
        let mut entries = Few::new();
        let first = self.log.partition_point(|run| run.last() < load.first);
        for run in self.log.iter().skip(first).take_while(|run| run.first() <= load.last) {
            let part = run.starting_at(load.first).and_then(|part| part.ending_before(load.last.next()));
            let Some(part) = part else { break };
            if !entries.is_empty() && part.bytes() > left {
                break;
            }
            let fits = part.within(left);
            left = left.saturating_sub(fits.bytes());
            let cut = fits.count() < part.count();
            entries.push(fits);
            if cut || left == 0 {
                break;
            }
        }
        Loaded::Entries(entries)
    }
}

/// A clock that began at another moment, and goes a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: u64,
    /// Parts per million; negative for slow.
    pub(crate) drift: i64,
}

impl Clock {
    /// What it shows at `now` of true time.
    pub(crate) fn at(self, now: u64) -> Instant {
        let rate = (1_000_000 + self.drift) as u64;
        Instant(self.offset + (u128::from(now) * u128::from(rate) / 1_000_000) as u64)
    }

    /// The first moment of true time at which it shows `instant` or later.
    pub(crate) fn when(self, instant: Instant) -> u64 {
        let rate = (1_000_000 + self.drift) as u64;
        let shown = instant.0.saturating_sub(self.offset);
        (u128::from(shown) * 1_000_000).div_ceil(u128::from(rate)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_asked_to_wait_for() {
        for drift in [-100_000, -7, 0, 7, 100_000] {
            let clock = Clock { offset: 12_345, drift };
            for instant in [0, 12_345, 12_346, 1_000_000, 77_777_777] {
                let when = clock.when(Instant(instant));
                assert!(clock.at(when) >= Instant(instant), "{drift} {instant}");
                assert!(when == 0 || clock.at(when - 1) < Instant(instant), "{drift} {instant}");
            }
        }
    }
}

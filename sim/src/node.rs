//! A node as a machine: a disk, a clock, and perhaps a process that runs.

use std::collections::VecDeque;

use quorate_core::{Apply, Input, Instant, Raft, Snapshot, Write};

use crate::disk::Disk;

/// What a node's machine holds.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// What it showed when the process looked last.
    pub(crate) seen: Instant,
    /// Until then its timers don't fire, though it does everything else.
    pub(crate) ticks_from: u64,
    /// Counts its processes: an event for an earlier one is for nobody.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    /// A stopped process (as by SIGSTOP): what comes waits.
    pub(crate) paused: bool,
    /// With the number of the message, if it is one.
    pub(crate) inbox: VecDeque<(u64, Input)>,
    pub(crate) stage: Stage,
}

/// Where a node is in its existence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Present,
    /// It is no member any more, and will be gone some time.
    Leaving,
    /// It is no member any more, but nobody turns it off.
    Lingering,
    Gone,
}

impl Node {
    /// Is it there, running or not?
    pub(crate) const fn exists(&self) -> bool {
        matches!(self.stage, Stage::Present | Stage::Leaving | Stage::Lingering)
    }
}

/// Something for a state machine.
#[derive(Debug)]
pub(crate) enum Work {
    Apply(Apply),
    /// A snapshot, as the disk has it: its state is known from when it was opened.
    Restore(Box<Snapshot>, Option<u64>),
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
    pub(crate) work: VecDeque<Work>,
    pub(crate) applying: bool,
    /// Up to here its state machine is, and in what state.
    pub(crate) machine: (u64, u64),
    /// A snapshot is being taken.
    pub(crate) picturing: bool,
    /// When it will look at its clock next, in true time.
    pub(crate) wake_at: u64,
}

impl Process {
    pub(crate) const fn new(raft: Raft, machine: (u64, u64)) -> Self {
        Self {
            raft,
            queued: VecDeque::new(),
            syncing: VecDeque::new(),
            syncs: 0,
            work: VecDeque::new(),
            applying: false,
            machine,
            picturing: false,
            wake_at: u64::MAX,
        }
    }

    /// What it has issued that is not durable yet.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Write> {
        self.syncing.iter().chain(&self.queued)
    }
}

/// A clock that began at another moment, and goes a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: u64,
    /// Parts per million; negative for slow.
    pub(crate) drift: i64,
    /// How far it was set forward, or back, since it began.
    pub(crate) jump: i64,
}

impl Clock {
    /// What it shows at `now` of true time.
    pub(crate) fn at(self, now: u64) -> Instant {
        let rate = (1_000_000 + self.drift) as u64;
        Instant(self.base() + (u128::from(now) * u128::from(rate) / 1_000_000) as u64)
    }

    fn base(self) -> u64 {
        self.offset.saturating_add_signed(self.jump)
    }

    /// The first moment of true time at which it shows `instant` or later.
    pub(crate) fn when(self, instant: Instant) -> u64 {
        let rate = (1_000_000 + self.drift) as u64;
        let shown = instant.0.saturating_sub(self.base());
        (u128::from(shown) * 1_000_000).div_ceil(u128::from(rate)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_asked_to_wait_for() {
        for drift in [-100_000, -7, 0, 7, 100_000] {
            let clock = Clock { offset: 12_340, drift, jump: 5 };
            for instant in [0, 12_345, 12_346, 1_000_000, 77_777_777] {
                let when = clock.when(Instant(instant));
                assert!(clock.at(when) >= Instant(instant), "{drift} {instant}");
                assert!(when == 0 || clock.at(when - 1) < Instant(instant), "{drift} {instant}");
            }
        }
    }
}

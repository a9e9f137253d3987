//! When snapshots are taken, how long they are on their way, and what becomes of them there.

use crate::{
    op::{Kind, Op, What},
    stats::Count,
    violation::Verdict,
    watch::Seen,
    world::{Event, World},
};

impl World {
    /// Some machine's state becomes a snapshot, and the next one later.
    pub(crate) fn take_snapshot(&mut self) -> Verdict {
        let delay = 1 + self.snapshot_rng.exponential(self.plan.snapshot_every);
        self.push(delay, Event::TakeSnapshot);
        if self.rest.is_quiet() {
            return Ok(());
        }
        let slot = self.snapshot_rng.index(self.hosts.len());
        let length = self.snapshot_rng.exponential(self.plan.snapshot_mean);
        let Some(process) = &self.lab.nodes[slot].process else { return Ok(()) };
        if self.hosts[slot].paused || process.picture.is_some() {
            return Ok(());
        }
        let applied = process.machine.0;
        if self.snapshot_rng.chance(0.05) {
            // A driver that is wrong about what it has: refused, or something is lost.
            let snapshot = Some(applied + 1 + self.snapshot_rng.below(5));
            return self.act(slot, What::Compact { snapshot, keep: 0 });
        }
        self.lab.perform(self.now, Op::TakeSnapshot { slot })?;
        let life = self.life(slot);
        self.push(length, Event::SnapshotTaken { slot, life });
        Ok(())
    }

    /// It is durable now: the core may let its log begin later.
    pub(crate) fn snapshot_taken(&mut self, slot: usize, life: u64) -> Verdict {
        if self.life(slot) != life {
            return Ok(());
        }
        self.lab.perform(self.now, Op::SnapshotDurable { slot })?;
        if self.lab.outcome.snapshot.is_none() {
            return Ok(());
        }
        if self.faulty && self.plan.crash_every > 0 && self.snapshot_rng.chance(0.03) {
            self.crash(slot)?;
            self.plan_restart(slot);
            return Ok(());
        }
        let keep = self.snapshot_rng.pick(&[0, 0, 1, 5, 50, 1000]);
        self.act(slot, What::Compact { snapshot: None, keep })
    }

    /// Streams a snapshot to a peer.
    pub(crate) fn send_snapshot(&mut self, from: usize, to: usize, nth: u32) {
        let mut delay = 1 + self.snapshot_rng.exponential(self.plan.snapshot_mean);
        if self.faulty && self.snapshot_rng.chance(self.plan.snapshot_fails) {
            // It breaks off, now or later; or nobody hears that it came.
            self.lab.counts.bump(Count::SnapshotsFailed);
            if self.snapshot_rng.chance(0.3) {
                let late = delay + self.snapshot_rng.exponential(2_000_000);
                self.plan_arrival(late, Event::Shipped { from, to, nth, tell: false });
            }
            self.push(delay, Event::ShipEnded { slot: from, to, nth, arrived: false });
            return;
        }
        if self.faulty && self.snapshot_rng.chance(self.plan.snapshot_fails) {
            // It comes twice.
            let late = delay + self.snapshot_rng.exponential(2_000_000);
            self.plan_arrival(late, Event::Shipped { from, to, nth, tell: false });
        }
        if self.faulty && self.snapshot_rng.chance(0.2) {
            delay += self.snapshot_rng.exponential(10 * self.plan.snapshot_mean);
        }
        self.plan_arrival(delay, Event::Shipped { from, to, nth, tell: true });
    }

    fn plan_arrival(&mut self, delay: u64, event: Event) {
        if self.faulty {
            self.last_straggler = self.last_straggler.max(self.now + delay);
        }
        self.push(delay, event);
    }

    /// All of a snapshot has come; its sender hears of that, or not.
    pub(crate) fn shipped(&mut self, from: usize, to: usize, nth: u32, tell: bool) -> Verdict {
        let arrives = to < self.hosts.len()
            && self.is_running(to)
            && !self.network.is_cut(from, to)
            && (self.sends_still(from, to, nth) || !tell || self.snapshot_rng.chance(0.3));
        if arrives {
            let ago = self.lab.ago(from, to, Kind::InstallSnapshot, nth);
            self.act(to, What::Ship { from, ago })?;
        } else if let Some(ship) = self.lab.shipment(from, to, nth) {
            let id = ship.number;
            self.lab.see(&Seen::Lost { id, why: "the snapshot broke off" })?;
        }
        if !tell {
            return Ok(());
        }
        // A stopped sender hears of it when it goes on.
        self.happen(Event::ShipEnded { slot: from, to, nth, arrived: arrives })
    }
}

//! How long everything takes: messages, disks, state machines; and what a driver does in between, now and then crashing in the
//! middle of it.

use crate::{
    faults::Fault,
    lab::{Outcome, Parcel},
    node::Work,
    op::{Op, What},
    stats::Count,
    violation::Verdict,
    watch::Seen,
    world::{Event, World},
};

impl World {
    /// A core takes something up; what follows from it is planned.
    pub(crate) fn act(&mut self, slot: usize, what: What) -> Verdict {
        self.act_on(slot, what, None)
    }

    /// The same, with the message at hand.
    pub(crate) fn act_on(&mut self, slot: usize, what: What, parcel: Option<Parcel>) -> Verdict {
        let now = self.hosts[slot].clock.at(self.now).0;
        self.lab.perform_with(self.now, Op::Input { slot, now, what }, parcel)?;
        self.follow_up(slot)
    }

    /// Somebody asks a node: it is taken up at once, unless the process is stopped.
    pub(crate) fn ask(&mut self, slot: usize, what: What) -> Verdict {
        self.happen(Event::Ask { slot, life: self.life(slot), what })
    }

    /// Plans what a step has led to; now and then, the process crashes in the middle of doing it.
    pub(crate) fn follow_up(&mut self, slot: usize) -> Verdict {
        self.hear()?;
        let Outcome { sends, wrote, work, loads, ships, .. } = &mut self.lab.outcome;
        let (wrote, work) = (*wrote, *work);
        let (mut sends, loads, mut ships) =
            (std::mem::take(sends), std::mem::take(loads), std::mem::take(ships));
        let any = wrote || work || !(sends.is_empty() && loads.is_empty() && ships.is_empty());
        let crash = any && self.faulty && self.driver_rng.chance(self.plan.crash_at_action);
        if crash {
            // Any of it was done, in whatever order; and the write perhaps begun.
            sends.retain(|_| self.driver_rng.chance(0.5));
            ships.retain(|_| self.driver_rng.chance(0.5));
        }
        for parcel in sends.drain(..) {
            self.send(parcel)?;
        }
        for (to, nth) in ships.drain(..) {
            self.send_snapshot(slot, to, nth);
        }
        if crash {
            self.lab.counts.bump(Count::CrashesAtAction);
            let waiting = self.lab.nodes[slot].process.as_ref().map_or(0, |process| process.writes.len());
            let issued = waiting - usize::from(wrote && waiting > 0 && self.driver_rng.chance(0.5));
            let kept = self.driver_rng.index(issued + 1);
            self.crash_keeping(slot, kept)?;
            self.plan_restart(slot);
            return Ok(());
        }
        for load in &loads {
            let delay = self.disk_rng.exponential(self.plan.disk_mean);
            let life = self.life(slot);
            self.push(delay, Event::Loaded { slot, life, load: *load });
        }
        if wrote {
            self.begin_sync(slot);
        }
        if work {
            self.begin_work(slot);
        }
        // What was allocated serves the next step, too.
        let outcome = &mut self.lab.outcome;
        (outcome.sends, outcome.loads, outcome.ships) = (sends, loads, ships);
        self.plan_wake(slot);
        Ok(())
    }

    fn send(&mut self, parcel: Parcel) -> Verdict {
        let Self { network, queue, plan, lab, now, faulty, last_straggler, .. } = self;
        let arrive = |at: u64, parcel| {
            if *faulty {
                *last_straggler = at.max(*last_straggler);
            }
            queue.push(at, Event::Deliver(parcel));
        };
        let id = parcel.id;
        let lost = network.send(*now, parcel, plan, &mut lab.counts, arrive)?;
        match lost {
            Some(why) => self.lab.see(&Seen::Lost { id, why }),
            None => Ok(()),
        }
    }

    // ---- the disk ----

    /// The disk takes up what is queued: one write, or all of them in one commit.
    pub(crate) fn begin_sync(&mut self, slot: usize) {
        let group = self.disk_rng.chance(self.plan.group_commit);
        let stall = self.faulty && self.disk_rng.chance(self.plan.disk_stall);
        let mut delay = 20 + self.disk_rng.exponential(self.plan.disk_mean);
        let host = &mut self.hosts[slot];
        let Some(process) = &self.lab.nodes[slot].process else { return };
        if host.syncing > 0 || process.writes.is_empty() {
            return;
        }
        host.syncing = if group { process.writes.len() } else { 1 };
        host.syncs += 1;
        let number = host.syncs;
        if stall {
            self.lab.counts.bump(Count::Stalls);
            // Seconds, or for good, as far as anybody can tell.
            delay +=
                if self.disk_rng.chance(0.1) { 60_000_000 } else { self.disk_rng.exponential(3_000_000) };
        }
        let life = self.life(slot);
        self.push(delay, Event::Synced { slot, life, number });
    }

    /// Whatever its disk is stalled at is done soon.
    pub(crate) fn end_stall(&mut self, slot: usize) {
        let (life, number) = (self.life(slot), self.hosts[slot].syncs);
        self.push(100, Event::Synced { slot, life, number });
    }

    pub(crate) fn synced(&mut self, slot: usize, life: u64, number: u64) -> Verdict {
        let host = &mut self.hosts[slot];
        if self.lab.nodes[slot].life != life || host.syncs != number || host.syncing == 0 {
            return Ok(());
        }
        if host.stalled_until > self.now && self.faulty {
            let left = host.stalled_until - self.now;
            self.push(left, Event::Synced { slot, life, number });
            return Ok(());
        }
        let count = std::mem::take(&mut host.syncing);
        let full = host.full_until > self.now;
        if self.faulty && (full || self.disk_rng.chance(self.plan.disk_fails)) {
            return self.disk_fails(slot, count, full);
        }
        // The disk goes on with the next before the core has heard of these.
        let now = self.hosts[slot].clock.at(self.now).0;
        self.lab.perform(self.now, Op::Input { slot, now, what: What::Persist { count } })?;
        self.follow_up(slot)?;
        self.begin_sync(slot);
        Ok(())
    }

    /// A commit has failed. Some of it may be durable; the process is told, and started again some time later.
    fn disk_fails(&mut self, slot: usize, count: usize, full: bool) -> Verdict {
        self.act(slot, What::DiskFails { count })?;
        // It must stay silent, whatever comes.
        let delay = self.disk_rng.exponential(300_000);
        let life = self.life(slot);
        self.push(delay, Event::Fault(Fault::AfterDiskFailure { slot, life, full }));
        Ok(())
    }

    // ---- the state machine ----

    pub(crate) fn begin_work(&mut self, slot: usize) {
        if self.hosts[slot].applying {
            return;
        }
        let Some(work) = self.next_work(slot) else { return };
        let restores = matches!(work, Work::Restore(..));
        let mut delay = self.driver_rng.exponential(self.plan.apply_mean);
        if restores {
            delay += self.snapshot_rng.exponential(self.plan.snapshot_mean);
        }
        if self.faulty && self.rare_rng.chance(self.plan.apply_stall) {
            self.lab.counts.bump(Count::SlowApplies);
            delay += self.rare_rng.below(2_000_000);
        }
        self.hosts[slot].applying = true;
        let life = self.life(slot);
        self.push(delay, Event::Applied { slot, life });
    }

    pub(crate) fn applied(&mut self, slot: usize, life: u64) -> Verdict {
        if self.life(slot) != life || !self.is_running(slot) {
            return Ok(());
        }
        self.hosts[slot].applying = false;
        self.act(slot, What::Apply)?;
        self.begin_work(slot);
        Ok(())
    }
}

//! Faults: when they strike, and whom.

use quorate_core::{Input, RoleKind};

use crate::{
    plan::Profile,
    stats::Count,
    violation::Verdict,
    world::{Event, World},
};

/// Something goes wrong, or is mended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A process crashes; the next one will, later.
    Crash,
    /// A process stops for a while.
    Pause,
    /// Links are cut.
    Cut,
    /// The links are mended.
    Mend,
    /// A clock is set back or forth.
    Jump,
    /// A driver ticks though nothing is due.
    EarlyTick,
    /// All that goes to and from the leader is held up, as long as it takes to elect another; its timers may be, too.
    Hold,
    /// Some hear the leader no more.
    Split,
    /// Somebody who hears the leader is to help those who don't, as the leader is held up.
    Wish { slot: usize },
    /// The leader is taken out, so that every run sees some leaders go.
    TakeLeader,
    /// A process whose disk has failed ends.
    AfterDiskFailure { slot: usize, life: u64 },
}

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let plan = &self.plan;
        let every = [
            (plan.crash_every, Fault::Crash),
            (plan.pause_every, Fault::Pause),
            (plan.cut_every, Fault::Cut),
        ];
        let rare = [
            (plan.jump_every, Fault::Jump),
            (plan.early_tick_every, Fault::EarlyTick),
            (plan.hold_every, Fault::Hold),
        ];
        for (mean, fault) in every {
            if mean > 0 {
                let delay = self.fault_rng.exponential(mean);
                self.push(delay, Event::Fault(fault));
            }
        }
        for (mean, fault) in rare {
            if mean > 0 {
                let delay = self.rare_rng.exponential(mean);
                self.push(delay, Event::Fault(fault));
            }
        }
        if self.plan.profile != Profile::Calm {
            for n in 1..=6 {
                self.push(self.plan.duration / 7 * n, Event::Fault(Fault::TakeLeader));
            }
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault) -> Verdict {
        if let Fault::AfterDiskFailure { slot, life } = fault {
            if self.nodes[slot].life == life {
                self.crash(slot)?;
                self.plan_restart(slot);
            }
            return Ok(());
        }
        if let Fault::EarlyTick = fault {
            // No fault, in truth: these go on to the end.
            return self.tick_early();
        }
        if !self.faulty {
            return Ok(());
        }
        match fault {
            Fault::Crash => {
                let delay = self.fault_rng.exponential(self.plan.crash_every);
                self.push(delay, Event::Fault(Fault::Crash));
                // One, or now and then all of them: the power goes.
                let all = self.fault_rng.chance(0.05);
                let victim = self.victim();
                for slot in 0..self.nodes.len() {
                    if (all || slot == victim) && self.nodes[slot].process.is_some() {
                        self.crash(slot)?;
                        self.plan_restart(slot);
                    }
                }
                Ok(())
            }
            Fault::Pause => {
                let delay = self.fault_rng.exponential(self.plan.pause_every);
                self.push(delay, Event::Fault(Fault::Pause));
                let slot = self.victim();
                let length = self.fault_rng.exponential(self.plan.pause_mean);
                self.pause(slot, length);
                Ok(())
            }
            Fault::Cut => {
                let length = self.fault_rng.exponential(self.plan.cut_mean);
                self.cut_some_links(length);
                self.push(length, Event::Fault(Fault::Mend));
                let delay = length + self.fault_rng.exponential(self.plan.cut_every);
                self.push(delay, Event::Fault(Fault::Cut));
                Ok(())
            }
            Fault::Mend => {
                self.trace.line(self.now, || "all links are mended".into());
                self.network.heal();
                Ok(())
            }
            Fault::Jump => {
                let delay = self.rare_rng.exponential(self.plan.jump_every);
                self.push(delay, Event::Fault(Fault::Jump));
                self.jump()
            }
            Fault::Hold => {
                let delay = self.rare_rng.exponential(self.plan.hold_every);
                self.push(delay, Event::Fault(Fault::Hold));
                if self.plan.config.lease_reads && self.rare_rng.chance(0.5) {
                    self.split_from_leader();
                } else {
                    self.hold_up_leader();
                }
                Ok(())
            }
            Fault::Split => {
                self.split(false);
                Ok(())
            }
            Fault::Wish { slot } => {
                self.hold_up_leader();
                match self.rare_rng.below(3) {
                    0 => self.feed(slot, Input::Campaign),
                    1 => self.feed(slot, Input::ForgetLeader),
                    // Or it forgets by itself.
                    _ => {
                        self.crash(slot)?;
                        self.push(1000, Event::Restart { slot });
                        Ok(())
                    }
                }
            }
            Fault::TakeLeader => self.take_leader(),
            Fault::AfterDiskFailure { .. } | Fault::EarlyTick => Ok(()),
        }
    }

    /// Anyone, but the leader as often as all others together.
    fn victim(&mut self) -> usize {
        let anyone = self.fault_rng.index(self.nodes.len());
        if self.fault_rng.chance(0.5) { self.leader().unwrap_or(anyone) } else { anyone }
    }

    /// Whoever leads the latest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |slot: &usize| {
            self.nodes[*slot].process.as_ref().is_some_and(|process| process.raft.role() == RoleKind::Leader)
        };
        let term = |slot: &usize| self.nodes[*slot].process.as_ref().map(|process| process.raft.term());
        (0..self.nodes.len()).filter(leads).max_by_key(term)
    }

    /// Never further than two election timeouts from where it began: a clock that was set back stands still for a node
    /// until it has caught up.
    fn jump(&mut self) -> Verdict {
        let slot = self.rare_rng.index(self.nodes.len());
        let most = 2 * self.plan.election();
        self.counts.bump(Count::Jumps);
        if self.plan.config.lease_reads {
            // Leases allow no clock to go forward faster than others, so it is only ever set back: before what the process
            // has seen of it, and the process looks at it at once, for it can't know else that it was.
            let node = &mut self.nodes[slot];
            if node.paused {
                return Ok(());
            }
            let seen = node.clock.at(self.now).since(node.seen);
            node.clock.jump -= (seen + 1 + self.rare_rng.below(most)) as i64;
            self.trace.line(self.now, || format!("the clock of n{} is set back", slot + 1));
            self.plan_wake(slot);
            return self.step(slot, Input::Tick);
        }
        let jump = self.rare_rng.below(2 * most + 1) as i64 - most as i64;
        self.trace.line(self.now, || format!("the clock of n{} is now {jump} µs off", slot + 1));
        self.nodes[slot].clock.jump = jump;
        self.plan_wake(slot);
        Ok(())
    }

    fn tick_early(&mut self) -> Verdict {
        let delay = 1 + self.rare_rng.exponential(self.plan.early_tick_every);
        self.push(delay, Event::Fault(Fault::EarlyTick));
        let slot = self.rare_rng.index(self.nodes.len());
        let node = &self.nodes[slot];
        // Whoever has an inbox empties it before it ticks.
        if node.paused || node.process.is_none() {
            return Ok(());
        }
        self.counts.bump(Count::EarlyTicks);
        self.step(slot, Input::Tick)
    }

    fn hold_up_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.hold_up(leader);
        }
    }

    /// Some are to hear the leader no more. If they are fewer than those who do, nobody writes for a while, so that they could
    /// win an election if only one of the others helped.
    fn split_from_leader(&mut self) {
        let election = self.plan.election();
        self.counts.bump(Count::Splits);
        if self.rare_rng.chance(0.3) {
            return self.split(true);
        }
        self.no_writes_before = self.now + 3 * election;
        self.push(election, Event::Fault(Fault::Split));
    }

    /// The leader loses some, or all but one.
    fn split(&mut self, most: bool) {
        let Some(leader) = self.leader() else { return };
        let nodes = self.nodes.len();
        let mut others = self.rare_rng.sample(nodes, nodes);
        others.retain(|other| *other != leader);
        if others.len() < 2 {
            return;
        }
        let far = if most { others.len() - 1 } else { others.len() / 2 };
        self.trace.line(self.now, || format!("n{} loses {:?}", leader + 1, &others[..far]));
        for other in &others[..far] {
            self.network.set_cut(leader, *other, true);
            self.network.set_cut(*other, leader, true);
        }
        let election = self.plan.election();
        if !most {
            self.push(2 * election, Event::Fault(Fault::Wish { slot: others[far] }));
        }
        self.push(4 * election, Event::Fault(Fault::Mend));
    }

    /// All that goes to and from it waits: so it learns late of what others have done without it.
    pub(crate) fn hold_up(&mut self, leader: usize) {
        let election = self.plan.election();
        let until = self.now + self.rare_rng.between(election, 5 * election);
        self.counts.bump(Count::Holds);
        self.trace.line(self.now, || format!("n{} is held up until {until} µs", leader + 1));
        for other in (0..self.nodes.len()).filter(|other| *other != leader) {
            self.network.clog(leader, other, until);
            self.network.clog(other, leader, until);
        }
        if self.rare_rng.chance(0.5) {
            self.nodes[leader].ticks_from = until;
        }
    }

    fn take_leader(&mut self) -> Verdict {
        if self.plan.profile == Profile::Calm {
            return Ok(());
        }
        let long = 3 * self.plan.election();
        let Some(slot) = self.leader() else {
            self.push(self.plan.election(), Event::Fault(Fault::TakeLeader));
            return Ok(());
        };
        if self.nodes.len() == 1 || self.fault_rng.chance(0.5) {
            self.crash(slot)?;
            self.push(long, Event::Restart { slot });
        } else {
            self.trace.line(self.now, || format!("n{} is cut off", slot + 1));
            for other in 0..self.nodes.len() {
                self.network.set_cut(slot, other, true);
                self.network.set_cut(other, slot, true);
            }
            self.push(long, Event::Fault(Fault::Mend));
        }
        Ok(())
    }

    pub(crate) fn plan_restart(&mut self, slot: usize) {
        // Now and then at once, and so perhaps again and again.
        let at_once = self.fault_rng.chance(0.2);
        let delay = if at_once { 1000 } else { 1000 + self.fault_rng.exponential(self.plan.down_mean) };
        self.push(delay, Event::Restart { slot });
    }

    fn pause(&mut self, slot: usize, length: u64) {
        let node = &mut self.nodes[slot];
        if node.process.is_none() || node.paused {
            return;
        }
        node.paused = true;
        let life = node.life;
        self.counts.bump(Count::Pauses);
        self.trace.line(self.now, || format!("n{} is stopped for {length} µs", slot + 1));
        self.push(length, Event::Resume { slot, life });
    }

    fn cut_some_links(&mut self, length: u64) {
        let nodes = self.nodes.len();
        if nodes < 2 {
            return;
        }
        self.counts.bump(Count::Cuts);
        let kind = self.fault_rng.below(if self.plan.clogs { 5 } else { 4 });
        let mut cuts = Vec::new();
        match kind {
            // Two parts.
            0 => {
                let size = self.fault_rng.between(1, nodes as u64 - 1) as usize;
                let part = self.fault_rng.sample(nodes, size);
                let inside = |slot: usize| part.contains(&slot);
                cuts.extend(links(nodes).filter(|(from, to)| inside(*from) != inside(*to)));
            }
            // One against all.
            1 => {
                let one = self.victim();
                cuts.extend(links(nodes).filter(|(from, to)| *from == one || *to == one));
            }
            // One hears nothing, or isn't heard.
            2 => {
                self.counts.bump(Count::OneWay);
                let one = self.victim();
                let deaf = self.fault_rng.chance(0.5);
                cuts.extend(links(nodes).filter(|(from, to)| if deaf { *to == one } else { *from == one }));
            }
            // Any links.
            3 => {
                for link in links(nodes) {
                    if self.fault_rng.chance(0.3) {
                        cuts.push(link);
                    }
                }
            }
            // Swizzle: links clog one by one, and clear in another order.
            _ => {
                for (from, to) in links(nodes) {
                    if self.fault_rng.chance(0.4) {
                        self.counts.bump(Count::Clogs);
                        let until = self.now + self.fault_rng.below(length + 1);
                        self.network.clog(from, to, until);
                    }
                }
            }
        }
        self.trace.line(self.now, || format!("cut: {cuts:?}"));
        for (from, to) in cuts {
            self.network.set_cut(from, to, true);
        }
    }
}

fn links(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

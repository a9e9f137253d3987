//! Faults: when they strike, and whom.

mod planned;

pub use planned::{Faults, Planned, Strike};

use crate::{
    ghost::agree,
    op::{Op, What},
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
    AfterDiskFailure { slot: usize, life: u64, full: bool },
    /// A process crashes soon after each start, so many times more.
    CrashLoop { slot: usize, left: u64 },
    /// A group is started again within its process.
    Reopen,
    /// A disk is full for a while.
    Full,
    /// What a disk has acknowledged is damaged, for good.
    Rot,
    /// Some links go up and down, so many times more.
    Flap { left: u64 },
    /// One more link is clogged, or cleared, of some that are one after the other.
    Swizzle { left: u64 },
    /// One of a storm of transfers.
    Transfer,
    /// A leader whose disk was stuck crashes, and is back at once.
    LoseTail { slot: usize },
    /// A leader takes it back that it hands over, and is held up.
    Withdraw,
    /// Nobody asks for anything for a while.
    Idle,
    /// Somebody is cut off, in the middle of such a while.
    Isolate,
    /// A leader is to lead no longer, by its driver's wish.
    StepDown,
    /// What somebody has planned, by its place.
    Planned(usize),
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
            (plan.reopen_every, Fault::Reopen),
            (plan.full_every, Fault::Full),
            (plan.rot_every, Fault::Rot),
            (plan.flap_every, Fault::Flap { left: 0 }),
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
        for (at, planned) in self.plan.planned.iter().enumerate() {
            self.queue.push(planned.at, Event::Fault(Fault::Planned(at)));
        }
        if self.plan.profile != Profile::Calm {
            for n in 1..=6 {
                self.push(self.plan.duration / 7 * n, Event::Fault(Fault::TakeLeader));
            }
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault) -> Verdict {
        if let Fault::AfterDiskFailure { slot, life, full } = fault {
            if self.life(slot) == life {
                self.crash(slot)?;
                if full {
                    let until = self.hosts[slot].full_until.saturating_sub(self.now);
                    self.push(until + 1000, Event::Restart { slot });
                } else {
                    self.plan_restart(slot);
                }
            }
            return Ok(());
        }
        if let Fault::EarlyTick = fault {
            // No fault, in truth: these go on to the end.
            return self.tick_early();
        }
        if let Fault::StepDown = fault {
            return self.wish_step_down();
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
                for slot in 0..self.hosts.len() {
                    if (all || slot == victim) && self.is_running(slot) {
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
                self.pause(slot, length)
            }
            Fault::Cut => {
                let length = self.fault_rng.exponential(self.plan.cut_mean);
                self.cut_some_links()?;
                self.push(length, Event::Fault(Fault::Mend));
                let delay = length + self.fault_rng.exponential(self.plan.cut_every);
                self.push(delay, Event::Fault(Fault::Cut));
                Ok(())
            }
            Fault::Mend => {
                self.lab.tell(&[], || "all links are mended".into())?;
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
                if self.plan.setup.config.lease_reads && self.rare_rng.chance(0.5) {
                    self.split_from_leader()
                } else {
                    self.hold_up_leader()
                }
            }
            Fault::Split => self.split(false),
            Fault::Wish { slot } => {
                // Those who lost the leader ask at once, while its lease lasts still.
                if let Some(leader) = self.leader() {
                    for other in 0..self.hosts.len() {
                        if self.network.is_cut(leader, other) {
                            let delay = 1000 + self.rare_rng.below(self.plan.election() / 4);
                            let life = self.life(other);
                            self.push(delay, Event::Ask { slot: other, life, what: What::Campaign });
                        }
                    }
                }
                self.hold_up_leader()?;
                match self.rare_rng.below(3) {
                    0 => self.ask(slot, What::Campaign),
                    1 => self.ask(slot, What::ForgetLeader),
                    // Or it forgets by itself.
                    _ => {
                        self.crash(slot)?;
                        self.push(1000, Event::Restart { slot });
                        Ok(())
                    }
                }
            }
            Fault::TakeLeader => self.take_leader(),
            Fault::CrashLoop { slot, left } => self.crash_loop(slot, left),
            Fault::Reopen => self.reopen(),
            Fault::Full => self.fill(),
            Fault::Rot => self.rot(),
            Fault::Flap { left } => self.flap(left),
            Fault::Swizzle { left } => self.swizzle(left),
            Fault::Transfer => self.hand_over(),
            Fault::LoseTail { slot } => {
                self.hosts[slot].stalled_until = 0;
                self.push(1000, Event::Restart { slot });
                self.crash_keeping(slot, 0)
            }
            Fault::Withdraw => {
                if let Some(leader) = self.leader() {
                    self.ask(leader, What::AbortTransfer)?;
                }
                self.hold_up_leader()
            }
            Fault::Planned(at) => self.strike_planned(at),
            Fault::Idle => self.begin_idle_spell(),
            Fault::Isolate => self.isolate_somebody(),
            Fault::AfterDiskFailure { .. } | Fault::EarlyTick | Fault::StepDown => Ok(()),
        }
    }

    /// Anyone, but the leader as often as all others together.
    fn victim(&mut self) -> usize {
        let anyone = self.fault_rng.index(self.hosts.len());
        if self.fault_rng.chance(0.5) { self.leader().unwrap_or(anyone) } else { anyone }
    }

    /// Never further than two election timeouts from where it began: a clock that was set back stands still for a node
    /// until it has caught up.
    fn jump(&mut self) -> Verdict {
        let slot = self.rare_rng.index(self.hosts.len());
        let most = 2 * self.plan.election();
        self.lab.counts.bump(Count::Jumps);
        if self.plan.setup.config.lease_reads {
            // Leases allow no clock to go forward faster than others, so it is only ever set back: before what the process
            // has seen of it, and the process looks at it at once, for it can't know else that it was.
            let host = &mut self.hosts[slot];
            if host.paused {
                return Ok(());
            }
            let seen = host.clock.at(self.now).since(self.lab.nodes[slot].seen);
            host.clock.jump -= (seen + 1 + self.rare_rng.below(most)) as i64;
            self.lab.tell(&[slot], || format!("the clock of n{} is set back", slot + 1))?;
            self.plan_wake(slot);
            return self.act(slot, What::Tick);
        }
        let jump = self.rare_rng.below(2 * most + 1) as i64 - most as i64;
        self.lab.tell(&[slot], || format!("the clock of n{} is now {jump} µs off", slot + 1))?;
        self.hosts[slot].clock.jump = jump;
        self.plan_wake(slot);
        Ok(())
    }

    fn tick_early(&mut self) -> Verdict {
        let delay = 1 + self.rare_rng.exponential(self.plan.early_tick_every);
        self.push(delay, Event::Fault(Fault::EarlyTick));
        let slot = self.rare_rng.index(self.hosts.len());
        // Whoever has an inbox empties it before it ticks.
        if self.hosts[slot].paused || !self.is_running(slot) {
            return Ok(());
        }
        self.lab.counts.bump(Count::EarlyTicks);
        self.act(slot, What::Tick)
    }

    fn hold_up_leader(&mut self) -> Verdict {
        self.leader().map_or(Ok(()), |leader| self.hold_up(leader))
    }

    /// Some are to hear the leader no more. If they are fewer than those who do, nobody writes for a while, so that they could
    /// win an election if only one of the others helped.
    fn split_from_leader(&mut self) -> Verdict {
        let election = self.plan.election();
        self.lab.counts.bump(Count::Splits);
        if self.rare_rng.chance(0.3) {
            return self.split(true);
        }
        self.no_writes_before = self.now + 3 * election;
        self.push(election, Event::Fault(Fault::Split));
        Ok(())
    }

    /// The leader loses some, or all but one.
    fn split(&mut self, most: bool) -> Verdict {
        let Some(leader) = self.leader() else { return Ok(()) };
        let nodes = self.hosts.len();
        let mut others = self.rare_rng.sample(nodes, nodes);
        others.retain(|other| *other != leader);
        if others.len() < 2 {
            return Ok(());
        }
        let far = if most { others.len() - 1 } else { others.len() / 2 };
        let lost = &others[..far];
        let told = self.lab.tell(&[leader], || format!("n{} loses {}", leader + 1, names(lost)));
        for other in &others[..far] {
            self.network.set_cut(leader, *other, true);
            self.network.set_cut(*other, leader, true);
        }
        let election = self.plan.election();
        if !most {
            self.push(2 * election, Event::Fault(Fault::Wish { slot: others[far] }));
        }
        self.push(4 * election, Event::Fault(Fault::Mend));
        told
    }

    /// All that goes to and from it waits: so it learns late of what others have done without it.
    pub(crate) fn hold_up(&mut self, leader: usize) -> Verdict {
        let election = self.plan.election();
        let until = self.now + self.rare_rng.between(election, 5 * election);
        self.lab.counts.bump(Count::Holds);
        let told =
            self.lab.tell(&[leader], || format!("n{} is held up for {} µs", leader + 1, until - self.now));
        for other in (0..self.hosts.len()).filter(|other| *other != leader) {
            self.network.clog(leader, other, until);
            self.network.clog(other, leader, until);
        }
        if self.rare_rng.chance(0.5) {
            self.hosts[leader].ticks_from = until;
        }
        told
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
        let profile = self.plan.profile;
        if profile != Profile::Network && self.fault_rng.chance(0.4) {
            return self.lose_the_tail(slot);
        }
        if self.hosts.len() == 1 || self.fault_rng.chance(0.5) {
            self.crash(slot)?;
            self.push(long, Event::Restart { slot });
        } else {
            self.lab.tell(&[slot], || format!("n{} is cut off", slot + 1))?;
            for other in 0..self.hosts.len() {
                self.network.set_cut(slot, other, true);
                self.network.set_cut(other, slot, true);
            }
            self.push(long, Event::Fault(Fault::Mend));
        }
        Ok(())
    }

    /// The leader loses what its disk hasn't done, and is back at once, to lead again perhaps; meanwhile the disks of some others are
    /// still at what it sent them before.
    fn lose_the_tail(&mut self, slot: usize) -> Verdict {
        let election = self.plan.election();
        self.lab.counts.bump(Count::LostTails);
        for other in (0..self.hosts.len()).filter(|other| *other != slot) {
            if self.fault_rng.chance(0.5) {
                let length = self.fault_rng.between(election / 4, 3 * election);
                self.hosts[other].stalled_until = self.now + length;
            }
        }
        // What it has sent is on its way; what it has written isn't done.
        self.hosts[slot].stalled_until = self.now + election / 4;
        let delay = self.fault_rng.below(election / 4);
        self.push(delay, Event::Fault(Fault::LoseTail { slot }));
        Ok(())
    }

    pub(crate) fn plan_restart(&mut self, slot: usize) {
        // Now and then at once, and so perhaps again and again.
        let at_once = self.fault_rng.chance(0.2);
        if self.faulty && self.plan.crash_every > 0 && self.fault_rng.chance(0.03) {
            self.lab.counts.bump(Count::CrashLoops);
            let left = self.fault_rng.between(2, 8);
            self.push(1000, Event::Restart { slot });
            self.push(2000, Event::Fault(Fault::CrashLoop { slot, left }));
            return;
        }
        let delay = if at_once { 1000 } else { 1000 + self.fault_rng.exponential(self.plan.down_mean) };
        self.push(delay, Event::Restart { slot });
    }

    fn pause(&mut self, slot: usize, length: u64) -> Verdict {
        if !self.is_running(slot) || self.hosts[slot].paused {
            return Ok(());
        }
        self.hosts[slot].paused = true;
        let life = self.life(slot);
        self.lab.counts.bump(Count::Pauses);
        self.push(length, Event::Resume { slot, life });
        self.lab.tell(&[slot], || format!("n{} is stopped for {length} µs", slot + 1))
    }

    fn cut_some_links(&mut self) -> Verdict {
        let nodes = self.hosts.len();
        if nodes < 2 {
            return Ok(());
        }
        self.lab.counts.bump(Count::Cuts);
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
                self.lab.counts.bump(Count::OneWay);
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
            // Swizzle: some links clog one by one, over seconds, and clear in another order.
            _ => {
                let left = self.fault_rng.between(1, (nodes * (nodes - 1)) as u64);
                self.push(0, Event::Fault(Fault::Swizzle { left }));
            }
        }
        let list = || cuts.iter().map(|(from, to)| format!("n{}>n{}", from + 1, to + 1)).collect::<Vec<_>>();
        self.lab.tell(&[], || format!("cut: {}", list().join(" ")))?;
        for (from, to) in cuts {
            self.network.set_cut(from, to, true);
        }
        Ok(())
    }

    /// One more link clogs, each for a time of its own.
    fn swizzle(&mut self, left: u64) -> Verdict {
        let nodes = self.hosts.len();
        let all: Vec<(usize, usize)> = links(nodes).collect();
        let (from, to) = self.fault_rng.pick(&all);
        let length = self.fault_rng.exponential(self.plan.cut_mean.max(1000));
        self.lab.counts.bump(Count::Clogs);
        self.network.clog(from, to, self.now + length);
        if left > 1 {
            let delay = self.fault_rng.exponential(length / 2 + 1);
            self.push(delay, Event::Fault(Fault::Swizzle { left: left - 1 }));
        }
        self.lab
            .tell(&[from, to], || format!("the link n{}>n{} is clogged for {length} µs", from + 1, to + 1))
    }

    /// Links go up and down quickly: long enough to lose something, too short to be noticed.
    fn flap(&mut self, left: u64) -> Verdict {
        let nodes = self.hosts.len();
        if nodes < 2 {
            return Ok(());
        }
        let left = if left > 0 {
            left - 1
        } else {
            let next = self.rare_rng.exponential(self.plan.flap_every);
            self.push(next, Event::Fault(Fault::Flap { left: 0 }));
            self.lab.counts.bump(Count::Flaps);
            self.lab.tell(&[], || "links flap".into())?;
            self.rare_rng.between(10, 60)
        };
        let all: Vec<(usize, usize)> = links(nodes).collect();
        let (from, to) = self.rare_rng.pick(&all);
        let cut = self.rare_rng.chance(0.6);
        self.network.set_cut(from, to, cut);
        if left > 0 {
            let delay = 1 + self.rare_rng.exponential(self.plan.election() / 10);
            self.push(delay, Event::Fault(Fault::Flap { left }));
        } else {
            self.push(1, Event::Fault(Fault::Mend));
        }
        Ok(())
    }

    /// It crashes, starts, and crashes again: some of its starts are over before it has done anything.
    fn crash_loop(&mut self, slot: usize, left: u64) -> Verdict {
        self.crash(slot)?;
        let up = 1000 + self.fault_rng.exponential(self.plan.election() / 4);
        self.push(1000, Event::Restart { slot });
        if left > 0 {
            self.push(up, Event::Fault(Fault::CrashLoop { slot, left: left - 1 }));
        }
        Ok(())
    }

    fn reopen(&mut self) -> Verdict {
        let delay = self.rare_rng.exponential(self.plan.reopen_every);
        self.push(delay, Event::Fault(Fault::Reopen));
        let slot = self.victim();
        let Some(process) = &self.lab.nodes[slot].process else { return Ok(()) };
        if self.hosts[slot].paused || self.hosts[slot].full_until > self.now || process.raft.status().stopped
        {
            return Ok(());
        }
        let kept = self.rare_rng.index(process.writes.len() + 1);
        let now = self.hosts[slot].clock.at(self.now).0;
        self.hosts[slot].began();
        self.lab.perform(self.now, Op::Reopen { slot, kept, now })?;
        if !self.is_running(slot) {
            self.hosts[slot].stage = crate::world::Stage::Gone;
            return Ok(());
        }
        self.follow_up(slot)
    }

    fn fill(&mut self) -> Verdict {
        let delay = self.rare_rng.exponential(self.plan.full_every);
        self.push(delay, Event::Fault(Fault::Full));
        let slot = self.victim();
        self.lab.counts.bump(Count::Full);
        let length = self.rare_rng.exponential(2_000_000);
        self.hosts[slot].full_until = self.now + length;
        self.lab.tell(&[slot], || format!("the disk of n{} is full for {length} µs", slot + 1))
    }

    /// Only where enough copies of everything are left, whichever of the memberships that are in some log is in force.
    fn rot(&mut self) -> Verdict {
        let delay = self.rare_rng.exponential(self.plan.rot_every);
        self.push(delay, Event::Fault(Fault::Rot));
        let slot = self.victim();
        let well = |other: usize| {
            let there = self.hosts.get(other).is_some_and(crate::world::Host::exists);
            other != slot && there && !self.lab.nodes[other].disk.is_rotten()
        };
        let memberships = self.lab.ghost.possible_memberships();
        // The memberships that follow may be smaller by one.
        let enough = memberships.iter().all(|set| agree(set, well) && set.voters().len() > 2);
        // Who is no member yet may be made one, and the only one.
        let member = self.lab.ghost.membership().contains(crate::world::id_of(slot));
        if !enough || !member || !self.hosts[slot].exists() || self.lab.nodes[slot].disk.is_rotten() {
            return Ok(());
        }
        for other in 0..self.hosts.len() {
            self.forget_changes(other);
        }
        self.lab.counts.bump(Count::Rotten);
        self.lab.tell(&[slot], || format!("the disk of n{} is damaged", slot + 1))?;
        self.lab.perform(self.now, Op::Rot { slot })?;
        // Sooner or later it is read again.
        let delay = self.rare_rng.exponential(1_000_000);
        let life = self.life(slot);
        self.push(delay, Event::Fault(Fault::AfterDiskFailure { slot, life, full: false }));
        Ok(())
    }

    /// A change that waits in an inbox is never taken up.
    pub(crate) fn forget_changes(&mut self, slot: usize) {
        let change = |event: &Event| matches!(event, Event::Ask { what: What::Change { .. }, .. });
        self.hosts[slot].inbox.retain(|event| !change(event));
    }

    /// A disk that lies about what is durable shows it now; so does one on which an old image was restored.
    pub(crate) fn lose_what_was_durable(&mut self, slot: usize) -> Verdict {
        if !self.faulty || !self.rare_rng.chance(self.plan.forgets) {
            return Ok(());
        }
        let writes = self.rare_rng.between(1, self.plan.forgets_most.max(1)) as usize;
        self.lab.perform(self.now, Op::Forget { slot, writes })
    }
}

fn names(slots: &[usize]) -> String {
    slots.iter().map(|slot| format!("n{}", slot + 1)).collect::<Vec<_>>().join(", ")
}

fn links(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

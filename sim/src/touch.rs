//! Sleep, as far as it is not the cores' own: times in which nobody asks for anything, and transports that notice who is gone.
//!
//! A node's transport is in touch with another that runs, isn't paused, and can be reached and heard; it notices the loss of that after
//! an idle timeout, as by keep-alives that are not answered. What is started again before that isn't noticed at all. It says so
//! to the core, of all to a core that starts; and it says when there is touch again.

use crate::{
    faults::Fault,
    op::What,
    stats::Count,
    violation::Verdict,
    world::{Event, World, id_of},
};

/// Each node's touch with each other.
#[derive(Debug, Default)]
pub(crate) struct Touch {
    /// Since when there is none, and whether the core was told; by both slots.
    lost: Vec<Vec<Option<(u64, bool)>>>,
    /// In which of its lives each was told.
    lives: Vec<u64>,
    /// Until then nobody asks for anything.
    pub(crate) idle_until: u64,
}

impl World {
    /// Is the group to sleep, some time?
    pub(crate) fn may_sleep(&self) -> bool {
        !self.plan.setup.config.quiesce_after.is_zero()
    }

    pub(crate) fn plan_sleep(&mut self) {
        if self.plan.idle_every > 0 {
            let delay = self.sleep_rng.exponential(self.plan.idle_every);
            self.push(delay, Event::Fault(Fault::Idle));
        }
        if self.plan.step_down_every > 0 {
            let delay = self.sleep_rng.exponential(self.plan.step_down_every);
            self.push(delay, Event::Fault(Fault::StepDown));
        }
        if self.may_sleep() {
            self.push(self.plan.idle_timeout, Event::Touch);
        }
    }

    /// Nobody asks for anything, long enough for everybody to sleep a while.
    pub(crate) fn begin_idle_spell(&mut self) -> Verdict {
        let quiesce = self.plan.setup.config.quiesce_after.as_micros() as u64;
        let mut length = quiesce + self.sleep_rng.between(2, 12) * self.plan.election();
        if self.sleep_rng.chance(0.3) {
            // Somebody is out of touch meanwhile, and back before it ends.
            self.push(length, Event::Fault(Fault::Isolate));
            length += self.out_of_touch_for() + 2 * self.plan.election();
        }
        self.touch.idle_until = self.now + length;
        self.lab.counts.bump(Count::IdleSpells);
        let delay = length + self.sleep_rng.exponential(self.plan.idle_every);
        self.push(delay, Event::Fault(Fault::Idle));
        // Some end by what only an operator asks for, or by a question to a follower.
        if self.sleep_rng.chance(0.2) && self.plan.operations[1] > 0 {
            self.push(length - 1, Event::Fault(Fault::Transfer));
        }
        let slot = self.sleep_rng.index(self.hosts.len());
        if self.sleep_rng.chance(0.2) {
            let what = What::Read { kind: quorate_core::ReadKind::Linearizable, query: None };
            self.push(length - 2, Event::Ask { slot, life: self.life(slot), what });
        }
        self.lab.tell(&[], || format!("nobody asks for anything for {length} µs"))
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.now < self.touch.idle_until
    }

    /// Long enough to be noticed by everybody, and slept upon.
    fn out_of_touch_for(&self) -> u64 {
        let quiesce = self.plan.setup.config.quiesce_after.as_micros() as u64;
        2 * self.plan.idle_timeout + quiesce + self.plan.election()
    }

    /// Somebody, mostly the leader, is out of touch with everybody, for a while.
    pub(crate) fn isolate_somebody(&mut self) -> Verdict {
        let anyone = self.sleep_rng.index(self.hosts.len());
        let one = if self.sleep_rng.chance(0.4) { self.leader().unwrap_or(anyone) } else { anyone };
        for other in (0..self.hosts.len()).filter(|other| *other != one) {
            self.network.set_cut(one, other, true);
            self.network.set_cut(other, one, true);
        }
        self.push(self.out_of_touch_for(), Event::Fault(Fault::Mend));
        self.lab.tell(&[one], || format!("n{} is cut off while nobody asks for anything", one + 1))
    }

    /// A leader's driver wishes that it didn't lead.
    pub(crate) fn wish_step_down(&mut self) -> Verdict {
        let delay = 1 + self.sleep_rng.exponential(self.plan.step_down_every);
        self.push(delay, Event::Fault(Fault::StepDown));
        if self.rest.is_quiet() || !self.faulty && self.plan.quorum_only {
            return Ok(());
        }
        let anyone = self.sleep_rng.index(self.hosts.len());
        let leader = if self.sleep_rng.chance(0.1) { Some(anyone) } else { self.leader() };
        leader.map_or(Ok(()), |slot| self.ask(slot, What::StepDown))
    }

    // ---- transports ----

    fn in_touch(&self, one: usize, other: usize) -> bool {
        let well = |slot: usize| {
            let stopped = self.raft(slot).is_none_or(quorate_core::Raft::is_stopped);
            !stopped && !self.hosts[slot].paused
        };
        well(one) && well(other) && !self.network.is_cut(one, other) && !self.network.is_cut(other, one)
    }

    /// Who starts is told of all.
    fn note_life(&mut self, one: usize) {
        let life = self.life(one);
        if std::mem::replace(&mut self.touch.lives[one], life) != life {
            for (_, told) in self.touch.lost[one].iter_mut().flatten() {
                *told = false;
            }
        }
    }

    /// A transport says so, wrongly perhaps: then it will say, too, that there is touch again.
    pub(crate) fn lose_touch(&mut self, one: usize, other: usize) {
        if one >= self.touch.lives.len() {
            return;
        }
        self.note_life(one);
        if let Some(lost) = self.touch.lost[one].get_mut(other) {
            let since = lost.map_or(self.now, |(since, _)| since);
            *lost = Some((since, true));
        }
    }

    /// Every transport looks at its connections.
    pub(crate) fn look_at_touch(&mut self) -> Verdict {
        self.push(self.plan.idle_timeout / 4 + 1, Event::Touch);
        let count = self.hosts.len();
        self.touch.lost.resize_with(count, Vec::new);
        self.touch.lives.resize(count, 0);
        for one in 0..count {
            self.touch.lost[one].resize(count, None);
            self.note_life(one);
            for other in (0..count).filter(|other| *other != one) {
                let touch = self.in_touch(one, other);
                let peer = id_of(other);
                match self.touch.lost[one][other] {
                    None if !touch => self.touch.lost[one][other] = Some((self.now, false)),
                    Some((since, false)) if !touch && self.now >= since + self.plan.idle_timeout => {
                        self.touch.lost[one][other] = Some((since, true));
                        self.ask(one, What::Unreachable { peer })?;
                    }
                    Some((_, told)) if touch => {
                        self.touch.lost[one][other] = None;
                        if told {
                            self.ask(one, What::Reachable { peer })?;
                        }
                    }
                    None | Some(_) => {}
                }
            }
        }
        Ok(())
    }
}

//! Liveness: once faults have stopped for a quorum, it elects, commits, and comes to rest; and stays there.

use quorate_core::{MembershipChange, NodeId, Raft, RoleKind};

use crate::{
    clients::{LEAST_COMMITS, LEAST_LEADER_CHANGES, reached_enough},
    faults::Fault,
    ghost::agree,
    op::{Op, What},
    plan::Profile,
    stats::Count,
    violation::{Broken, Verdict, hold},
    world::{Event, World, id_of},
};

/// How long a cluster may take to come to rest, in election timeouts.
const PATIENCE: u64 = 60;

/// How the end of a run goes.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    stage: Stage,
    /// Who is back for good.
    back: Vec<usize>,
    began: u64,
    deadline: u64,
    /// What all have and have applied, together.
    sum: u64,
    /// Leadership was handed over in peace.
    handed: bool,
    /// Everyone has slept, and the leader was lost meanwhile, if that could be tried.
    slept: bool,
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Faults,
    /// A leader that has committed something of its own term, with requests still coming.
    Leader,
    /// Everyone has everything, and nobody waits.
    Converge,
    /// Leadership goes to `to`, which has everything: before `until`.
    Handover { to: usize, until: u64 },
    /// Everyone falls asleep, before `until`.
    Sleep { until: u64 },
    /// The leader is gone, and nobody asks for anything: another leads before `until`.
    Orphaned { until: u64 },
    /// Nothing more happens: the leader of `term` leads until `until`, and nobody goes beyond term `highest`.
    Steady { term: u64, highest: u64, until: u64 },
}

impl Rest {
    /// A node has come since.
    pub(crate) fn add(&mut self, slot: usize) {
        self.back.push(slot);
    }

    /// Do clients stay away?
    pub(crate) const fn is_quiet(&self) -> bool {
        matches!(
            self.stage,
            Stage::Converge
                | Stage::Handover { .. }
                | Stage::Sleep { .. }
                | Stage::Orphaned { .. }
                | Stage::Steady { .. }
        )
    }
}

impl World {
    /// The faults end: for everyone, or for a quorum, while the others can speak but never hear.
    pub(crate) fn heal(&mut self) -> Verdict {
        // Some draws are slow, or down for most of the time: they get longer. Few commits can be made up for later, but no
        // leader goes any more.
        let (now, duration) = (self.now, self.plan.duration);
        let calm = self.plan.profile == Profile::Calm;
        let longest = if self.lab.counts[Count::LeaderChanges] < LEAST_LEADER_CHANGES { 20 } else { 3 };
        if reached_enough(&self.lab.counts, calm).is_err() && now < longest * duration {
            if now >= 2 * duration {
                // A draw under which hardly anybody is ever elected is eased, little by little.
                let plan = &mut self.plan;
                for every in [&mut plan.crash_every, &mut plan.cut_every, &mut plan.pause_every] {
                    *every += *every / 4;
                }
            }
            self.push(duration / 6, Event::Heal);
            self.push(duration / 12, Event::Fault(Fault::TakeLeader));
            return Ok(());
        }
        self.faulty = false;
        self.network.heal();
        let plan = &mut self.plan;
        (plan.loss, plan.duplicate, plan.replay, plan.corrupt) = (0.0, 0.0, 0.0, 0.0);
        let heartbeat = plan.setup.config.heartbeat_interval.as_micros() as u64;
        // A network slower than timeouts promises nothing; and with small windows, slow parts only take long.
        plan.delays = crate::plan::Delays::Exponential;
        plan.delay_mean = plan.delay_mean.min(heartbeat / 40);
        plan.delay_min = plan.delay_min.min(heartbeat / 40);
        plan.disk_mean = plan.disk_mean.min(200);
        plan.apply_mean = plan.apply_mean.min(50);
        plan.snapshot_mean = plan.snapshot_mean.min(heartbeat / 4);
        // Damage that nobody has met yet is met now: there is to be peace afterwards.
        for slot in 0..self.hosts.len() {
            if self.hosts[slot].exists() && self.lab.nodes[slot].disk.is_rotten() {
                self.crash(slot)?;
                self.start(slot)?;
            }
        }
        self.rest.back = self.choose_back();
        self.lab.trace.line(self.now, || format!("faults end for {:?}", self.rest.back));
        for slot in 0..self.hosts.len() {
            self.bring_back(slot);
        }
        self.hand_over_to_nobody()?;
        self.rest.stage = Stage::Leader;
        self.rest.began = self.now;
        self.rest.deadline = self.now + PATIENCE * self.plan.election();
        self.push(heartbeat, Event::Rest);
        Ok(())
    }

    /// Whoever leads is asked to hand over to somebody who won't be there: that must end.
    fn hand_over_to_nobody(&mut self) -> Verdict {
        let Some(leader) = self.leader().filter(|leader| self.rest.back.contains(leader)) else {
            return Ok(());
        };
        let Some(raft) = self.raft(leader) else { return Ok(()) };
        let away = |id: &&NodeId| !self.rest.back.contains(&(id.0 as usize - 1));
        let to = raft.membership().voters().iter().find(away).copied();
        if self.plan.operations[1] > 0 && to.is_some() {
            return self.ask(leader, What::Transfer { to });
        }
        Ok(())
    }

    /// Everyone, or just enough to decide, whichever of the memberships that are in some log is in force.
    fn choose_back(&mut self) -> Vec<usize> {
        let nodes = self.hosts.len();
        let mut back = self.fault_rng.sample(nodes, nodes);
        back.retain(|slot| self.hosts[*slot].exists());
        if self.plan.quorum_only {
            let possible = self.lab.ghost.possible_memberships();
            let enough = (1..=back.len())
                .find(|size| possible.iter().all(|set| agree(set, |slot| back[..*size].contains(&slot))));
            back.truncate(enough.unwrap_or(nodes));
        }
        back.sort_unstable();
        back
    }

    /// A node is well again; or, if it is not to be, cut off but not silent.
    fn bring_back(&mut self, slot: usize) {
        // A clock that was set back would stand still for a while.
        if self.plan.jump_every > 0 && !self.plan.setup.config.lease_reads {
            self.hosts[slot].clock.jump = 2 * self.plan.election() as i64;
        }
        self.hosts[slot].ticks_from = 0;
        if self.plan.jump_every + self.plan.hold_every > 0 {
            self.plan_wake(slot);
        }
        // Whatever it was told long ago, it does now: not in the middle of the peace.
        self.end_stall(slot);
        if self.plan.quorum_only {
            // Who is back has been chosen for the memberships that there are: no other may come out of an inbox now.
            self.forget_changes(slot);
        }
        if self.hosts[slot].paused {
            self.push(0, Event::Resume { slot, life: self.life(slot) });
        }
        if !self.rest.back.contains(&slot) {
            for other in 0..self.hosts.len() {
                self.network.set_cut(other, slot, true);
            }
        }
        self.push(1, Event::Restart { slot });
    }

    pub(crate) fn check_rest(&mut self) -> Verdict {
        let heartbeat = self.plan.setup.config.heartbeat_interval.as_micros() as u64;
        if self.progressed() {
            // Who lacks much may take long, as long as it gets on, but not for ever.
            let patience = PATIENCE * self.plan.election();
            self.rest.deadline = (self.now + patience).min(self.rest.began + 30 * patience);
        }
        match self.rest.stage {
            Stage::Faults => return Ok(()),
            Stage::Leader => {
                // A draw so harsh that little was committed makes up for it now.
                let enough = self.lab.counts[Count::Commits] >= LEAST_COMMITS;
                // And the operator goes on for a while, too.
                let pause = if self.plan.operate_every > 0 { 10 * self.plan.election() } else { 0 };
                if self.settled_leader().is_some() && enough && self.now >= self.rest.began + pause {
                    self.rest.stage = Stage::Converge;
                }
            }
            Stage::Converge => {
                self.end_joint_membership()?;
                // Whoever waits for an entry that never comes gives up.
                for slot in 0..self.hosts.len() {
                    self.ask(slot, What::CancelRead)?;
                }
                // Words of an old leader, held up until now, may yet tell somebody of a term that nobody should hear of:
                // who was cut off without pre-vote answers them. There is peace only after the last of them.
                if self.now < self.last_straggler {
                    self.rest.deadline = self.now + PATIENCE * self.plan.election();
                } else if let Some(term) = self.converged() {
                    if let Some(to) = self.successor() {
                        return self.hand_over_in_peace(to);
                    }
                    let members = self.members_back();
                    self.lab.perform(self.now, Op::AllResolved { slots: members })?;
                    if self.can_all_sleep() {
                        return self.go_to_sleep();
                    }
                    self.cut_off_a_follower();
                    let until = self.now + 8 * self.plan.election();
                    let highest = self.highest_term();
                    self.rest.stage = Stage::Steady { term, highest, until };
                }
            }
            Stage::Handover { to, until } => {
                let leads = self.settled_leader().map(|(slot, _)| slot);
                if leads == Some(to) {
                    self.rest.stage = Stage::Converge;
                }
                hold!(
                    leads == Some(to) || self.now < until,
                    "liveness",
                    "leadership was to go to node {}, which is well and has everything, but {leads:?} leads",
                    to + 1
                );
            }
            Stage::Sleep { until } => {
                let members = self.members_back();
                let awake = |slot: &&usize| self.raft(**slot).is_some_and(|raft| !raft.is_asleep());
                let awake = members.iter().find(awake).copied();
                hold!(
                    awake.is_none() || self.now < until,
                    "liveness",
                    "nobody asks for anything, but {} doesn't sleep: {}",
                    awake.map_or(0, |slot| slot + 1),
                    self.describe()
                );
                if awake.is_none() {
                    return self.lose_the_leader_asleep();
                }
            }
            Stage::Orphaned { until } => {
                let leads = self.settled_leader();
                hold!(
                    leads.is_some() || self.now < until,
                    "liveness",
                    "the leader was lost while everyone slept, and nobody leads: {}",
                    self.describe()
                );
                if leads.is_some() {
                    self.rest.stage = Stage::Converge;
                    self.rest.deadline = self.now + PATIENCE * self.plan.election();
                }
            }
            Stage::Steady { term, highest, until } => {
                let leads = self.settled_leader().map(|(_, term)| term);
                // One half cut-off node would depose leader after leader, if whoever hears a leader helped it: a leader
                // itself is deaf to candidates only with check-quorum. Without pre-vote its own term goes on, alone.
                let sticky = self.plan.setup.config.check_quorum;
                let promised = self.plan.setup.config.pre_vote && sticky;
                hold!(
                    leads == Some(term) || !sticky,
                    "liveness",
                    "the leader of term {term} led a quorum in peace, but {leads:?} leads now"
                );
                hold!(
                    self.highest_term() <= highest || !promised,
                    "liveness",
                    "terms go on from {highest} to {} while a leader leads a quorum in peace",
                    self.highest_term()
                );
                if self.now >= until {
                    self.done = true;
                    return Ok(());
                }
                self.rest.deadline = u64::MAX;
                self.push(heartbeat, Event::Rest);
                return Ok(());
            }
        }
        if self.now > self.rest.deadline {
            return Err(Broken(
                "liveness",
                format!("no rest after {PATIENCE} election timeouts: {}", self.describe()),
            ));
        }
        self.push(heartbeat, Event::Rest);
        Ok(())
    }

    /// Who is to lead in the end, if that has not been tried yet, and nobody from outside meddles.
    fn successor(&mut self) -> Option<usize> {
        let (leader, _) = self.settled_leader()?;
        let others = self.members_back();
        if self.rest.handed || self.plan.quorum_only || others != self.rest.back {
            return None;
        }
        self.rest.handed = true;
        let voter = |slot: &usize| *slot != leader && self.lab.ghost.membership().is_voter(id_of(*slot));
        others.into_iter().filter(voter).max_by_key(|slot| (self.now ^ *slot as u64) % 7)
    }

    /// Where all is well, leadership goes to whom it is to go to, at once.
    fn hand_over_in_peace(&mut self, to: usize) -> Verdict {
        let Some((leader, _)) = self.settled_leader() else { return Ok(()) };
        let election = self.plan.election();
        self.rest.stage = Stage::Handover { to, until: self.now + 4 * election };
        self.rest.deadline = self.now + PATIENCE * election;
        self.push(election / 8, Event::Rest);
        self.ask(leader, What::Transfer { to: Some(id_of(to)) })
    }

    /// Is everyone who could wake somebody well, so that all must fall asleep?
    fn can_all_sleep(&self) -> bool {
        let members = self.members_back();
        let others = (0..self.hosts.len()).all(|slot| members.contains(&slot) || !self.is_running(slot));
        self.may_sleep() && !self.rest.slept && others && self.plan.early_tick_every == 0 && members.len() > 1
    }

    fn go_to_sleep(&mut self) -> Verdict {
        let election = self.plan.election();
        let quiesce = self.plan.setup.config.quiesce_after.as_micros() as u64;
        // Clocks may go slowly, too; and who is gone must be noticed first.
        let patience = 2 * (quiesce + self.plan.idle_timeout) + 10 * election;
        self.rest.slept = true;
        self.rest.stage = Stage::Sleep { until: self.now + patience };
        self.rest.deadline = u64::MAX;
        self.push(election / 8, Event::Rest);
        Ok(())
    }

    /// Everyone sleeps: and the leader is gone, if the others can do without it.
    fn lose_the_leader_asleep(&mut self) -> Verdict {
        let election = self.plan.election();
        self.rest.stage = Stage::Converge;
        self.rest.deadline = self.now + PATIENCE * election;
        self.push(election / 8, Event::Rest);
        let Some((leader, _)) = self.settled_leader() else { return Ok(()) };
        let enough = agree(self.lab.ghost.membership(), |other| {
            other != leader && self.rest.back.contains(&other) && self.is_running(other)
        });
        if !enough || self.sleep_rng.chance(0.3) {
            return Ok(());
        }
        self.lab.counts.bump(Count::LostAsleep);
        self.rest.back.retain(|other| *other != leader);
        let until = self.now + 2 * self.plan.idle_timeout + 20 * election;
        self.rest.stage = Stage::Orphaned { until };
        self.retire(leader)
    }

    /// Now and then a follower stops hearing the leader, and the leader alone: it asks around, and must be told to wait.
    fn cut_off_a_follower(&mut self) {
        let Some((leader, _)) = self.settled_leader() else { return };
        let mut followers = self.members_back();
        followers.retain(|slot| *slot != leader);
        if followers.is_empty() || self.fault_rng.chance(0.5) {
            return;
        }
        let slot = self.fault_rng.pick(&followers);
        if !agree(self.lab.ghost.membership(), |other| other != slot && self.rest.back.contains(&other)) {
            return;
        }
        self.lab.trace.line(self.now, || format!("n{} hears the leader no more", slot + 1));
        self.network.set_cut(leader, slot, true);
        self.rest.back.retain(|other| *other != slot);
    }

    /// The highest term of all members, cut off or not. Whoever was removed may go on alone.
    fn highest_term(&self) -> u64 {
        let membership = self.lab.ghost.membership();
        let rafts = self.lab.nodes.iter().filter_map(|node| node.raft());
        let members = rafts.filter(|raft| membership.contains(raft.id()));
        members.map(|raft| raft.term().0).max().unwrap_or_default()
    }

    /// Who is back, and a member, by what is committed.
    fn members_back(&self) -> Vec<usize> {
        let membership = self.lab.ghost.membership();
        let member = |slot: &usize| membership.contains(id_of(*slot));
        self.rest.back.iter().copied().filter(member).collect()
    }

    /// Does anybody have, or has anybody applied, more or less than at the last look?
    fn progressed(&mut self) -> bool {
        let rafts = self.lab.nodes.iter().filter_map(|node| node.raft());
        let sum = rafts.map(|raft| raft.status().applied.0 + raft.last().index.0).sum();
        std::mem::replace(&mut self.rest.sum, sum) != sum
    }

    /// The leader of those who are back, once it has committed something in its term; and that term.
    fn settled_leader(&self) -> Option<(usize, u64)> {
        let slot = self.leader().filter(|slot| self.rest.back.contains(slot))?;
        let raft = self.raft(slot)?;
        let settled = raft.term_at(raft.commit()) == Some(raft.term());
        settled.then_some((slot, raft.term().0))
    }

    /// Does everyone who is back have, and has applied, the same? The leader's term, if so.
    fn converged(&self) -> Option<u64> {
        let (leader, term) = self.settled_leader()?;
        let raft = self.raft(leader)?;
        let (last, membership) = (raft.last(), raft.membership());
        let members = self.members_back();
        // A change that is under way goes on, and learners that are there become voters.
        let joins = membership.joining().iter().any(|id| members.contains(&(id.0 as usize - 1)));
        if membership != self.lab.ghost.membership() || membership.is_joint() || joins {
            return None;
        }
        let same = |slot: &usize| {
            self.raft(*slot).map(Raft::status).is_some_and(|status| {
                status.last == last
                    && status.commit == last.index
                    && status.applied == last.index
                    && status.pending == 0
                    && status.term.0 == term
            })
        };
        members.iter().all(same).then_some(term)
    }

    /// A joint membership that is held is left, as somebody asks for it.
    fn end_joint_membership(&mut self) -> Verdict {
        if let Some((leader, _)) = self.settled_leader()
            && self.raft(leader).is_some_and(|raft| raft.membership().is_held())
        {
            return self.ask_change(leader, MembershipChange::leave());
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let nodes = self.rest.back.iter().map(|slot| match self.raft(*slot) {
            None => format!("n{} is down", slot + 1),
            Some(raft) => {
                let role = match raft.role() {
                    RoleKind::Follower => "follows",
                    RoleKind::PreCandidate => "asks",
                    RoleKind::Candidate => "campaigns",
                    RoleKind::Leader => "leads",
                };
                format!(
                    "n{} {role} in term {}, last {}, commit {}, pending {}",
                    slot + 1,
                    raft.term(),
                    raft.last(),
                    raft.commit(),
                    raft.status().pending
                )
            }
        });
        nodes.collect::<Vec<_>>().join("; ")
    }
}

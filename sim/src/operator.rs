//! An operator: adds and removes nodes, hands leadership over, and meddles, while faults rage and after.

use quorate_core::{ChangeOp, Membership, MembershipChange, NodeId, Transition};

use crate::{
    op::What,
    stats::Count,
    violation::Verdict,
    world::{Event, Stage, World, id_of},
};

impl World {
    /// The next thing that the operator does, and when the one after it comes.
    pub(crate) fn operate(&mut self) -> Verdict {
        let delay = 1 + self.operator_rng.exponential(self.plan.operate_every);
        self.push(delay, Event::Operate);
        self.dismiss();
        // Once the faults are over, only as many as decide may be left: then let them be.
        if self.rest.is_quiet() || self.is_idle() || !self.faulty && self.plan.quorum_only {
            return Ok(());
        }
        let total: u64 = self.plan.operations.iter().sum();
        let mut draw = self.operator_rng.below(total);
        let mut kind = 0;
        for (at, weight) in self.plan.operations.iter().enumerate() {
            if draw < *weight {
                kind = at;
                break;
            }
            draw -= weight;
        }
        let slot = self.choose_target();
        if !self.is_running(slot) {
            return Ok(());
        }
        match kind {
            0 => self.change_membership(slot),
            1 => self.transfer(slot),
            _ => self.meddle(slot),
        }
    }

    /// Mostly whoever leads.
    fn choose_target(&mut self) -> usize {
        let anyone = self.operator_rng.index(self.hosts.len());
        if self.operator_rng.chance(0.1) {
            return anyone;
        }
        let leaders = self.leaders();
        if leaders.is_empty() { anyone } else { self.operator_rng.pick(&leaders) }
    }

    /// Whoever is no member any more is turned off one day, or forgotten.
    fn dismiss(&mut self) {
        let latest = self.lab.ghost.membership().clone();
        for slot in 0..self.hosts.len() {
            let id = NodeId(slot as u64 + 1);
            let left = id < latest.next_id() && !latest.contains(id);
            if !left || self.hosts[slot].stage != Stage::Present {
                continue;
            }
            // Without check-quorum a leader listens to candidates, whoever they are.
            let bearable = self.plan.setup.config.check_quorum;
            let lingers = bearable && self.operator_rng.chance(self.plan.linger);
            self.hosts[slot].stage = if lingers { Stage::Lingering } else { Stage::Leaving };
            self.lab.counts.bump(if lingers { Count::Lingering } else { Count::Removed });
            if !lingers {
                let delay = self.operator_rng.exponential(3_000_000);
                self.push(delay, Event::Retire { slot });
            }
        }
    }

    /// A node is turned off for ever.
    pub(crate) fn retire(&mut self, slot: usize) -> Verdict {
        self.lab.trace.line(self.now, || format!("n{} is gone for good", slot + 1));
        self.hosts[slot].stage = Stage::Gone;
        self.crash(slot)
    }

    // ---- membership ----

    fn change_membership(&mut self, slot: usize) -> Verdict {
        let Some(raft) = self.raft(slot) else { return Ok(()) };
        let membership = raft.membership().clone();
        // While a voter is gone for good, no other may go: so few may be left that one more is too many.
        let gone =
            |id: &&NodeId| self.lab.nodes.get(id.0 as usize - 1).is_some_and(|node| node.disk.is_rotten());
        let members = membership.members();
        if let Some(gone) = members.iter().find(gone).copied() {
            return self.replace(slot, &membership, gone);
        }
        let leave = membership.is_joint() && self.operator_rng.chance(0.8);
        let change = if leave {
            MembershipChange::leave()
        } else {
            let transition = self.operator_rng.pick(&[
                Transition::Auto,
                Transition::Auto,
                Transition::Implicit,
                Transition::Explicit,
            ]);
            MembershipChange { ops: self.choose_ops(&membership), transition }
        };
        self.ask_change(slot, change)
    }

    fn choose_ops(&mut self, membership: &Membership) -> Vec<ChangeOp> {
        let count = self.operator_rng.pick(&[1, 1, 1, 2, 2, 3]);
        let mut ops: Vec<ChangeOp> = Vec::new();
        let mut fresh = self.hosts.len();
        let voters = membership.voters().len();
        for _ in 0..count {
            let any_voter = self.operator_rng.pick(membership.voters());
            let any_learner =
                (!membership.learners().is_empty()).then(|| self.operator_rng.pick(membership.learners()));
            // Few grow, many shrink; and now and then somebody asks for what makes no sense.
            let grow = self.operator_rng.below(7) >= voters as u64;
            let op = match self.operator_rng.below(10) {
                0..=3 if grow && fresh < self.plan.setup.slots => {
                    fresh += 1;
                    let id = NodeId(fresh as u64);
                    self.operator_rng.pick(&[
                        ChangeOp::AddVoter(id),
                        ChangeOp::AddLearner(id),
                        ChangeOp::Join(id),
                        ChangeOp::Join(id),
                    ])
                }
                4 => ChangeOp::Demote(any_voter),
                5 | 6 if any_learner.is_some() => ChangeOp::Promote(any_learner.unwrap_or(any_voter)),
                7 if any_learner.is_some() => ChangeOp::Remove(any_learner.unwrap_or(any_voter)),
                8 => {
                    let id = NodeId(1 + self.operator_rng.below(self.hosts.len() as u64));
                    self.operator_rng.pick(&[
                        ChangeOp::AddVoter(id),
                        ChangeOp::Join(id),
                        ChangeOp::Promote(id),
                    ])
                }
                _ if voters > 1 => ChangeOp::Remove(any_voter),
                _ => ChangeOp::Demote(any_voter),
            };
            if ops.iter().all(|other| other.node() != op.node()) {
                ops.push(op);
            }
        }
        ops
    }

    /// Asks for a change; whoever is new begins with what the cluster is now.
    pub(crate) fn ask_change(&mut self, slot: usize, change: MembershipChange) -> Verdict {
        let Some(raft) = self.raft(slot) else { return Ok(()) };
        let present = raft.membership().clone();
        let newest = change.ops.iter().map(|op| op.node().0 as usize).max().unwrap_or(0);
        self.ask(slot, What::Change { change })?;
        // Whether it is taken or waits in an inbox: the machines are bought. What they know of the cluster may be old.
        while self.hosts.len() < newest.min(self.plan.setup.slots) {
            let began = self.operator_rng.chance(0.3);
            let membership = if began { self.plan.setup.membership.clone() } else { present.clone() };
            let joined = self.provision(membership)?;
            self.lab.counts.bump(Count::Provisioned);
            let delay = self.operator_rng.exponential(200_000);
            self.push(delay, Event::Restart { slot: joined });
            if !self.faulty {
                self.rest.add(joined);
            }
        }
        Ok(())
    }

    /// A voter whose disk is gone leaves, and another takes its place under a new id.
    fn replace(&mut self, slot: usize, membership: &Membership, gone: NodeId) -> Verdict {
        let fresh = id_of(self.hosts.len());
        let mut ops = vec![ChangeOp::Remove(gone)];
        if self.hosts.len() < self.plan.setup.slots && fresh >= membership.next_id() {
            ops.push(self.operator_rng.pick(&[ChangeOp::Join(fresh), ChangeOp::AddVoter(fresh)]));
        }
        if membership.is_joint() {
            return self.ask_change(slot, MembershipChange::leave());
        }
        self.lab.counts.bump(Count::Replaced);
        self.ask_change(slot, MembershipChange { ops, transition: Transition::Auto })
    }

    // ---- leadership ----

    fn transfer(&mut self, slot: usize) -> Verdict {
        let Some(raft) = self.raft(slot) else { return Ok(()) };
        let voters = raft.membership().voters().to_vec();
        if self.operator_rng.chance(0.1) {
            return self.ask(slot, What::AbortTransfer);
        }
        let to = match self.operator_rng.below(5) {
            0 => None,
            1 => Some(NodeId(1 + self.operator_rng.below(self.hosts.len() as u64))),
            _ => Some(self.operator_rng.pick(&voters)),
        };
        self.ask(slot, What::Transfer { to })?;
        if self.plan.setup.config.lease_reads && self.faulty && self.operator_rng.chance(0.4) {
            // What was told can't be unsaid, and may come late.
            let delay = self.operator_rng.exponential(self.plan.election() / 20);
            self.push(delay, Event::Fault(crate::faults::Fault::Withdraw));
        }
        if self.operator_rng.chance(0.15) {
            // And once more, before anybody has come to rest.
            self.lab.counts.bump(Count::Storms);
            for _ in 0..self.operator_rng.between(2, 8) {
                let delay = self.operator_rng.exponential(self.plan.election() / 4);
                self.push(delay, Event::Fault(crate::faults::Fault::Transfer));
            }
        }
        Ok(())
    }

    /// Whoever leads is asked to hand over to somebody.
    pub(crate) fn hand_over(&mut self) -> Verdict {
        let slot = self.choose_target();
        let Some(raft) = self.raft(slot) else { return Ok(()) };
        let voters = raft.membership().voters().to_vec();
        let to = Some(self.operator_rng.pick(&voters));
        self.ask(slot, What::Transfer { to })
    }

    fn meddle(&mut self, slot: usize) -> Verdict {
        let anyone = self.operator_rng.index(self.hosts.len());
        if !self.is_running(anyone) {
            return Ok(());
        }
        self.lab.counts.bump(Count::Meddling);
        match self.operator_rng.below(4) {
            0 => self.ask(anyone, What::Campaign),
            1 => self.ask(anyone, What::ForgetLeader),
            2 => self.ask(slot, What::AbortTransfer),
            _ => {
                self.lose_touch(slot, anyone);
                self.ask(slot, What::Unreachable { peer: id_of(anyone) })
            }
        }
    }
}

//! An operator: adds and removes nodes, hands leadership over, and meddles, while faults rage and after.

use quorate_core::{ChangeOp, Input, Membership, MembershipChange, NodeId, RoleKind, Token, Transition};

use crate::{
    ghost::Kind,
    node::Stage,
    stats::Count,
    violation::Verdict,
    world::{Event, World},
};

impl World {
    /// The next thing that the operator does, and when the one after it comes.
    pub(crate) fn operate(&mut self) -> Verdict {
        let delay = 1 + self.operator_rng.exponential(self.plan.operate_every);
        self.push(delay, Event::Operate);
        self.dismiss();
        // Once the faults are over, only as many as decide may be left: then let them be.
        if self.rest.is_quiet() || !self.faulty && self.plan.quorum_only {
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
        if self.nodes[slot].process.is_none() {
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
        let anyone = self.operator_rng.index(self.nodes.len());
        if self.operator_rng.chance(0.1) {
            return anyone;
        }
        let leads = |slot: &usize| {
            self.nodes[*slot].process.as_ref().is_some_and(|process| process.raft.role() == RoleKind::Leader)
        };
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(leads).collect();
        if leaders.is_empty() { anyone } else { self.operator_rng.pick(&leaders) }
    }

    /// Whoever is no member any more is turned off one day, or forgotten.
    fn dismiss(&mut self) {
        let latest = self.ghost.membership().clone();
        for slot in 0..self.nodes.len() {
            let id = NodeId(slot as u64 + 1);
            let left = id < latest.next_id() && !latest.contains(id);
            if !left || self.nodes[slot].stage != Stage::Present {
                continue;
            }
            // Without check-quorum a leader listens to candidates, whoever they are.
            let bearable = self.plan.config.check_quorum;
            let lingers = bearable && self.operator_rng.chance(self.plan.linger);
            self.nodes[slot].stage = if lingers { Stage::Lingering } else { Stage::Leaving };
            self.counts.bump(if lingers { Count::Lingering } else { Count::Removed });
            if !lingers {
                let delay = self.operator_rng.exponential(3_000_000);
                self.push(delay, Event::Retire { slot });
            }
        }
    }

    /// A node is turned off for ever.
    pub(crate) fn retire(&mut self, slot: usize) -> Verdict {
        self.trace.line(self.now, || format!("n{} is gone for good", slot + 1));
        self.nodes[slot].stage = Stage::Gone;
        self.crash(slot)
    }

    // ---- membership ----

    fn change_membership(&mut self, slot: usize) -> Verdict {
        let Some(process) = &self.nodes[slot].process else { return Ok(()) };
        let membership = process.raft.membership().clone();
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
        let mut fresh = self.nodes.len();
        let voters = membership.voters().len();
        for _ in 0..count {
            let any_voter = self.operator_rng.pick(membership.voters());
            let any_learner =
                (!membership.learners().is_empty()).then(|| self.operator_rng.pick(membership.learners()));
            // Few grow, many shrink; and now and then somebody asks for what makes no sense.
            let grow = self.operator_rng.below(7) >= voters as u64;
            let op = match self.operator_rng.below(10) {
                0..=3 if grow && fresh < self.plan.slots => {
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
                    let id = NodeId(1 + self.operator_rng.below(self.nodes.len() as u64));
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

    /// Asks for a change; if it is taken, whoever is new begins with what the cluster is now.
    pub(crate) fn ask_change(&mut self, slot: usize, change: MembershipChange) -> Verdict {
        let token = Token(self.ghost.next_token());
        self.ghost.ask(slot, self.nodes[slot].life, Kind::Change, 1);
        let Some(process) = &self.nodes[slot].process else { return Ok(()) };
        let present = process.raft.membership().clone();
        let newest = change.ops.iter().map(|op| op.node().0 as usize).max().unwrap_or(0);
        self.feed(slot, Input::ChangeMembership { token, change })?;
        // Whether it is taken or waits in an inbox: the machines are bought. What they know of the cluster may be old.
        while self.nodes.len() < newest {
            let began = self.operator_rng.chance(0.3);
            let membership = if began { self.plan.membership.clone() } else { present.clone() };
            let joined = self.provision(membership);
            self.counts.bump(Count::Provisioned);
            let delay = self.operator_rng.exponential(200_000);
            self.push(delay, Event::Restart { slot: joined });
            if !self.faulty {
                self.rest.add(joined);
            }
        }
        Ok(())
    }

    // ---- leadership ----

    fn transfer(&mut self, slot: usize) -> Verdict {
        let Some(process) = &self.nodes[slot].process else { return Ok(()) };
        let voters = process.raft.membership().voters().to_vec();
        let to = (!self.operator_rng.chance(0.3)).then(|| self.operator_rng.pick(&voters));
        self.ask_transfer(slot, to)?;
        if self.faulty && self.operator_rng.chance(0.3) {
            self.hold_up(slot);
        }
        if self.operator_rng.chance(0.2) {
            return self.feed(slot, Input::AbortTransfer);
        }
        Ok(())
    }

    pub(crate) fn ask_transfer(&mut self, slot: usize, to: Option<NodeId>) -> Verdict {
        let token = Token(self.ghost.next_token());
        self.ghost.ask(slot, self.nodes[slot].life, Kind::Transfer { term: 0, told: false }, 1);
        self.feed(slot, Input::TransferLeadership { token, to })
    }

    fn meddle(&mut self, slot: usize) -> Verdict {
        let anyone = self.operator_rng.index(self.nodes.len());
        if self.nodes[anyone].process.is_none() {
            return Ok(());
        }
        self.counts.bump(Count::Meddling);
        match self.operator_rng.below(4) {
            0 => self.feed(anyone, Input::Campaign),
            1 => self.feed(anyone, Input::ForgetLeader),
            2 => self.feed(slot, Input::AbortTransfer),
            _ => self.feed(slot, Input::Unreachable { peer: NodeId(anyone as u64 + 1) }),
        }
    }
}

//! Requests about the cluster itself: who leads, who is a member. And how a leader that is shut down hands over first.

use std::{collections::BTreeMap, mem};

use quorate_core::{Input, MembershipChange, NodeId, Outcome, Rejected, RoleKind, StateMachine, Token};
use tokio::sync::oneshot;
use tracing::{debug, info};

use crate::{
    driver::Driver,
    error::{ControlError, StopReason},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Transfer(Option<NodeId>),
    Change(MembershipChange),
    Campaign,
}

/// How it ended: with the core's outcome, where it has one.
pub(crate) type Verdict = Result<Option<Outcome>, ControlError>;

/// What is asked for, and who waits for it.
pub(crate) struct Control {
    pub(crate) wish: Wish,
    pub(crate) answer: oneshot::Sender<Verdict>,
}

/// Who waits for the end of such a request. The core has at most one transfer and one membership change under way, so
/// there are at most two.
pub(crate) type Controls = BTreeMap<Token, oneshot::Sender<Verdict>>;

/// A leader that is to stop hands over first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handover {
    /// Once the requests under way have ended.
    Due,
    /// To this node; `None` if somebody else had asked for it.
    UnderWay(Option<NodeId>),
    /// Done, or there is nothing to hand over, or nobody to take it.
    Over,
}

impl Handover {
    /// What a node that stops for this reason owes the others.
    pub(crate) fn before(why: &StopReason) -> Self {
        if *why == StopReason::Shutdown { Self::Due } else { Self::Over }
    }
}

impl<S: StateMachine> Driver<S> {
    pub(crate) fn control(&mut self, Control { wish, answer }: Control) {
        let token = self.reads.take_token();
        let (input, at_once) = match wish {
            Wish::Transfer(to) => (Input::TransferLeadership { token, to }, false),
            Wish::Change(change) => (Input::ChangeMembership { token, change }, false),
            Wish::Campaign => (Input::Campaign, true),
        };
        let verdict = match self.raft.step(self.now, input) {
            Ok(()) if at_once => Ok(None),
            Ok(()) => {
                self.controls.insert(token, answer);
                return;
            }
            Err(rejected) => Err(rejected.into()),
        };
        let _gone = answer.send(verdict);
    }

    /// A request about the cluster is at its end.
    pub(crate) fn conclude(&mut self, token: Token, outcome: Outcome) {
        let (node, group) = (self.shared.id(), self.shared.group);
        if let Outcome::Transferred { to } = outcome {
            info!(%node, %group, %to, "leadership handed over");
        }
        let Some(answer) = self.controls.remove(&token) else { return };
        let verdict = match outcome {
            Outcome::Changed { .. } | Outcome::Transferred { .. } => Ok(Some(outcome)),
            Outcome::Refused { leader } if leader == Some(node) => Err(ControlError::GivenUp),
            Outcome::Refused { leader } => Err(ControlError::NotLeader { leader }),
            // No such request ends with a read index; if one did, this would still be true.
            Outcome::Unknown | Outcome::Read { .. } => Err(ControlError::Unknown {
                why: "leadership was lost meanwhile, or another leads now".into(),
            }),
        };
        let _gone = answer.send(verdict);
    }

    /// Goes on with handing over, if the node is to stop.
    pub(crate) fn hand_over(&mut self) {
        let drained = self.is_drained();
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.handover != Handover::Due || !drained {
            return;
        }
        stopping.handover = Handover::Over;
        if self.raft.role() != RoleKind::Leader {
            return;
        }
        let Some(to) = self.successor() else {
            return debug!(node = %self.shared.id(), group = %self.shared.group, "nobody to hand leadership over to");
        };
        let token = self.reads.take_token();
        let next = match self.raft.step(self.now, Input::TransferLeadership { token, to: Some(to) }) {
            Ok(()) => Handover::UnderWay(Some(to)),
            Err(Rejected::Transferring { .. }) => Handover::UnderWay(None),
            Err(_) => Handover::Over,
        };
        if let Some(stopping) = &mut self.stopping {
            stopping.handover = next;
        }
        self.act();
    }

    /// The voter that has most of the log, of those that are in touch.
    pub(crate) fn successor(&self) -> Option<NodeId> {
        let membership = self.raft.membership();
        let peers = self.raft.progress().filter(|peer| membership.is_voter(peer.id));
        let reachable = peers.filter(|peer| !self.lost.contains(&peer.id));
        reachable.max_by_key(|peer| peer.match_index).map(|peer| peer.id)
    }

    /// A transfer has ended, one way or another: if this node still leads, the next one is asked.
    pub(crate) fn transfer_ended(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        if let Handover::UnderWay(to) = stopping.handover {
            self.lost.extend(to);
            stopping.handover = Handover::Due;
        }
    }

    /// The group ends here, and its process lives on: no transport notices. If this node leads, those who sleep by its leave are
    /// woken, and learn from its silence what has become of it. Those that are awake hear nothing of this.
    ///
    /// Nothing has to be durable for it, so it is said by a leader whose store has failed, too.
    pub(crate) fn resign(&mut self) {
        if self.raft.role() == RoleKind::Leader && !self.raft.config().quiesce_after.is_zero() {
            self.step(Input::StepDown);
            self.act();
        }
    }

    /// The group begins here, or others are members now: with whom there is no touch already, that won't be said again. Else a
    /// leader would wait for them to sleep.
    ///
    /// What the transport says from now on waits in the inbox, behind this: so the last word is the true one.
    pub(crate) fn miss_absent(&mut self) {
        let me = self.shared.id();
        let others = self.raft.membership().members().into_iter().filter(|peer| *peer != me);
        for peer in self.shared.host.groups.out_of_touch(others) {
            self.lost_touch(peer);
        }
    }

    /// The transport has lost touch with a peer.
    pub(crate) fn lost_touch(&mut self, peer: NodeId) {
        self.lost.insert(peer);
        self.step(Input::Unreachable { peer });
        let waits_for = self.stopping.as_ref().map(|stopping| stopping.handover);
        if waits_for == Some(Handover::UnderWay(Some(peer))) {
            self.step(Input::AbortTransfer);
        }
    }

    /// The transport is in touch with a peer, or the peer was heard.
    pub(crate) fn in_touch(&mut self, peer: NodeId) {
        self.lost.remove(&peer);
        self.step(Input::Reachable { peer });
    }

    /// Nobody waits for anything but the state machine; or for an index, which may not come before another leads.
    pub(crate) fn is_drained(&self) -> bool {
        self.proposals.is_empty() && self.reads.is_drained() && self.controls.is_empty()
    }

    /// Nobody is left waiting.
    pub(crate) fn abandon_controls(&mut self, why: &str) {
        for answer in mem::take(&mut self.controls).into_values() {
            let _gone = answer.send(Err(ControlError::Unknown { why: why.to_owned() }));
        }
    }
}

//! What a core has told its driver of itself is true: its part, who leads, who is in the cluster, and when it would campaign; and
//! whatever it refuses, it refuses for the reason that it gives.

use std::time::Duration;

use quorate_core::{
    Action, ChangeError, Config, Event, Input, Instant, Membership, NodeId, Raft, Reason, Rejected, Resource,
    RoleKind, Term,
};

use crate::violation::{Verdict, hold};

/// What a process knows from its core's events.
#[derive(Debug)]
pub(crate) struct Told {
    role: (Term, RoleKind),
    leader: Option<NodeId>,
    membership: Membership,
    stopped: bool,
    /// Who has answered it when, in the term that it leads.
    answered: Vec<(NodeId, Instant)>,
    /// How often the clock went back.
    pub(crate) regressions: u64,
}

impl Told {
    pub(crate) fn new(raft: &Raft) -> Self {
        Self {
            role: (raft.term(), raft.role()),
            leader: None,
            membership: raft.membership().clone(),
            stopped: false,
            answered: Vec::new(),
            regressions: 0,
        }
    }

    /// After a step at `now` with these actions; `heard` says whether it has taken in what somebody said.
    pub(crate) fn check(
        &mut self,
        raft: &Raft,
        config: &Config,
        actions: &[Action],
        now: Instant,
        heard: Option<NodeId>,
    ) -> Verdict {
        let n = raft.id();
        let before = self.role;
        let mut moved = false;
        for action in actions {
            match action {
                Action::Event(Event::Role { term, role }) => self.role = (*term, *role),
                Action::Event(Event::Leader { leader, .. }) => self.leader = *leader,
                Action::Event(Event::Membership { membership, .. }) => {
                    self.membership = (**membership).clone();
                    moved = true;
                }
                Action::Event(Event::Stopped) => self.stopped = true,
                Action::Write(_) => moved = true,
                _ => {}
            }
        }
        if self.stopped {
            return Ok(());
        }
        let role = (raft.term(), raft.role());
        hold!(self.role == role, "contract", "node {n} is {role:?}, but has told its driver {:?}", self.role);
        hold!(
            self.leader == raft.leader(),
            "contract",
            "node {n} follows {:?}, but has told its driver {:?}",
            raft.leader(),
            self.leader
        );
        hold!(
            !moved || self.membership == *raft.membership(),
            "contract",
            "node {n} goes by {:?}, but has told its driver {:?}",
            raft.membership(),
            self.membership
        );
        if role != before {
            self.answered.clear();
        }
        let leads =
            heard.is_some_and(|from| raft.role() == RoleKind::Follower && raft.leader() == Some(from));
        let asks = matches!(role.1, RoleKind::PreCandidate | RoleKind::Candidate) && role != before;
        if leads || asks {
            check_timer(raft, config, now, asks)?;
        }
        Ok(())
    }
}

impl Told {
    /// A peer has answered, in the term that this one leads.
    pub(crate) fn answered(&mut self, from: NodeId, now: Instant) {
        self.answered.retain(|(id, _)| *id != from);
        self.answered.push((from, now));
    }

    /// It is to hand over to whoever has most of the log, of those that answer, and has chosen `to`.
    pub(crate) fn check_choice(&self, raft: &Raft, config: &Config, to: NodeId, now: Instant) -> Verdict {
        let n = raft.id();
        let lately = |id: NodeId| {
            let at = self.answered.iter().find(|(other, _)| *other == id).map(|(_, at)| at.0);
            at.is_some_and(|at| u128::from(now.0 - at) < config.election_timeout.as_micros())
        };
        let voters = || raft.progress().filter(|peer| raft.membership().is_voter(peer.id));
        let chosen = voters().find(|peer| peer.id == to).map(|peer| peer.match_index);
        let better = voters().find(|peer| lately(peer.id) && Some(peer.match_index) > chosen);
        hold!(
            better.is_none(),
            "transfer",
            "node {n} hands over to node {to}, which has {chosen:?}, though somebody is ahead: {better:?}"
        );
        Ok(())
    }
}

/// It has heard its leader, or campaigns, since `now`: its next attempt comes one to two election timeouts later, and whoever is to
/// let others go first waits longer, but only for the first (`Config::priority`).
fn check_timer(raft: &Raft, config: &Config, now: Instant, asks: bool) -> Verdict {
    let Some((due, Reason::Election)) = raft.deadline() else { return Ok(()) };
    let micros = |duration: Duration| duration.as_micros() as u64;
    let election = micros(config.election_timeout);
    let patience = if asks { 0 } else { election * u64::from(u8::MAX - config.priority) / 255 };
    let wait = due.0.saturating_sub(now.0);
    hold!(
        (election + patience..=2 * election + patience).contains(&wait),
        "liveness",
        "node {} is to wait for {wait} µs before it campaigns, with an election timeout of {election} and a priority of {}",
        raft.id(),
        config.priority
    );
    Ok(())
}

/// Bytes that an input brings.
pub(super) fn bytes_of(input: &Input) -> usize {
    match input {
        Input::Propose(proposal) => proposal.batch.bytes(),
        Input::Receive { message, .. } => match &message.body {
            quorate_core::Body::Append { entries, .. } => entries.iter().map(quorate_core::Run::bytes).sum(),
            _ => 0,
        },
        _ => 0,
    }
}

/// Nothing has changed by a refusal: so its reason can still be seen.
pub(super) fn check_reason(raft: &Raft, config: &Config, rejected: &Rejected, bytes: usize) -> Verdict {
    let (members, status) = (raft.membership(), raft.status());
    let true_reason = match rejected {
        Rejected::NotLeader { leader } => raft.role() != RoleKind::Leader && *leader == raft.leader(),
        Rejected::WrongTerm { term } => *term == raft.term(),
        Rejected::NoLeader { term } => *term == raft.term() && raft.leader().is_none(),
        Rejected::Transferring { to } => status.transfer == Some(*to),
        Rejected::NotMember { from } => !members.contains(*from),
        Rejected::BadSnapshot { snapshot, from, applied } => {
            *applied == status.applied && !(*from..=*applied).contains(snapshot)
        }
        Rejected::TooBig { .. } => bytes > config.max_uncommitted_bytes,
        Rejected::Overloaded { what: Resource::UncommittedBytes, .. } => {
            status.uncommitted_bytes as usize + bytes > config.max_uncommitted_bytes
        }
        Rejected::Overloaded { what: Resource::UnpersistedBytes, .. } => {
            raft.unpersisted_bytes() > 0 && raft.unpersisted_bytes() + bytes > config.max_unpersisted_bytes
        }
        Rejected::Overloaded { what: Resource::Actions, .. } => false,
        Rejected::Change(error) => match error {
            ChangeError::IdUsed { id, next } => id < next && *next == members.next_id(),
            ChangeError::AlreadyMember(id) => members.contains(*id),
            ChangeError::NotMember(id) => !members.contains(*id),
            ChangeError::NotLearner(id) => !members.learners().contains(id),
            ChangeError::NotVoter(id) => !members.is_voter(*id),
            ChangeError::Joint => members.is_joint(),
            ChangeError::Pending { index } => *index > raft.commit() || members.is_joint(),
            ChangeError::Early { .. } => raft.term_at(raft.commit()) != Some(raft.term()),
            ChangeError::Nothing | ChangeError::Twice(_) | ChangeError::NoId(_) | ChangeError::NoVoters => {
                true
            }
        },
        _ => true,
    };
    hold!(true_reason, "contract", "node {} refuses something without a reason: {rejected}", raft.id());
    Ok(())
}

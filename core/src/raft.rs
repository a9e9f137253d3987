//! The node: what it holds, and how what happens reaches the rules (paper Figures 2 and 4).
//!
//! Methods of [`Raft`] come in three kinds. **Inputs**: [`Raft::step`], the only one that changes anything.
//! **Outputs**: [`Raft::poll`] and [`Raft::drain`], two views of one queue of actions, and [`Raft::deadline`]. **Looks**:
//! all the others. There is no order that a caller owes: actions may be done as they come, whenever they come.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

use crate::{
    Action, Body, Config, ConfigError, Event, HardState, Incarnation, Index, Input, Instant, LogId,
    Membership, Message, NodeId, Outcome, PeerStatus, ReadKind, Receipt, Recovered, Rejected, RequestId,
    Resource, RoleKind, Snapshot, Status, Term, Tokens, WriteSeq,
    apply::Applying,
    backlog::Backlog,
    config::micros,
    election::Votes,
    log::Log,
    memberships::Memberships,
    outbox::Outbox,
    progress::Peer,
    quiesce::Idle,
    quorum,
    read::{ForwardedReads, LeaderReads},
    reconfigure::PendingChange,
    recovery,
    rng::Rng,
    transfer::Transfer,
};

/// One node of one group.
///
/// ```
/// use quorate_core::{Action, Config, Incarnation, Input, Instant, Membership, NodeId, Proposal, Raft, Recovered, Token};
///
/// // A cluster of one, on a store that is durable at once.
/// let fresh = Recovered::fresh(Incarnation(1), Membership::of_voters([NodeId(1)]));
/// let mut raft = Raft::new(Config::new(NodeId(1)), fresh, Instant(0))?;
/// let (mut applied, mut now) = (0, Instant(0));
/// for input in [Input::Tick, Input::Propose(Proposal::one(Token(7), b"hello"))] {
///     raft.step(now, input)?;
///     while let Some(action) = raft.poll() {
///         match action {
///             Action::Write(write) => raft.step(now, Input::Persisted(write.into_receipt()))?,
///             Action::Apply(apply) => {
///                 applied += apply.entries.iter().map(|run| run.count()).sum::<u64>();
///                 raft.step(now, Input::Applied { up_to: apply.last() })?;
///             }
///             _ => {}
///         }
///     }
///     now = now.plus(1);
/// }
/// assert_eq!(applied, 2); // the leader's first entry, and ours
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With the feature `serde` all of it can be written at any moment between two calls, and with `replay` it is read back: from
/// then on both do the same, bit for bit. Whoever reads one back mints receipts, so that is for replays only.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) timing: Timing,
    pub(crate) incarnation: Incarnation,
    pub(crate) rng: Rng,
    pub(crate) request_ids: RequestIds,
    pub(crate) now: Instant,
    clock_regressions: u64,
    /// The caller's clock lies before `now`, which waits for it.
    pub(crate) clock_held: bool,
    /// currentTerm and votedFor, as they will be durable.
    pub(crate) hard_state: HardState,
    pub(crate) role: Role,
    pub(crate) log: Log,
    /// commitIndex.
    pub(crate) commit: Index,
    pub(crate) applying: Applying,
    pub(crate) memberships: Memberships,
    /// The newest snapshot.
    pub(crate) snapshot: Option<Box<Snapshot>>,
    pub(crate) outbox: Outbox,
    /// When the leader of the term was last heard, for stickiness.
    pub(crate) heard: Option<Instant>,
    /// With leases: what was promised in an earlier life may bind until then.
    pub(crate) no_vote_before: Instant,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) announced_role: Option<(Term, RoleKind)>,
    pub(crate) announced_leader: (Term, Option<NodeId>),
    /// Members with which the transport has lost touch, and that have answered no heartbeat since.
    pub(crate) lost: Vec<NodeId>,
    /// There is nothing to do.
    pub(crate) asleep: bool,
    /// The latest round of heartbeats heard in this term.
    pub(crate) round_heard: u64,
    stopped: bool,
}

/// The part that a node plays, with all that belongs to it and nothing else.
///
/// ```text
///                timeout                    quorum would            quorum did
///  Follower ───────────────► PreCandidate ──────────────► Candidate ──────────► Leader
///   ▲ ▲ ▲                        │  │ ▲ timeout               │ │ timeout        │
///   │ │ └── leader, later term ──┘  └─┘                       │ └─► PreCandidate │
///   │ └──────── leader, later term, refused by a quorum ──────┘                  │
///   └─────────────── later term, no word from a quorum ──────────────────────────┘
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) enum Role {
    Follower(Follower),
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Leader),
}

/// Answers others (paper §5.2).
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Follower {
    pub(crate) leader: Option<NodeId>,
    /// This follower's randomised election timeout, in µs.
    pub(crate) timeout: u64,
    pub(crate) deadline: Instant,
    pub(crate) reads: ForwardedReads,
}

/// Asks whether it could win (dissertation 9.6).
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct PreCandidate {
    pub(crate) id: RequestId,
    pub(crate) votes: Votes,
    pub(crate) deadline: Instant,
}

/// Asks for votes (paper §5.2).
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Candidate {
    pub(crate) votes: Votes,
    /// The write that makes its own vote durable: until then that doesn't count.
    pub(crate) own_vote: WriteSeq,
    pub(crate) deadline: Instant,
}

/// Decides (paper §5.3).
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Leader {
    /// The index of the entry with which its term begins: nothing is known to be committed before that is.
    pub(crate) term_start: Index,
    /// Everyone else, sorted by id.
    pub(crate) peers: Vec<Peer>,
    pub(crate) heartbeat_due: Instant,
    /// When to see next whether a quorum still answers.
    pub(crate) quorum_due: Instant,
    /// Counts the rounds of heartbeats.
    pub(crate) round: u64,
    /// Proposals not yet committed, or not handed out.
    pub(crate) uncommitted: Backlog<Index>,
    /// Something was proposed, and is sent with the next poll.
    pub(crate) unsent: bool,
    pub(crate) reads: LeaderReads,
    /// With leases: when the last rounds of heartbeats were sent.
    pub(crate) rounds: VecDeque<(u64, Instant)>,
    /// In this term another node was told to campaign.
    pub(crate) told_to_campaign: bool,
    /// Who waits for a membership change.
    pub(crate) change: Option<PendingChange>,
    /// The membership in force isn't committed, or was not when last looked at.
    pub(crate) unsettled: bool,
    pub(crate) idle: Idle,
    /// The newest round asks everyone to sleep.
    pub(crate) quiescing: bool,
}

/// The configuration's durations, in µs.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Timing {
    pub(crate) election: u64,
    pub(crate) heartbeat: u64,
    /// How long a lease lasts.
    pub(crate) lease: u64,
    /// How much longer a node of low priority waits before its first attempt.
    pub(crate) patience: u64,
    /// After how long without work a group sleeps; 0 for never.
    pub(crate) quiesce: u64,
}

impl Timing {
    fn of(config: &Config) -> Self {
        let election = micros(config.election_timeout);
        let less = u64::from(u8::MAX.saturating_sub(config.priority));
        Self {
            election,
            heartbeat: micros(config.heartbeat_interval),
            lease: election.saturating_sub(micros(config.max_clock_drift)),
            patience: election.saturating_mul(less) / 255,
            quiesce: micros(config.quiesce_after),
        }
    }
}

/// Numbers for questions, never used twice: the incarnation is part of them (contract, point 7).
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct RequestIds(RequestId);

impl RequestIds {
    pub(crate) fn next(&mut self) -> RequestId {
        self.0.number = self.0.number.saturating_add(1);
        self.0
    }
}

/// Why a node wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// To begin an election, or another one.
    Election,
    /// To say that it lives.
    Heartbeat,
    /// To see whether a quorum still answers it.
    CheckQuorum,
    /// To ask the leader again for a read index.
    Read,
    /// To give up handing leadership over.
    Transfer,
}

/// Why a node can't start from what its store holds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// What was recovered contradicts itself: the store is damaged, or lies.
    #[error("what the store has recovered can't be: {0}")]
    Recovered(&'static str),
}

impl Raft {
    /// A node as it starts: from its configuration and what its store holds.
    ///
    /// # Errors
    /// If one of them is not valid.
    pub fn new(config: Config, recovered: Recovered, now: Instant) -> Result<Self, StartError> {
        config.validate()?;
        recovery::validate(&recovered).map_err(StartError::Recovered)?;
        let timing = Timing::of(&config);
        let incarnation = recovered.incarnation;
        let log = Log::new(&recovered, config.max_cached_bytes);
        // commitIndex is volatile (paper Figure 2), but what was applied or is in a snapshot was committed.
        let applied = recovered.base.index.max(recovered.applied);
        let commit = recovered.snapshot.as_ref().map_or(applied, |snapshot| snapshot.last.index.max(applied));
        let mut rng = Rng::new([config.seed, config.group.0, config.id.0, incarnation.0]);
        let random = rng.below(timing.election);
        let timeout = timing.election.saturating_add(random).saturating_add(timing.patience);
        let before = recovered.hard_state.term > Term(0) && config.lease_reads;
        let no_vote_before = if before { now.plus(timing.election) } else { Instant(0) };
        let memberships =
            Memberships::new(recovered.base.index, recovered.base_membership, recovered.memberships);
        // Who is alone has nobody to wait for.
        let alone =
            memberships.current().members() == [config.id] && memberships.current().is_voter(config.id);
        // Nobody but those to whom it promised, under leases, not to use its vote yet.
        let deadline = if alone { now.max(no_vote_before) } else { now.plus(timeout) };
        let follower = Follower { leader: None, timeout, deadline, reads: ForwardedReads::default() };
        Ok(Self {
            timing,
            incarnation,
            rng,
            request_ids: RequestIds(RequestId { incarnation, number: 0 }),
            now,
            clock_regressions: 0,
            clock_held: false,
            hard_state: recovered.hard_state,
            role: Role::Follower(follower),
            log,
            commit,
            applying: Applying::new(applied),
            memberships,
            snapshot: recovered.snapshot.map(Box::new),
            outbox: Outbox::new(config.group, incarnation),
            heard: None,
            no_vote_before,
            transfer: None,
            announced_role: None,
            announced_leader: (Term(0), None),
            lost: Vec::new(),
            asleep: false,
            round_heard: 0,
            stopped: false,
            config,
        })
    }

    // ---- inputs ----

    /// Something happened, and was taken up at `now`.
    ///
    /// `now` is sampled after the input was received. One that lies before the last is taken for the same.
    ///
    /// # Errors
    /// If the input is refused: nothing but the clock has changed then. For a request this is its resolution.
    // Inlined, so that where a driver says which input it is, only that one's code is run and nothing is moved.
    #[inline(always)]
    pub fn step(&mut self, now: Instant, input: Input) -> Result<(), Rejected> {
        self.clock_held = now < self.now;
        if self.clock_held {
            self.clock_regressions = self.clock_regressions.saturating_add(1);
            self.forget_rounds();
        }
        self.now = self.now.max(now);
        if self.stopped {
            return Err(Rejected::Stopped);
        }
        let result = match input {
            Input::Tick => self.uncongested().map(|()| self.tick()),
            Input::Receive { from, message } if self.asleep => self.receive_asleep(from, message),
            Input::Receive { from, message } => self.receive(from, message),
            Input::Propose(proposal) => self.propose(proposal),
            Input::Read { token, kind: ReadKind::AtLeast(index) } => {
                self.uncongested().and_then(|()| self.read_at_least(token, index))
            }
            Input::CancelRead { token } => {
                self.applying.cancel_read(token, &mut self.outbox);
                Ok(())
            }
            Input::Read { token, kind } => self.uncongested().and_then(|()| self.read(token, kind)),
            Input::ChangeMembership { token, change } => {
                self.uncongested().and_then(|()| self.change_membership(token, &change))
            }
            Input::TransferLeadership { token, to } => {
                self.uncongested().and_then(|()| self.transfer(token, to))
            }
            Input::AbortTransfer => {
                self.abort_transfer();
                Ok(())
            }
            Input::StepDown => self.step_down(),
            Input::Campaign => self.uncongested().and_then(|()| self.campaign()),
            Input::ForgetLeader => self.forget_leader(),
            Input::Compact { snapshot, keep } => self.compact(snapshot, keep),
            Input::SnapshotSent { id, arrived } => self.on_snapshot_sent(id, arrived),
            Input::Unreachable { peer } => {
                self.on_unreachable(peer);
                Ok(())
            }
            Input::Reachable { peer } => {
                self.on_reachable(peer);
                Ok(())
            }
            Input::Persisted(receipt) => self.on_persisted(&receipt),
            Input::Loaded { id, result } => self.on_loaded(id, result),
            Input::Applied { up_to } => self.on_applied(up_to),
            Input::StorageFailed => {
                self.stop();
                Ok(())
            }
        };
        self.outbox.flush();
        result
    }

    // ---- outputs ----

    /// The next thing to do. What was proposed is sent when the queue would run empty: so proposals that arrive together
    /// travel together.
    #[inline]
    pub fn poll(&mut self) -> Option<Action> {
        if self.outbox.len() <= 1 {
            self.send_proposed();
        }
        self.outbox.poll()
    }

    /// All there is to do, in order. What is left of it when the iterator is dropped stays queued.
    pub fn drain(&mut self) -> impl Iterator<Item = Action> + '_ {
        core::iter::from_fn(|| self.poll())
    }

    /// When to step with [`Input::Tick`] next, and why; `None` if nothing will ever be due by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<(Instant, Reason)> {
        if self.stopped || self.asleep {
            return None;
        }
        let transfer = self.transfer.map(|transfer| (transfer.deadline, Reason::Transfer));
        let (first, second) = match &self.role {
            Role::Follower(follower) => (
                Some((follower.deadline, Reason::Election)),
                follower.reads.deadline().map(|read| (read, Reason::Read)),
            ),
            Role::PreCandidate(PreCandidate { deadline, .. })
            | Role::Candidate(Candidate { deadline, .. }) => (Some((*deadline, Reason::Election)), None),
            Role::Leader(leader) if leader.peers.is_empty() => (None, None),
            Role::Leader(leader) => (
                Some((leader.heartbeat_due, Reason::Heartbeat)),
                self.config.check_quorum.then_some((leader.quorum_due, Reason::CheckQuorum)),
            ),
        };
        [first, second, transfer].into_iter().flatten().min()
    }

    // ---- looks ----

    /// Who it is.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.config.id
    }

    /// How it is set up.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Its term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Its term and vote.
    #[must_use]
    pub const fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The part it plays.
    #[must_use]
    pub const fn role(&self) -> RoleKind {
        match &self.role {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// Who leads in its term, as far as it knows.
    #[must_use]
    pub const fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.config.id),
        }
    }

    /// commitIndex.
    #[must_use]
    pub const fn commit(&self) -> Index {
        self.commit
    }

    /// The end of its log.
    #[must_use]
    pub const fn last(&self) -> LogId {
        self.log.last()
    }

    /// The end of the durable part of its log.
    #[must_use]
    pub const fn durable(&self) -> Index {
        self.log.durable()
    }

    /// Bytes of entries that were written and are not durable yet.
    #[must_use]
    pub const fn unpersisted_bytes(&self) -> usize {
        self.outbox.unpersisted_bytes()
    }

    /// Up to here entries were handed to apply.
    #[must_use]
    pub const fn handed(&self) -> Index {
        self.applying.handed()
    }

    /// The term of the entry at `index`; `None` if its log doesn't have it any more, or not yet.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The membership in force: the latest in the log, committed or not (paper §6).
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.memberships.current()
    }

    /// A leader's view of the others; nothing from anyone else.
    pub fn progress(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        let peers: &[Peer] = match &self.role {
            Role::Leader(leader) => &leader.peers,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => &[],
        };
        peers.iter().map(Peer::status)
    }

    /// Has its store failed?
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// All about it.
    #[must_use]
    pub fn status(&self) -> Status {
        let uncommitted_bytes = match &self.role {
            Role::Leader(leader) => leader.uncommitted.bytes(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => 0,
        };
        let changing = matches!(&self.role, Role::Leader(leader) if leader.change.is_some());
        let requests = u64::from(self.transfer.is_some()).saturating_add(u64::from(changing));
        let unconfirmed = self.pending_reads().saturating_sub(self.applying.reads());
        let (membership_index, membership) = self.memberships.current_entry();
        Status {
            id: self.config.id,
            group: self.config.group,
            incarnation: self.incarnation,
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            role: self.role(),
            leader: self.leader(),
            base: self.log.base(),
            snapshot: self.snapshot_id(),
            last: self.log.last(),
            durable: self.log.durable(),
            commit: self.commit,
            applied: self.applying.applied(),
            membership: membership.clone(),
            membership_index,
            transfer: self.transfer.map(|transfer| transfer.to),
            lease_until: self.lease_until(),
            peers: self.progress().collect(),
            uncommitted_bytes: uncommitted_bytes as u64,
            unpersisted_bytes: self.outbox.unpersisted_bytes() as u64,
            cached_bytes: self.log.cached_bytes() as u64,
            pending: self.applying.pending().saturating_add(unconfirmed as u64).saturating_add(requests),
            parked: self.outbox.parked() as u64,
            clock_regressions: self.clock_regressions,
            asleep: self.asleep,
            stopped: self.stopped,
        }
    }

    // ---- what happens ----

    /// Nobody drains the queue: then nothing more is taken in that would fill it (contract, point 4).
    #[inline]
    pub(crate) fn uncongested(&self) -> Result<(), Rejected> {
        let bound = self.config.max_actions;
        if self.outbox.len() < bound {
            Ok(())
        } else {
            Err(Rejected::Overloaded { what: Resource::Actions, bound: bound as u64 })
        }
    }

    /// Time has passed.
    #[inline(never)]
    fn tick(&mut self) {
        if self.transfer.is_some_and(|transfer| transfer.deadline <= self.now) {
            self.abort_transfer();
        }
        // What a snapshot says was committed can be applied before anything else happens.
        if self.applying.handed() < self.commit {
            self.advance_apply();
        }
        if self.asleep {
            return;
        }
        if self.election_deadline().is_some_and(|deadline| deadline <= self.now) {
            return self.on_election_timeout();
        }
        match &self.role {
            Role::Follower(follower) => {
                if follower.reads.deadline().is_some_and(|deadline| deadline <= self.now) {
                    self.ask_again();
                }
            }
            Role::PreCandidate(_) | Role::Candidate(_) => {}
            Role::Leader(leader) => {
                let (heartbeat, check) = (leader.heartbeat_due <= self.now, leader.quorum_due <= self.now);
                if check && self.config.check_quorum {
                    self.check_quorum();
                }
                if heartbeat {
                    self.beat();
                }
            }
        }
    }

    /// With every heartbeat, sent or received: a group at rest takes little room.
    pub(crate) fn give_back(&mut self) {
        if !self.outbox.give_back() {
            return;
        }
        self.log.give_back();
        self.applying.give_back();
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted.give_back();
            leader.reads.give_back();
            leader.peers.iter_mut().for_each(Peer::give_back);
        }
    }

    /// A leader that no quorum has answered for an election timeout steps down: the others may have another by now,
    /// and clients should not wait for it (dissertation 6.2).
    fn check_quorum(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let (me, now) = (self.config.id, self.now);
        let since = quorum::reached(self.memberships.current(), |id| {
            if id == me { now } else { leader.peer(id).map_or(Instant(0), |peer| peer.heard) }
        });
        let due = since.plus(self.timing.election);
        if due <= now {
            return self.become_follower(self.hard_state.term, None);
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.quorum_due = due;
        }
    }

    /// A write is durable.
    #[inline(never)]
    fn on_persisted(&mut self, receipt: &Receipt) -> Result<(), Rejected> {
        self.outbox.check(receipt)?;
        self.log.persisted(receipt.seq());
        self.outbox.persisted(receipt.seq(), self.hard_state.term, &self.log);
        match &self.role {
            Role::Leader(_) if self.log.durable() > self.commit => self.advance_commit(),
            Role::Candidate(_) => self.count_own_vote(),
            Role::Leader(_) | Role::Follower(_) | Role::PreCandidate(_) => {}
        }
        self.advance_apply();
        Ok(())
    }

    #[inline(never)]
    fn on_applied(&mut self, up_to: Index) -> Result<(), Rejected> {
        self.applying.on_applied(up_to)?;
        self.advance_apply();
        Ok(())
    }

    /// The store has failed. What was appended may be durable or not; nothing is acknowledged any more, and there is no
    /// retry: after a failed fsync nobody knows what the disk holds (contract, point 8).
    fn stop(&mut self) {
        match &mut self.role {
            Role::Leader(leader) => leader.reads.end(Outcome::Unknown, &mut self.outbox),
            Role::Follower(follower) => follower.reads.end(Outcome::Unknown, &mut self.outbox),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        if let Role::Leader(leader) = &mut self.role
            && let Some(change) = leader.change.take()
        {
            self.outbox.resolve(Tokens::one(change.token), Outcome::Unknown);
        }
        self.end_transfer(Outcome::Unknown);
        self.applying.abandon(&mut self.outbox);
        self.outbox.stop();
        self.asleep = false;
        // Whatever it was, it plays no part any more.
        let nothing = Follower {
            leader: None,
            timeout: self.timing.election,
            deadline: self.now,
            reads: ForwardedReads::default(),
        };
        self.role = Role::Follower(nothing);
        self.outbox.event(Event::Stopped);
        self.stopped = true;
    }

    /// Says something, through the outbox's choke point.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.hard_state.term, body };
        self.outbox.send(to, message, &self.log);
    }
}

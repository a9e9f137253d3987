//! One core against anything at all: bytes are read as choices, and every choice becomes an input.
//!
//! The choices reuse what is live (tokens, receipts, load ids, terms, request ids, the ends of the log), for nothing
//! is refused as easily as a random number. After each input: a refusal has changed nothing, the bounds hold, and the state
//! is one that a node can be in. The fuzzer drives the same code.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::{
    Action, Batch, Body, ChangeOp, Config, EntryKind, Few, HardState, Incarnation, Index, Input, Instant,
    Load, LoadId, Loaded, LogId, Membership, MembershipChange, MembershipParts, Message, NodeId, Outcome,
    Proposal, Raft, ReadKind, Rebase, Receipt, Recovered, Rejected, RequestId, Resource, RoleKind, Run,
    SendId, Snapshot, Status, Term, TermStart, Token, Transition, Write,
};

/// What has been met on the way: to see that the choices lead everywhere.
pub type Met = BTreeMap<String, u64>;

/// Looks on, to record.
pub trait Observer {
    /// A node starts.
    fn start(&mut self, _config: &Config, _recovered: &Recovered, _now: Instant) {}
    /// The core, before each thing that happens.
    fn look(&mut self, _raft: &Raft) {}
    /// Something is about to happen.
    fn input(&mut self, _now: Instant, _input: &Input) {}
    /// Something is to be done.
    fn action(&mut self, _action: &Action) {}
    /// All that was to be done has been polled.
    fn drained(&mut self) {}
}

impl Observer for () {}

/// Reads choices from bytes; when they are used up, every choice is the first.
#[derive(Debug)]
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.byte()) % bound.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    /// A number around one that is live, or an absurd one.
    fn near(&mut self, live: u64) -> u64 {
        match self.byte() {
            0..=119 => live,
            120..=154 => live.wrapping_add(1),
            155..=189 => live.saturating_sub(1),
            190..=214 => live.wrapping_add(self.below(9)),
            215..=239 => self.below(live.saturating_add(1).min(256)),
            240..=243 => 0,
            244..=247 => u64::MAX,
            248..=251 => (1 << 63) - 1,
            252..=255 => 1 << 63,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64) as usize;
        from.get(at).copied()
    }
}

struct Chaos<'a> {
    observer: &'a mut dyn Observer,
    choices: Choices<'a>,
    raft: Raft,
    config: Config,
    now: u64,
    /// The log as it was issued and the part of it that is durable: what a store would hold.
    log: Vec<Run>,
    writes: VecDeque<Write>,
    /// Receipts of another life, or handed out twice by a bad driver.
    stray: Vec<Receipt>,
    loads: Vec<Load>,
    sends: Vec<SendId>,
    requests: Vec<RequestId>,
    rounds: Vec<u64>,
    handed: Index,
    applied: Index,
    /// Tokens that were taken and have no outcome yet.
    open: Vec<u64>,
    next_token: u64,
    met: Met,
}

/// Runs one core through the choices in `bytes`; panics where something is wrong.
pub fn run(bytes: &[u8], observer: &mut dyn Observer) -> Met {
    let mut choices = Choices(bytes);
    let config = configure(&mut choices);
    let (recovered, log) = recover(&mut choices, 1);
    let now = Instant(choices.below(200));
    let started = Raft::new(config.clone(), recovered.clone(), now);
    let Ok(raft) = started else { return Met::from([("refused to start".into(), 1)]) };
    observer.start(&config, &recovered, now);
    let mut chaos = Chaos {
        observer,
        handed: recovered.base.index.max(recovered.applied),
        applied: recovered.base.index.max(recovered.applied),
        choices,
        raft,
        config,
        now: 0,
        log,
        writes: VecDeque::new(),
        stray: foreign_receipts(),
        loads: Vec::new(),
        sends: Vec::new(),
        requests: Vec::new(),
        rounds: vec![0],
        open: Vec::new(),
        next_token: 0,
        met: Met::new(),
    };
    while !chaos.choices.is_empty() {
        chaos.once();
    }
    chaos.met
}

fn configure(choices: &mut Choices<'_>) -> Config {
    let mut config = Config::new(NodeId(1));
    let shape = choices.byte();
    config.pre_vote = shape & 1 == 0;
    config.check_quorum = shape & 2 == 0;
    config.lease_reads = shape & 32 != 0;
    config.priority = if shape & 64 == 0 { 255 } else { 7 };
    config.quiesce_after = if shape & 128 == 0 { std::time::Duration::ZERO } else { config.election_timeout };
    if shape & 4 != 0 {
        config.max_append_bytes = 20;
        config.max_inflight_messages = 2;
        config.max_inflight_bytes = 40;
        config.max_cached_bytes = 30;
        config.max_applying_bytes = 30;
    }
    if shape & 8 != 0 {
        config.max_uncommitted_bytes = 60;
        config.max_unpersisted_bytes = 60;
        config.max_reads = 3;
    }
    if shape & 16 != 0 {
        config.max_actions = 4;
    }
    config
}

/// What a store might bring back: mostly sound, sometimes not.
fn recover(choices: &mut Choices<'_>, incarnation: u64) -> (Recovered, Vec<Run>) {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let parts = match choices.below(10) {
        0..=3 => MembershipParts { voters: ids(&[1, 2, 3]), ..MembershipParts::default() },
        4 => MembershipParts { voters: ids(&[1]), ..MembershipParts::default() },
        5 => MembershipParts { voters: ids(&[2, 3]), learners: ids(&[1]), ..MembershipParts::default() },
        6 => MembershipParts {
            voters: ids(&[1, 2, 4]),
            outgoing: ids(&[1, 2, 3]),
            ..MembershipParts::default()
        },
        _ => MembershipParts { voters: ids(&[1]), learners: ids(&[2]), ..MembershipParts::default() },
    };
    let mut recovered = Recovered::fresh(Incarnation(incarnation), Membership::try_from(parts).unwrap());
    let mut log = Vec::new();
    if choices.one_in(4) {
        recovered.base = LogId::new(Term(1), Index(3));
        let membership = recovered.base_membership.clone();
        recovered.snapshot = Some(Snapshot { last: recovered.base, membership });
    }
    let mut last = recovered.base;
    for _ in 0..choices.below(4) {
        let run = command_run(last.term.0.max(1) + choices.below(2), last.index.0 + 1, 1 + choices.below(3));
        if recovered.terms.last().is_none_or(|start| start.term != run.term()) {
            recovered.terms.push(TermStart { first: run.first(), term: run.term() });
        }
        last = run.last_id();
        log.push(run);
    }
    recovered.last = last.index;
    let term = last.term.0 + choices.below(3);
    recovered.hard_state = HardState {
        term: Term(term),
        vote: choices.pick(&[None, Some(NodeId(1)), Some(NodeId(2))]).flatten(),
    };
    recovered.applied = Index(choices.below(last.index.0 + 1));
    if choices.one_in(16) {
        // A damaged one.
        match choices.below(8) {
            5 => recovered.snapshot = None,
            6 => {
                let id = LogId::new(Term(choices.near(1)), Index(choices.near(last.index.0)));
                let membership = recovered.base_membership.clone();
                recovered.snapshot = Some(Snapshot { last: id, membership });
            }
            0 => recovered.applied = Index(choices.near(last.index.0)),
            1 => recovered.last = Index(choices.near(last.index.0)),
            2 => recovered.hard_state.term = Term(choices.near(term)),
            3 => recovered.terms.reverse(),
            4 => recovered.incarnation = Incarnation(0),
            _ => recovered.base.term = Term(choices.near(1)),
        }
    }
    (recovered, log)
}

fn command_run(term: u64, first: u64, count: u64) -> Run {
    let commands: Vec<[u8; 2]> = (0..count).map(|n| [term as u8, (first + n) as u8]).collect();
    Run::commands(Term(term), Index(first), &commands).unwrap()
}

/// Receipts of a single node's two lives: none of them is for the core under test.
fn foreign_receipts() -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for incarnation in [7, 8] {
        let fresh = Recovered::fresh(Incarnation(incarnation), Membership::of_voters([NodeId(1)]));
        let mut other = Raft::new(Config::new(NodeId(1)), fresh, Instant(0)).unwrap();
        other.step(Instant(0), Input::Tick).unwrap();
        receipts.extend(other.drain().filter_map(|action| match action {
            Action::Write(write) => Some(write.into_receipt()),
            _ => None,
        }));
    }
    receipts
}

impl Chaos<'_> {
    fn once(&mut self) {
        self.observer.look(&self.raft);
        let before = self.raft.status();
        let (name, input, token) = self.input();
        let clock = self.clock();
        self.observer.input(Instant(clock), &input);
        let result = self.raft.step(Instant(clock), input);
        self.meet(&format!("{name} {}", result.map_or_else(kind_of, |()| "taken".into())));
        let after = self.raft.status();
        match result {
            Ok(()) => self.open.extend(token.into_iter().flatten()),
            Err(_) => {
                // A clock that is set back voids a lease.
                let held = after.clock_regressions > before.clock_regressions;
                let lease_until = if held { None } else { before.lease_until };
                let clocked =
                    Status { clock_regressions: after.clock_regressions, lease_until, ..before.clone() };
                assert_eq!(after, clocked, "{name} was refused, and something has changed");
            }
        }
        self.check(&before, &after);
        let drain = self.choices.below(4) > 0;
        while drain && let Some(action) = self.raft.poll() {
            self.observer.action(&action);
            self.take(action);
        }
        if drain {
            self.observer.drained();
        }
        if let Some((at, _)) = self.raft.deadline() {
            assert!(!after.stopped && at >= Instant(0));
        }
    }

    fn clock(&mut self) -> u64 {
        match self.choices.below(8) {
            0..=3 => {}
            4 | 5 => self.now = self.raft.deadline().map_or(self.now, |(at, _)| at.0.max(self.now)),
            6 => self.now = self.now.saturating_add(self.choices.below(250) * 1000),
            _ => return self.choices.near(self.now),
        }
        self.now
    }

    fn input(&mut self) -> (&'static str, Input, Option<Vec<u64>>) {
        match self.choices.below(40) {
            32 => ("campaign", Input::Campaign, None),
            33 if self.choices.one_in(3) => ("step down", Input::StepDown, None),
            33 => ("forget leader", Input::ForgetLeader, None),
            34 => {
                let peer = NodeId(self.choices.below(6));
                if self.choices.one_in(3) {
                    ("reachable", Input::Reachable { peer }, None)
                } else {
                    ("unreachable", Input::Unreachable { peer }, None)
                }
            }
            35 => {
                let live = if self.choices.one_in(3) { self.applied } else { self.handed };
                let (snapshot, keep) = (Index(self.choices.near(live.0)), self.choices.below(4));
                ("compact", Input::Compact { snapshot, keep }, None)
            }
            36 => {
                let live = self.choices.pick(&self.sends.clone()).unwrap_or_default();
                let id = SendId(self.request_near(live.0));
                ("snapshot sent", Input::SnapshotSent { id, arrived: self.choices.one_in(2) }, None)
            }
            37 => {
                let token = self.token(1);
                let to =
                    self.choices.pick(&[None, Some(NodeId(2)), Some(NodeId(3)), Some(NodeId(9))]).flatten();
                ("transfer", Input::TransferLeadership { token: Token(token), to }, Some(vec![token]))
            }
            38 if self.choices.one_in(3) => {
                let token = self.choices.pick(&self.open.clone()).unwrap_or_default();
                ("cancel read", Input::CancelRead { token: Token(token) }, None)
            }
            38 if self.choices.one_in(3) => ("abort transfer", Input::AbortTransfer, None),
            38 | 39 => {
                let token = self.token(1);
                let change = self.change();
                ("change", Input::ChangeMembership { token: Token(token), change }, Some(vec![token]))
            }
            0..=4 => ("tick", Input::Tick, None),
            5..=15 => {
                let (name, message) = self.message();
                let from = self.choices.pick(&[2, 3, 2, 3, 4, 1, 0, 9]).unwrap_or(2);
                (name, Input::Receive { from: NodeId(from), message }, None)
            }
            16..=18 => {
                let count = self.choices.below(4);
                let size = if self.choices.one_in(8) { 90 } else { 2 };
                let commands = vec![vec![7_u8; size]; count as usize];
                let token = self.token(count);
                let proposal = Proposal::new(Token(token), Batch::from(commands.as_slice()));
                let tokens = (0..count).map(|n| token.wrapping_add(n)).collect();
                ("propose", Input::Propose(proposal), Some(tokens))
            }
            19 | 20 => {
                let token = self.token(1);
                let kind = match self.choices.below(4) {
                    0 => ReadKind::Lease,
                    1 => ReadKind::AtLeast(Index(self.choices.near(self.handed.0))),
                    _ => ReadKind::Linearizable,
                };
                ("read", Input::Read { token: Token(token), kind }, Some(vec![token]))
            }
            21..=27 => self.persisted(),
            28 => self.loaded(),
            29 | 30 => {
                let live = if self.choices.one_in(3) { self.applied } else { self.handed };
                let up_to = Index(self.choices.near(live.0));
                if up_to <= self.handed {
                    self.applied = self.applied.max(up_to);
                }
                ("applied", Input::Applied { up_to }, None)
            }
            _ if self.choices.one_in(50) => ("storage failed", Input::StorageFailed, None),
            _ => ("tick", Input::Tick, None),
        }
    }

    /// A new token, or one that is still open.
    fn token(&mut self, count: u64) -> u64 {
        if self.choices.one_in(4)
            && let Some(token) = self.choices.pick(&self.open.clone())
        {
            return token;
        }
        self.next_token += count;
        self.next_token - count
    }

    fn persisted(&mut self) -> (&'static str, Input, Option<Vec<u64>>) {
        if self.choices.one_in(6) && !self.stray.is_empty() {
            return ("persisted", Input::Persisted(self.stray.remove(0)), None);
        }
        if self.choices.one_in(8) && self.writes.len() > 1 {
            // Out of turn: that receipt is lost with it, as with a bad driver.
            let write = self.writes.remove(1).unwrap();
            return ("persisted", Input::Persisted(write.into_receipt()), None);
        }
        let Some(write) = self.writes.pop_front() else { return ("tick", Input::Tick, None) };
        let mut receipt = write.into_receipt();
        while self.choices.one_in(2)
            && let Some(next) = self.writes.pop_front()
        {
            match receipt.merge(next.into_receipt()) {
                Ok(merged) => receipt = merged,
                Err((first, second)) => {
                    self.stray.push(second);
                    receipt = first;
                }
            }
        }
        ("persisted", Input::Persisted(receipt), None)
    }

    fn loaded(&mut self) -> (&'static str, Input, Option<Vec<u64>>) {
        let live = self.choices.pick(&self.loads.clone());
        let id = LoadId(self.request_near(live.map_or_else(RequestId::default, |load| load.id.0)));
        let first = self.choices.near(live.map_or(1, |load| load.first.0));
        let last = self.choices.near(live.map_or(1, |load| load.last.0));
        let entries: Few<Run> = match self.choices.below(8) {
            0 => return ("loaded", Input::Loaded { id, result: Loaded::Compacted }, None),
            1 => Few::new(),
            2 => Few::one(command_run(self.raft.term().0.max(1), first.clamp(1, 1 << 40), 2)),
            _ => self
                .log
                .iter()
                .filter(|run| run.last().0 >= first && run.first().0 <= last)
                .filter_map(|run| run.starting_at(Index(first))?.ending_before(Index(last.saturating_add(1))))
                .collect(),
        };
        if self.choices.one_in(4) {
            self.loads.retain(|load| load.id != id);
        }
        ("loaded", Input::Loaded { id, result: Loaded::Entries(entries) }, None)
    }

    fn change(&mut self) -> MembershipChange {
        let mut ops = Vec::new();
        for _ in 0..self.choices.below(4) {
            let id = NodeId(self.choices.below(8));
            ops.push(match self.choices.below(6) {
                0 => ChangeOp::AddVoter(id),
                1 => ChangeOp::AddLearner(id),
                2 => ChangeOp::Join(id),
                3 => ChangeOp::Promote(id),
                4 => ChangeOp::Demote(id),
                _ => ChangeOp::Remove(id),
            });
        }
        let transition = self.choices.pick(&[Transition::Auto, Transition::Implicit, Transition::Explicit]);
        MembershipChange { ops, transition: transition.unwrap_or_default() }
    }

    fn message(&mut self) -> (&'static str, Message) {
        let status = self.raft.status();
        let term = Term(self.choices.near(status.term.0));
        let (name, body) = match self.choices.below(28) {
            26 | 27 => {
                // A peer that lacks all that it was asked about.
                let next = status.peers.first().map_or(Index(1), |peer| peer.next_index);
                ("conflict", Body::Conflict { prev: next.prev(), hint: LogId::ZERO })
            }
            24 => ("timeout now", Body::TimeoutNow),
            25 => {
                let last = self.log_id(&status);
                let membership = status.membership;
                (
                    "install snapshot",
                    Body::InstallSnapshot { snapshot: Box::new(Snapshot { last, membership }) },
                )
            }
            0 | 1 => ("pre-vote", Body::PreVote { id: self.request(), last: self.log_id(&status) }),
            2 | 3 => (
                "pre-vote reply",
                Body::PreVoteReply { id: self.request(), granted: !self.choices.one_in(4) },
            ),
            4 | 5 => ("vote", self.vote(&status)),
            6..=8 => ("vote reply", self.voted(&status)),
            9..=12 => ("append", self.append(&status, term)),
            13..=16 => {
                let peer = status.peers.first().map_or(status.last.index, |peer| peer.next_index.prev());
                let live = if self.choices.one_in(2) { status.last.index } else { peer };
                ("appended", Body::Appended { up_to: Index(self.choices.near(live.0)) })
            }
            17 => {
                let next = status.peers.first().map_or(Index(1), |peer| peer.next_index);
                let prev = Index(self.choices.near(next.prev().0));
                ("conflict", Body::Conflict { prev, hint: self.log_id(&status) })
            }
            18 | 19 => {
                let commit = Index(self.choices.near(status.commit.0));
                let quiesce = self.choices.one_in(2);
                // What lets a node sleep is of a round that it has not heard, and of all of its log.
                let (commit, round) = if quiesce {
                    (Index(self.choices.near(status.last.index.0)), 9 + self.choices.below(250))
                } else {
                    (commit, self.choices.below(9))
                };
                ("heartbeat", Body::Heartbeat { commit, round, quiesce })
            }
            20 => {
                let round = self.rounds.last().copied().unwrap_or_default();
                let (round, asleep) = (self.choices.near(round), !self.choices.one_in(3));
                ("heartbeat reply", Body::HeartbeatReply { round, asleep })
            }
            21 => ("commit", Body::Commit { commit: Index(self.choices.near(status.last.index.0)) }),
            22 => ("read index", Body::ReadIndex { id: self.request() }),
            _ => {
                let index = (!self.choices.one_in(4)).then(|| Index(self.choices.near(status.commit.0)));
                ("read index reply", Body::ReadIndexReply { id: self.request(), index })
            }
        };
        (name, Message { term, body })
    }

    fn vote(&mut self, status: &Status) -> Body {
        let transfer = self.choices.one_in(6);
        Body::Vote { last: self.log_id(status), commit: self.log_id(status), transfer }
    }

    fn voted(&mut self, status: &Status) -> Body {
        Body::VoteReply { granted: !self.choices.one_in(4), commit: self.log_id(status) }
    }

    /// Entries after something in the log: the same as there, others, or more.
    fn append(&mut self, status: &Status, term: Term) -> Body {
        let prev = self.log_id(status);
        let commit = Index(self.choices.near(status.commit.0));
        let mut entries = Few::new();
        let (mut run_term, mut next) = (prev.term.0.max(1), prev.index.0.saturating_add(1));
        for _ in 0..self.choices.below(4) {
            run_term = match self.choices.below(4) {
                0 => run_term,
                1 => self.raft.term_at(Index(next)).map_or(run_term, |term| term.0),
                2 => run_term.saturating_add(1),
                _ => term.0,
            };
            if !(1..1 << 63).contains(&run_term) || next > 1 << 62 {
                break;
            }
            let run = if self.choices.one_in(8) {
                let members = [[1, 2, 3], [1, 2, 4]][self.choices.below(2) as usize];
                Run::membership(Term(run_term), Index(next), &Membership::of_voters(members.map(NodeId)))
            } else {
                command_run(run_term, next, 1 + self.choices.below(4))
            };
            next = run.last().0 + 1;
            entries.push(run);
            if self.choices.one_in(10) {
                next += 1;
            }
        }
        Body::Append { prev, commit, entries }
    }

    fn log_id(&mut self, status: &Status) -> LogId {
        let live = match self.choices.below(4) {
            0 => status.base.index,
            1 => status.commit,
            _ => status.last.index,
        };
        let index = Index(self.choices.near(live.0));
        let term = self.raft.term_at(index).unwrap_or(status.term);
        LogId::new(Term(self.choices.near(term.0)), index)
    }

    fn request(&mut self) -> RequestId {
        let live = self.requests.last().copied().unwrap_or_default();
        self.request_near(live)
    }

    fn request_near(&mut self, live: RequestId) -> RequestId {
        RequestId {
            incarnation: Incarnation(self.choices.near(live.incarnation.0)),
            number: self.choices.near(live.number),
        }
    }

    fn take(&mut self, action: Action) {
        self.meet(&format!(
            "action {}",
            format!("{action:?}").split(['(', ' ', '{']).next().unwrap_or_default()
        ));
        match action {
            Action::Send { to, message } => {
                assert_ne!(to, NodeId(1), "a node does not write to itself");
                assert_eq!(message.validate(), Ok(()), "{message:?}");
                match message.body {
                    Body::PreVote { id, .. } | Body::ReadIndex { id } => self.requests.push(id),
                    Body::Heartbeat { round, .. } => self.rounds.push(round),
                    _ => {}
                }
            }
            Action::Write(write) => {
                match write.rebase.as_deref() {
                    Some(Rebase::Compact(base)) => {
                        let first = base.last.index.next();
                        self.log = self.log.iter().filter_map(|run| run.starting_at(first)).collect();
                    }
                    Some(Rebase::Install(_)) => self.log.clear(),
                    None => {}
                }
                if let Some(from) = write.truncate {
                    self.log = self.log.iter().filter_map(|run| run.ending_before(from)).collect();
                }
                self.log.extend(write.entries.iter().cloned());
                self.writes.push_back(write);
            }
            Action::Apply(apply) => {
                for run in &apply.entries {
                    assert_eq!(run.first(), self.handed.next(), "applied in order, without a gap");
                    assert!(
                        run.entries().all(|entry| entry.kind != EntryKind::Noop || entry.payload.is_empty())
                    );
                    self.handed = run.last();
                }
                assert!(self.handed <= self.raft.durable(), "only what is durable is applied");
                for token in apply.done.iter().flat_map(|done| done.tokens.iter()) {
                    self.close(token);
                }
            }
            Action::Restore(snapshot) => {
                assert!(snapshot.last.index > self.handed, "a snapshot never goes back");
                assert!(snapshot.last.index <= self.raft.durable(), "only what is durable is restored");
                self.handed = snapshot.last.index;
            }
            Action::SendSnapshot(send) => {
                assert_eq!(send.message.validate(), Ok(()));
                self.sends.push(send.id);
            }
            Action::Load(load) => {
                assert!(load.first <= load.last);
                self.loads.push(load);
            }
            Action::Resolve { tokens, outcome } => {
                for token in tokens.iter() {
                    self.close(token);
                }
                if let Outcome::Read { index } = outcome {
                    assert!(index <= self.handed, "a read is resolved when what it must see was handed out");
                }
            }
            Action::Event(_) => {}
        }
    }

    /// Exactly once: a token that is reused while open may be closed as often as it was taken.
    fn close(&mut self, token: Token) {
        let at = self.open.iter().position(|open| *open == token.0);
        self.open.swap_remove(at.unwrap_or_else(|| panic!("{token:?} was resolved twice, or never taken")));
    }

    /// What always holds (names as in the paper's Figure 3, and the contract's bounds).
    fn check(&self, before: &Status, after: &Status) {
        assert!(after.term >= before.term, "terms don't go back");
        assert!(
            after.commit >= before.commit && after.applied >= before.applied,
            "nor do commit and applied"
        );
        assert!(after.commit <= after.last.index && after.durable <= after.last.index);
        assert!(after.applied <= after.commit && after.base.index <= after.commit);
        assert!(after.last.term <= after.term, "no entry is of a later term than the node");
        if after.term == before.term {
            assert!(before.vote.is_none() || after.vote == before.vote, "one vote a term");
            if before.role == RoleKind::Leader && after.role == RoleKind::Leader {
                assert!(after.last >= before.last, "Leader Append-Only");
            }
        }
        if after.role == RoleKind::Leader {
            assert_eq!(after.vote, Some(NodeId(1)), "a leader voted for itself");
        }
        for peer in &after.peers {
            assert!(peer.next_index > peer.match_index && peer.match_index <= after.last.index);
            assert!(peer.inflight_messages <= self.config.max_inflight_messages as u64);
        }
        assert!(after.uncommitted_bytes <= self.config.max_uncommitted_bytes as u64);
        assert!(after.parked <= 300);
        if after.stopped {
            assert_eq!(after.pending, 0, "every token is resolved when the store has failed");
        }
    }

    fn meet(&mut self, what: &str) {
        *self.met.entry(what.to_owned()).or_default() += 1;
    }
}

fn kind_of(rejected: Rejected) -> String {
    match rejected {
        Rejected::Overloaded { what, .. } => match what {
            Resource::UncommittedBytes => "overloaded: uncommitted".into(),
            Resource::UnpersistedBytes => "overloaded: unpersisted".into(),
            Resource::Reads => "overloaded: reads".into(),
            Resource::Actions => "overloaded: actions".into(),
        },
        other => format!("{other:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned(),
    }
}

//! One step of one core, with all its checks; and what it wants done, put where it belongs.

use quorate_core::{
    Action, Body, Event, Input, Instant, LogId, Membership, NodeId, Rebase, Rejected, RequestId, RoleKind,
    Tokens, Write,
};

use super::{
    Lab, Parcel, Query,
    told::{bytes_of, check_reason},
};
use crate::{
    ghost::{Cause, Wanted},
    node::Work,
    op::Kind,
    stats::Count,
    violation::{Verdict, hold},
    watch::{Seen, Step, Stimulus},
};

/// A sound run of a minute takes a few ten thousand steps. Messages that beget more messages never end.
const MOST_STEPS: u64 = 5_000_000;

/// What must be remembered of an input while it is taken up.
struct Asked {
    tokens: Option<Tokens>,
    wanted: Option<Wanted>,
    snapshot: Option<LogId>,
    /// A snapshot is there: so many entries may go, but no others.
    compacts: Option<(u64, u64)>,
    cause: Cause,
    /// A proposal is meant for this term alone.
    term: Option<quorate_core::Term>,
    from_peer: Option<NodeId>,
    /// Leadership is to go to whoever is best.
    chooses: bool,
    /// It answers a leader, in that term.
    answers: Option<quorate_core::Term>,
    /// It is a leader's word, in that term.
    leads: Option<quorate_core::Term>,
    ticked: bool,
    /// Of an earlier life, or about one: it is to be refused.
    stale: bool,
}

impl Lab {
    /// One step of one core; `id` is the message's number, if it is one.
    pub(super) fn step(&mut self, slot: usize, now: Instant, id: u64, input: Input) -> Verdict {
        let config = self.setup.config_of(slot);
        let node = &mut self.nodes[slot];
        let life = node.life;
        let back = now < node.seen;
        node.seen = now.max(node.seen);
        let Some(process) = &mut node.process else { return Ok(()) };
        process.told.regressions += u64::from(back);
        self.counts.bump(Count::Steps);
        hold!(self.counts[Count::Steps] <= MOST_STEPS, "liveness", "a storm: {MOST_STEPS} steps, and no end");
        self.digest.add(&(self.now, slot, &input));
        self.trace.line(self.now, || format!("n{} <- {input:?}", slot + 1));
        let raft = &mut process.raft;
        let asked = asked(&input, raft.membership(), node.disk.incarnation());
        let bytes = bytes_of(&input);
        let base = asked.compacts.map_or(0, |_| raft.status().base.index.0);
        let stimulus = (!self.watchers.is_empty()).then(|| Stimulus::of(&input, id));
        let result = raft.step(now, input);
        let actions: Vec<Action> = raft.drain().collect();
        self.outcome.refused = result.err();
        // Whoever looks on sees it before it is judged: so a picture has the step in it that breaks something.
        if let Some(stimulus) = &stimulus {
            let step = Step { slot, now, stimulus, result, actions: &actions, raft };
            let seen = Seen::Stepped(step);
            self.watchers.iter_mut().try_for_each(|watcher| watcher.see(self.now, &seen))?;
        }
        if let Err(rejected) = result {
            self.trace.line(self.now, || format!("n{} refuses: {rejected}", slot + 1));
            self.digest.add(&rejected);
            check_refusal(slot, &rejected, &asked, &actions)?;
            check_reason(raft, &config, &rejected, bytes)?;
        } else if let Some((snapshot, keep)) = asked.compacts {
            let (wanted, base) = (base.max(snapshot.saturating_sub(keep)), raft.status().base.index.0);
            let n = slot + 1;
            hold!(
                base == wanted,
                "contract",
                "node {n} has a snapshot at {snapshot} and is to keep {keep}, but begins after {base}, not {wanted}"
            );
        }
        for action in &actions {
            self.digest.add(action);
            self.trace.line(self.now, || format!("n{} -> {action:?}", slot + 1));
        }
        if let Some(tokens) = asked.tokens {
            self.ghost.on_taken(tokens, result.is_ok(), asked.term, raft.term(), &mut self.counts)?;
        }
        // What it wrote, then what it is now, then what it says and hands out: each is held against the one before.
        let mut wrote = false;
        for write in actions.iter().filter_map(as_write) {
            self.ghost.on_write(slot, raft, write, asked.cause, &mut self.counts)?;
            wrote = true;
        }
        if let Some(tokens) = asked.tokens
            && let Some(wanted) = asked.wanted
            && result.is_ok()
        {
            self.ghost.on_change_taken(slot, &wanted)?;
            self.ghost.want(tokens.first.0, wanted);
        }
        self.ghost.after_step(slot, raft, wrote, &mut self.counts)?;
        let ticked = asked.ticked && result.is_ok();
        self.ghost.check_heard(slot, raft, &self.setup.config, node.seen, asked.from_peer, ticked)?;
        let from = asked.from_peer.filter(|_| result.is_ok() && asked.leads == Some(raft.term()));
        process.told.check(raft, &config, &actions, node.seen, from)?;
        if let Some(from) = asked.from_peer
            && result.is_ok()
            && raft.role() == RoleKind::Leader
            && asked.answers == Some(raft.term())
        {
            process.told.answered(from, node.seen);
        }
        if asked.chooses
            && let Some(Action::Event(Event::Transfer { to: Some(to) })) = actions.first()
        {
            process.told.check_choice(raft, &config, *to, node.seen)?;
        }
        for action in &actions {
            self.ghost.on_action(slot, life, raft, action, &mut self.counts)?;
        }
        if let Some(last) = asked.snapshot
            && !actions.iter().filter_map(as_write).any(|write| installs(write, last))
        {
            self.counts.bump(Count::SnapshotsUnwanted);
            node.disk.unstage(last);
        }
        if self.counts[Count::Steps].is_multiple_of(32) {
            self.check_bounds(slot)?;
        }
        actions.into_iter().try_for_each(|action| self.place(slot, action))
    }

    /// Puts what a core wants done where it waits to be done.
    fn place(&mut self, slot: usize, action: Action) -> Verdict {
        self.check_size(slot, &action)?;
        let node = &mut self.nodes[slot];
        let (asks, life) = (question_of(&action), node.disk.incarnation());
        hold!(
            asks.is_none_or(|id| id.incarnation.0 == life),
            "contract",
            "node {} asks {asks:?} in its incarnation {life}: an old answer could be taken for one to that",
            slot + 1
        );
        let Some(process) = &mut node.process else { return Ok(()) };
        match action {
            Action::Send { to, message } => {
                let (to, kind) = (to.0 as usize - 1, Kind::of(&message.body));
                hold!(to < self.setup.slots && to != slot, "M5", "node {} sends to {to}", slot + 1);
                let (id, nth) = (self.number(), self.count_sent(slot, to, kind));
                if !self.watchers.is_empty() {
                    self.see(&Seen::Sent { id, from: slot, to, message: &message })?;
                }
                let parcel = Parcel { id, from: slot, to, nth, vague: false, message };
                if let Some(mail) = &mut self.mail {
                    mail.insert((slot, to, kind, nth), parcel.clone());
                }
                self.outcome.sends.push(parcel);
            }
            Action::Write(write) => {
                process.writes.push_back(write);
                self.outcome.wrote = true;
            }
            Action::Apply(apply) => {
                self.judge.follow_all(apply.entries.as_slice())?;
                process.work.push_back(Work::Apply(apply));
                self.outcome.work = true;
            }
            Action::Restore(snapshot) => {
                let picture = node.disk.picture(snapshot.last).cloned();
                process.work.push_back(Work::Restore(snapshot, picture));
                self.outcome.work = true;
            }
            Action::Load(load) => {
                process.loads.push(load);
                self.outcome.loads.push(load.id);
            }
            Action::SendSnapshot(send) => return self.send_snapshot(slot, send),
            Action::Resolve { tokens, outcome } => {
                for token in tokens.iter() {
                    let at = process.reads.iter().position(|(read, _)| *read == token.0);
                    if let Some((token, query)) = at.map(|at| process.reads.swap_remove(at))
                        && let quorate_core::Outcome::Read { index } = outcome
                    {
                        process.queries.push(Query { token, index: index.0, query });
                    }
                }
                if let quorate_core::Outcome::Read { .. } = outcome {
                    return self.answer_queries(slot);
                }
                self.outcome.resolved.push((tokens, outcome));
            }
            Action::Event(_) => {}
        }
        Ok(())
    }
}

/// The number of a question that a core asks.
fn question_of(action: &Action) -> Option<RequestId> {
    match action {
        Action::Load(load) => Some(load.id.0),
        Action::SendSnapshot(send) => Some(send.id.0),
        Action::Send { message, .. } => match message.body {
            Body::PreVote { id, .. } | Body::ReadIndex { id } => Some(id),
            _ => None,
        },
        _ => None,
    }
}

/// What an input asks for, before it is taken up.
fn asked(input: &Input, membership: &Membership, incarnation: u64) -> Asked {
    let wanted = match input {
        Input::ChangeMembership { change, .. } => Some(Wanted::of(membership, change)),
        _ => None,
    };
    let snapshot = match input {
        Input::Receive { message, .. } => match &message.body {
            Body::InstallSnapshot { snapshot } => Some(snapshot.last),
            _ => None,
        },
        _ => None,
    };
    let stale = matches!(input, Input::Persisted(receipt) if receipt.incarnation().0 != incarnation);
    let compacts = match input {
        Input::Compact { snapshot, keep } => Some((snapshot.0, *keep)),
        _ => None,
    };
    let leads = match input {
        Input::Receive { message, .. } => {
            let leads =
                matches!(message.body, Body::Append { .. } | Body::Heartbeat { .. } | Body::Commit { .. });
            leads.then_some(message.term)
        }
        _ => None,
    };
    let answers = match input {
        Input::Receive { message, .. } => {
            let answers = matches!(message.body, Body::Appended { .. } | Body::HeartbeatReply { .. });
            answers.then_some(message.term)
        }
        _ => None,
    };
    Asked {
        chooses: matches!(input, Input::TransferLeadership { to: None, .. }),
        answers,
        compacts,
        leads,
        tokens: taken_tokens(input),
        cause: Cause { change: wanted.is_some() },
        wanted,
        snapshot,
        term: match input {
            Input::Propose(proposal) => proposal.term,
            _ => None,
        },
        from_peer: match input {
            Input::Receive { from, .. } => Some(*from),
            _ => None,
        },
        ticked: matches!(input, Input::Tick),
        stale,
    }
}

fn check_refusal(slot: usize, rejected: &Rejected, asked: &Asked, actions: &[Action]) -> Verdict {
    let n = slot + 1;
    let wrongly =
        matches!(rejected, Rejected::BadLoad | Rejected::StaleReceipt | Rejected::BadApplied { .. });
    hold!(!wrongly || asked.stale, "contract", "node {n} refuses what its own driver says: {rejected}");
    let impossible = matches!(rejected, Rejected::Malformed(_) | Rejected::Unexpected { .. });
    hold!(
        !(asked.from_peer.is_some() && impossible),
        "refused",
        "node {n} refuses what a correct node has sent: {rejected}"
    );
    hold!(actions.is_empty(), "contract", "node {n} refuses ({rejected}), and yet: {actions:?}");
    Ok(())
}

const fn as_write(action: &Action) -> Option<&Write> {
    match action {
        Action::Write(write) => Some(write),
        Action::Send { .. }
        | Action::Apply(_)
        | Action::Restore(_)
        | Action::SendSnapshot(_)
        | Action::Load(_)
        | Action::Resolve { .. }
        | Action::Event(_) => None,
    }
}

fn installs(write: &Write, last: LogId) -> bool {
    matches!(write.rebase.as_deref(), Some(Rebase::Install(snapshot)) if snapshot.last == last)
}

/// The tokens that an input asks to be taken.
const fn taken_tokens(input: &Input) -> Option<Tokens> {
    match input {
        Input::Propose(proposal) => Some(proposal.tokens()),
        Input::Read { token, .. }
        | Input::ChangeMembership { token, .. }
        | Input::TransferLeadership { token, .. } => Some(Tokens::one(*token)),
        Input::Tick
        | Input::CancelRead { .. }
        | Input::AbortTransfer
        | Input::StepDown
        | Input::Campaign
        | Input::ForgetLeader
        | Input::Compact { .. }
        | Input::SnapshotSent { .. }
        | Input::Unreachable { .. }
        | Input::Reachable { .. }
        | Input::Receive { .. }
        | Input::Persisted(_)
        | Input::Loaded { .. }
        | Input::Applied { .. }
        | Input::StorageFailed => None,
    }
}

//! A core whose process is about to go is told what no driver and no peer of sound mind says: it must refuse, say why, and change
//! nothing (contract, points 6 and 9). Nobody drains it any more: it must take no more than its bounds allow (points 4 and 13). And when
//! its store fails, everybody who waits is told (points 8 and 14).

use quorate_core::{
    Action, Body, Config, Few, Incarnation, Index, Input, Instant, LoadId, Loaded, LogId, Message, NodeId,
    Outcome, Raft, ReadKind, Recovered, Rejected, RequestId, Resource, RoleKind, SendId, Snapshot, Term,
    Token, Write,
};

use super::Lab;
use crate::violation::{Verdict, hold};

impl Lab {
    /// The last that a core is asked; `writes` are those that its disk has not done.
    pub(super) fn question(&self, slot: usize, life: u64, mut raft: Raft, writes: Vec<Write>) -> Verdict {
        let (n, now) = (slot + 1, self.nodes[slot].seen);
        if raft.status().stopped {
            return Ok(());
        }
        let raft = &mut raft;
        for (input, wanted) in impossible(raft, writes) {
            refuses(n, now, raft, input, wanted)?;
        }
        overfill(n, now, raft, &self.setup.config)?;
        self.fail(slot, life, now, raft)
    }

    /// The store fails: nobody is left waiting, and nothing else happens any more.
    fn fail(&self, slot: usize, life: u64, now: Instant, raft: &mut Raft) -> Verdict {
        let n = slot + 1;
        let mut open = self.ghost.open_tokens(slot, life);
        let failed = raft.step(now, Input::StorageFailed);
        hold!(failed.is_ok(), "contract", "node {n} is told that its store has failed, and says {failed:?}");
        for action in raft.drain() {
            match action {
                Action::Resolve { tokens, outcome: Outcome::Unknown } => {
                    open.retain(|token| !tokens.iter().any(|ended| ended.0 == *token));
                }
                Action::Event(_) => {}
                other => hold!(false, "D4", "node {n} goes on after its store failed: {other:?}"),
            }
        }
        hold!(open.is_empty(), "T1", "node {n}'s store fails, and {open:?} are never resolved");
        let after = raft.step(now, Input::Tick);
        let over = after == Err(Rejected::Stopped) && raft.deadline().is_none();
        hold!(over, "D4", "node {n}'s store has failed, but it wants to be woken, or says {after:?}");
        Ok(())
    }
}

/// Nobody starts from what no store could have left behind, or with a configuration that promises nothing.
pub(super) fn check_starts(n: usize, config: &Config, recovered: &Recovered, now: Instant) -> Verdict {
    let mut wrong = Vec::new();
    let mut spoil = |name, spoil: fn(&mut Config, &mut Recovered)| {
        let (mut config, mut recovered) = (config.clone(), recovered.clone());
        spoil(&mut config, &mut recovered);
        wrong.push((name, Raft::new(config, recovered, now).is_ok()));
    };
    spoil("applied", |_, recovered| recovered.applied = Index(recovered.last.0 + 1));
    spoil("incarnation", |_, recovered| recovered.incarnation = Incarnation(0));
    spoil("vote", |_, recovered| recovered.hard_state.vote = Some(NodeId(0)));
    spoil("term", |_, recovered| recovered.hard_state.term = Term::LIMIT);
    spoil("id", |config, _| config.id = NodeId(0));
    spoil("heartbeat_interval", |config, _| config.heartbeat_interval = config.election_timeout);
    spoil("max_reads", |config, _| config.max_reads = 0);
    if recovered.last > Index(0) {
        spoil("terms", |_, recovered| recovered.hard_state.term = Term(0));
    }
    if recovered.base.index > Index(0) {
        spoil("last", |_, recovered| recovered.last = Index(recovered.base.index.0 - 1));
        spoil("snapshot", |_, recovered| recovered.snapshot = None);
    }
    let taken: Vec<&str> = wrong.into_iter().filter(|(_, taken)| *taken).map(|(name, _)| name).collect();
    hold!(taken.is_empty(), "contract", "node {n} starts though this can't be: {taken:?}");
    Ok(())
}

/// What it must say.
type Wanted = fn(&Rejected) -> bool;

/// What can't be said to this core, as it is.
fn impossible(raft: &Raft, writes: Vec<Write>) -> Vec<(Input, Wanted)> {
    let status = raft.status();
    let nobody = RequestId { incarnation: Incarnation(u64::MAX), number: 0 };
    let unexpected: Wanted = |rejected| matches!(rejected, Rejected::Unexpected { .. });
    let misapplied: Wanted = |rejected| matches!(rejected, Rejected::BadApplied { .. });
    let beyond = Index(raft.handed().0 + 1);
    let mut all: Vec<(Input, Wanted)> = vec![
        (Input::Applied { up_to: beyond }, misapplied),
        (Input::Compact { snapshot: Index(status.applied.0 + 1), keep: 0 }, |rejected| {
            matches!(rejected, Rejected::BadSnapshot { .. })
        }),
        (Input::SnapshotSent { id: SendId(nobody), arrived: true }, |rejected| {
            matches!(rejected, Rejected::StaleSend)
        }),
        (Input::Loaded { id: LoadId(nobody), result: Loaded::Compacted }, |rejected| {
            matches!(rejected, Rejected::StaleLoad)
        }),
        (Input::Read { token: Token(u64::MAX), kind: ReadKind::AtLeast(Index::LIMIT) }, |rejected| {
            matches!(rejected, Rejected::Exhausted)
        }),
    ];
    if status.applied > Index(0) {
        all.push((Input::Applied { up_to: Index(status.applied.0 - 1) }, misapplied));
    }
    // The receipt of a later write before that of an earlier one.
    if let Some(later) = writes.into_iter().nth(1) {
        let stale: Wanted = |rejected| matches!(rejected, Rejected::StaleReceipt);
        all.push((Input::Persisted(later.into_receipt()), stale));
    }
    let mut say = |from: NodeId, term: Term, body: Body, wanted: Wanted| {
        all.push((Input::Receive { from, message: Message { term, body } }, wanted));
    };
    let heartbeat = |commit: Index| Body::Heartbeat { commit, round: 1, quiesce: false };
    // Nobody is in term 0 and speaks.
    let term = status.term.max(Term(1));
    let other = NodeId(if status.id == NodeId(1) { 2 } else { 1 });
    say(status.id, term, heartbeat(Index(0)), unexpected);
    say(NodeId(0), term, heartbeat(Index(0)), unexpected);
    say(other, Term::LIMIT, heartbeat(Index(0)), |rejected| matches!(rejected, Rejected::Malformed(_)));
    say(NodeId(u64::MAX - 1), term, Body::Appended { up_to: Index(0) }, |rejected| {
        matches!(rejected, Rejected::NotMember { .. })
    });
    // More than it has, or other than what is committed here: nobody leads who says so, in whatever term.
    let committed = raft.term_at(raft.commit()).filter(|_| raft.commit() > Index(0));
    for term in [term, Term(term.0 + 1)] {
        say(other, term, heartbeat(Index(status.last.index.0 + 1)), unexpected);
        let Some(committed) = committed else { continue };
        let wrong = Term(if committed.0 > 1 { committed.0 - 1 } else { 2 });
        if wrong > term {
            continue;
        }
        let last = LogId::new(wrong, raft.commit());
        say(other, term, Body::Append { prev: last, commit: Index(0), entries: Few::new() }, unexpected);
        let snapshot = Box::new(Snapshot { last, membership: status.membership.clone() });
        say(other, term, Body::InstallSnapshot { snapshot }, unexpected);
    }
    // Another leads in this term.
    if let Some(leader) = raft.leader().filter(|leader| *leader != status.id) {
        let members = status.membership.members();
        if let Some(third) = members.into_iter().find(|id| *id != status.id && *id != leader) {
            say(third, term, Body::TimeoutNow, unexpected);
            say(third, term, heartbeat(Index(0)), unexpected);
        }
    }
    // Answers to what was never asked.
    if status.role == RoleKind::Leader
        && let Some(peer) = status.peers.first()
    {
        say(peer.id, term, heartbeat(Index(0)), unexpected);
        say(peer.id, term, Body::Appended { up_to: Index(status.last.index.0 + 1) }, unexpected);
        say(peer.id, term, Body::HeartbeatReply { round: 1 << 62, asleep: false }, unexpected);
    }
    all
}

fn refuses(n: usize, now: Instant, raft: &mut Raft, input: Input, wanted: Wanted) -> Verdict {
    let before = raft.status();
    let what = format!("{input:?}");
    let said = raft.step(now, input);
    hold!(
        said.as_ref().is_err_and(wanted),
        "contract",
        "node {n} is told what can't be, and says {said:?} to {what}"
    );
    let actions: Vec<Action> = raft.drain().collect();
    let same = actions.is_empty() && raft.status() == before;
    hold!(same, "contract", "node {n} refuses {what}, and yet something has changed: {actions:?}");
    Ok(())
}

/// Nobody drains the queue, and reads come that wait for ever.
fn overfill(n: usize, now: Instant, raft: &mut Raft, config: &Config) -> Verdict {
    let ask = |raft: &mut Raft, index: Index| {
        raft.step(now, Input::Read { token: Token(u64::MAX), kind: ReadKind::AtLeast(index) })
    };
    // Each of these is answered at once.
    let mut answered = 0;
    let full = loop {
        match ask(raft, Index(0)) {
            Ok(()) => answered += 1,
            Err(Rejected::Overloaded { what: Resource::Actions, .. }) => break true,
            // As many wait for an index as may.
            Err(_) => break false,
        }
        hold!(
            answered <= config.max_actions,
            "B1",
            "node {n} has {answered} actions that nobody polls, but {} is the bound",
            config.max_actions
        );
    };
    if full {
        let body = Body::Heartbeat { commit: Index(0), round: 1, quiesce: false };
        let message = Message { term: raft.term().max(Term(1)), body };
        let from = NodeId(if raft.id() == NodeId(1) { 2 } else { 1 });
        for input in [Input::Tick, Input::Campaign, Input::Receive { from, message }] {
            let what = format!("{input:?}");
            let said = raft.step(now, input);
            let right = matches!(said, Err(Rejected::Overloaded { what: Resource::Actions, .. }));
            hold!(right, "B1", "node {n} says {said:?} to {what}, though nobody polls its actions");
        }
    }
    let actions = raft.drain().count();
    hold!(actions <= config.max_actions, "B1", "node {n} has {actions} actions that nobody polls");
    let mut waiting = 0;
    while ask(raft, Index(Index::LIMIT.0 - 1)).is_ok() {
        waiting += 1;
        hold!(
            waiting <= config.max_reads,
            "B1",
            "node {n} has {waiting} reads that wait for an index, but {} is the bound",
            config.max_reads
        );
    }
    Ok(())
}

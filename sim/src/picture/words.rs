//! What has happened, in words short enough for a picture. They are what its search looks through: terms are written
//! `T5`, nodes `n3`, tokens `t45`, entries `12@T5`.

use std::fmt::Write as _;

use quorate_core::{
    Action, Apply, Body, Done, Event, Few, Loaded, Membership, Message, NodeId, Outcome, Rebase, Run, Tokens,
    Write,
};

use crate::watch::Stimulus;

/// Longer ones are cut: nobody reads on, and the page must stay small.
const LONGEST: usize = 600;

/// A kind of message, as the paper would call it.
pub(crate) const fn kind(message: &Message) -> &'static str {
    match &message.body {
        Body::PreVote { .. } => "PreVote",
        Body::PreVoteReply { .. } => "PreVoteReply",
        Body::Vote { .. } => "Vote",
        Body::VoteReply { .. } => "VoteReply",
        Body::Append { .. } => "Append",
        Body::Appended { .. } => "Appended",
        Body::Conflict { .. } => "Conflict",
        Body::Heartbeat { .. } => "Heartbeat",
        Body::HeartbeatReply { .. } => "HeartbeatReply",
        Body::Commit { .. } => "Commit",
        Body::ReadIndex { .. } => "ReadIndex",
        Body::ReadIndexReply { .. } => "ReadIndexReply",
        Body::TimeoutNow => "TimeoutNow",
        Body::InstallSnapshot { .. } => "InstallSnapshot",
    }
}

/// What a message says, but for its kind and term.
pub(crate) fn message(message: &Message) -> String {
    let yes = |granted: bool| if granted { "granted" } else { "refused" };
    cut(match &message.body {
        Body::PreVote { id, last } => format!("last {last}, question {}", id.number),
        Body::PreVoteReply { id, granted } => format!("{}, question {}", yes(*granted), id.number),
        Body::Vote { last, commit, transfer } => {
            format!("last {last}, commit {commit}{}", if *transfer { ", for a transfer" } else { "" })
        }
        Body::VoteReply { granted, commit } => format!("{}, commit {commit}", yes(*granted)),
        Body::Append { prev, commit, entries } => {
            format!("prev {prev}, commit {commit}, {}", runs(entries))
        }
        Body::Appended { up_to } => format!("up to {up_to}"),
        Body::Conflict { prev, hint } => format!("no entry like prev {prev}; try {hint}"),
        Body::Heartbeat { commit, round, quiesce } => {
            format!("round {round}, commit {commit}{}", if *quiesce { ", may sleep" } else { "" })
        }
        Body::HeartbeatReply { round, asleep } => {
            format!("round {round}{}", if *asleep { ", sleeps" } else { "" })
        }
        Body::Commit { commit } => format!("{commit}"),
        Body::ReadIndex { id } => format!("question {}", id.number),
        Body::ReadIndexReply { id, index } => match index {
            Some(index) => format!("{index}, question {}", id.number),
            None => format!("doesn't lead, question {}", id.number),
        },
        Body::TimeoutNow => String::new(),
        Body::InstallSnapshot { snapshot } => {
            format!("at {}, {}", snapshot.last, membership(&snapshot.membership))
        }
    })
}

/// Entries: where, of which terms, and the memberships among them.
pub(crate) fn runs(entries: &Few<Run>) -> String {
    if entries.is_empty() {
        return "no entries".to_owned();
    }
    let mut text = String::from("entries");
    for run in entries {
        let (first, last) = (run.first(), run.last());
        let _infallible = if first == last {
            write!(text, " {first}@T{}", run.term())
        } else {
            write!(text, " {first}..{last}@T{}", run.term())
        };
        if run.has_membership() {
            for (index, found) in run.memberships() {
                let _infallible = write!(text, " ({index}: {})", membership(&found));
            }
        }
    }
    text
}

/// Who is in a cluster.
pub(crate) fn membership(membership: &Membership) -> String {
    let list = |ids: &[NodeId]| ids.iter().map(|id| format!("n{id}")).collect::<Vec<_>>().join(" ");
    let mut text = format!("voters {}", list(membership.voters()));
    let others = [
        ("joint with", membership.outgoing()),
        ("learners", membership.learners()),
        ("joining", membership.joining()),
    ];
    for (name, ids) in others.into_iter().filter(|(_, ids)| !ids.is_empty()) {
        let _infallible = write!(text, ", {name} {}", list(ids));
    }
    if membership.is_held() {
        text.push_str(", held");
    }
    text
}

/// What kind of step an input makes, for its mark, and the input in words.
pub(crate) fn stimulus(stimulus: &Stimulus) -> (&'static str, String) {
    match stimulus {
        Stimulus::Tick => ("tick", "tick".to_owned()),
        Stimulus::Receive { from, message: received, .. } => {
            let (kind, said) = (kind(received), message(received));
            ("receive", format!("{kind} T{} from n{from}: {said}", received.term))
        }
        Stimulus::Propose { first_token, batch, term } => {
            let tokens = tokens(*first_token, batch.count());
            let only = term.map_or_else(String::new, |term| format!(", only in T{term}"));
            ("request", format!("propose {tokens}{only}"))
        }
        Stimulus::Read { token, kind } => ("request", format!("read t{token}, {kind:?}")),
        Stimulus::CancelRead { token } => ("request", format!("cancel read t{token}")),
        Stimulus::ChangeMembership { token, change } => (
            "request",
            cut(format!("change the membership t{token}: {:?}, {:?}", change.ops, change.transition)),
        ),
        Stimulus::TransferLeadership { token, to } => {
            let to = to.map_or_else(|| "anyone".to_owned(), |to| format!("n{to}"));
            ("request", format!("transfer leadership t{token} to {to}"))
        }
        Stimulus::AbortTransfer => ("request", "abort the transfer".to_owned()),
        Stimulus::StepDown => ("request", "step down".to_owned()),
        Stimulus::Campaign => ("request", "campaign".to_owned()),
        Stimulus::ForgetLeader => ("request", "forget the leader".to_owned()),
        Stimulus::Compact { snapshot, keep } => {
            ("snapshot", format!("compact: snapshot at {snapshot}, keep {keep}"))
        }
        Stimulus::SnapshotSent { arrived } => (
            "snapshot",
            format!("a snapshot {}", if *arrived { "has arrived" } else { "didn't get through" }),
        ),
        Stimulus::Unreachable { peer } => ("fault", format!("n{peer} is unreachable")),
        Stimulus::Reachable { peer } => ("fault", format!("n{peer} is reachable again")),
        Stimulus::Persisted { up_to } => ("persisted", format!("durable up to write w{up_to}")),
        Stimulus::Loaded { result: Loaded::Entries(entries) } => {
            ("loaded", format!("loaded {}", runs(entries)))
        }
        Stimulus::Loaded { result: Loaded::Compacted } => ("loaded", "loaded: compacted".to_owned()),
        Stimulus::Applied { up_to } => ("applied", format!("applied up to {up_to}")),
        Stimulus::StorageFailed => ("fault", "the store has failed".to_owned()),
    }
}

/// The tokens that an input asks to be taken: the first, and how many.
pub(crate) const fn asks(stimulus: &Stimulus) -> Option<(u64, u64)> {
    match stimulus {
        Stimulus::Propose { first_token, batch, .. } => Some((*first_token, batch.count())),
        Stimulus::Read { token, .. }
        | Stimulus::ChangeMembership { token, .. }
        | Stimulus::TransferLeadership { token, .. } => Some((*token, 1)),
        Stimulus::Tick
        | Stimulus::Receive { .. }
        | Stimulus::CancelRead { .. }
        | Stimulus::AbortTransfer
        | Stimulus::StepDown
        | Stimulus::Campaign
        | Stimulus::ForgetLeader
        | Stimulus::Compact { .. }
        | Stimulus::SnapshotSent { .. }
        | Stimulus::Unreachable { .. }
        | Stimulus::Reachable { .. }
        | Stimulus::Persisted { .. }
        | Stimulus::Loaded { .. }
        | Stimulus::Applied { .. }
        | Stimulus::StorageFailed => None,
    }
}

/// A core's wish in words; nothing for what is drawn anyway (messages), and for what [`headline`] says.
pub(crate) fn action(action: &Action) -> Option<String> {
    let text = match action {
        Action::Send { .. } | Action::Event(_) => return None,
        Action::Write(write) => format!("write {}", self::write(write)),
        Action::Apply(apply) => applying(apply),
        Action::Restore(snapshot) => format!("restore the snapshot at {}", snapshot.last),
        Action::SendSnapshot(send) => format!("send n{} a snapshot", send.to),
        Action::Load(load) => format!("load {}..{}", load.first, load.last),
        Action::Resolve { tokens: Tokens { first, count }, outcome } => {
            format!("{}: {}", tokens(first.0, *count), self::outcome(outcome))
        }
    };
    Some(cut(text))
}

/// What of a core's doing must be seen at a glance.
pub(crate) fn headline(action: &Action) -> Option<String> {
    let Action::Event(event) = action else { return None };
    Some(match event {
        Event::Role { term, role } => format!("{role:?} of T{term}"),
        Event::Leader { term, leader: Some(leader) } => format!("n{leader} leads T{term}"),
        Event::Leader { term, leader: None } => format!("nobody leads T{term}"),
        Event::Truncated { from, last } => format!("truncates {from}, up to {last}"),
        Event::Membership { index, membership: new } => format!("membership at {index}: {}", membership(new)),
        Event::Compacted { base } => format!("compacts up to {base}"),
        Event::Installed { last } => format!("installs the snapshot at {last}"),
        Event::Peer { id, mode } => format!("sends to n{id}: {mode:?}"),
        Event::Transfer { to: Some(to) } => format!("hands leadership to n{to}"),
        Event::Transfer { to: None } => "no longer hands leadership over".to_owned(),
        Event::Asleep => "falls asleep".to_owned(),
        Event::Awake => "is awake".to_owned(),
        Event::Stopped => "stopped".to_owned(),
    })
}

/// One atomic change of what is durable.
pub(crate) fn write(write: &Write) -> String {
    let mut text = format!("w{}:", write.seq());
    if let Some(state) = write.hard_state {
        let vote = state.vote.map_or_else(|| "no vote".to_owned(), |vote| format!("vote n{vote}"));
        let _infallible = write!(text, " T{}, {vote};", state.term);
    }
    match write.rebase.as_deref() {
        None => {}
        Some(Rebase::Compact(at)) => {
            let _infallible = write!(text, " compact up to {};", at.last);
        }
        Some(Rebase::Install(at)) => {
            let _infallible = write!(text, " install the snapshot at {};", at.last);
        }
    }
    if let Some(from) = write.truncate {
        let _infallible = write!(text, " truncate from {from};");
    }
    if !write.entries.is_empty() {
        let _infallible = write!(text, " append {}", runs(&write.entries));
    }
    cut(text)
}

/// How requests have ended, as this action says: the first token, how many, and how.
pub(crate) fn ends(action: &Action, mut end: impl FnMut(u64, u64, String)) {
    match action {
        Action::Apply(apply) => {
            for Done { first, tokens: Tokens { first: token, count } } in &apply.done {
                end(token.0, *count, format!("done at {first}"));
            }
        }
        Action::Resolve { tokens: Tokens { first, count }, outcome: how } => {
            end(first.0, *count, outcome(how));
        }
        Action::Send { .. }
        | Action::Write(_)
        | Action::Restore(_)
        | Action::SendSnapshot(_)
        | Action::Load(_)
        | Action::Event(_) => {}
    }
}

fn applying(apply: &Apply) -> String {
    let mut text = format!("apply {}", runs(&apply.entries));
    for Done { first, tokens: Tokens { first: token, count } } in &apply.done {
        let _infallible = write!(text, "; {} done at {first}", tokens(token.0, *count));
    }
    text
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Read { index } => format!("read at {index}"),
        Outcome::Changed { index } => format!("changed at {index}"),
        Outcome::Transferred { to } => format!("transferred to n{to}"),
        Outcome::Refused { leader: Some(leader) } => format!("refused, ask n{leader}"),
        Outcome::Refused { leader: None } => "refused".to_owned(),
        Outcome::Unknown => "unknown".to_owned(),
    }
}

fn tokens(first: u64, count: u64) -> String {
    if count == 1 { format!("t{first}") } else { format!("t{first}..t{}", first.saturating_add(count - 1)) }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

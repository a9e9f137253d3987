//! How things are told.
//!
//! An entry is `index@Tterm`; nodes are `n1`, writes `w1`, requests `t1`. A line begins with the node that does it:
//!
//! ```text
//! n1 → n2 Append …       sends (once all that the message claims is durable)
//! n2 ← n1 Append 3       receives; what follows from it stands below, further in
//! n1 writes w2: …        asks its disk for it; a disk that isn't slow has done it before the next command
//! n1 applies 2..3 …      hands over to the state machine; `done t1`: that proposal's end
//! n1 answers t2: …       any other request's end
//! n1 refuses t3: …       a request's end, at once
//! n1 * …                 an event, for logs and metrics
//! ```

use quorate_core::{
    Apply, Body, ChangeOp, Entry, EntryKind, Event, Few, Index, LogId, Membership, Message, NodeId, Outcome,
    PeerStatus, Raft, Rebase, RequestId, Run, Tokens, Write,
};

pub fn node(id: NodeId) -> String {
    format!("n{id}")
}

pub fn log_id(id: LogId) -> String {
    if id == LogId::ZERO { "0".into() } else { id.to_string() }
}

fn request(id: RequestId) -> String {
    format!("#{}.{}", id.incarnation, id.number)
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// The whole of a message.
pub fn message(message: &Message) -> String {
    let term = message.term;
    let name = kind(&message.body);
    let says = match &message.body {
        Body::PreVote { id, last } => format!("{} log {}", request(*id), log_id(*last)),
        Body::PreVoteReply { id, granted } => format!("{} {}", request(*id), yes(*granted)),
        Body::Vote { last, commit, transfer } => {
            let transfer = if *transfer { " transfer" } else { "" };
            format!("log {} commit {}{transfer}", log_id(*last), log_id(*commit))
        }
        Body::VoteReply { granted, commit } => format!("{} commit {}", yes(*granted), log_id(*commit)),
        Body::Append { prev, commit, entries } => {
            format!("prev {} commit {commit} {}", log_id(*prev), list(entries))
        }
        Body::Appended { up_to } => format!("up to {up_to}"),
        Body::Conflict { prev, hint } => format!("at {prev} hint {}", log_id(*hint)),
        Body::Heartbeat { commit, round, quiesce } => {
            format!("round {round} commit {commit}{}", if *quiesce { " may sleep" } else { "" })
        }
        Body::HeartbeatReply { round, asleep } => {
            format!("round {round}{}", if *asleep { " sleeps" } else { "" })
        }
        Body::Commit { commit } => format!("{commit}"),
        Body::ReadIndex { id } => request(*id),
        Body::ReadIndexReply { id, index: Some(index) } => format!("{} index {index}", request(*id)),
        Body::ReadIndexReply { id, index: None } => format!("{} doesn't lead", request(*id)),
        Body::TimeoutNow => String::new(),
        Body::InstallSnapshot { snapshot } => {
            format!("at {} {}", log_id(snapshot.last), membership(&snapshot.membership))
        }
    };
    format!("{name} T{term} {says}").trim_end().to_owned()
}

/// As much of a message as tells it from others, when it arrives.
pub fn brief(message: &Message) -> String {
    let name = kind(&message.body);
    match &message.body {
        Body::Append { prev, entries, .. } => match entries.last() {
            Some(last) => format!("{name} {}", range(prev.index.next(), last.last())),
            None => format!("{name} nothing after {}", prev.index),
        },
        Body::Appended { up_to } => format!("{name} {up_to}"),
        Body::Conflict { prev, .. } => format!("{name} {prev}"),
        Body::Heartbeat { round, .. } | Body::HeartbeatReply { round, .. } => format!("{name} {round}"),
        Body::Commit { commit } => format!("{name} {commit}"),
        Body::Vote { .. } => format!("{name} T{}", message.term),
        Body::PreVoteReply { granted, .. } | Body::VoteReply { granted, .. } => {
            format!("{name} {}", yes(*granted))
        }
        Body::InstallSnapshot { snapshot } => format!("{name} {}", snapshot.last.index),
        Body::PreVote { .. } | Body::ReadIndex { .. } | Body::ReadIndexReply { .. } | Body::TimeoutNow => {
            name.into()
        }
    }
}

pub fn kind(body: &Body) -> &'static str {
    match body {
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

/// One atomic write.
pub fn write(write: &Write) -> String {
    let mut parts = Vec::new();
    if let Some(hard) = write.hard_state {
        let vote = hard.vote.map_or("no vote".into(), |vote| format!("vote {}", node(vote)));
        parts.push(format!("T{} {vote}", hard.term));
    }
    match write.rebase.as_deref() {
        Some(Rebase::Compact(base)) => parts.push(format!("compact up to {}", log_id(base.last))),
        Some(Rebase::Install(snapshot)) => parts.push(format!("install {}", log_id(snapshot.last))),
        None => {}
    }
    if let Some(from) = write.truncate {
        parts.push(format!("truncate from {from}"));
    }
    if !write.entries.is_empty() {
        parts.push(list(&write.entries));
    }
    format!("w{}: {}", write.seq(), parts.join(", "))
}

pub fn apply(apply: &Apply) -> String {
    let done: Vec<String> = apply.done.iter().map(|done| tokens(done.tokens)).collect();
    let done = if done.is_empty() { String::new() } else { format!(" done {}", done.join(" ")) };
    format!("{}{done}", list(&apply.entries))
}

pub fn tokens(tokens: Tokens) -> String {
    let last = tokens.first.0 + tokens.count - 1;
    if tokens.count == 1 { format!("t{last}") } else { format!("t{}..t{last}", tokens.first) }
}

/// Entries: a few one by one, many as a range.
pub fn list(runs: &Few<Run>) -> String {
    let entries: Vec<Entry> = runs.iter().flat_map(Run::entries).collect();
    let many = entries.len() > 4;
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = entries.get(at) {
        let plain = |entry: &&Entry| entry.kind == EntryKind::Command && entry.id.term == first.id.term;
        let alike = entries[at..].iter().take_while(plain).count();
        if many && alike > 1 {
            words.push(span(first.id.index, entries[at + alike - 1].id));
            at += alike;
        } else {
            words.push(entry(first));
            at += 1;
        }
    }
    format!("[{}]", words.join(", "))
}

fn entry(entry: &Entry) -> String {
    let what = match entry.kind {
        EntryKind::Noop => "noop".into(),
        EntryKind::Membership => {
            Membership::decode(&entry.payload).map_or_else(|error| error.to_string(), |m| membership(&m))
        }
        EntryKind::Command if entry.payload.len() <= 12 => {
            format!("\"{}\"", String::from_utf8_lossy(&entry.payload))
        }
        EntryKind::Command => format!("({} B)", entry.payload.len()),
    };
    format!("{} {what}", log_id(entry.id))
}

fn range(first: Index, last: Index) -> String {
    if first == last { format!("{last}") } else { format!("{first}..{last}") }
}

fn span(first: Index, last: LogId) -> String {
    if first == last.index { log_id(last) } else { format!("{first}..{}", log_id(last)) }
}

/// A log as its node sees it, durable or not: which terms from where to where.
pub fn log(raft: &Raft) -> String {
    let status = raft.status();
    let mut spans: Vec<(Index, LogId)> = Vec::new();
    for index in (status.base.index.0 + 1..=status.last.index.0).map(Index) {
        let id = LogId::new(raft.term_at(index).unwrap(), index);
        match spans.last_mut() {
            Some((_, last)) if last.term == id.term => *last = id,
            _ => spans.push((index, id)),
        }
    }
    let spans: Vec<String> = spans.into_iter().map(|(first, last)| span(first, last)).collect();
    let base = if status.base == LogId::ZERO { String::new() } else { format!("{}: ", status.base) };
    format!("{base}[{}] durable {} commit {}", spans.join(", "), status.durable, status.commit)
}

pub fn membership(membership: &Membership) -> String {
    let ids = |ids: &[NodeId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!("voters {}", ids(membership.voters()));
    for (name, set) in [
        ("outgoing", membership.outgoing()),
        ("learners", membership.learners()),
        ("joining", membership.joining()),
    ] {
        if !set.is_empty() {
            text.push_str(&format!(" {name} {}", ids(set)));
        }
    }
    text.push_str(if membership.is_held() { " held" } else { "" });
    format!("({text})")
}

pub fn op(name: &str, id: NodeId) -> Option<ChangeOp> {
    Some(match name {
        "add" => ChangeOp::AddVoter(id),
        "learner" => ChangeOp::AddLearner(id),
        "join" => ChangeOp::Join(id),
        "promote" => ChangeOp::Promote(id),
        "demote" => ChangeOp::Demote(id),
        "remove" => ChangeOp::Remove(id),
        _ => return None,
    })
}

pub fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Read { index } => format!("read at {index}"),
        Outcome::Changed { index } => format!("changed at {index}"),
        Outcome::Transferred { to } => format!("transferred to {}", node(to)),
        Outcome::Refused { leader: Some(leader) } => format!("refused, {} leads", node(leader)),
        Outcome::Refused { leader: None } => "refused".into(),
        Outcome::Unknown => "unknown".into(),
    }
}

pub fn event(event: &Event) -> String {
    match event {
        Event::Role { term, role } => format!("{role:?} in T{term}"),
        Event::Leader { term, leader: Some(leader) } => format!("{} leads T{term}", node(*leader)),
        Event::Leader { term, leader: None } => format!("nobody leads T{term}"),
        Event::Truncated { from, last } => format!("truncated from {from}, was up to {}", log_id(*last)),
        Event::Membership { index, membership: m } => format!("membership {} since {index}", membership(m)),
        Event::Compacted { base } => format!("compacted up to {}", log_id(*base)),
        Event::Installed { last } => format!("installed {}", log_id(*last)),
        Event::Peer { id, mode } => format!("{mode:?} {}", node(*id)),
        Event::Transfer { to: Some(to) } => format!("transfer to {} begins", node(*to)),
        Event::Transfer { to: None } => "transfer ends".into(),
        Event::Asleep => "falls asleep".into(),
        Event::Awake => "is awake".into(),
        Event::Stopped => "stopped".into(),
    }
}

pub fn peer(peer: &PeerStatus) -> String {
    let PeerStatus { id, match_index, next_index, mode, inflight_messages, inflight_bytes } = peer;
    let inflight = match inflight_messages {
        0 => String::new(),
        n => format!(", under way {n} ({inflight_bytes} B)"),
    };
    format!("{} {mode:?} match {match_index} next {next_index}{inflight}", node(*id))
}

/// A node in one line: what is as usual is left out.
pub fn status(raft: &Raft) -> String {
    let s = raft.status();
    let mut text = format!("{:?} T{}", s.role, s.term);
    let mut add = |word: &str, value: String| text.push_str(&format!(" {word} {value}"));
    if let Some(vote) = s.vote {
        add("vote", node(vote));
    }
    if let Some(leader) = s.leader {
        add("leader", node(leader));
    }
    if s.base != LogId::ZERO {
        add("base", log_id(s.base));
    }
    if s.snapshot != LogId::ZERO {
        add("snapshot", log_id(s.snapshot));
    }
    add("log", log_id(s.last));
    if s.durable != s.last.index {
        add("durable", s.durable.to_string());
    }
    add("commit", s.commit.to_string());
    if s.applied != s.commit {
        add("applied", s.applied.to_string());
    }
    if let Some(to) = s.transfer {
        add("transfer to", node(to));
    }
    for (name, count) in [("pending", s.pending), ("parked", s.parked)] {
        if count > 0 {
            add(name, count.to_string());
        }
    }
    if s.stopped {
        text.push_str(" stopped");
    }
    if s.asleep {
        text.push_str(" asleep");
    }
    text
}

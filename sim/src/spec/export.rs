//! Steps as lines of JSON, for whoever wants to hold them against a specification that we did not write. The format is described
//! in `spec/README.md`.

use std::{collections::BTreeMap, sync::mpsc::SyncSender};

use quorate_core::{Body, Membership, Message, NodeId};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    judge::Event,
    log::{Entry, Log, entries_of},
    node::Node,
    translate::{ENOUGH, send_action},
    value::role_name,
};
use crate::{
    violation::{Broken, Verdict},
    watch::{Seen, Step, Stimulus, Watch},
};

/// The format's version: it grows when a line means something else than before.
pub const VERSION: u64 = 1;

/// How often each message is taken up, as a first run of the seed has shown: a message that comes twice is two messages from then on.
#[derive(Clone, Debug, Default)]
pub(super) struct Receptions(pub(super) BTreeMap<u64, u64>);

impl Watch for Receptions {
    fn see(&mut self, _: u64, seen: &Seen<'_>) -> Verdict {
        if let Seen::Stepped(Step { stimulus: Stimulus::Receive { id, .. }, .. }) = seen {
            *self.0.entry(*id).or_default() += 1;
        }
        Ok(())
    }
}

/// Writes the lines.
#[derive(Debug)]
pub(super) struct Exporter {
    lines: SyncSender<String>,
    /// Of each message, how often it will still be taken up.
    receptions: Receptions,
    /// Messages in flight, and how many of each.
    flying: BTreeMap<u64, (u64, Value)>,
    /// The message that the present step takes up.
    heard: Option<u64>,
    written: u64,
    most: u64,
}

impl Exporter {
    pub(super) const fn new(lines: SyncSender<String>, receptions: Receptions, most: u64) -> Self {
        Self { lines, receptions, flying: BTreeMap::new(), heard: None, written: 0, most }
    }

    /// Something has happened; a step is told when its parts are known.
    pub(super) fn see(&mut self, at: u64, seen: &Seen<'_>, nodes: &[Node]) -> Verdict {
        if let Seen::Stepped(step) = seen {
            self.heard = match step.stimulus {
                Stimulus::Receive { id, .. } => Some(*id),
                _ => None,
            };
        }
        match seen {
            Seen::Sent { id, from, to, message } => {
                let value = message_json(*id, *from as u64 + 1, *to as u64 + 1, message);
                self.flying.insert(*id, (1, value));
                let action = send_action(&message.body);
                let raft = match message.body {
                    Body::Vote { .. } => Some("RequestVote"),
                    Body::Append { .. } => Some("AppendEntries"),
                    _ => None,
                };
                self.line(at, (action, raft), *from as u64 + 1, Some(*id), nodes)
            }
            Seen::Lost { id, .. } if self.flying.contains_key(id) && !self.receptions.0.contains_key(id) => {
                self.flying.remove(id);
                self.line(at, ("Drop", Some("DropMessage")), 0, Some(*id), nodes)
            }
            Seen::Stepped(Step { stimulus: Stimulus::Receive { id, .. }, .. }) => {
                let left = self.receptions.0.get_mut(id);
                let more = left.is_some_and(|left| {
                    *left = left.saturating_sub(1);
                    *left > 0
                });
                if let Some((count, _)) = self.flying.get_mut(id).filter(|_| more) {
                    *count += 1;
                    return self.line(at, ("Duplicate", Some("DuplicateMessage")), 0, Some(*id), nodes);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One step of our specification. Messages are told of when they leave.
    pub(super) fn step(&mut self, at: u64, event: &Event, nodes: &[Node]) -> Verdict {
        if event.action.starts_with("Send") {
            return Ok(());
        }
        let raft = match event.action {
            "Restart" => Some("Restart"),
            "Timeout" | "TakeOver" => Some("Timeout"),
            "BecomeLeader" => Some("BecomeLeader"),
            "ClientRequest" => Some("ClientRequest"),
            "AdvanceCommit" => Some("AdvanceCommitIndex"),
            "UpdateTerm" => Some("UpdateTerm"),
            "Grant" => Some("HandleRequestVoteRequest"),
            "CountVote" => Some("HandleRequestVoteResponse"),
            "Truncate" | "AppendEntry" | "Accept" => Some("HandleAppendEntriesRequest"),
            "CountAck" => Some("HandleAppendEntriesResponse"),
            _ => None,
        };
        let message = event.message.as_ref().and(self.heard);
        self.line(at, (event.action, raft), event.node, message, nodes)
    }

    /// A message was taken up, with whatever that has led to: it is in flight no more.
    pub(super) fn received(&mut self, at: u64, step: &Step<'_>, nodes: &[Node]) -> Verdict {
        let Stimulus::Receive { id, message, .. } = step.stimulus else { return Ok(()) };
        if let Some((count, _)) = self.flying.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.flying.remove(id);
            }
        }
        let stale = message.term < step.raft.term();
        let raft = match &message.body {
            Body::Vote { .. } => Some("HandleRequestVoteRequest"),
            Body::Append { .. } => Some("HandleAppendEntriesRequest"),
            Body::VoteReply { .. } | Body::Appended { .. } | Body::Conflict { .. } if stale => {
                Some("DropStaleResponse")
            }
            Body::VoteReply { .. } => Some("HandleRequestVoteResponse"),
            Body::Appended { .. } | Body::Conflict { .. } => Some("HandleAppendEntriesResponse"),
            _ => None,
        };
        self.line(at, ("Receive", raft), step.slot as u64 + 1, Some(*id), nodes)
    }

    fn line(
        &mut self,
        at: u64,
        (action, raft): (&str, Option<&str>),
        node: u64,
        message: Option<u64>,
        nodes: &[Node],
    ) -> Verdict {
        let messages: Vec<_> =
            self.flying.values().map(|(count, value)| InFlight { count: *count, value }).collect();
        let line = Line {
            step: self.written,
            at,
            node,
            action,
            raft,
            message,
            nodes: nodes.iter().map(Shown::of).collect(),
            messages,
        };
        let text = serde_json::to_string(&line).map_err(|error| Broken("spec", error.to_string()))?;
        self.written += 1;
        // Whoever reads may have had enough.
        if self.lines.send(text).is_err() || self.written >= self.most {
            return Err(Broken(ENOUGH, String::new()));
        }
        Ok(())
    }
}

/// The first line.
pub(super) fn header(seed: u64, profile: crate::Profile, slots: usize, asks_first: bool) -> String {
    json!({
        "format": "quorate-steps",
        "version": VERSION,
        "seed": seed,
        "profile": profile,
        "servers": slots,
        "preVote": asks_first,
    })
    .to_string()
}

#[derive(Serialize)]
struct Line<'a> {
    step: u64,
    at: u64,
    node: u64,
    action: &'a str,
    raft: Option<&'a str>,
    message: Option<u64>,
    nodes: Vec<Shown<'a>>,
    messages: Vec<InFlight<'a>>,
}

#[derive(Serialize)]
struct InFlight<'a> {
    count: u64,
    #[serde(flatten)]
    value: &'a Value,
}

/// A node, in the words of raft.tla.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: u64,
    current_term: u64,
    voted_for: Option<u64>,
    role: &'static str,
    log: Vec<(u64, String)>,
    commit_index: u64,
    votes_granted: Vec<u64>,
    next_index: &'a [u64],
    match_index: &'a [u64],
    voters: Value,
    durable: Durable,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Durable {
    current_term: u64,
    voted_for: Option<u64>,
    last: (u64, u64),
}

impl<'a> Shown<'a> {
    fn of(node: &'a Node) -> Self {
        let someone = |id: u64| (id > 0).then_some(id);
        let disk = &node.disk;
        Self {
            id: node.id,
            current_term: node.term,
            voted_for: someone(node.vote),
            role: role_name(node.role),
            log: entries_json(&node.log),
            commit_index: node.commit,
            votes_granted: node.votes.iter().copied().collect(),
            next_index: &node.nexts,
            match_index: &node.matches,
            voters: node.log.membership().map(members_json).unwrap_or_default(),
            durable: Durable {
                current_term: disk.term,
                voted_for: someone(disk.vote),
                last: (disk.log.term_at(disk.log.last()), disk.log.last()),
            },
        }
    }
}

fn entries_json(log: &Log) -> Vec<(u64, String)> {
    log.terms.iter().zip(&log.hashes).map(|(term, hash)| (*term, short(*hash))).collect()
}

/// Enough to tell values apart.
fn short(hash: u64) -> String {
    format!("{:08x}", hash >> 32)
}

fn members_json(membership: &Membership) -> Value {
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    json!({ "new": ids(membership.voters()), "old": ids(membership.outgoing()), "learners": ids(membership.learners()) })
}

/// A message, in the words of raft.tla where it has some.
fn message_json(id: u64, from: u64, to: u64, message: &Message) -> Value {
    let mut value = match &message.body {
        Body::Vote { last, .. } => json!({
            "mtype": "RequestVoteRequest", "mlastLogTerm": last.term.0, "mlastLogIndex": last.index.0,
        }),
        Body::VoteReply { granted, .. } => json!({ "mtype": "RequestVoteResponse", "mvoteGranted": granted }),
        Body::Append { prev, commit, entries } => {
            let entries = entries.iter().flat_map(entries_of);
            let entries: Vec<_> = entries.map(|Entry { term, hash, .. }| (term, short(hash))).collect();
            json!({
                "mtype": "AppendEntriesRequest", "mprevLogIndex": prev.index.0, "mprevLogTerm": prev.term.0,
                "mentries": entries, "mcommitIndex": commit.0,
            })
        }
        Body::Appended { up_to } => {
            json!({ "mtype": "AppendEntriesResponse", "msuccess": true, "mmatchIndex": up_to.0 })
        }
        Body::Conflict { prev, hint } => json!({
            "mtype": "AppendEntriesResponse", "msuccess": false, "mmatchIndex": 0,
            "prev": prev.0, "hint": [hint.term.0, hint.index.0],
        }),
        Body::Heartbeat { commit, .. } => json!({ "mtype": "Heartbeat", "mcommitIndex": commit.0 }),
        Body::HeartbeatReply { .. } => json!({ "mtype": "HeartbeatReply" }),
        Body::Commit { commit } => json!({ "mtype": "Commit", "mcommitIndex": commit.0 }),
        Body::PreVote { last, .. } => json!({
            "mtype": "PreVoteRequest", "mlastLogTerm": last.term.0, "mlastLogIndex": last.index.0,
        }),
        Body::PreVoteReply { granted, .. } => json!({ "mtype": "PreVoteResponse", "mvoteGranted": granted }),
        Body::ReadIndex { .. } => json!({ "mtype": "ReadIndexRequest" }),
        Body::ReadIndexReply { .. } => json!({ "mtype": "ReadIndexResponse" }),
        Body::TimeoutNow => json!({ "mtype": "TimeoutNow" }),
        Body::InstallSnapshot { snapshot } => json!({
            "mtype": "InstallSnapshot", "mlastLogTerm": snapshot.last.term.0, "mlastLogIndex": snapshot.last.index.0,
        }),
    };
    value["id"] = id.into();
    value["mterm"] = message.term.0.into();
    value["msource"] = from.into();
    value["mdest"] = to.into();
    value
}

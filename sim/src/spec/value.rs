//! What there is in a run, as values of TLA+.

use quorate_core::{Body, LogId, Membership, Message, NodeId, RequestId, RoleKind};
use tla_eval::Value;

use super::log::entries_of;

pub(super) fn int(number: u64) -> Value {
    // Terms and indexes are below 2^63, or no correct node has them.
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn pair(first: u64, second: u64) -> Value {
    Value::Seq(vec![int(first), int(second)])
}

pub(super) fn record<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::record(fields.map(|(name, value)| (name.to_owned(), value)))
}

pub(super) fn set_of(ids: &[NodeId]) -> Value {
    Value::set(ids.iter().map(|id| int(id.0)))
}

pub(super) fn membership_value(membership: &Membership) -> Value {
    record([
        ("new", set_of(membership.voters())),
        ("old", set_of(membership.outgoing())),
        ("learners", set_of(membership.learners())),
    ])
}

/// Memberships with the indexes of their entries.
pub(super) fn members_value<'a>(members: impl Iterator<Item = (u64, &'a Membership)>) -> Value {
    Value::set(
        members.map(|(at, membership)| record([("at", int(at)), ("who", membership_value(membership))])),
    )
}

pub(super) fn role_value(role: RoleKind) -> Value {
    Value::string(role_name(role))
}

pub(super) const fn role_name(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "precandidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    }
}

/// What the specification calls a message like this.
pub(super) const fn type_of(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "PreVote",
        Body::PreVoteReply { .. } => "PreVoteReply",
        Body::Vote { .. } => "Vote",
        Body::VoteReply { .. } => "VoteReply",
        Body::Append { .. } => "Append",
        Body::Appended { .. } => "Appended",
        Body::Heartbeat { .. } | Body::Commit { .. } => "Commit",
        Body::TimeoutNow => "TimeoutNow",
        Body::InstallSnapshot { .. } => "Snapshot",
        Body::Conflict { .. }
        | Body::HeartbeatReply { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => "Other",
    }
}

/// A message, without what the specification leaves out.
pub(super) fn message_value(from: u64, to: u64, message: &Message) -> Value {
    let id = |id: &LogId| pair(id.term.0, id.index.0);
    let number = |id: &RequestId| pair(id.incarnation.0, id.number);
    let mut fields = vec![
        ("type", Value::string(type_of(&message.body))),
        ("from", int(from)),
        ("to", int(to)),
        ("term", int(message.term.0)),
    ];
    match &message.body {
        Body::PreVote { id: question, last } => {
            fields.extend([("id", number(question)), ("last", id(last))]);
        }
        Body::PreVoteReply { id: question, granted } => {
            fields.extend([("id", number(question)), ("granted", Value::Bool(*granted))]);
        }
        Body::Vote { last, commit, .. } => fields.extend([("last", id(last)), ("commit", id(commit))]),
        Body::VoteReply { granted, commit } => {
            fields.extend([("granted", Value::Bool(*granted)), ("commit", id(commit))]);
        }
        Body::Append { prev, commit, entries } => {
            let (mut terms, mut members) = (Vec::new(), Vec::new());
            for run in entries {
                if !run.has_membership() {
                    terms.extend((0..run.count()).map(|_| int(run.term().0)));
                    continue;
                }
                for entry in entries_of(run) {
                    terms.push(int(entry.term));
                    let at = prev.index.0 + terms.len() as u64;
                    members.extend(entry.membership.map(|membership| (at, membership)));
                }
            }
            let members = members_value(members.iter().map(|(at, membership)| (*at, membership)));
            fields.extend([
                ("prev", id(prev)),
                ("commit", int(commit.0)),
                ("terms", Value::Seq(terms)),
                ("members", members),
            ]);
        }
        Body::Appended { up_to } => fields.push(("upTo", int(up_to.0))),
        Body::Heartbeat { commit, .. } | Body::Commit { commit } => fields.push(("commit", int(commit.0))),
        Body::InstallSnapshot { snapshot } => {
            fields.extend([("last", id(&snapshot.last)), ("who", membership_value(&snapshot.membership))]);
        }
        Body::Conflict { .. }
        | Body::HeartbeatReply { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. }
        | Body::TimeoutNow => {}
    }
    Value::record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)))
}

//! What these tests say again and again.

use quorate_core::{Body, Event, Few, Index, LogId, Message, Outcome, PeerStatus, RoleKind, Run, Term};

use crate::common::*;

/// The messages of one kind that lie on the wire: sender, receiver.
pub(crate) fn on_wire(cluster: &Cluster, kind: impl Fn(&Body) -> bool) -> Vec<(u64, u64)> {
    cluster.wire.iter().filter(|(_, _, m)| kind(&m.body)).map(|(from, to, _)| (from.0, to.0)).collect()
}

/// Takes all messages off the wire.
pub(crate) fn replies(cluster: &mut Cluster) -> Vec<Message> {
    cluster.wire.drain(..).map(|(_, _, message)| message).collect()
}

/// Takes all messages off the wire; those to `to`.
pub(crate) fn bodies_to(cluster: &mut Cluster, to: u64) -> Vec<Body> {
    let mine = cluster.wire.iter().filter(|(_, receiver, _)| receiver.0 == to);
    let bodies = mine.map(|(_, _, message)| message.body.clone()).collect();
    cluster.wire.clear();
    bodies
}

pub(crate) fn append(prev: LogId, commit: u64, entries: Few<Run>) -> Body {
    Body::Append { prev, commit: i(commit), entries }
}

pub(crate) fn heartbeat(commit: u64, round: u64) -> Body {
    Body::Heartbeat { commit: i(commit), round, quiesce: false }
}

pub(crate) fn appended(up_to: u64) -> Body {
    Body::Appended { up_to: i(up_to) }
}

pub(crate) const fn is_append(body: &Body) -> bool {
    matches!(body, Body::Append { .. })
}

pub(crate) const fn is_vote(body: &Body) -> bool {
    matches!(body, Body::Vote { .. })
}

/// Entries that an append carries.
pub(crate) fn entries_of(body: &Body) -> Vec<(u64, u64)> {
    let Body::Append { entries, .. } = body else { return Vec::new() };
    entries.iter().flat_map(Run::entries).map(|entry| (entry.id.term.0, entry.id.index.0)).collect()
}

/// Nodes that campaign as soon as they lose patience, without asking first.
pub(crate) fn impatient(size: u64) -> Cluster {
    Cluster::with(size, |config| config.pre_vote = false)
}

/// Node 1 is a candidate in term 1, and nobody has heard of it yet.
pub(crate) fn candidate(size: u64) -> Cluster {
    let mut cluster = impatient(size);
    cluster.fire(1);
    assert_eq!((cluster.raft(1).role(), term(&cluster, 1)), (RoleKind::Candidate, 1));
    cluster.wire.clear();
    cluster
}

/// Node 1 leads, and everything is where it should be.
pub(crate) fn led(size: u64) -> Cluster {
    led_with(size, |_| {})
}

pub(crate) fn led_with(size: u64, configure: fn(&mut quorate_core::Config)) -> Cluster {
    let mut cluster = Cluster::with(size, configure);
    cluster.elect(1);
    cluster.wire.clear();
    cluster
}

/// Node 1 follows node 2, in term 2, with five entries of term 2; so many of them are committed.
pub(crate) fn follower(commit: u64) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.receive(2, 1, 2, append(LogId::ZERO, commit, Few::one(run(2, 1, 5)))).unwrap();
    cluster.wire.clear();
    cluster
}

pub(crate) fn term(cluster: &Cluster, id: u64) -> u64 {
    cluster.raft(id).term().0
}

pub(crate) fn role(cluster: &Cluster, id: u64) -> RoleKind {
    cluster.raft(id).role()
}

/// What node `id`, which leads, knows of `peer`.
pub(crate) fn progress(cluster: &Cluster, id: u64, peer: u64) -> PeerStatus {
    cluster.raft(id).progress().find(|status| status.id.0 == peer).unwrap()
}

/// The terms of a log, from the first entry on.
pub(crate) fn terms_of(cluster: &Cluster, id: u64) -> Vec<u64> {
    let raft = cluster.raft(id);
    (1..=raft.last().index.0).map(|index| raft.term_at(i(index)).map_or(0, |Term(term)| term)).collect()
}

/// A log of these terms, with as many entries each.
pub(crate) fn log_of(parts: &[(u64, u64)]) -> Vec<Run> {
    let mut next = 1;
    let runs = parts.iter().map(|(term, count)| {
        next += count;
        run(*term, next - count, *count)
    });
    runs.collect()
}

/// Node `id` begins with such a log, in `term`.
pub(crate) fn start_with(cluster: &mut Cluster, id: u64, term: u64, parts: &[(u64, u64)]) {
    let hard_state = quorate_core::HardState { term: Term(term), vote: None };
    cluster.start(id, Disk { hard_state, log: log_of(parts), ..Disk::default() });
}

/// Everything but what `kept` names is lost.
pub(crate) fn only(
    kept: &'static [u64],
) -> impl Fn(quorate_core::NodeId, quorate_core::NodeId, &Message) -> bool {
    move |from, to, _| !kept.contains(&from.0) || !kept.contains(&to.0)
}

pub(crate) fn outcome(cluster: &mut Cluster, id: u64, token: u64) -> Option<Outcome> {
    let outcomes = &cluster.node(id).outcomes;
    outcomes.iter().find(|(of, _)| of.0 == token).map(|(_, outcome)| *outcome)
}

/// Every leader that `id` ever was.
pub(crate) fn terms_led(cluster: &mut Cluster, id: u64) -> Vec<u64> {
    let led = cluster.node(id).events.iter().filter_map(|event| match event {
        Event::Role { term, role: RoleKind::Leader } => Some(term.0),
        _ => None,
    });
    led.collect()
}

pub(crate) fn index_of_last(cluster: &Cluster, id: u64) -> Index {
    cluster.raft(id).last().index
}

/// The logs of Figure 7: node 1 is to lead.
pub(crate) fn figure_7() -> Cluster {
    let logs: [&[(u64, u64)]; 7] = [
        &[(1, 3), (4, 2), (5, 2), (6, 3)],
        &[(1, 3), (4, 2), (5, 2), (6, 2)],
        &[(1, 3), (4, 1)],
        &[(1, 3), (4, 2), (5, 2), (6, 4)],
        &[(1, 3), (4, 2), (5, 2), (6, 3), (7, 2)],
        &[(1, 3), (4, 4)],
        &[(1, 3), (2, 3), (3, 5)],
    ];
    let mut cluster = Cluster::new(7);
    for (id, parts) in (1..).zip(logs) {
        start_with(&mut cluster, id, 7, parts);
    }
    cluster
}

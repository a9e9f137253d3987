//! That the specification is not empty: steps that must never be, made by hand, and the conjunct that refuses each. And that it is
//! not too strict: the same step as it should be.

use quorate_core::{
    Body, Few, Index, LogId, Membership, MembershipParts, Message, NodeId, RoleKind, Run, Term,
};
use tla_eval::Value;

use super::{
    judge::{Event, Judge, VARIABLES},
    log::Entry,
    node::{Image, Node},
    value::{membership_value, message_value},
};
use crate::violation::{Broken, Verdict};

/// Node 1 of three, in term 3. Its log has entries of terms 1, 1 and 2, the first of them committed; all is durable.
fn node() -> Node {
    let mut node = Node::new(1, 3, Membership::of_voters((1..=3).map(NodeId)));
    for term in [1, 1, 2] {
        node.log.push(&Entry { term, hash: 0, membership: None });
    }
    (node.term, node.commit) = (3, 1);
    durable(node)
}

fn durable(mut node: Node) -> Node {
    node.disk = Image { term: node.term, vote: node.vote, log: node.log.clone() };
    node
}

fn of_role(role: RoleKind) -> Node {
    let mut node = node();
    (node.role, node.vote) = (role, 1);
    durable(node)
}

fn message(from: u64, to: u64, term: u64, body: Body) -> Value {
    message_value(from, to, &Message { term: Term(term), body })
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn append(prev: LogId, commit: u64, entry: Option<u64>) -> Value {
    let entry = entry.map(|term| Few::one(Run::noop(Term(term), prev.index.next())));
    message(2, 1, 3, Body::Append { prev, commit: Index(commit), entries: entry.unwrap_or_default() })
}

fn vote(last: LogId) -> Value {
    message(2, 1, 3, Body::Vote { last, commit: LogId::ZERO, transfer: false })
}

/// Is it a step from `before` to what `change` makes of it?
fn verdict(before: Node, event: &Event, sent: bool, change: impl FnOnce(&mut Node)) -> Verdict {
    let parts = |node: &Node| VARIABLES[..11].iter().map(|variable| node.part(variable)).collect::<Vec<_>>();
    let mut judge = Judge::new(3, true)?;
    let known: Vec<Value> = event.message.iter().filter(|_| sent).cloned().collect();
    judge.put(1, parts(&before), &known);
    let mut after = before;
    change(&mut after);
    judge.take(event, parts(&after))
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "made where it is said")]
fn allowed(before: Node, event: Event, change: impl FnOnce(&mut Node)) {
    let sent = !event.action.starts_with("Send");
    assert_eq!(verdict(before, &event, sent, change), Ok(()));
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "made where it is said")]
fn refused(conjunct: &str, before: Node, event: Event, change: impl FnOnce(&mut Node)) {
    let sent = !event.action.starts_with("Send");
    let Err(Broken("spec", what)) = verdict(before, &event, sent, change) else {
        panic!("allowed, though not `{conjunct}`");
    };
    let told = what.split_once(": `").and_then(|(_, rest)| rest.split_once("` does not hold"));
    let found = told.map_or(what.as_str(), |(found, _)| found);
    assert!(found.contains(conjunct), "`{conjunct}` should refuse it, not `{found}`");
}

fn event(action: &'static str, message: &Value) -> Event {
    Event::new(action, 1).about(Some(message))
}

#[test]
fn one_vote_a_term() {
    let grant = event("Grant", &vote(id(2, 3)));
    allowed(node(), grant.clone(), |node| node.vote = 2);
    let voted = Node { vote: 3, ..node() };
    refused("vote[i] \\in", voted, grant, |node| node.vote = 2);
}

#[test]
fn no_vote_for_a_log_that_lacks_something() {
    for last in [id(1, 9), id(2, 2)] {
        refused("UpToDate", node(), event("Grant", &vote(last)), |node| node.vote = 2);
    }
}

#[test]
fn nothing_is_heard_that_was_not_said() {
    let grant = event("Grant", &vote(id(2, 3)));
    let Err(Broken(_, what)) = verdict(node(), &grant, false, |node| node.vote = 2) else {
        panic!("allowed")
    };
    assert!(what.contains("`m \\in msgs` does not hold"), "{what}");
}

#[test]
fn a_vote_is_durable_before_it_is_told() {
    let granted = Body::VoteReply { granted: true, commit: LogId::ZERO };
    let reply = event("SendVoteReply", &message(1, 2, 3, granted));
    let mut voted = node();
    voted.vote = 2;
    refused("VoteIsDurable", voted, reply.clone(), |_| {});
    let mut voted = node();
    voted.vote = 2;
    allowed(durable(voted), reply.clone(), |_| {});
    let mut early = node();
    (early.vote, early.disk.term) = (2, 2);
    refused("TermIsDurable", early, reply, |_| {});
}

#[test]
fn a_candidacy_is_durable_before_it_is_told_and_its_log_too() {
    let asks = |last| message(1, 2, 3, Body::Vote { last, commit: id(1, 1), transfer: false });
    let request = event("SendVote", &asks(id(2, 3)));
    allowed(of_role(RoleKind::Candidate), request.clone(), |_| {});
    let mut early = of_role(RoleKind::Candidate);
    early.disk.vote = 0;
    refused("VoteIsDurable", early, request.clone(), |_| {});
    let mut early = of_role(RoleKind::Candidate);
    early.disk.log.truncate(3);
    refused("LogIsDurable", early, request, |_| {});
    refused("m.last = ", of_role(RoleKind::Candidate), event("SendVote", &asks(id(2, 9))), |_| {});
}

#[test]
fn its_own_vote_counts_when_it_is_durable() {
    let count = Event::new("CountOwnVote", 1);
    let mut early = of_role(RoleKind::Candidate);
    early.disk.term = 2;
    refused("VoteIsDurable", early, count, |node| node.votes = [1].into());
}

#[test]
fn a_quorum_elects() {
    let with =
        |votes: &[u64]| Node { votes: votes.iter().copied().collect(), ..of_role(RoleKind::Candidate) };
    let lead = || Event::new("BecomeLeader", 1);
    allowed(with(&[1, 3]), lead(), |node| node.role = RoleKind::Leader);
    refused("IsQuorum", with(&[1]), lead(), |node| node.role = RoleKind::Leader);
    refused("IsQuorum", with(&[1, 9]), lead(), |node| node.role = RoleKind::Leader);
}

/// A leader in term 3 whose log ends with an entry of it.
fn leader(matches: [u64; 3]) -> Node {
    let mut node = of_role(RoleKind::Leader);
    node.log.push(&Entry { term: 3, hash: 0, membership: None });
    node.matches = matches.into();
    durable(node)
}

#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let commit = |index| Event::new("AdvanceCommit", 1).at(index);
    allowed(leader([0, 4, 0]), commit(4), |node| node.commit = 4);
    refused("TermAt(log[i], n) = term[i]", leader([0, 3, 3]), commit(3), |node| node.commit = 3);
}

#[test]
fn a_leader_counts_what_is_durable() {
    let commit = || Event::new("AdvanceCommit", 1).at(4);
    refused("IsQuorum", leader([0, 3, 3]), commit(), |node| node.commit = 4);
    let mut early = leader([0, 4, 0]);
    early.disk.log.truncate(4);
    refused("IsQuorum", early, commit(), |node| node.commit = 4);
}

#[test]
fn a_joint_membership_needs_both_halves() {
    let joint = |mut node: Node| {
        let [voters, outgoing] = [[1, 2], [1, 3]].map(|ids: [u64; 2]| ids.map(NodeId).to_vec());
        let parts = MembershipParts { voters, outgoing, ..MembershipParts::default() };
        node.log.members = vec![(0, Membership::try_from(parts).unwrap())];
        durable(node)
    };
    let commit = || Event::new("AdvanceCommit", 1).at(4);
    allowed(joint(leader([0, 4, 4])), commit(), |node| node.commit = 4);
    refused("IsQuorum", joint(leader([0, 4, 0])), commit(), |node| node.commit = 4);
    refused("IsQuorum", joint(leader([0, 0, 4])), commit(), |node| node.commit = 4);
}

#[test]
fn memberships_change_one_at_a_time_and_not_at_once() {
    let next = Membership::of_voters([NodeId(1), NodeId(2)]);
    let change = |membership: &Membership| Event {
        members: Some(membership_value(membership)),
        ..Event::new("Reconfigure", 1)
    };
    let takes = |membership: &Membership| {
        let entry = Entry { term: 3, hash: 0, membership: Some(membership.clone()) };
        move |node: &mut Node| node.log.push(&entry)
    };
    let settled = || Node { commit: 4, ..leader([0; 3]) };
    allowed(settled(), change(&next), takes(&next));
    refused("TermAt", leader([0; 3]), change(&next), takes(&next));
    let mut pending = settled();
    takes(&next)(&mut pending);
    refused("at <= commit[i]", pending, change(&next), takes(&next));
    let alone = Membership::of_voters([NodeId(1)]);
    refused("Follows", settled(), change(&alone), takes(&alone));
}

#[test]
fn an_append_builds_on_what_is_there() {
    let append_entry = |prev| event("AppendEntry", &append(prev, 0, Some(3)));
    let takes = |node: &mut Node| node.log.push(&Entry { term: 3, hash: 0, membership: None });
    allowed(node(), append_entry(id(2, 3)), takes);
    refused("Has(log[i], m.prev)", node(), append_entry(id(3, 3)), takes);
    refused("Has(log[i], m.prev)", node(), append_entry(id(3, 4)), takes);
    let accept = event("Accept", &append(id(3, 3), 3, None));
    refused("Has(log[i], m.prev)", node(), accept, |node| (node.commit, node.agreed) = (3, 3));
}

#[test]
fn a_follower_commits_what_it_has_verified() {
    let accept = || event("Accept", &append(id(1, 1), 9, Some(1)));
    allowed(node(), accept(), |node| (node.commit, node.agreed) = (2, 2));
    refused("commit' =", node(), accept(), |node| (node.commit, node.agreed) = (3, 2));
}

#[test]
fn what_is_committed_or_agrees_is_not_truncated() {
    let truncate = |prev, term, index| Event { index, ..event("Truncate", &append(prev, 0, Some(term))) };
    allowed(node(), truncate(id(1, 2), 3, 3), |node| node.log.truncate(3));
    refused("Carries(m, n) #", node(), truncate(id(1, 2), 2, 3), |node| node.log.truncate(3));
    let committed = Node { commit: 3, ..node() };
    refused("n > commit[i]", committed, truncate(id(1, 2), 3, 3), |node| node.log.truncate(3));
}

#[test]
fn an_acknowledgement_is_durable_and_the_leaders_log() {
    let says = |up_to| event("SendAppended", &message(1, 2, 3, Body::Appended { up_to: Index(up_to) }));
    let agrees = |agreed| Node { agreed, ..node() };
    allowed(agrees(3), says(3), |_| {});
    refused("m.upTo <= agreed", agrees(2), says(3), |_| {});
    let mut early = agrees(3);
    early.disk.log.truncate(3);
    refused("LogIsDurable", early, says(3), |_| {});
    // The same index, but another entry.
    let mut other = agrees(3);
    other.disk.log.terms[2] = 1;
    refused("LogIsDurable", other, says(3), |_| {});
}

#[test]
fn a_leader_sends_what_it_has() {
    let sends = |prev, term| {
        let entries = Few::one(Run::noop(Term(term), Index(4)));
        event("SendAppend", &message(1, 2, 3, Body::Append { prev, commit: Index(1), entries }))
    };
    allowed(leader([0; 3]), sends(id(2, 3), 3), |_| {});
    refused("SubSeq", leader([0; 3]), sends(id(2, 3), 2), |_| {});
    refused("Has(l, m.prev)", leader([0; 3]), sends(id(1, 3), 3), |_| {});
    let commits = event("SendCommit", &message(1, 2, 3, Body::Commit { commit: Index(2) }));
    refused("m.commit <=", Node { commit: 2, ..leader([0, 1, 4]) }, commits, |_| {});
}

#[test]
fn a_crash_leaves_what_the_disk_holds() {
    let mut before = node();
    before.term = 5;
    let restart = || Event::new("Restart", 1).at(0);
    let restarts = |term| move |node: &mut Node| (node.term, node.commit) = (term, 0);
    refused("term' =", before, restart(), restarts(5));
    let mut before = node();
    before.term = 5;
    allowed(before, restart(), restarts(3));
    let mut writes = node();
    writes.queue.push_back(writes.disk.clone());
    refused("disk' =", writes, Event::new("Persist", 1), |node| {
        node.disk.term = 7;
        node.queue.clear();
    });
}

#[test]
fn terms_only_grow() {
    let old = event("UpdateTerm", &message(2, 1, 2, Body::TimeoutNow));
    refused("m.term > term[i]", node(), old, |node| node.term = 2);
}

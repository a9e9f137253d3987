//! Requests, as one node's recording shows them: each resolved once and truthfully (T1); reads see what was acknowledged here
//! before they began (R1).

use std::collections::BTreeMap;

use quorate_core::{
    Apply, Done, EntryKind, Index, Input, NodeId, Outcome, Raft, ReadKind, Run, Term, Token, Tokens,
};

use super::{
    known::{Contents, Known},
    log::Log,
};
use crate::{
    ghost::Wanted,
    violation::{Verdict, hold},
};

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    /// With what it says, as one number.
    Proposal(u64),
    /// It must see at least this index.
    Read(u64),
    Change(Wanted),
    /// In which term.
    Transfer(u64),
}

/// The requests of one node.
#[derive(Default, Debug)]
pub(super) struct Requests {
    /// Those taken and not resolved.
    open: BTreeMap<u64, Kind>,
    /// The highest index that any caller of this node knows to be committed.
    pub(super) floor: u64,
    /// Who was seen to lead: node, and the last term.
    leaders: BTreeMap<u64, u64>,
    contents: Contents,
    /// How many were open when the recording began, in the middle of a life. Which they are, and what they asked for, is not
    /// known.
    earlier: u64,
}

/// A request, before it is known whether it is taken.
pub(super) struct Asked(Vec<(u64, Kind)>);

impl Requests {
    pub(super) fn new(contents: Contents, earlier: u64) -> Self {
        Self { contents, earlier, ..Self::default() }
    }

    /// What an input asks for.
    pub(super) fn ask(&self, input: &Input, raft: &Raft) -> Asked {
        Asked(match input {
            Input::Propose(proposal) => {
                let contents = contents(self.contents, &proposal.batch);
                proposal
                    .tokens()
                    .iter()
                    .map(|token| token.0)
                    .zip(contents.into_iter().map(Kind::Proposal))
                    .collect()
            }
            Input::Read { token, kind: ReadKind::AtLeast(Index(index)) } => {
                vec![(token.0, Kind::Read(*index))]
            }
            Input::Read { token, .. } => vec![(token.0, Kind::Read(self.floor))],
            Input::ChangeMembership { token, change } => {
                vec![(token.0, Kind::Change(Wanted::of(raft.membership(), change)))]
            }
            Input::TransferLeadership { token, .. } => vec![(token.0, Kind::Transfer(raft.term().0))],
            _ => Vec::new(),
        })
    }

    /// It was taken.
    pub(super) fn take(&mut self, node: u64, Asked(requests): Asked, raft: &Raft) -> Verdict {
        for (token, kind) in requests {
            if let Kind::Change(wanted) = &kind {
                wanted.check_taken(node as usize, raft.membership())?;
            }
            let before = self.open.insert(token, kind);
            hold!(before.is_none(), "T1", "request {token} was taken twice by node {node}");
        }
        if let Some(NodeId(leader)) = raft.leader() {
            self.leaders.insert(leader, raft.term().0);
        }
        Ok(())
    }

    /// How many of those that `pending` counts are open, other than reads; of those whose asking was not seen, as many as may be.
    pub(super) fn open(&self, pending: u64) -> u64 {
        let seen = self.open.values().filter(|kind| !matches!(kind, Kind::Read(_))).count() as u64;
        seen + self.earlier.min(pending.saturating_sub(seen))
    }

    /// Was it asked for before the recording began?
    fn is_earlier(&mut self, seen: bool) -> bool {
        let earlier = !seen && self.earlier > 0;
        self.earlier -= u64::from(earlier);
        earlier
    }

    /// Nobody may be left waiting.
    pub(super) fn all_resolved(&self, node: u64) -> Verdict {
        let first = self.open.first_key_value();
        hold!(first.is_none(), "T1", "request {first:?} at node {node} was never resolved");
        Ok(())
    }

    /// Proposals are done, as the entries of `apply` are applied.
    pub(super) fn on_done(&mut self, node: u64, apply: &Apply, log: &Log, known: &Known) -> Verdict {
        let last = apply.last().0;
        for Done { first, tokens } in &apply.done {
            for (index, token) in (first.0..).zip(tokens.iter()) {
                hold!(index <= last, "T1", "{token:?} is done at {index}, which was not applied");
                let asked = self.open.remove(&token.0);
                if self.is_earlier(asked.is_some()) {
                    self.floor = self.floor.max(index);
                    continue;
                }
                let Some(Kind::Proposal(content)) = asked else {
                    hold!(false, "T1", "node {node} says that {token:?} is done, which is no open proposal");
                    continue;
                };
                let there = log.term_at(index).and_then(|term| known.content(index, term));
                hold!(
                    there.is_none_or(|there| there == content),
                    "T1",
                    "{token:?} is done at {index}, where something else is"
                );
                self.floor = self.floor.max(index);
            }
        }
        Ok(())
    }

    /// A node says how requests have ended.
    pub(super) fn on_resolve(
        &mut self,
        node: u64,
        tokens: Tokens,
        outcome: Outcome,
        raft: &Raft,
        handed: u64,
        log: &Log,
    ) -> Verdict {
        for Token(token) in tokens.iter() {
            let kind = self.open.remove(&token);
            if self.is_earlier(kind.is_some()) {
                continue;
            }
            match (outcome, &kind) {
                (Outcome::Read { index: Index(index) }, Some(Kind::Read(floor))) => {
                    hold!(
                        index >= *floor,
                        "R1",
                        "a read at node {node} sees up to {index}, but must see {floor}: that was acknowledged before it began, \
                         or asked for"
                    );
                    hold!(
                        index <= handed,
                        "R1",
                        "a read at node {node} is served at {index}, but only {handed} was handed out"
                    );
                    self.floor = self.floor.max(index);
                }
                (Outcome::Changed { index }, Some(Kind::Change(wanted))) => {
                    hold!(
                        index <= raft.commit(),
                        "T1",
                        "change {token} is said to be done at {index}, which is not committed"
                    );
                    let (since, membership) = log.membership_at(index.0);
                    wanted.check_changed(token, index.0, since, membership)?;
                }
                (Outcome::Transferred { to }, Some(Kind::Transfer(term))) => {
                    let leads = raft.leader() == Some(to) && raft.term() > Term(*term)
                        || self.leaders.get(&to.0).is_some_and(|last| last > term);
                    hold!(
                        leads,
                        "T1",
                        "transfer {token} is said to be done, but node {to} was not seen to lead"
                    );
                }
                (Outcome::Refused { .. }, Some(Kind::Read(_) | Kind::Transfer(_)))
                | (Outcome::Unknown, Some(_)) => {}
                (_, kind) => {
                    hold!(false, "T1", "request {token} at node {node}, {kind:?}, ends as {outcome:?}");
                }
            }
        }
        Ok(())
    }
}

/// What each command of a batch says.
fn contents(contents: Contents, batch: &quorate_core::Batch) -> Vec<u64> {
    let run = Run::parse(Term(1), Index(1), batch.clone().into());
    run.map(|run| run.iter().map(|entry| contents.of(EntryKind::Command, entry.payload)).collect())
        .unwrap_or_default()
}

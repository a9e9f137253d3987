//! What a node says and hands out rests on what is durable (D1, D2), is committed (S6), and comes after nothing that ends it (D4).

use quorate_core::{Action, Apply, Body, Message, NodeId, Raft, SendSnapshot, Snapshot};

use super::{
    known::Known,
    view::{View, is_silent},
};
use crate::{
    bounds,
    violation::{Verdict, hold},
};

impl View {
    /// It wants something done, other than a write.
    pub(super) fn on_action(&mut self, action: &Action, raft: &Raft, known: &mut Known) -> Verdict {
        let n = self.node;
        hold!(is_silent(action) || !self.stopped, "D4", "node {n} goes on after its disk failed: {action:?}");
        match action {
            Action::Send { to, message } => {
                if let Body::Append { entries, .. } = &message.body {
                    bounds::check_append(n, &self.config, entries.as_slice())?;
                }
                self.check_claims(*to, message, known)
            }
            Action::Apply(apply) => self.on_apply(apply, raft, known),
            Action::Restore(snapshot) => self.on_restore(snapshot),
            Action::SendSnapshot(send) => self.on_send_snapshot(send, known),
            Action::Resolve { tokens, outcome } => {
                let handed = self.handed;
                self.requests.on_resolve(n, *tokens, *outcome, raft, handed, &self.live)
            }
            Action::Write(_) | Action::Load(_) | Action::Event(_) => Ok(()),
        }
    }

    /// What a message claims is decided here, without asking the core.
    fn check_claims(&mut self, to: NodeId, message: &Message, known: &mut Known) -> Verdict {
        let (n, term) = (self.node, message.term.0);
        match &message.body {
            Body::PreVote { .. } | Body::PreVoteReply { .. } => Ok(()),
            Body::Vote { last, .. } => {
                self.term_is_durable(message)?;
                let vote = self.durable_votes.get(&term).copied().flatten();
                hold!(vote == Some(NodeId(n)), "D1", "node {n} asks for votes before its own is durable");
                let log = self.is_claim_durable(term, last.index.0);
                hold!(log, "D1", "node {n} asks for votes for a log up to {last} that is not durable");
                known.note_vote(n, term, n)
            }
            Body::VoteReply { granted, .. } => {
                self.term_is_durable(message)?;
                if !granted {
                    return Ok(());
                }
                let vote = self.durable_votes.get(&term).copied().flatten();
                hold!(vote == Some(to), "D1", "node {n} grants node {to} a vote that is not durable");
                known.note_vote(n, term, to.0)
            }
            Body::Appended { up_to } => {
                self.term_is_durable(message)?;
                let log = self.is_claim_durable(term, up_to.0);
                hold!(log, "D2", "node {n} acknowledges {up_to}, which is not durable");
                Ok(())
            }
            Body::Append { prev, entries, .. } => {
                self.term_is_durable(message)?;
                // What a leader sends is its log.
                let last = self.live.last();
                let end = entries.last().map_or(prev.index, quorate_core::Run::last).0;
                hold!(
                    end <= last || term < self.durable_state.term.0,
                    "S9",
                    "node {n} sends up to {end}, but its log ends at {last}"
                );
                hold!(
                    self.led.contains(&term),
                    "S1",
                    "node {n} sends entries in term {term}, which it doesn't lead"
                );
                Ok(())
            }
            Body::Conflict { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::Commit { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::TimeoutNow
            | Body::InstallSnapshot { .. } => self.term_is_durable(message),
        }
    }

    /// It was durable at some time since: another may have become so before the queue was polled.
    fn term_is_durable(&self, message: &Message) -> Verdict {
        hold!(
            self.durable_votes.contains_key(&message.term.0),
            "D1",
            "node {} says in term {}, while {} is durable: {:?}",
            self.node,
            message.term,
            self.durable_state.term,
            message.body
        );
        Ok(())
    }

    /// The same, of a log: what is said in an earlier term may be about entries that are gone since.
    fn is_claim_durable(&self, term: u64, index: u64) -> bool {
        let earlier = term < self.durable_state.term.0;
        self.durable_up_to(index) || earlier && self.durable_in.get(&term).is_some_and(|most| *most >= index)
    }

    fn on_apply(&mut self, apply: &Apply, raft: &Raft, known: &mut Known) -> Verdict {
        let (n, before) = (self.node, self.handed);
        let first = apply.entries.first().map_or(0, |run| run.first().0);
        let last = apply.last().0;
        hold!(first == before + 1, "S6", "node {n} applies {first} after {before}");
        hold!(last <= raft.commit().0, "S6", "node {n} applies {last}, which is not committed");
        hold!(self.durable_up_to(last), "D2", "node {n} applies {last}, which is not durable there");
        known.check_applied(n, &self.live, apply)?;
        let handed = self.applying.iter().map(|(_, bytes)| bytes).sum();
        let bytes = bounds::check_apply(n, &self.config, apply, handed)?;
        self.applying.push_back((last, bytes));
        self.handed = last;
        self.requests.on_done(n, apply, &self.live, known)
    }

    fn on_restore(&mut self, snapshot: &Snapshot) -> Verdict {
        let (n, index) = (self.node, snapshot.last.index.0);
        hold!(
            self.durable.base() >= index && self.snapshot >= index,
            "P3",
            "node {n} restores a snapshot at {index} before that is durable and adopted"
        );
        hold!(
            index > self.handed,
            "P2",
            "node {n} restores a snapshot at {index} after it applied {}",
            self.handed
        );
        self.handed = index;
        Ok(())
    }

    fn on_send_snapshot(&mut self, send: &SendSnapshot, known: &mut Known) -> Verdict {
        let n = self.node;
        let Body::InstallSnapshot { snapshot } = &send.message.body else {
            hold!(false, "P1", "node {n} announces a snapshot by {:?}", send.message.body);
            return Ok(());
        };
        hold!(
            snapshot.last.index.0 <= self.snapshot,
            "P3",
            "node {n} sends a snapshot at {}, but its newest is at {}",
            snapshot.last,
            self.snapshot
        );
        self.check_claims(send.to, &send.message, known)
    }
}

//! No message rests on what is not durable (D1, D2): decided here, without asking the core what a message claims.

use quorate_core::{Body, Message, NodeId, Term};

use super::Ghost;
use crate::violation::{Verdict, hold};

impl Ghost {
    pub(super) fn check_claims(&mut self, slot: usize, to: NodeId, message: &Message) -> Verdict {
        let n = slot + 1;
        match &message.body {
            Body::PreVote { .. } | Body::PreVoteReply { .. } => Ok(()),
            Body::Vote { last, .. } => {
                self.term_is_durable(slot, message)?;
                let vote = self.nodes[slot].durable_state.vote;
                hold!(
                    vote == Some(NodeId(n as u64)),
                    "D1",
                    "node {n} asks for votes before its own is durable"
                );
                let log = self.durable_up_to(slot, last.index.0);
                hold!(log, "D1", "node {n} asks for votes for a log up to {last} that is not durable");
                self.note_vote(slot, message.term.0, n as u64)
            }
            Body::VoteReply { granted, .. } => {
                self.term_is_durable(slot, message)?;
                if !granted {
                    return Ok(());
                }
                let vote = self.nodes[slot].durable_state.vote;
                hold!(vote == Some(to), "D1", "node {n} grants node {to} a vote that is not durable");
                self.note_vote(slot, message.term.0, to.0)
            }
            Body::Appended { up_to } => {
                self.term_is_durable(slot, message)?;
                let log = self.durable_up_to(slot, up_to.0);
                hold!(log, "D2", "node {n} acknowledges {up_to}, which is not durable");
                Ok(())
            }
            Body::Append { prev, entries, .. } => {
                // What a leader sends is its log.
                let last = self.nodes[slot].live.last();
                let end = entries.last().map_or(prev.index, quorate_core::Run::last).0;
                hold!(end <= last, "S9", "node {n} sends up to {end}, but its log ends at {last}");
                self.term_is_durable(slot, message)
            }
            Body::Conflict { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::Commit { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::InstallSnapshot { .. } => self.term_is_durable(slot, message),
            Body::TimeoutNow => {
                self.term_is_durable(slot, message)?;
                self.on_timeout_now(slot, to, message.term)
            }
        }
    }

    fn term_is_durable(&self, slot: usize, message: &Message) -> Verdict {
        let durable: Term = self.nodes[slot].durable_state.term;
        hold!(
            durable == message.term,
            "D1",
            "node {} says in term {}, while {durable} is durable: {:?}",
            slot + 1,
            message.term,
            message.body
        );
        Ok(())
    }

    /// Is the node's log, as it believes it to be, durable up to `index`?
    pub(super) fn durable_up_to(&self, slot: usize, index: u64) -> bool {
        let images = &self.nodes[slot];
        let durable = images.durable.chain(index, &self.committed);
        durable.is_some() && durable == images.live.chain(index, &self.committed)
    }

    /// A node has voted: by a message, or on its disk.
    pub(super) fn note_vote(&mut self, slot: usize, term: u64, candidate: u64) -> Verdict {
        let before = *self.votes.entry((slot, term)).or_insert(candidate);
        hold!(
            before == candidate,
            "S2",
            "in term {term} node {} votes for {before} and {candidate}",
            slot + 1
        );
        Ok(())
    }
}

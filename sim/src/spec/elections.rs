//! Terms, votes and roles: the part of a step that is about who leads.

use quorate_core::{Body, Message, RoleKind};

use super::{
    judge::Event,
    translate::{Heard, Shown, Translator},
};
use crate::violation::Verdict;

impl Translator {
    /// A later term, a candidacy.
    pub(super) fn terms(
        &mut self,
        slot: usize,
        heard: Option<&Heard<'_>>,
        shown: &Shown,
        sends: &[(u64, &Message)],
    ) -> Verdict {
        let node = &mut self.nodes[slot];
        if let Some(heard) =
            heard.filter(|heard| (node.term + 1..=shown.term).contains(&heard.message.term.0))
        {
            (node.term, node.vote, node.role, node.agreed) = (heard.message.term.0, 0, RoleKind::Follower, 0);
            node.votes.clear();
            let event = Event::new("UpdateTerm", node.id).about(Some(&heard.value));
            self.take(slot, &event, ["term", "vote", "role", "votes", "agreed"])?;
        }
        let node = &mut self.nodes[slot];
        if let Some(Heard {
            from,
            message: Message { body: Body::PreVoteReply { id, granted: true }, .. },
            value,
        }) = heard
            && node.role == RoleKind::PreCandidate
            && (id.incarnation.0, id.number) == node.round
        {
            node.votes.insert(*from);
            let event = Event::new("CountPreVote", node.id).about(Some(value));
            self.take(slot, &event, ["votes"])?;
        }
        if shown.term == self.nodes[slot].term {
            return Ok(());
        }
        let told = heard.filter(|heard| matches!(heard.message.body, Body::TimeoutNow));
        let answered = heard.is_some();
        if self.asks_first && !answered {
            self.ask(slot, sends)?;
        }
        let node = &mut self.nodes[slot];
        (node.term, node.vote, node.role, node.agreed) = (shown.term, shown.vote, RoleKind::Candidate, 0);
        node.votes.clear();
        let event = Event::new(if told.is_some() { "TakeOver" } else { "Timeout" }, node.id);
        let event = event.about(told.map(|heard| &heard.value));
        self.take(slot, &event, ["term", "vote", "role", "votes", "agreed"])
    }

    fn ask(&mut self, slot: usize, sends: &[(u64, &Message)]) -> Verdict {
        let node = &mut self.nodes[slot];
        node.role = RoleKind::PreCandidate;
        node.round = question(sends).unwrap_or((0, 0));
        node.votes = [node.id].into();
        let event = Event { id: node.round, ..Event::new("Ask", node.id) };
        self.take(slot, &event, ["role", "votes", "round"])
    }

    pub(super) fn step_down(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        node.role = RoleKind::Follower;
        node.votes.clear();
        let event = Event::new("StepDown", node.id);
        self.take(slot, &event, ["role", "votes"])
    }

    /// Votes, and what part it plays. A leader steps down later: it may have things to say.
    pub(super) fn roles(
        &mut self,
        slot: usize,
        heard: Option<&Heard<'_>>,
        shown: &Shown,
        sends: &[(u64, &Message)],
    ) -> Verdict {
        let learns = heard.filter(|heard| heard.is_vote());
        if let Some(heard) = learns.filter(|_| shown.commit > self.nodes[slot].commit) {
            let node = &mut self.nodes[slot];
            node.commit = shown.commit;
            let event = Event::new("LearnCommit", node.id).about(Some(&heard.value));
            self.take(slot, &event, ["commit"])?;
        }
        let node = &mut self.nodes[slot];
        if let Some(Heard { from, message, value }) = heard
            && matches!(message.body, Body::VoteReply { granted: true, .. })
            && node.role == RoleKind::Candidate
            && message.term.0 == node.term
        {
            node.votes.insert(*from);
            let event = Event::new("CountVote", node.id).about(Some(value));
            self.take(slot, &event, ["votes"])?;
        }
        let role = self.nodes[slot].role;
        match shown.role {
            RoleKind::PreCandidate if role != RoleKind::PreCandidate || question(sends).is_some() => {
                self.ask(slot, sends)?;
            }
            RoleKind::Follower if role == RoleKind::Candidate || role == RoleKind::PreCandidate => {
                self.step_down(slot)?;
            }
            RoleKind::Leader if role != RoleKind::Leader => self.lead(slot)?,
            RoleKind::PreCandidate | RoleKind::Follower | RoleKind::Candidate | RoleKind::Leader => {}
        }
        let node = &mut self.nodes[slot];
        if shown.vote != node.vote {
            node.vote = shown.vote;
            let event = Event::new("Grant", node.id).about(heard.map(|heard| &heard.value));
            self.take(slot, &event, ["vote"])?;
        }
        Ok(())
    }

    fn lead(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let (id, disk) = (node.id, &node.disk);
        if node.role == RoleKind::Candidate
            && disk.term == node.term
            && disk.vote == id
            && node.votes.insert(id)
        {
            self.take(slot, &Event::new("CountOwnVote", id), ["votes"])?;
        }
        let node = &mut self.nodes[slot];
        node.role = RoleKind::Leader;
        node.matches.fill(0);
        self.take(slot, &Event::new("BecomeLeader", id), ["role", "match"])
    }
}

/// Which question is asked, if one is.
fn question(sends: &[(u64, &Message)]) -> Option<(u64, u64)> {
    sends.iter().find_map(|(_, message)| match &message.body {
        Body::PreVote { id, .. } => Some((id.incarnation.0, id.number)),
        _ => None,
    })
}

//! From what is seen of a run to steps of the specification.
//!
//! One step of a core is a few of these: a later term is taken on, an entry goes, three come, more is committed, messages leave. Which
//! they are follows from the input and from what the node shows afterwards, and never from what the specification would do; in the end
//! the steps must have led to just what the node shows.

use quorate_core::{Action, Body, HardState, Membership, Message, Raft, Rebase, RoleKind, Write};
use tla_eval::Value;

use super::{
    export::Exporter,
    judge::{Event, Judge, VARIABLES},
    log::{Entry, Log, entries_of},
    node::Node,
    value::{membership_value, message_value},
};
use crate::{
    violation::{Broken, Verdict, hold},
    watch::{Seen, Step, Stimulus, Watch},
};

/// So many committed and durable entries of a log are kept, or twice as many, from the specification's eyes: it is slow with long logs.
const KEPT: u64 = 12;

/// Says that enough was seen: no violation.
pub(super) const ENOUGH: &str = "enough";

/// Follows all nodes.
#[derive(Debug)]
pub(super) struct Translator {
    pub(super) judge: Option<Judge>,
    pub(super) exporter: Option<Exporter>,
    pub(super) nodes: Vec<Node>,
    slots: usize,
    pub(super) asks_first: bool,
    pub(super) steps: u64,
    /// The same, but steps with long logs count more.
    cost: u64,
    pub(super) most_steps: u64,
    pub(super) at: u64,
}

/// A message that was received, and what the specification takes it for.
pub(super) struct Heard<'a> {
    pub(super) from: u64,
    pub(super) message: &'a Message,
    pub(super) value: Value,
}

impl Heard<'_> {
    pub(super) const fn is_vote(&self) -> bool {
        matches!(self.message.body, Body::Vote { .. } | Body::VoteReply { .. })
    }
}

/// What a node shows after a step.
pub(super) struct Shown {
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) role: RoleKind,
    pub(super) commit: u64,
}

impl Watch for Translator {
    fn see(&mut self, at: u64, seen: &Seen<'_>) -> Verdict {
        self.at = at;
        if let Some(exporter) = &mut self.exporter {
            exporter.see(at, seen, &self.nodes)?;
        }
        match seen {
            Seen::Provisioned { slot, membership } => self.provisioned(*slot, membership),
            Seen::Started { slot, raft } => self.started(*slot, raft),
            Seen::Stepped(step) => self.stepped(step),
            Seen::Durable { slot, .. } => self.durable(*slot),
            Seen::Crashed { .. }
            | Seen::Sent { .. }
            | Seen::Lost { .. }
            | Seen::Applied { .. }
            | Seen::SnapshotTaken { .. }
            | Seen::Fault { .. } => Ok(()),
        }
    }
}

impl Translator {
    pub(super) fn new(slots: usize, asks_first: bool, most_steps: u64) -> Self {
        Self {
            judge: None,
            exporter: None,
            nodes: Vec::new(),
            slots,
            asks_first,
            steps: 0,
            cost: 0,
            most_steps,
            at: 0,
        }
    }

    fn provisioned(&mut self, slot: usize, membership: &Membership) -> Verdict {
        hold!(slot == self.nodes.len(), "spec", "node {} is set up out of order", slot + 1);
        let node = Node::new(slot as u64 + 1, self.slots, membership.clone());
        let variables = VARIABLES.iter().filter(|variable| **variable != "msgs");
        let parts = variables.map(|variable| node.part(variable)).collect();
        let id = node.id;
        self.nodes.push(node);
        self.judge.as_mut().map_or(Ok(()), |judge| judge.begin(id, parts))
    }

    fn started(&mut self, slot: usize, raft: &Raft) -> Verdict {
        let shown = Shown::of(raft);
        let node = &mut self.nodes[slot];
        let image = node.disk.clone();
        (node.term, node.vote, node.log) = (image.term, image.vote, image.log);
        node.commit = shown.commit;
        node.role = RoleKind::Follower;
        node.agreed = 0;
        node.votes.clear();
        node.queue.clear();
        let restart = Event::new("Restart", node.id).at(node.commit);
        self.take(slot, &restart, ["term", "vote", "log", "commit", "role", "agreed", "votes", "queue"])?;
        self.compare(slot, raft, &shown, true)
    }

    fn durable(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let Some(image) = node.queue.pop_front() else {
            return Err(Broken(
                "spec",
                format!("the disk of node {} does a write that was not issued", slot + 1),
            ));
        };
        node.disk = image;
        let event = Event::new("Persist", node.id);
        self.take(slot, &event, ["disk", "queue"])
    }

    /// One step of a core.
    fn stepped(&mut self, step: &Step<'_>) -> Verdict {
        let (slot, raft) = (step.slot, step.raft);
        let shown = Shown::of(raft);
        let heard = self.heard(step);
        let heard = heard.as_ref();
        let sends: Vec<(u64, &Message)> = step.actions.iter().filter_map(as_send).collect();
        let writes: Vec<&Write> = step.actions.iter().filter_map(as_write).collect();
        // What was waiting to be said in an earlier term is said before the new one.
        self.send(slot, &sends, |_, message| message.term.0 < shown.term)?;
        self.terms(slot, heard, &shown, &sends)?;
        self.roles(slot, heard, &shown, &sends)?;
        self.logs(slot, heard, raft, &shown, &writes)?;
        self.commits(slot, heard, &shown)?;
        // A leader that leaves says so as one.
        self.send(slot, &sends, |_, message| message.term.0 >= shown.term && is_leaders(&message.body))?;
        if shown.role == RoleKind::Follower && self.nodes[slot].role != RoleKind::Follower {
            self.step_down(slot)?;
        }
        self.send(slot, &sends, |_, message| message.term.0 >= shown.term && !is_leaders(&message.body))?;
        for write in &writes {
            let node = &mut self.nodes[slot];
            let image = node.issued().after(write, &node.log);
            node.queue.push_back(image);
            let event = Event::new("Issue", node.id);
            self.take(slot, &event, ["queue"])?;
        }
        self.compare(slot, raft, &shown, !writes.is_empty())?;
        if let Some(exporter) = &mut self.exporter {
            exporter.received(self.at, step, &self.nodes)?;
        }
        self.forget(slot)
    }

    fn heard<'a>(&self, step: &Step<'a>) -> Option<Heard<'a>> {
        match step.stimulus {
            Stimulus::Receive { from, message, .. } if step.result.is_ok() => Some(Heard {
                from: from.0,
                message,
                value: message_value(from.0, step.slot as u64 + 1, message),
            }),
            _ => None,
        }
    }

    /// What the log loses and gains. A leader's log may gain a membership because more is committed, or the other way round.
    fn logs(
        &mut self,
        slot: usize,
        heard: Option<&Heard<'_>>,
        raft: &Raft,
        shown: &Shown,
        writes: &[&Write],
    ) -> Verdict {
        self.matches(slot, heard, raft)?;
        for write in writes {
            if let Some(Rebase::Install(snapshot)) = write.rebase.as_deref() {
                let (last, membership) = (snapshot.last, snapshot.membership.clone());
                let (index, term) = (last.index.0, last.term.0);
                let whole = self.nodes.iter().map(|node| &node.log);
                let whole = whole.filter(|log| log.last() >= index && log.term_at(index) == term);
                let whole: Option<Log> = whole.max_by_key(|log| log.base).cloned();
                let node = &mut self.nodes[slot];
                node.log.install(index, term, membership, whole.as_ref());
                (node.commit, node.agreed) = (index, node.agreed.max(index));
                let event = Event::new("InstallSnapshot", node.id).about(heard.map(|heard| &heard.value));
                self.take(slot, &event, ["log", "commit", "agreed"])?;
            }
            if let Some(from) = write.truncate {
                let node = &mut self.nodes[slot];
                node.log.truncate(from.0);
                let event = Event::new("Truncate", node.id).at(from.0).about(heard.map(|heard| &heard.value));
                self.take(slot, &event, ["log"])?;
            }
            for entry in write.entries.iter().flat_map(entries_of) {
                self.append(slot, heard, shown, &entry)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, slot: usize, heard: Option<&Heard<'_>>, shown: &Shown, entry: &Entry) -> Verdict {
        let heard = heard.filter(|heard| matches!(heard.message.body, Body::Append { .. }));
        if heard.is_none() && entry.membership.is_some() {
            self.advance(slot, shown)?;
        }
        let node = &mut self.nodes[slot];
        node.log.push(entry);
        let event = match (heard, &entry.membership) {
            (Some(heard), _) => Event::new("AppendEntry", node.id).about(Some(&heard.value)),
            (None, None) => Event::new("ClientRequest", node.id),
            (None, Some(membership)) => {
                Event { members: Some(membership_value(membership)), ..Event::new("Reconfigure", node.id) }
            }
        };
        self.take(slot, &event, ["log"])
    }

    /// Before a leader's membership changes, it commits as much of what it shows in the end as it may.
    fn advance(&mut self, slot: usize, shown: &Shown) -> Verdict {
        let node = &self.nodes[slot];
        let (id, before, last) = (node.id, node.commit, node.log.last());
        for index in (before + 1..=shown.commit.min(last)).rev() {
            let event = Event::new("AdvanceCommit", id).at(index);
            self.nodes[slot].commit = index;
            let changes = self.nodes[slot].parts(["commit"]);
            if self.judge.as_mut().is_none_or(|judge| judge.allows(&event, &changes)) {
                return self.take(slot, &event, ["commit"]);
            }
        }
        self.nodes[slot].commit = before;
        Ok(())
    }

    /// What a leader knows the others to have.
    fn matches(&mut self, slot: usize, heard: Option<&Heard<'_>>, raft: &Raft) -> Verdict {
        let node = &mut self.nodes[slot];
        let mut changed = false;
        if raft.role() == RoleKind::Leader {
            for peer in raft.progress() {
                let at = peer.id.0 as usize - 1;
                changed |= node.matches[at] != peer.match_index.0;
                node.matches[at] = peer.match_index.0;
                node.nexts[at] = peer.next_index.0;
            }
        } else if let Some(Heard { from, message: Message { term, body: Body::Appended { up_to } }, .. }) =
            heard
            && node.role == RoleKind::Leader
            && term.0 == node.term
        {
            // It has led up to this step: what it is told now may have been what it waited for.
            let at = *from as usize - 1;
            changed = up_to.0 > node.matches[at];
            node.matches[at] = node.matches[at].max(up_to.0);
        }
        if !changed {
            return Ok(());
        }
        let event = Event::new("CountAck", node.id).about(heard.map(|heard| &heard.value));
        self.take(slot, &event, ["match"])
    }

    /// What is committed, and what a follower knows its leader to have.
    fn commits(&mut self, slot: usize, heard: Option<&Heard<'_>>, shown: &Shown) -> Verdict {
        let node = &mut self.nodes[slot];
        let news = shown.commit > node.commit;
        if node.role == RoleKind::Leader {
            if news {
                node.commit = shown.commit;
                let event = Event::new("AdvanceCommit", node.id).at(shown.commit);
                self.take(slot, &event, ["commit"])?;
            }
            return Ok(());
        }
        let Some(heard) = heard else {
            hold!(!news, "spec", "node {} commits {} without having heard of it", slot + 1, shown.commit);
            return Ok(());
        };
        let (id, current) = (node.id, heard.message.term.0 == node.term);
        let (action, end) = match &heard.message.body {
            Body::Append { prev, entries, .. } => {
                let end = entries.last().map_or(*prev, quorate_core::Run::last_id);
                let here = node.log.has(prev.index.0, prev.term.0) && node.log.has(end.index.0, end.term.0);
                if !current || !(here || news) {
                    return Ok(());
                }
                ("Accept", end.index.0)
            }
            Body::InstallSnapshot { snapshot } => {
                let end = snapshot.last.index.0;
                if !current || node.agreed >= end && !news {
                    return Ok(());
                }
                ("AcceptSnapshot", end)
            }
            _ if !news => return Ok(()),
            _ if heard.is_vote() => ("LearnCommit", 0),
            _ => ("FollowCommit", 0),
        };
        // Nothing new: the same append again.
        if !news && end <= node.agreed {
            return Ok(());
        }
        node.agreed = node.agreed.max(end);
        node.commit = shown.commit.max(node.commit);
        let event = Event::new(action, id).about(Some(&heard.value));
        self.take(slot, &event, ["agreed", "commit"])
    }

    fn send(
        &mut self,
        slot: usize,
        sends: &[(u64, &Message)],
        which: impl Fn(u64, &Message) -> bool,
    ) -> Verdict {
        for (to, message) in sends.iter().filter(|(to, message)| which(*to, message)) {
            let id = slot as u64 + 1;
            let event =
                Event::new(send_action(&message.body), id).about(Some(&message_value(id, *to, message)));
            self.take(slot, &event, [])?;
        }
        Ok(())
    }

    /// The steps have led to what the node shows.
    fn compare(&self, slot: usize, raft: &Raft, shown: &Shown, wrote: bool) -> Verdict {
        let node = &self.nodes[slot];
        let (id, last) = (node.id, raft.last());
        let Shown { term, vote, role, commit } = *shown;
        let same = (node.term, node.vote, node.role) == (term, vote, role);
        hold!(
            same,
            "spec",
            "node {id} is {role:?} in term {term} with vote {vote}, but its steps have led to {:?} in {} with {}",
            node.role,
            node.term,
            node.vote
        );
        hold!(node.commit == commit, "spec", "node {id} has committed {commit}, its steps {}", node.commit);
        hold!(
            node.log.last() == last.index.0 && (node.log.term_at(last.index.0) == last.term.0),
            "spec",
            "the log of node {id} ends at {last}, by its steps at {} of term {}",
            node.log.last(),
            node.log.term_at(node.log.last())
        );
        if wrote {
            for index in node.log.base.max(1)..=node.log.last() {
                let term = raft
                    .term_at(quorate_core::Index(index))
                    .map_or_else(|| node.log.term_at(index), |term| term.0);
                hold!(
                    term == node.log.term_at(index),
                    "spec",
                    "entry {index} of node {id} is of term {term}, not {}",
                    node.log.term_at(index)
                );
            }
            hold!(
                node.log.membership() == Some(raft.membership()),
                "spec",
                "node {id} goes by {:?}, by its steps {:?}",
                raft.membership(),
                node.log.membership()
            );
        }
        Ok(())
    }

    /// What is committed and durable is kept from the specification, but for the newest.
    fn forget(&mut self, slot: usize) -> Verdict {
        let node = &mut self.nodes[slot];
        let end = node.commit.saturating_sub(KEPT);
        if end < node.log.base + KEPT || !node.is_durable(end) || self.judge.is_none() {
            return Ok(());
        }
        node.log.compact(end);
        let event = Event::new("Compact", node.id).at(end);
        self.take(slot, &event, ["log"])
    }

    /// One step of the specification: held against it, and exported.
    pub(super) fn take<const N: usize>(
        &mut self,
        slot: usize,
        event: &Event,
        changed: [&'static str; N],
    ) -> Verdict {
        self.steps += 1;
        // Long logs are slow to look at.
        self.cost += 1 + self.nodes[slot].shown() / 64;
        if let Some(judge) = &mut self.judge {
            judge.take(event, self.nodes[slot].parts(changed))?;
        }
        if let Some(exporter) = &mut self.exporter {
            exporter.step(self.at, event, &self.nodes)?;
        }
        if self.cost >= self.most_steps {
            return Err(Broken(ENOUGH, String::new()));
        }
        Ok(())
    }
}

impl Shown {
    fn of(raft: &Raft) -> Self {
        let HardState { term, vote } = raft.hard_state();
        let vote = vote.map_or(0, |vote| vote.0);
        Self { term: term.0, vote, role: raft.role(), commit: raft.commit().0 }
    }
}

fn as_send(action: &Action) -> Option<(u64, &Message)> {
    match action {
        Action::Send { to, message } => Some((to.0, message)),
        Action::SendSnapshot(send) => Some((send.to.0, &send.message)),
        Action::Write(_)
        | Action::Apply(_)
        | Action::Restore(_)
        | Action::Load(_)
        | Action::Resolve { .. }
        | Action::Event(_) => None,
    }
}

const fn as_write(action: &Action) -> Option<&Write> {
    match action {
        Action::Write(write) => Some(write),
        _ => None,
    }
}

/// Does only a leader say such a thing?
const fn is_leaders(body: &Body) -> bool {
    matches!(
        body,
        Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::Commit { .. }
            | Body::TimeoutNow
            | Body::InstallSnapshot { .. }
    )
}

pub(super) const fn send_action(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "SendPreVote",
        Body::PreVoteReply { .. } => "SendPreVoteReply",
        Body::Vote { .. } => "SendVote",
        Body::VoteReply { .. } => "SendVoteReply",
        Body::Append { .. } => "SendAppend",
        Body::Appended { .. } => "SendAppended",
        Body::Heartbeat { .. } | Body::Commit { .. } => "SendCommit",
        Body::TimeoutNow => "SendTimeoutNow",
        Body::InstallSnapshot { .. } => "SendSnapshot",
        Body::Conflict { .. }
        | Body::HeartbeatReply { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => "SendOther",
    }
}

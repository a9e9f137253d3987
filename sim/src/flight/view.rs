//! One node, as its recording shows it: its log as it was issued and as it is durable, and what may not be said or done with these.
//!
//! Between two moments at which the queue of actions was found empty there may be several steps, and a recording doesn't
//! say which of them an action comes from. So what must hold of an action is held against the batch: never against less than was true when
//! it was emitted, so that nothing right is called wrong.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use quorate_core::{
    Action, Body, Config, HardState, Index, Input, Membership, Message, NodeId, Raft, Rebase, Recovered,
    RoleKind, Write,
};

use super::{known::Known, log::Log, requests::Requests};
use crate::{
    ghost::{agree, check_succession},
    violation::{Verdict, hold},
};

/// One node.
#[derive(Debug)]
pub(super) struct View {
    pub(super) node: u64,
    pub(super) config: Config,
    /// What was issued: what the node believes its log to be.
    pub(super) live: Log,
    /// What is known to be on its disk.
    pub(super) durable: Log,
    state: HardState,
    pub(super) durable_state: HardState,
    /// Every term that was durable, and whom it voted for in it.
    pub(super) durable_votes: BTreeMap<u64, Option<NodeId>>,
    /// How far the durable log went at most while each term was durable.
    pub(super) durable_in: BTreeMap<u64, u64>,
    /// What was issued and is not known to be durable.
    pub(super) writes: VecDeque<Write>,
    /// The newest durable snapshot.
    pub(super) snapshot: u64,
    pub(super) term: u64,
    pub(super) role: RoleKind,
    pub(super) commit: u64,
    /// When the queue was found empty last.
    settled_commit: u64,
    pub(super) settled_membership: Arc<Membership>,
    /// Up to here entries were handed out.
    pub(super) handed: u64,
    /// Handed out and not applied: each last index, and how many bytes.
    pub(super) applying: VecDeque<(u64, usize)>,
    /// The terms that it led.
    pub(super) led: BTreeSet<u64>,
    /// Who has granted it a vote in its present term, and who has acknowledged how much.
    grants: BTreeSet<u64>,
    pub(super) acked: BTreeMap<u64, u64>,
    pub(super) matches: BTreeMap<u64, u64>,
    /// Since then: terms in which it was elected, and what it took for committed.
    elections: Vec<u64>,
    pub(super) decisions: Vec<Decision>,
    pub(super) stopped: bool,
    pub(super) requests: Requests,
    /// What was not seen, for the recording begins in the middle of a life.
    unseen: Unseen,
}

/// What a recording that begins in the middle of a life doesn't show. It is taken to have been right.
#[derive(Clone, Copy, Default, Debug)]
struct Unseen {
    /// Writes up to this one were issued, and may not have been durable.
    writes: Option<u64>,
    /// Votes in this term were granted.
    votes: Option<u64>,
}

/// The commit index has advanced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    pub(super) term: u64,
    pub(super) after: u64,
    pub(super) commit: u64,
    /// It led before that step, and after it.
    pub(super) led: bool,
    pub(super) leads: bool,
}

impl View {
    /// A node starts from what its store holds.
    pub(super) fn start(
        config: &Config,
        recovered: &Recovered,
        raft: &Raft,
        known: &mut Known,
    ) -> Result<Self, crate::violation::Broken> {
        let (node, state, log) = (config.id.0, recovered.hard_state, Log::of(recovered));
        if let Some(vote) = state.vote {
            known.note_vote(node, state.term.0, vote.0)?;
        }
        let commit = raft.commit().0;
        known.note_commit(node, &log, 0, commit)?;
        Ok(Self {
            node,
            config: config.clone(),
            durable: log.clone(),
            state,
            durable_state: state,
            durable_votes: [(state.term.0, state.vote)].into(),
            durable_in: [(state.term.0, log.last())].into(),
            writes: VecDeque::new(),
            snapshot: recovered.snapshot.as_ref().map_or(0, |snapshot| snapshot.last.index.0),
            term: state.term.0,
            role: raft.role(),
            commit,
            settled_commit: commit,
            settled_membership: Arc::clone(log.membership().1),
            handed: raft.handed().0,
            applying: VecDeque::new(),
            led: BTreeSet::new(),
            grants: BTreeSet::new(),
            acked: BTreeMap::new(),
            matches: BTreeMap::new(),
            elections: Vec::new(),
            decisions: Vec::new(),
            stopped: false,
            requests: Requests::new(known.contents, 0),
            unseen: Unseen::default(),
            live: log,
        })
    }

    /// A recording begins in the middle of a life: what is on the disk is taken to be all that was issued, until it is.
    pub(super) fn midway(raft: &Raft, known: &mut Known) -> Result<Self, crate::violation::Broken> {
        let mut view = Self::start(raft.config(), &raft.as_recovered(), raft, known)?;
        let (status, (issued, durable)) = (raft.status(), raft.writes());
        view.requests = Requests::new(known.contents, status.pending);
        view.stopped = status.stopped;
        view.unseen.writes = (durable < issued).then_some(issued.0);
        view.unseen.votes = Some(view.term);
        if view.role == RoleKind::Leader {
            view.led.insert(view.term);
            view.acked = raft.progress().map(|peer| (peer.id.0, peer.match_index.0)).collect();
            view.matches.clone_from(&view.acked);
            known.note_leader(view.node, view.term, &view.live)?;
        }
        Ok(view)
    }

    /// The same life, a stretch of which is missing: nothing may have gone back meanwhile (S7).
    pub(super) fn check_gap(&self, later: &Self) -> Verdict {
        let forth = later.term >= self.term && later.commit >= self.commit && later.handed >= self.handed;
        hold!(
            forth,
            "S7",
            "node {} was in term {} with {} committed and {} handed out before a gap, and is in term {} with {} and {} after it",
            self.node,
            self.term,
            self.commit,
            self.handed,
            later.term,
            later.commit,
            later.handed
        );
        Ok(())
    }

    /// The node's next life begins with this. `complete`: nothing of this one is missing in the recording (D3).
    pub(super) fn check_next_life(&self, recovered: &Recovered, complete: bool) -> Verdict {
        if self.unseen.writes.is_some() {
            // What was durable isn't known.
            return Ok(());
        }
        let (n, found, state) = (self.node, Log::of(recovered), recovered.hard_state);
        let (mut log, mut issued) = (self.durable.clone(), self.durable_state);
        let mut between = found == log && state == issued;
        for write in &self.writes {
            log.change(write)?;
            issued = write.hard_state.unwrap_or(issued);
            between |= found == log && state == issued;
        }
        hold!(
            between || !complete,
            "D3",
            "node {n} recovered {state:?} and a log up to {}, which lies not between what was durable ({:?}, {}) and what was \
             issued",
            recovered.last,
            self.durable_state,
            self.durable.last()
        );
        let kept = state.term > self.durable_state.term
            || state.term == self.durable_state.term
                && (self.durable_state.vote.is_none() || state.vote == self.durable_state.vote);
        hold!(kept, "D3", "node {n} recovered {state:?}, though {:?} was durable", self.durable_state);
        let safe = self.commit.min(self.durable.last());
        hold!(
            found.agrees(&self.durable, safe),
            "D3",
            "node {n} recovered a log up to {} without all that it had up to {safe}, durable and committed",
            found.last()
        );
        Ok(())
    }

    /// It has taken a step, and was not refused.
    pub(super) fn on_taken(&mut self, input: &Told, raft: &Raft) {
        if raft.term().0 != self.term {
            self.grants.clear();
            self.acked.clear();
            self.matches.clear();
        }
        match *input {
            Told::Granted { by, term } if term == raft.term().0 => {
                self.grants.insert(by);
            }
            Told::Acked { by, term, up_to } if term == raft.term().0 => {
                let most = self.acked.entry(by).or_insert(0);
                *most = up_to.max(*most);
            }
            Told::Applied(up_to) => {
                while self.applying.front().is_some_and(|(last, _)| *last <= up_to) {
                    self.applying.pop_front();
                }
            }
            Told::Snapshot(index) => self.snapshot = self.snapshot.max(index),
            Told::Failed => self.stopped = true,
            Told::Granted { .. } | Told::Acked { .. } | Told::Persisted(_) | Told::Else => {}
        }
    }

    /// What is true of it right after a step.
    pub(super) fn after_step(&mut self, raft: &Raft) -> Verdict {
        let (n, term, role, commit) = (self.node, raft.term().0, raft.role(), raft.commit().0);
        hold!(term >= self.term, "S7", "the term of node {n} goes back from {} to {term}", self.term);
        hold!(commit >= self.commit, "S7", "node {n} takes back its commit {} for {commit}", self.commit);
        let (led, leads) = (self.role == RoleKind::Leader && self.term == term, role == RoleKind::Leader);
        if leads && !led {
            self.check_elected(raft)?;
            self.led.insert(term);
            self.elections.push(term);
        }
        if commit > self.commit {
            self.decisions.push(Decision { term, after: self.commit, commit, led, leads });
        }
        (self.term, self.role, self.commit) = (term, role, commit);
        Ok(())
    }

    fn check_elected(&self, raft: &Raft) -> Verdict {
        let (n, term, state) = (self.node, raft.term().0, raft.hard_state());
        hold!(state.vote == Some(NodeId(n)), "S9", "node {n} leads term {term}, but did not vote for itself");
        hold!(self.durable_state == state, "D1", "node {n} leads term {term}, but its vote is not durable");
        let voted = |slot: usize| slot as u64 + 1 == n || self.grants.contains(&(slot as u64 + 1));
        hold!(
            self.unseen.votes == Some(term) || agree(raft.membership(), voted),
            "S1",
            "node {n} leads term {term} by its own vote and those of {:?}, which is no quorum of {:?}",
            self.grants,
            raft.membership()
        );
        Ok(())
    }

    /// It has issued a write.
    pub(super) fn on_write(&mut self, write: &Write, raft: &Raft, known: &mut Known) -> Verdict {
        let n = self.node;
        if let Some(state) = write.hard_state {
            let before = self.state;
            hold!(
                state.term >= before.term,
                "S7",
                "the term that node {n} writes goes back from {} to {}",
                before.term,
                state.term
            );
            let changed = state.term == before.term && before.vote.is_some() && state.vote != before.vote;
            hold!(!changed, "S2", "node {n} writes another vote in one term: {before:?}, then {state:?}");
            self.state = state;
        }
        let term = self.state.term.0;
        if let Some(rebase) = write.rebase.as_deref() {
            self.check_rebase(rebase, known)?;
        }
        if let Some(from) = write.truncate {
            let leads = self.led.contains(&term);
            hold!(!leads, "S3", "node {n} truncates its log at {from} in term {term}, which it leads");
            let committed = self.settled_commit;
            hold!(from.0 > committed, "S6", "node {n} truncates {from}, which it knows to be committed");
        }
        self.live.change(write)?;
        let Some(first) = write.entries.first().map(|run| run.first().0) else { return Ok(()) };
        let mut before = self.live.term_at(first - 1);
        for run in &write.entries {
            hold!(
                run.term().0 <= term,
                "S9",
                "node {n} appends an entry of term {} in term {term}",
                run.term()
            );
            known.note_run(n, before, run)?;
            before = Some(run.term().0);
        }
        self.check_memberships(first, term, raft)
    }

    /// Entries from `first` on were written: what of the memberships among them (M1, M2, M4)?
    fn check_memberships(&self, first: u64, term: u64, raft: &Raft) -> Verdict {
        let (n, commit) = (self.node, raft.commit().0);
        for (index, membership) in self.live.memberships_after(first - 1) {
            let (before, old) = self.live.membership_at(index - 1);
            let own = self.led.contains(&term) && self.live.term_at(*index) == Some(term);
            // Before the log's first entry a node that came late knows only of a cluster that is younger.
            if *index > 1 || own {
                check_succession(n as usize, *index, old, membership)?;
            }
            // The first entry says again what each node began with.
            if !own || *index == 1 {
                continue;
            }
            hold!(
                before <= commit,
                "M1",
                "node {n} appends a membership at {index} while the one at {before} is not committed"
            );
            let settled = self.live.term_at(commit) == Some(term) || commit < self.live.base();
            hold!(
                settled,
                "M4",
                "node {n} appends a membership at {index} before it has committed anything in term {term}"
            );
        }
        Ok(())
    }

    /// A log is to begin later (P1 to P3).
    fn check_rebase(&self, rebase: &Rebase, known: &Known) -> Verdict {
        let n = self.node;
        let (Rebase::Compact(snapshot) | Rebase::Install(snapshot)) = rebase;
        let (last, index) = (snapshot.last, snapshot.last.index.0);
        let committed = known.committed_term(index).is_none_or(|term| term == last.term.0);
        hold!(committed, "P1", "node {n} begins its log after {last}, which is not what is committed there");
        match rebase {
            Rebase::Compact(_) => {
                hold!(index <= self.handed, "P3", "node {n} compacts up to {index}, which it hasn't applied");
                hold!(
                    index <= self.snapshot,
                    "P3",
                    "node {n} compacts up to {index}, but its newest durable snapshot is at {}",
                    self.snapshot
                );
                let (since, there) = self.live.membership_at(index);
                let same = index < self.live.base() || snapshot.membership == **there;
                hold!(
                    same,
                    "P1",
                    "node {n} compacts up to {last} with another membership than that of {since}"
                );
            }
            Rebase::Install(_) => {
                let leads = self.led.contains(&self.state.term.0);
                hold!(!leads, "S3", "node {n} replaces its log up to {last} in the term that it leads");
                hold!(
                    index > self.settled_commit,
                    "P2",
                    "node {n} installs {last}, though it knows {} to be committed",
                    self.settled_commit
                );
                let matches = self.live.term_at(index) == Some(last.term.0);
                hold!(
                    !matches,
                    "P2",
                    "node {n} installs {last} and throws away a log that has that very entry"
                );
            }
        }
        Ok(())
    }

    /// It is told that its writes up to this one are durable; `each` is told of each of them.
    pub(super) fn on_persisted(
        &mut self,
        seq: u64,
        known: &mut Known,
        mut each: impl FnMut(&Write) -> Verdict,
    ) -> Verdict {
        while self.writes.front().is_some_and(|write| write.seq().0 <= seq)
            && let Some(write) = self.writes.pop_front()
        {
            let n = self.node;
            if let Some(state) = write.hard_state {
                let before = self.durable_state.term;
                hold!(
                    state.term >= before,
                    "S7",
                    "the durable term of node {n} goes back from {before} to {}",
                    state.term
                );
                self.durable_state = state;
                self.durable_votes.insert(state.term.0, state.vote);
                if let Some(vote) = state.vote {
                    known.note_vote(n, state.term.0, vote.0)?;
                }
            }
            if let Some(Rebase::Install(snapshot)) = write.rebase.as_deref() {
                self.snapshot = self.snapshot.max(snapshot.last.index.0);
            }
            self.durable.change(&write)?;
            let most = self.durable_in.entry(self.durable_state.term.0).or_insert(0);
            *most = self.durable.last().max(*most);
            each(&write)?;
        }
        self.unseen.writes = self.unseen.writes.filter(|issued| *issued > seq);
        Ok(())
    }

    /// The queue of actions is empty: all that was decided has been seen.
    pub(super) fn settle(&mut self, raft: &Raft, known: &mut Known) -> Verdict {
        let (n, last, commit) = (self.node, self.live.last(), raft.commit().0);
        hold!(raft.last().index.0 == last, "S9", "node {n} has {} but wrote up to {last}", raft.last());
        hold!(commit <= last, "S9", "node {n} commits {commit}, but its log ends at {last}");
        let (since, membership) = self.live.membership();
        hold!(
            raft.membership() == &**membership,
            "M3",
            "node {n} goes by {:?}, but its log says {membership:?} since {since}",
            raft.membership()
        );
        for term in std::mem::take(&mut self.elections) {
            known.note_leader(n, term, &self.live)?;
            let (since, membership) = self.live.membership();
            // Who is to go may have to bring that about itself (dissertation 4.2.2): its own vote doesn't count then.
            let (_, before) = self.live.membership_at(since.max(1) - 1);
            let voter = membership.is_voter(NodeId(n)) || before.is_voter(NodeId(n));
            hold!(voter, "M5", "node {n} leads term {term}, but has no vote in {membership:?}");
        }
        for decision in std::mem::take(&mut self.decisions) {
            self.check_decision(decision, known)?;
        }
        if raft.role() == RoleKind::Leader {
            self.check_leader(raft)?;
        }
        self.settled_commit = commit;
        self.settled_membership = Arc::clone(self.live.membership().1);
        Ok(())
    }

    /// Is the node's log, as it believes it to be, durable up to `index`?
    pub(super) fn durable_up_to(&self, index: u64) -> bool {
        self.durable.agrees(&self.live, index)
    }
}

/// What must be remembered of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Granted {
        by: u64,
        term: u64,
    },
    Acked {
        by: u64,
        term: u64,
        up_to: u64,
    },
    Persisted(u64),
    Applied(u64),
    /// A durable snapshot.
    Snapshot(u64),
    Failed,
    Else,
}

impl Told {
    pub(super) fn of(input: &Input) -> Self {
        match input {
            Input::Receive { from, message: Message { term, body } } => match body {
                Body::VoteReply { granted: true, .. } => Self::Granted { by: from.0, term: term.0 },
                Body::Appended { up_to } => Self::Acked { by: from.0, term: term.0, up_to: up_to.0 },
                _ => Self::Else,
            },
            Input::Persisted(receipt) => Self::Persisted(receipt.seq().0),
            Input::Applied { up_to: Index(up_to) } => Self::Applied(*up_to),
            Input::Compact { snapshot, .. } => Self::Snapshot(snapshot.0),
            Input::StorageFailed => Self::Failed,
            _ => Self::Else,
        }
    }
}

/// Nothing but how what was open has ended: all that may come once the store has failed (D4).
pub(super) const fn is_silent(action: &Action) -> bool {
    matches!(action, Action::Resolve { .. } | Action::Event(_))
}

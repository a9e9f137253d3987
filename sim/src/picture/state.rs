//! What a picture shows of each node at a moment, kept as what changes from one moment to the next.

use quorate_core::{Index, Instant, Membership, Mode, PeerStatus, Raft, Rebase, RoleKind, Run, Write};
use serde::Serialize;

use super::words;

/// Declares a node's state together with what may change of it, so that neither forgets a field of the other.
macro_rules! state {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $short:literal,)*) => {
        /// One node, at one moment. Zero stands for none.
        #[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
        pub(crate) struct State {
            $($(#[$doc])* #[serde(rename = $short)] pub(crate) $field: $type,)*
        }

        /// What has changed of a node.
        #[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
        pub(crate) struct Delta {
            $(#[serde(rename = $short, skip_serializing_if = "Option::is_none")] $field: Option<$type>,)*
        }

        impl State {
            /// What makes `before` this.
            pub(crate) fn since(&self, before: &Self) -> Delta {
                Delta { $($field: (self.$field != before.$field).then(|| self.$field.clone()),)* }
            }

            /// Lets it happen.
            pub(crate) fn change(&mut self, delta: &Delta) {
                $(if let Some(value) = &delta.$field {
                    self.$field.clone_from(value);
                })*
            }
        }

        impl Delta {
            /// Has nothing changed?
            pub(crate) const fn is_empty(&self) -> bool {
                true $(&& self.$field.is_none())*
            }
        }
    };
}

state! {
    /// `-` before there is a machine, `D` while no process runs, `X` once the store has failed, `P` while the process is
    /// stopped, else `U`.
    life: char = "u",
    /// The incarnation.
    incarnation: u64 = "i",
    term: u64 = "t",
    /// `F`, `P`, `C` or `L`.
    role: char = "r",
    vote: u64 = "v",
    leader: u64 = "l",
    commit: u64 = "c",
    applied: u64 = "a",
    /// What the core knows to be durable of its log.
    durable: u64 = "d",
    /// Where its log begins: index and term.
    base: (u64, u64) = "b",
    last: u64 = "n",
    snapshot: u64 = "s",
    /// The log: first index and term of each run of one term.
    runs: Vec<(u64, u64)> = "g",
    /// Entries of the log that hold a membership, and the one at its base.
    memberships: Vec<(u64, String)> = "m",
    /// On the disk: term, vote and the last index.
    disk: (u64, u64, u64) = "k",
    /// A leader's view: id, match, next, and how it sends (`p`, `r` or `s`).
    peers: Vec<(u64, u64, u64, char)> = "p",
    /// Until when its lease lasts, in true time if its clock went right.
    lease: u64 = "e",
}

impl State {
    /// A machine that was just set up.
    pub(crate) fn fresh(membership: &Membership) -> Self {
        let memberships = vec![(0, words::membership(membership))];
        Self { life: 'D', role: 'F', memberships, ..Self::default() }
    }

    /// A process has started: all of its log is what the disk holds.
    pub(crate) fn start(&mut self, raft: &Raft) {
        let status = raft.status();
        self.life = 'U';
        self.incarnation = status.incarnation.0;
        self.base = (status.base.index.0, status.base.term.0);
        self.last = status.last.index.0;
        self.runs = runs_of(raft, status.base.index, status.last.index);
        self.memberships.retain(|(index, _)| *index <= status.last.index.0);
        self.force(status.membership_index.0, &status.membership);
        let vote = status.vote.map_or(0, |vote| vote.0);
        self.disk = (status.term.0, vote, self.last);
        self.look(0, Instant(0), raft);
    }

    /// No process runs. What its log will be is up to the disk.
    pub(crate) fn crash(&mut self) {
        self.life = 'D';
        self.role = 'F';
        self.leader = 0;
        self.lease = 0;
        self.peers.clear();
    }

    /// What the core is after a step at `at`, when its clock showed `now`.
    pub(crate) fn look(&mut self, at: u64, now: Instant, raft: &Raft) {
        let status = raft.status();
        // Whoever takes a step isn't stopped any more, whether anybody has said so or not.
        self.life = if status.stopped { 'X' } else { 'U' };
        self.term = status.term.0;
        self.role = match status.role {
            RoleKind::Follower => 'F',
            RoleKind::PreCandidate => 'P',
            RoleKind::Candidate => 'C',
            RoleKind::Leader => 'L',
        };
        self.vote = status.vote.map_or(0, |vote| vote.0);
        self.leader = status.leader.map_or(0, |leader| leader.0);
        self.commit = status.commit.0;
        self.applied = status.applied.0;
        self.durable = status.durable.0;
        self.snapshot = status.snapshot.index.0;
        self.peers = status.peers.iter().map(peer).collect();
        self.lease = status.lease_until.map_or(0, |until| at.saturating_add(until.since(now)));
    }

    /// A core has written this to its log.
    pub(crate) fn write(&mut self, write: &Write) {
        match write.rebase.as_deref() {
            None => {}
            Some(Rebase::Compact(at)) => {
                self.base = (at.last.index.0, at.last.term.0);
                let base = self.base.0;
                let gone = self.runs.partition_point(|(first, _)| *first <= base + 1);
                if let Some((_, term)) = gone.checked_sub(1).and_then(|index| self.runs.get(index)).copied() {
                    self.runs.splice(..gone, [(base + 1, term)]);
                }
                if self.last <= base {
                    self.runs.clear();
                }
                self.memberships.retain(|(index, _)| *index > base);
                self.force(base, &at.membership);
            }
            Some(Rebase::Install(at)) => {
                self.base = (at.last.index.0, at.last.term.0);
                self.last = at.last.index.0;
                self.runs.clear();
                self.memberships.clear();
                self.force(at.last.index.0, &at.membership);
            }
        }
        if let Some(from) = write.truncate {
            self.runs.retain(|(first, _)| *first < from.0);
            self.memberships.retain(|(index, _)| *index < from.0);
            self.last = self.last.min(from.prev().0);
        }
        for run in &write.entries {
            self.append(run);
        }
    }

    fn append(&mut self, run: &Run) {
        if self.runs.last().is_none_or(|(_, term)| *term != run.term().0) {
            self.runs.push((run.first().0, run.term().0));
        }
        self.last = run.last().0;
        if run.has_membership() {
            for (index, membership) in run.memberships() {
                self.force(index.0, &membership);
            }
        }
    }

    /// A disk has done a write.
    pub(crate) fn on_disk(&mut self, write: &Write) {
        let (mut term, mut vote, mut last) = self.disk;
        if let Some(state) = write.hard_state {
            (term, vote) = (state.term.0, state.vote.map_or(0, |vote| vote.0));
        }
        if let Some(Rebase::Install(at)) = write.rebase.as_deref() {
            last = at.last.index.0;
        }
        if let Some(from) = write.truncate {
            last = last.min(from.prev().0);
        }
        last = write.entries.last().map_or(last, |run| run.last().0);
        self.disk = (term, vote, last);
    }

    fn force(&mut self, index: u64, membership: &Membership) {
        if !self.memberships.iter().any(|(at, _)| *at == index) {
            self.memberships.push((index, words::membership(membership)));
            self.memberships.sort_unstable();
        }
    }
}

fn peer(peer: &PeerStatus) -> (u64, u64, u64, char) {
    let mode = match peer.mode {
        Mode::Probe => 'p',
        Mode::Replicate => 'r',
        Mode::Snapshot => 's',
    };
    (peer.id.0, peer.match_index.0, peer.next_index.0, mode)
}

/// The runs of one term in a log. Terms never decrease along it, so each ends where a binary search says.
fn runs_of(raft: &Raft, base: Index, last: Index) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let mut first = base.next();
    while first <= last {
        let Some(term) = raft.term_at(first) else { break };
        runs.push((first.0, term.0));
        let (mut inside, mut outside) = (first, last.next());
        while outside.since(inside) > 1 {
            let middle = inside.plus(outside.since(inside) / 2);
            if raft.term_at(middle) == Some(term) { inside = middle } else { outside = middle }
        }
        first = outside;
    }
    runs
}

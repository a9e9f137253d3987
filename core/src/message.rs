//! What nodes say to each other: the RPCs of Figure 2, as one-way messages, with fields named as in the paper.

use alloc::boxed::Box;

use crate::{Few, Incarnation, Index, LogId, Run, Snapshot, Term};

/// One message: its author's term, and what it says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Message {
    /// The author's current term.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// The kinds of message.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
// With a tag of its own, instead of one hidden in the entries: what a message is, is asked four times between its maker
// and its reader, and often known beforehand.
#[repr(u8)]
pub enum Body {
    /// "Would you vote for me in the term after mine?" (dissertation 9.6). Changes nobody's state.
    PreVote {
        /// Which of the author's questions this is.
        id: RequestId,
        /// The end of its log.
        last: LogId,
    },
    /// The answer to a [`Body::PreVote`].
    PreVoteReply {
        /// The question's id.
        id: RequestId,
        /// Yes or no.
        granted: bool,
    },
    /// RequestVote (paper §5.2, §5.4.1).
    Vote {
        /// The end of the candidate's log: lastLogIndex, lastLogTerm.
        last: LogId,
        /// The last entry that it knows to be committed: whoever has it too, and lags, knows it then as well.
        commit: LogId,
        /// The leader has asked it to campaign ([`Body::TimeoutNow`]): who still hears that leader may vote all the same
        /// (dissertation 3.10).
        transfer: bool,
    },
    /// The answer to a [`Body::Vote`] of the same term.
    VoteReply {
        /// voteGranted.
        granted: bool,
        /// The last entry that the voter knows to be committed.
        commit: LogId,
    },
    /// AppendEntries (paper §5.3), also without entries.
    Append {
        /// prevLogIndex, prevLogTerm.
        prev: LogId,
        /// leaderCommit.
        commit: Index,
        /// The entries after `prev`, without a gap.
        entries: Few<Run>,
    },
    /// "My log agrees with yours up to here, and that part of it is durable."
    Appended {
        /// Up to which index.
        up_to: Index,
    },
    /// "I don't have the entry before those that you sent."
    Conflict {
        /// prevLogIndex of the append that is answered.
        prev: Index,
        /// The last entry that could be common to both logs: no later than `prev`, of no later term than
        /// prevLogTerm. The leader goes back a whole term at a time (paper §5.3, last paragraphs).
        hint: LogId,
    },
    /// The leader is alive (paper §5.2), and asks to be acknowledged as such (§8).
    Heartbeat {
        /// leaderCommit, but never beyond what is known to match on this peer.
        commit: Index,
        /// Counts the leader's rounds of heartbeats within its term.
        round: u64,
        /// The leader has nothing to do, and its log ends at `commit`: whoever has all of it may sleep
        /// ([`Config::quiesce_after`](crate::Config)).
        quiesce: bool,
    },
    /// "I still follow you."
    HeartbeatReply {
        /// Which heartbeat is answered; 0: none, but the author is of a later term.
        round: u64,
        /// It asked to sleep, and the author does.
        asleep: bool,
    },
    /// More has been committed; nothing to answer.
    Commit {
        /// leaderCommit, but never beyond what is known to match on this peer.
        commit: Index,
    },
    /// A follower asks up to where it must have applied, to serve reads that it holds (dissertation 6.4).
    ReadIndex {
        /// Which of the author's questions this is.
        id: RequestId,
    },
    /// The answer to a [`Body::ReadIndex`].
    ReadIndexReply {
        /// The question's id.
        id: RequestId,
        /// readIndex; `None` if the node that was asked does not lead.
        index: Option<Index>,
    },
    /// "Campaign now": the leader hands over to a voter that has all of its log (dissertation 3.10).
    TimeoutNow,
    /// InstallSnapshot (paper §7), but for the bytes, which travel beside the core: the receiver's driver hands this in
    /// when they are staged, durably. They are adopted by a [`Write`](crate::Write) of that very step, or not wanted:
    /// then the driver may throw them away. Answered by [`Body::Appended`].
    InstallSnapshot {
        /// Which state.
        snapshot: Box<Snapshot>,
    },
}

/// Who says such a thing, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Voice {
    /// Somebody who might campaign, about a term that nobody is in yet.
    PreCandidate,
    /// Whoever was asked by one.
    PreVoter,
    /// A candidate, in its term.
    Candidate,
    /// The leader, of its own accord.
    Leader,
    /// Whoever wants to know something.
    Asker,
    /// Whoever was asked, or told, by a leader or a candidate.
    Answerer,
}

impl Body {
    pub(crate) const fn voice(&self) -> Voice {
        match self {
            Self::PreVote { .. } => Voice::PreCandidate,
            Self::PreVoteReply { .. } => Voice::PreVoter,
            Self::Vote { .. } => Voice::Candidate,
            Self::Append { .. }
            | Self::Heartbeat { .. }
            | Self::Commit { .. }
            | Self::TimeoutNow
            | Self::InstallSnapshot { .. } => Voice::Leader,
            Self::ReadIndex { .. } => Voice::Asker,
            Self::VoteReply { .. }
            | Self::Appended { .. }
            | Self::Conflict { .. }
            | Self::HeartbeatReply { .. }
            | Self::ReadIndexReply { .. } => Voice::Answerer,
        }
    }
}

/// A question's number: with the incarnation in it, an answer to an earlier life is never taken for one to this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RequestId {
    /// Who asks, as which incarnation.
    pub incarnation: Incarnation,
    /// Counts within it.
    pub number: u64,
}

/// What a message asserts about its author, and what must therefore be durable before it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claims {
    /// It speaks for the author's term and vote.
    pub hard_state: bool,
    /// It says that the author's log is durable up to here.
    pub log: Option<Index>,
}

/// How a transport should queue a message: one class never waits for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Small and urgent: votes, heartbeats, acknowledgements, reads.
    Control,
    /// May be big: entries. What announces a snapshot travels with its bytes, in whatever way the driver sends them.
    Append,
}

impl Message {
    /// What it asserts. Exhaustive on purpose: a new kind of message can't be sent before this is answered.
    #[must_use]
    #[inline]
    pub const fn claims(&self) -> Claims {
        const NOTHING: Claims = Claims { hard_state: false, log: None };
        const TERM_AND_VOTE: Claims = Claims { hard_state: true, log: None };
        match &self.body {
            // Promises nothing: whoever says "I would" may do otherwise.
            Body::PreVote { .. } | Body::PreVoteReply { .. } => NOTHING,
            // Let it go before its log is durable, and a candidate that loses the tail in a crash is
            // elected by grants that were for a longer log.
            Body::Vote { last, .. } => Claims { hard_state: true, log: Some(last.index) },
            Body::Appended { up_to } => Claims { hard_state: true, log: Some(*up_to) },
            // A leader's appends don't wait for its own disk: replication overlaps its fsync
            // (dissertation 10.2.1). Heartbeat replies speak of term and vote only, so reads don't wait
            // for log writes.
            Body::VoteReply { .. }
            | Body::Append { .. }
            | Body::Conflict { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::Commit { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::TimeoutNow
            | Body::InstallSnapshot { .. } => TERM_AND_VOTE,
        }
    }

    /// How a transport should queue it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match &self.body {
            Body::Append { .. } | Body::InstallSnapshot { .. } => Class::Append,
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Vote { .. }
            | Body::VoteReply { .. }
            | Body::Appended { .. }
            | Body::Conflict { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::Commit { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::TimeoutNow => Class::Control,
        }
    }

    /// Is it well-formed in itself, whoever sent it? [`decode`](crate::wire::decode) and
    /// [`step`](crate::Raft::step) both ask, so that a transport without bytes is held to the same rules.
    ///
    /// # Errors
    /// The first rule that it breaks.
    #[inline]
    pub fn validate(&self) -> Result<(), Malformed> {
        // Before its first election a node is in term 0, and has nothing to say but pre-votes.
        let early = matches!(self.body, Body::PreVote { .. } | Body::PreVoteReply { .. });
        if self.term >= Term::LIMIT || self.term == Term(0) && !early {
            return Err(Malformed::Term(self.term));
        }
        match &self.body {
            Body::PreVote { last, .. } => log_id(*last, self.term),
            Body::Vote { last, commit, .. } => {
                log_id(*last, self.term)?;
                // Nobody has committed more than it has.
                log_id(*commit, last.term)?;
                if commit.index <= last.index { Ok(()) } else { Err(Malformed::Index(commit.index)) }
            }
            Body::VoteReply { commit, .. } => log_id(*commit, self.term),
            Body::InstallSnapshot { snapshot } => {
                let last = snapshot.last;
                if last.index == Index(0) {
                    Err(Malformed::Index(last.index))
                } else {
                    log_id(last, self.term)
                }
            }
            Body::Conflict { prev, hint } => index(*prev).and_then(|()| log_id(*hint, self.term)),
            Body::Append { prev, commit, entries } => {
                index(*commit)?;
                log_id(*prev, self.term)?;
                let mut end = *prev;
                for run in entries {
                    let term = (end.term.max(Term(1))..=self.term).contains(&run.term());
                    if run.first() != end.index.next() || !term {
                        return Err(Malformed::Entries { after: end, found: run.last_id() });
                    }
                    end = run.last_id();
                }
                index(end.index)
            }
            Body::Appended { up_to: at }
            | Body::Heartbeat { commit: at, .. }
            | Body::Commit { commit: at } => index(*at),
            Body::ReadIndexReply { index: at, .. } => index(at.unwrap_or_default()),
            Body::PreVoteReply { .. }
            | Body::HeartbeatReply { .. }
            | Body::ReadIndex { .. }
            | Body::TimeoutNow => Ok(()),
        }
    }
}

/// Why a message is malformed: no correct node sends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Malformed {
    /// A term that no correct node is in.
    #[error("no correct node sends this in term {0} (terms are from 1 and below 2^63)")]
    Term(Term),
    /// An index beyond any log.
    #[error("index {0} is out of range (below 2^63)")]
    Index(Index),
    /// An entry's name that can't be: of a later term than its author, or half zero.
    #[error("no log in term {term} has an entry {id}")]
    LogId {
        /// The name.
        id: LogId,
        /// The message's term.
        term: Term,
    },
    /// Entries with a gap, out of order, or of a term that cannot follow.
    #[error("entries ending at {found} cannot follow {after}")]
    Entries {
        /// What they should follow.
        after: LogId,
        /// The end of the run that doesn't.
        found: LogId,
    },
}

#[inline]
fn index(index: Index) -> Result<(), Malformed> {
    if index < Index::LIMIT { Ok(()) } else { Err(Malformed::Index(index)) }
}

#[inline]
fn log_id(id: LogId, term: Term) -> Result<(), Malformed> {
    let half_zero = (id.index == Index(0)) != (id.term == Term(0));
    if half_zero || id.term > term {
        return Err(Malformed::LogId { id, term });
    }
    index(id.index)
}

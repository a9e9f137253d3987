//! The one way out: what is to be done, what is to be made durable, and what must wait for it.
//!
//! No message that claims something leaves before it is durable (dissertation 3.8, 10.2.1). There is no order in which
//! a driver would have to do things: a message whose claim isn't durable is not emitted yet. It is parked, bound to
//! the number of the write that it rests on. Never to an index: an index is used again after a truncation, so when
//! term 2's write of 5..8 completes, that must not let go term 3's acknowledgement of its own 5'..8'.

use alloc::{boxed::Box, vec::Vec};
use core::mem::{discriminant, take};

use crate::{
    Action, Apply, Body, Claims, Done, Event, Few, GroupId, HardState, Incarnation, Index, Message, NodeId,
    Outcome, Rebase, Receipt, Rejected, Run, Term, Tokens, Write, WriteSeq, backlog::Backlog, log::Log,
    ring::Ring,
};

/// Messages that may wait at once: beyond it they are lost, as the network might lose them.
const MAX_PARKED: usize = 256;

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Outbox {
    group: GroupId,
    incarnation: Incarnation,
    actions: Ring<Action>,
    /// What this step changes of what is durable, if anything; one write a step at most.
    draft: Option<Draft>,
    /// The newest write emitted.
    issued: WriteSeq,
    /// The newest write known to be durable.
    persisted: WriteSeq,
    /// The newest write that has term and vote in it.
    hard_state_seq: WriteSeq,
    /// Writes under way, with their bytes of entries.
    writes: Backlog<WriteSeq>,
    parked: Vec<Parked>,
    owed: Option<Owed>,
}

#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
struct Draft {
    hard_state: Option<HardState>,
    rebase: Option<Box<Rebase>>,
    truncate: Option<Index>,
    entries: Few<Run>,
}

/// A message that waits for a write.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
struct Parked {
    seq: WriteSeq,
    to: NodeId,
    message: Message,
}

/// An append acknowledgement that is due as the log becomes durable.
///
/// It isn't parked as a message: under load the next append arrives before the last one is durable, so the newest
/// acknowledgement would always be waiting and none would ever leave. What leaves instead is as much of it as is
/// durable already; the log binds that to writes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
struct Owed {
    to: NodeId,
    up_to: Index,
    /// As much of it has been said.
    said: Index,
}

impl Outbox {
    pub(crate) fn new(group: GroupId, incarnation: Incarnation) -> Self {
        Self {
            group,
            incarnation,
            actions: Ring::new(),
            draft: None,
            issued: WriteSeq(0),
            persisted: WriteSeq(0),
            hard_state_seq: WriteSeq(0),
            writes: Backlog::new(),
            parked: Vec::new(),
            owed: None,
        }
    }

    #[inline]
    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.actions.len()
    }

    pub(crate) const fn unpersisted_bytes(&self) -> usize {
        self.writes.bytes()
    }

    #[cfg(feature = "replay")]
    pub(crate) const fn writes(&self) -> (WriteSeq, WriteSeq) {
        (self.issued, self.persisted)
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked.len().saturating_add(usize::from(self.owed.is_some()))
    }

    /// Emits something that claims nothing.
    pub(crate) fn emit(&mut self, action: Action) {
        debug_assert!(!matches!(action, Action::Send { .. }), "messages leave by `send`");
        self.actions.reserve();
        self.actions.put(action);
    }

    /// Hands entries to the state machine.
    #[inline(always)]
    pub(crate) fn apply(&mut self, entries: Few<Run>, done: Few<Done>) {
        self.actions.reserve();
        self.actions.put(Action::Apply(Apply { entries, done }));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.emit(Action::Event(event));
    }

    pub(crate) fn resolve(&mut self, tokens: Tokens, outcome: Outcome) {
        self.emit(Action::Resolve { tokens, outcome });
    }

    /// The choke point: sends the message now, or once what it claims is durable.
    // Inlined, so that what a message claims is known where it is made.
    #[inline(always)]
    pub(crate) fn send(&mut self, to: NodeId, message: Message, log: &Log) {
        match self.rests_on(message.claims(), log) {
            None => {
                self.actions.reserve();
                self.actions.put(Action::Send { to, message });
            }
            Some(seq) => self.park(Parked { seq, to, message }),
        }
    }

    /// Acknowledges entries up to `up_to`, as they become durable.
    #[inline(always)]
    pub(crate) fn acknowledge(&mut self, to: NodeId, term: Term, up_to: Index, log: &Log) {
        if up_to <= log.durable() {
            let message = Message { term, body: Body::Appended { up_to } };
            return self.send(to, message, log);
        }
        // Within a term what was verified is never truncated, so the highest includes the others.
        let before = self.owed.filter(|owed| owed.to == to);
        self.owed = Some(Owed {
            to,
            up_to: before.map_or(up_to, |owed| owed.up_to.max(up_to)),
            said: before.map_or(log.durable(), |owed| owed.said),
        });
    }

    /// The write on which a claim rests; `None` if it is durable already.
    #[inline(always)]
    pub(crate) fn rests_on(&self, claims: Claims, log: &Log) -> Option<WriteSeq> {
        let hard_state =
            (claims.hard_state && self.hard_state_seq > self.persisted).then_some(self.hard_state_seq);
        let log = claims.log.and_then(|index| log.rests_on(index));
        hard_state.max(log)
    }

    /// Are term and vote durable?
    pub(crate) fn is_hard_state_durable(&self) -> bool {
        self.hard_state_seq <= self.persisted
    }

    /// Is the write durable?
    pub(crate) fn is_durable(&self, seq: WriteSeq) -> bool {
        seq <= self.persisted
    }

    #[cold]
    fn park(&mut self, parked: Parked) {
        let kind = discriminant(&parked.message.body);
        let same = |other: &&mut Parked| other.to == parked.to && discriminant(&other.message.body) == kind;
        if let Some(older) = self.parked.iter_mut().find(same) {
            // A late duplicate's answer says less than the one that waits.
            let says_more = match (&older.message.body, &parked.message.body) {
                (Body::HeartbeatReply { round: older, .. }, Body::HeartbeatReply { round, .. }) => {
                    older > round
                }
                (Body::Appended { up_to: older }, Body::Appended { up_to }) => older > up_to,
                _ => false,
            };
            if !says_more {
                *older = parked;
            }
        } else if self.parked.len() < MAX_PARKED {
            self.parked.push(parked);
        }
    }

    /// A new term: what was waiting to be said in the old one is of no use to anybody.
    pub(crate) fn forget_parked(&mut self) {
        self.parked.clear();
        self.owed = None;
    }

    /// A candidacy is over: nobody should vote for it any more, and the log that it speaks of may go.
    pub(crate) fn forget_candidacy(&mut self) {
        self.parked.retain(|parked| !matches!(parked.message.body, Body::Vote { .. }));
    }

    /// The number of the write that this step's changes will have.
    pub(crate) const fn draft_seq(&self) -> WriteSeq {
        self.issued.next()
    }

    pub(crate) fn write_hard_state(&mut self, hard_state: HardState) {
        self.draft.get_or_insert_default().hard_state = Some(hard_state);
        self.hard_state_seq = self.draft_seq();
    }

    /// The only change to the log in its step.
    pub(crate) fn write_rebase(&mut self, rebase: Rebase) {
        self.draft.get_or_insert_default().rebase = Some(Box::new(rebase));
    }

    /// Only ever before the entries of the same step are appended.
    pub(crate) fn write_truncate(&mut self, from: Index) {
        let draft = self.draft.get_or_insert_default();
        debug_assert!(draft.entries.is_empty(), "a step truncates before it appends");
        draft.truncate = Some(from);
    }

    #[inline]
    pub(crate) fn write_entries(&mut self, run: Run) {
        self.draft.get_or_insert_default().entries.push(run);
    }

    /// The end of a step: term, vote, truncation and entries that belong together become one write.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if self.draft.is_some() {
            self.emit_write();
        }
    }

    #[inline(never)]
    fn emit_write(&mut self) {
        let Some(Draft { hard_state, rebase, truncate, entries }) = self.draft.take() else {
            return;
        };
        let seq = self.draft_seq();
        self.issued = seq;
        self.writes.push(seq, entries.bytes());
        let receipt = Receipt { group: self.group, incarnation: self.incarnation, first: seq, last: seq };
        self.actions.reserve();
        self.actions.put(Action::Write(Write { hard_state, rebase, truncate, entries, receipt }));
    }

    /// Is this the receipt that comes next?
    #[inline]
    pub(crate) fn check(&self, receipt: &Receipt) -> Result<(), Rejected> {
        let ours = receipt.group == self.group && receipt.incarnation == self.incarnation;
        let next = receipt.first == self.persisted.next() && receipt.last <= self.issued;
        if ours && next && receipt.first <= receipt.last { Ok(()) } else { Err(Rejected::StaleReceipt) }
    }

    /// A write is durable, and so are all before it: lets go what waited for them.
    #[inline]
    pub(crate) fn persisted(&mut self, seq: WriteSeq, term: Term, log: &Log) {
        self.persisted = seq;
        self.writes.done(seq);
        if !self.parked.is_empty() {
            let (free, parked) = take(&mut self.parked).into_iter().partition(|parked| parked.seq <= seq);
            self.parked = parked;
            let free: Vec<Parked> = free;
            for Parked { to, message, .. } in free {
                self.actions.reserve();
                self.actions.put(Action::Send { to, message });
            }
        }
        if let Some(owed) = self.owed {
            let up_to = owed.up_to.min(log.durable());
            self.owed = (up_to < owed.up_to).then_some(Owed { said: up_to, ..owed });
            if up_to > owed.said {
                self.send(owed.to, Message { term, body: Body::Appended { up_to } }, log);
            }
        }
    }

    /// Gives back the room that a burst has taken. True if nothing is under way.
    pub(crate) fn give_back(&mut self) -> bool {
        self.actions.give_back();
        self.writes.give_back();
        self.parked.shrink_to(0);
        self.writes.is_empty()
    }

    /// The store has failed: nothing may be said any more.
    pub(crate) fn stop(&mut self) {
        self.draft = None;
        self.forget_parked();
    }
}

//! Handing committed entries to the state machine, in order, and no more than it can take.

use alloc::{boxed::Box, collections::VecDeque};

use crate::{
    Action, Config, Done, Few, Index, Load, LoadId, Outcome, Rejected, Run, Snapshot, Token, Tokens,
    backlog::{Backlog, spare},
    fifo::Fifo,
    log::{Log, Read},
    outbox::Outbox,
    raft::RequestIds,
};

/// What has been handed out, and who waits for it.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Applying {
    /// Up to here entries were handed out.
    handed: Index,
    /// lastApplied: up to here the state machine has said that it is done.
    applied: Index,
    /// Handed out and not yet applied.
    inflight: Backlog<Index>,
    /// Old entries being read.
    load: Option<LoadId>,
    /// A snapshot that was installed, to be handed out once that is durable.
    restore: Option<Box<Snapshot>>,
    /// Proposals made here that have not been handed out, by index.
    proposed: Fifo<Done>,
    /// Confirmed reads that wait until what they must see is handed out, by index.
    reads: VecDeque<(Index, Tokens)>,
    /// Reads that wait for an index which may never come.
    at_least: VecDeque<(Index, Tokens)>,
}

impl Applying {
    pub(crate) const fn new(applied: Index) -> Self {
        Self {
            handed: applied,
            applied,
            inflight: Backlog::new(),
            load: None,
            restore: None,
            proposed: Fifo::new(),
            reads: VecDeque::new(),
            at_least: VecDeque::new(),
        }
    }

    pub(crate) const fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) const fn handed(&self) -> Index {
        self.handed
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.len()
    }

    pub(crate) fn reads_at_least(&self) -> usize {
        self.at_least.len()
    }

    /// Tokens that wait for an outcome here.
    pub(crate) fn pending(&self) -> u64 {
        let proposals = self.proposed.iter().fold(0_u64, |sum, done| sum.saturating_add(done.tokens.count));
        proposals.saturating_add(self.reads.len() as u64).saturating_add(self.at_least.len() as u64)
    }

    /// Proposals were appended at `first` and on.
    #[inline]
    pub(crate) fn propose(&mut self, first: Index, tokens: Tokens) {
        self.proposed.push(Done { first, tokens });
    }

    /// Leadership is lost: what isn't committed may be, one day, or not. What is committed will be handed out.
    pub(crate) fn disown_uncommitted(&mut self, commit: Index, outbox: &mut Outbox) {
        while let Some(newest) = self.proposed.pop_last() {
            let (kept, disowned) = split(newest, commit);
            if let Some(disowned) = disowned {
                outbox.resolve(disowned.tokens, Outcome::Unknown);
            }
            if let Some(kept) = kept {
                self.proposed.push(kept);
                break;
            }
        }
    }

    /// Nothing will be handed out any more.
    pub(crate) fn abandon(&mut self, outbox: &mut Outbox) {
        for done in self.proposed.iter() {
            outbox.resolve(done.tokens, Outcome::Unknown);
        }
        self.proposed.clear();
        for (_, tokens) in self.reads.drain(..).chain(self.at_least.drain(..)) {
            outbox.resolve(tokens, Outcome::Unknown);
        }
        self.load = None;
        self.restore = None;
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn give_back(&mut self) {
        self.inflight.give_back();
        self.proposed.give_back();
        spare(&mut self.reads);
        spare(&mut self.at_least);
    }

    /// A read may be served from `index` on.
    pub(crate) fn confirm(&mut self, token: Token, index: Index, outbox: &mut Outbox) {
        wait(&mut self.reads, index, token);
        self.release_reads(outbox);
    }

    /// A read waits for `index`, and is known to be right then.
    pub(crate) fn read_at_least(&mut self, token: Token, index: Index, outbox: &mut Outbox) {
        wait(&mut self.at_least, index, token);
        self.release_reads(outbox);
    }

    /// Nobody waits for that read any more.
    pub(crate) fn cancel_read(&mut self, token: Token, outbox: &mut Outbox) {
        if let Some(at) = self.at_least.iter().position(|(_, tokens)| tokens.first == token) {
            self.at_least.remove(at);
            outbox.resolve(Tokens::one(token), Outcome::Refused { leader: None });
        }
    }

    /// A snapshot takes the place of all that wasn't handed out. What was proposed here is in it, but not its answers.
    pub(crate) fn install(&mut self, snapshot: Box<Snapshot>, outbox: &mut Outbox) {
        self.load = None;
        self.restore = Some(snapshot);
        for done in self.proposed.iter() {
            outbox.resolve(done.tokens, Outcome::Unknown);
        }
        self.proposed.clear();
    }

    /// Hands out an installed snapshot once it is durable. True if the rest must wait for that.
    fn restoring(&mut self, log: &Log, outbox: &mut Outbox) -> bool {
        match self.restore.take_if(|snapshot| snapshot.last.index <= log.durable()) {
            Some(snapshot) => {
                self.handed = snapshot.last.index;
                self.inflight.push(self.handed, 0);
                outbox.emit(Action::Restore(snapshot));
                self.release_reads(outbox);
                false
            }
            None => self.restore.is_some(),
        }
    }

    /// Hands out what is committed and durable here (contract, point 12), as far as the bound allows.
    #[inline]
    pub(crate) fn advance(
        &mut self,
        commit: Index,
        log: &Log,
        outbox: &mut Outbox,
        request_ids: &mut RequestIds,
        config: &Config,
    ) {
        if self.restore.is_some() && self.restoring(log, outbox) {
            return;
        }
        let end = commit.min(log.durable());
        while self.handed < end && self.load.is_none() {
            let room = config.max_applying_bytes.saturating_sub(self.inflight.bytes());
            if room == 0 {
                break;
            }
            let first = self.handed.next();
            match log.read(first, end, room) {
                Read::Cached(entries) => self.hand_out(entries, outbox),
                Read::NotCached => {
                    let id = LoadId(request_ids.next());
                    self.load = Some(id);
                    outbox.emit(Action::Load(Load { id, first, last: end, max_bytes: room }));
                }
            }
        }
    }

    /// Is this what was asked for?
    pub(crate) fn awaits(&self, id: LoadId) -> bool {
        self.load == Some(id)
    }

    pub(crate) const fn load_first(&self) -> Index {
        self.handed.next()
    }

    /// Old entries have been read; they are those of the log, and committed.
    pub(crate) fn on_loaded(&mut self, entries: Few<Run>, outbox: &mut Outbox) {
        self.load = None;
        self.hand_out(entries, outbox);
    }

    /// The state machine is done up to `up_to`.
    ///
    /// # Errors
    /// If that was never handed out, or was said before.
    #[inline]
    pub(crate) fn on_applied(&mut self, up_to: Index) -> Result<(), Rejected> {
        if up_to > self.handed || up_to < self.applied {
            return Err(Rejected::BadApplied { up_to, handed: self.handed });
        }
        self.applied = up_to;
        self.inflight.done(up_to);
        Ok(())
    }

    #[inline]
    fn hand_out(&mut self, entries: Few<Run>, outbox: &mut Outbox) {
        let Some(last) = entries.last().map(Run::last) else {
            return;
        };
        self.handed = last;
        self.inflight.push(last, entries.bytes());
        let mut done = Few::new();
        while let Some(oldest) = self.proposed.first()
            && oldest.first <= last
        {
            let (now, later) = split(oldest, last);
            match later {
                Some(later) => self.proposed.replace_first(later),
                None => self.proposed.pop_first(),
            }
            if let Some(now) = now {
                done.push(now);
            }
        }
        outbox.apply(entries, done);
        if !self.reads.is_empty() || !self.at_least.is_empty() {
            self.release_reads(outbox);
        }
    }

    fn release_reads(&mut self, outbox: &mut Outbox) {
        for waiting in [&mut self.reads, &mut self.at_least] {
            while let Some((index, tokens)) = waiting.front().copied()
                && index <= self.handed
            {
                waiting.pop_front();
                outbox.resolve(tokens, Outcome::Read { index });
            }
        }
    }
}

/// By index: what comes later may need less.
fn wait(reads: &mut VecDeque<(Index, Tokens)>, index: Index, token: Token) {
    let at = reads.partition_point(|(other, _)| *other <= index);
    reads.insert(at, (index, Tokens::one(token)));
}

/// The part of some proposals up to `last`, and the part after it.
fn split(done: Done, last: Index) -> (Option<Done>, Option<Done>) {
    let count = last.next().since(done.first).min(done.tokens.count);
    let before = Done { tokens: Tokens { count, ..done.tokens }, ..done };
    let first = Token(done.tokens.first.0.wrapping_add(count));
    let after = Done {
        first: done.first.plus(count),
        tokens: Tokens { first, count: done.tokens.count.saturating_sub(count) },
    };
    ((before.tokens.count > 0).then_some(before), (after.tokens.count > 0).then_some(after))
}

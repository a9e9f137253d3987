//! What a leader knows of each peer, and how much it has under way to it (paper Figure 2, nextIndex and matchIndex;
//! dissertation 10.2).

use crate::{Index, Instant, LoadId, LogId, Mode, NodeId, PeerStatus, SendId, backlog::Backlog, log::Log};

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// matchIndex: its durable log agrees with ours up to here. Never goes back.
    match_index: Index,
    /// nextIndex: what to send next. In `Replicate` it runs ahead of what is acknowledged.
    next_index: Index,
    mode: Mode,
    /// Up to here something was sent in this term: nothing beyond it can be acknowledged.
    sent: Index,
    /// In `Probe`: an append is out whose answer decides how to go on.
    probing: bool,
    /// Appends under way.
    inflight: Backlog<Index>,
    /// The heartbeat round during which something was last sent: an answer to a later round, with something still
    /// under way from before it, hints at a loss.
    sent_in_round: u64,
    /// When that was: rounds for reads follow each other as fast as answers come.
    sent_at: Instant,
    /// The newest heartbeat round that it has answered.
    pub(crate) acked_round: u64,
    /// The highest commit index that it was told.
    pub(crate) told_commit: Index,
    /// When it was last heard of.
    pub(crate) heard: Instant,
    /// The quiescing round by which it sleeps; 0 if none.
    pub(crate) asleep_since: u64,
    /// Old entries being read for it, from this index on.
    pub(crate) load: Option<(LoadId, Index)>,
    /// In `Snapshot`: the snapshot under way to it.
    sending: Option<(SendId, Index)>,
    /// For a learner that is to be promoted: where the present round of catching up ends, and when it began.
    catching_up: Option<(Index, Instant)>,
}

/// How much may be under way to one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Peer {
    pub(crate) const fn new(id: NodeId, next_index: Index, now: Instant) -> Self {
        Self {
            id,
            match_index: Index(0),
            next_index,
            mode: Mode::Probe,
            sent: Index(0),
            probing: false,
            inflight: Backlog::new(),
            sent_in_round: 0,
            sent_at: now,
            acked_round: 0,
            told_commit: Index(0),
            heard: now,
            asleep_since: 0,
            load: None,
            sending: None,
            catching_up: None,
        }
    }

    pub(crate) const fn match_index(&self) -> Index {
        self.match_index
    }

    pub(crate) const fn next_index(&self) -> Index {
        self.next_index
    }

    /// May another append be sent?
    #[inline]
    pub(crate) fn has_room(&self, window: Window) -> bool {
        match self.mode {
            Mode::Probe => !self.probing,
            Mode::Replicate => self.inflight.len() < window.messages && self.inflight.bytes() < window.bytes,
            Mode::Snapshot => false,
        }
    }

    /// An append was sent that ends at `end` (its `prev`, if it is empty).
    #[inline]
    pub(crate) fn on_sent(&mut self, end: Index, bytes: usize, round: u64, now: Instant) {
        self.sent = self.sent.max(end);
        self.sent_at = now;
        self.sent_in_round = round;
        match self.mode {
            Mode::Probe => self.probing = true,
            Mode::Replicate if bytes > 0 => {
                self.inflight.push(end, bytes);
                self.next_index = end.next();
            }
            Mode::Replicate | Mode::Snapshot => {}
        }
    }

    /// Could a correct peer have said this?
    pub(crate) fn could_acknowledge(&self, up_to: Index) -> bool {
        up_to <= self.sent.max(self.match_index)
    }

    /// It agrees up to `up_to`, durably; the leader's log goes back to `base`. True if that is news.
    #[inline(always)]
    pub(crate) fn on_appended(&mut self, up_to: Index, base: Index) -> bool {
        let news = up_to > self.match_index;
        if news {
            self.match_index = up_to;
            self.next_index = self.next_index.max(up_to.next());
        }
        self.inflight.done(up_to);
        let answered = match self.mode {
            // Where a probe went, it is known now that the logs agree. An acknowledgement of something before that
            // doesn't answer it.
            Mode::Probe => up_to >= self.next_index.prev(),
            // What it lacks is in the log again: by the snapshot, or because an append came first after all.
            Mode::Snapshot => up_to >= base,
            Mode::Replicate => false,
        };
        if answered {
            self.mode = Mode::Replicate;
            self.probing = false;
            self.sending = None;
            self.next_index = self.match_index.next();
        }
        news
    }

    /// It lacks the entry at `prev`. Goes back to where the logs may agree; false if that is old news.
    pub(crate) fn on_conflict(&mut self, prev: Index, hint: LogId, log: &Log) -> bool {
        let current = match self.mode {
            Mode::Probe => prev == self.next_index.prev(),
            Mode::Replicate => prev < self.next_index,
            Mode::Snapshot => false,
        };
        if !current || prev <= self.match_index {
            return false;
        }
        // Nothing that this log still has can be common then: only a snapshot helps, and no append need be wasted to find out.
        let base = log.base();
        let common = if hint.index < base.index || hint.term < base.term {
            hint.index.min(base.index.prev())
        } else {
            log.last_common(hint.index, hint.term).index
        };
        self.next_index = common.next().min(prev).max(self.match_index.next());
        self.become_probe();
        true
    }

    /// Answers heartbeat `round`: was what is under way to it sent before, and so perhaps lost?
    pub(crate) fn seems_lost(&self, round: u64, now: Instant, heartbeat: u64) -> bool {
        let later = round > self.sent_in_round && now.since(self.sent_at) >= heartbeat;
        later && (self.probing || !self.inflight.is_empty())
    }

    /// What is under way to it is lost.
    pub(crate) fn on_unreachable(&mut self) {
        if self.mode == Mode::Replicate {
            self.next_index = self.match_index.next();
            self.become_probe();
        }
    }

    /// A snapshot goes out, which ends at `last`.
    pub(crate) fn begin_snapshot(&mut self, id: SendId, last: Index, round: u64, now: Instant) {
        self.become_probe();
        self.mode = Mode::Snapshot;
        self.sending = Some((id, last));
        self.on_sent(last, 0, round, now);
    }

    /// Is it being sent this snapshot?
    pub(crate) fn sends(&self, id: SendId) -> bool {
        self.sending.is_some_and(|(sending, _)| sending == id)
    }

    /// The snapshot has been sent, or not: once it has answered another heartbeat, it is seen what it has.
    pub(crate) fn end_snapshot(&mut self, arrived: bool, round: u64, now: Instant) {
        let last = self.sending.take().map_or(Index(0), |(_, last)| last);
        self.become_probe();
        self.next_index = if arrived { last.max(self.match_index).next() } else { self.match_index.next() };
        self.on_sent(self.match_index, 0, round, now);
    }

    /// Does a round of catching up end here, soon enough for a voter to be? Else the next one begins.
    pub(crate) fn ends_round(&mut self, last: Index, now: Instant, most: u64) -> bool {
        match self.catching_up {
            Some((end, began)) if self.match_index >= end => {
                self.catching_up = Some((last, now));
                now.since(began) <= most
            }
            Some(_) => false,
            None => {
                self.catching_up = Some((last, now));
                false
            }
        }
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn give_back(&mut self) {
        self.inflight.give_back();
    }

    /// The outstanding probe is given up: another may be sent.
    pub(crate) fn probe_again(&mut self) {
        self.probing = false;
    }

    fn become_probe(&mut self) {
        self.mode = Mode::Probe;
        self.probing = false;
        self.inflight.clear();
        self.load = None;
        self.sending = None;
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn status(&self) -> PeerStatus {
        PeerStatus {
            id: self.id,
            match_index: self.match_index,
            next_index: self.next_index,
            mode: self.mode,
            inflight_messages: self.inflight.len() as u64,
            inflight_bytes: self.inflight.bytes() as u64,
        }
    }
}

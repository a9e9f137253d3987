//! Requests: each resolved once and truthfully (T1); reads see what was acknowledged before they began (R1, R2).

use std::collections::BTreeMap;

use quorate_core::{Done, Entry, EntryKind, Few, Index, Outcome, Term, Tokens};

use super::{Ghost, Wanted, image::Stone};
use crate::{
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

/// An entry that carries no proposal of a client.
pub(crate) const NO_TOKEN: u64 = u64::MAX;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Proposal,
    /// A read, which must see at least this index.
    Read {
        floor: u64,
        why: Floor,
    },
    /// Another membership.
    Change,
    /// Handing leadership over, in the term in which it was taken up.
    Transfer {
        term: u64,
        /// Somebody was told to campaign in it before that.
        told: bool,
    },
}

/// Why a read must see so much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Floor {
    /// It was acknowledged before the read began.
    Acknowledged,
    /// The same, but a lease says so.
    Leased,
    /// The caller said so.
    Asked,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not taken up yet.
    Asked,
    /// Taken.
    Open,
    Done,
    Refused,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    kind: Kind,
    slot: usize,
    life: u64,
    state: State,
    /// Where it was committed.
    index: u64,
}

/// Every request there ever was, by token.
#[derive(Debug, Default)]
pub(super) struct Requests {
    all: Vec<Request>,
    /// The highest index that any client knows to be committed.
    floor: u64,
    /// How many requests other than reads each node has taken in its present life, and not resolved.
    open: Vec<u64>,
    /// The transfer that each node is at: its token, the node's life, and its term.
    handing: Vec<Option<(u64, u64, u64)>>,
    /// What became of the membership was to be, by the change's token.
    wanted: BTreeMap<u64, Wanted>,
    /// In which term a node has last told another to campaign.
    pub(super) told: BTreeMap<usize, u64>,
}

impl Requests {
    pub(super) fn new(nodes: usize) -> Self {
        Self { open: vec![0; nodes], handing: vec![None; nodes], ..Self::default() }
    }
}

/// The token that a command carries in its first eight bytes.
pub(super) fn token_of(entry: &Entry) -> u64 {
    let bytes = entry.payload.first_chunk::<8>().filter(|_| entry.kind == EntryKind::Command);
    bytes.map_or(NO_TOKEN, |bytes| u64::from_le_bytes(*bytes))
}

impl Ghost {
    /// The token for the next request.
    pub(crate) fn next_token(&self) -> u64 {
        self.requests.all.len() as u64
    }

    /// What a read that begins now must see.
    pub(crate) const fn floor(&self) -> u64 {
        self.requests.floor
    }

    /// A client asks a node for something.
    pub(crate) fn ask(&mut self, slot: usize, life: u64, kind: Kind, count: u64) {
        let request = Request { kind, slot, life, state: State::Asked, index: 0 };
        self.requests.all.extend((0..count).map(|_| request));
    }

    /// The node takes it, or refuses it at once.
    ///
    /// # Errors
    /// If it must not be taken: it was meant for another term, or leadership is being handed over.
    pub(crate) fn on_taken(
        &mut self,
        tokens: Tokens,
        taken: bool,
        wanted: Option<Term>,
        term: Term,
        counts: &mut Counts,
    ) -> Verdict {
        let kind = self.requests.all.get(tokens.first.0 as usize).map(|request| request.kind);
        counts.bump(match kind {
            _ if !taken => Count::Refused,
            Some(Kind::Change) => Count::Changes,
            Some(Kind::Transfer { .. }) => Count::Transfers,
            Some(Kind::Proposal | Kind::Read { .. }) | None => Count::Proposals,
        });
        for token in tokens.iter() {
            let request = &mut self.requests.all[token.0 as usize];
            if let Kind::Transfer { .. } = request.kind {
                let told = self.requests.told.get(&request.slot) == Some(&term.0);
                request.kind = Kind::Transfer { term: term.0, told };
            }
            request.state = if taken { State::Open } else { State::Refused };
            let Request { kind, slot, life, .. } = *request;
            if !taken || matches!(kind, Kind::Read { .. }) {
                continue;
            }
            self.requests.open[slot] += 1;
            hold!(
                wanted.is_none_or(|wanted| wanted == term),
                "T1",
                "node {} takes proposal {token:?} for term {wanted:?} in term {term}",
                slot + 1
            );
            let handing =
                self.requests.handing[slot].filter(|handing| (handing.1, handing.2) == (life, term.0));
            if let Kind::Transfer { .. } = kind {
                self.requests.handing[slot] = Some((token.0, life, term.0));
            } else {
                hold!(
                    handing.is_none(),
                    "transfer",
                    "node {} takes request {token:?} while it hands leadership over, as {handing:?} asks for",
                    slot + 1
                );
            }
        }
        Ok(())
    }

    /// A read at an index that still waits there; the newest few thousand requests are looked at.
    pub(crate) fn oldest_read_at_least(&self, slot: usize, life: u64) -> Option<u64> {
        let waits = |request: &Request| {
            matches!(request.kind, Kind::Read { why: Floor::Asked, .. })
                && request.state == State::Open
                && (request.slot, request.life) == (slot, life)
        };
        let all = &self.requests.all;
        let first = all.len().saturating_sub(2000);
        let at = all[first..].iter().position(waits)?;
        Some((first + at) as u64)
    }

    /// What a node has taken, in that life, and not resolved.
    pub(crate) fn open_tokens(&self, slot: usize, life: u64) -> Vec<u64> {
        let open =
            |request: &Request| request.state == State::Open && (request.slot, request.life) == (slot, life);
        (0..).zip(&self.requests.all).filter(|(_, request)| open(request)).map(|(token, _)| token).collect()
    }

    /// How many requests other than reads a node has taken and not resolved.
    pub(crate) fn open_requests(&self, slot: usize) -> u64 {
        self.requests.open[slot]
    }

    /// What is to come of a change.
    pub(crate) fn want(&mut self, token: u64, wanted: Wanted) {
        self.requests.wanted.insert(token, wanted);
    }

    /// Another life begins: nobody will hear of what the last one took.
    pub(super) fn forget_open(&mut self, slot: usize) {
        self.requests.open[slot] = 0;
    }

    /// Entry `index` is committed for good.
    pub(super) fn on_committed(&mut self, index: u64, stone: Stone) -> Verdict {
        if stone.token == NO_TOKEN {
            return Ok(());
        }
        let Some(request) = self.requests.all.get_mut(stone.token as usize) else {
            hold!(false, "S6", "entry {index} carries a proposal that nobody made");
            return Ok(());
        };
        hold!(
            request.index == 0,
            "T1",
            "proposal {} is committed at {} and at {index}",
            stone.token,
            request.index
        );
        hold!(
            request.state != State::Refused,
            "T1",
            "proposal {} was refused, and is committed",
            stone.token
        );
        request.index = index;
        Ok(())
    }

    /// Proposals are done, as the entries up to `last` are applied.
    pub(super) fn on_done(
        &mut self,
        slot: usize,
        life: u64,
        done: &Few<Done>,
        last: u64,
        counts: &mut Counts,
    ) -> Verdict {
        for Done { first, tokens } in done {
            for (offset, token) in tokens.iter().enumerate() {
                let index = first.0 + offset as u64;
                hold!(index <= last, "T1", "{token:?} is done at {index}, which was not applied");
                let carried = self.committed.get(index).map_or(NO_TOKEN, |stone| stone.token);
                hold!(carried == token.0, "T1", "{token:?} is done at {index}, where {carried} is");
                self.close(slot, life, token.0, State::Done)?;
                counts.bump(Count::Acknowledged);
                self.requests.floor = self.requests.floor.max(index);
            }
        }
        Ok(())
    }

    /// A node says how requests have ended.
    pub(super) fn on_resolve(
        &mut self,
        slot: usize,
        life: u64,
        tokens: Tokens,
        outcome: Outcome,
        at_follower: bool,
        counts: &mut Counts,
    ) -> Verdict {
        for token in tokens.iter() {
            let kind = self.requests.all.get(token.0 as usize).map(|request| request.kind);
            match (outcome, kind) {
                (Outcome::Read { index: Index(index) }, Some(Kind::Read { floor, why })) => {
                    self.check_read(slot, index, floor, why)?;
                    self.requests.floor = self.requests.floor.max(index);
                    self.close(slot, life, token.0, State::Done)?;
                    counts.bump(match why {
                        Floor::Acknowledged => Count::Reads,
                        Floor::Leased => Count::LeaseReads,
                        Floor::Asked => Count::ReadsAtLeast,
                    });
                    if at_follower {
                        counts.bump(Count::ReadsAtFollowers);
                    }
                }
                (Outcome::Refused { .. }, Some(Kind::Read { .. })) => {
                    self.close(slot, life, token.0, State::Refused)?;
                }
                (Outcome::Changed { index }, Some(Kind::Change)) => {
                    if let Some(wanted) = self.requests.wanted.get(&token.0) {
                        self.check_changed(token.0, index.0, wanted)?;
                    }
                    self.close(slot, life, token.0, State::Done)?;
                    counts.bump(Count::Changed);
                }
                (Outcome::Transferred { to }, Some(Kind::Transfer { term, .. })) => {
                    self.check_transferred(token.0, to, term)?;
                    self.close(slot, life, token.0, State::Done)?;
                    counts.bump(Count::Transferred);
                }
                (Outcome::Refused { .. }, Some(Kind::Transfer { term, told })) => {
                    self.check_not_transferred(token.0, slot, term, told)?;
                    self.close(slot, life, token.0, State::Refused)?;
                    counts.bump(Count::TransfersAborted);
                }
                (Outcome::Unknown, Some(_)) => {
                    self.close(slot, life, token.0, State::Unknown)?;
                    counts.bump(Count::Unknown);
                }
                (_, kind) => hold!(false, "T1", "{token:?}, {kind:?}, ends as {outcome:?}"),
            }
        }
        Ok(())
    }

    fn check_read(&self, slot: usize, index: u64, floor: u64, why: Floor) -> Verdict {
        let n = slot + 1;
        match why {
            Floor::Acknowledged => hold!(
                index >= floor,
                "R1",
                "a read at node {n} sees up to {index}, but {floor} was acknowledged before it began"
            ),
            Floor::Leased => hold!(
                index >= floor,
                "R2",
                "a lease read at node {n} sees up to {index}, but {floor} was acknowledged before it began"
            ),
            Floor::Asked => hold!(index >= floor, "R1", "node {n} was asked for {floor}, but shows {index}"),
        }
        let applied = self.nodes[slot].applied;
        hold!(
            index <= applied,
            "R1",
            "a read at node {n} is served at {index}, but only {applied} was handed out"
        );
        Ok(())
    }

    fn close(&mut self, slot: usize, life: u64, token: u64, state: State) -> Verdict {
        let request = &mut self.requests.all[token as usize];
        hold!(
            request.state == State::Open,
            "T1",
            "request {token} was {:?}, and ends as {state:?}",
            request.state
        );
        hold!(
            (request.slot, request.life) == (slot, life),
            "T1",
            "request {token} was node {}'s in its life {}, and ends elsewhere",
            request.slot + 1,
            request.life
        );
        request.state = state;
        if self.requests.handing[slot].is_some_and(|(handing, ..)| handing == token) {
            self.requests.handing[slot] = None;
        }
        let request = &self.requests.all[token as usize];
        if !matches!(request.kind, Kind::Read { .. }) {
            self.requests.open[slot] -= 1;
        }
        Ok(())
    }

    /// When all is quiet, nobody waits any more; `life` says which life of each node goes on.
    pub(crate) fn all_resolved(&self, life: impl Fn(usize) -> Option<u64>) -> Verdict {
        for (token, request) in self.requests.all.iter().enumerate() {
            let waits = request.state == State::Open && life(request.slot) == Some(request.life);
            hold!(!waits, "T1", "request {token} at node {} was never resolved", request.slot + 1);
        }
        Ok(())
    }
}

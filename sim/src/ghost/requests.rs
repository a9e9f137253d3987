//! Requests: each resolved once and truthfully (T1); reads see what was acknowledged before they began (R1).

use quorate_core::{Done, Entry, EntryKind, Few, Index, Outcome, Tokens};

use super::{Ghost, Stone};
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
    },
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
    pub(crate) fn on_taken(&mut self, tokens: Tokens, taken: bool, counts: &mut Counts) {
        counts.bump(if taken { Count::Proposals } else { Count::Refused });
        for token in tokens.iter() {
            self.requests.all[token.0 as usize].state = if taken { State::Open } else { State::Refused };
        }
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
                let stone = self.committed[index as usize - 1];
                hold!(stone.token == token.0, "T1", "{token:?} is done at {index}, where {} is", stone.token);
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
                (Outcome::Read { index: Index(index) }, Some(Kind::Read { floor })) => {
                    hold!(
                        index >= floor,
                        "R1",
                        "a read at node {} sees up to {index}, but {floor} was acknowledged before it began",
                        slot + 1
                    );
                    hold!(
                        index <= self.nodes[slot].applied,
                        "R1",
                        "a read at node {} is served at {index} before that was handed to apply",
                        slot + 1
                    );
                    self.requests.floor = self.requests.floor.max(index);
                    self.close(slot, life, token.0, State::Done)?;
                    counts.bump(Count::Reads);
                    if at_follower {
                        counts.bump(Count::ReadsAtFollowers);
                    }
                }
                (Outcome::Refused { .. }, Some(Kind::Read { .. })) => {
                    self.close(slot, life, token.0, State::Refused)?;
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

//! A client's side of its session.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    request::{Answer, Request},
    table::AHEAD,
};

/// What a client keeps of its session: which commands wait for an answer, so that they can be sent again.
#[derive(Clone, Debug, Default)]
pub struct Client {
    session: Option<u64>,
    /// The last sequence number given out.
    last: u64,
    waiting: BTreeMap<u64, Bytes>,
}

impl Client {
    /// Its session, if one is open.
    #[must_use]
    pub const fn session(&self) -> Option<u64> {
        self.session
    }

    /// Which commands wait for an answer.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.keys().copied()
    }

    /// Its session is open. Nothing is known any more of commands of an earlier one.
    pub fn opened(&mut self, session: u64) {
        *self = Self { session: Some(session), ..Self::default() };
    }

    /// A new command: its sequence number and the request. `None` without a session, or while too many wait.
    pub fn send(&mut self, command: Bytes) -> Option<(u64, Bytes)> {
        let next = self.last + 1;
        if self.session.is_none() || next - self.acknowledged() > AHEAD {
            return None;
        }
        self.last = next;
        self.waiting.insert(next, command);
        self.again(next).map(|request| (next, request))
    }

    /// The request for a command that waits, once more.
    #[must_use]
    pub fn again(&self, sequence: u64) -> Option<Bytes> {
        let (session, command) = (self.session?, self.waiting.get(&sequence)?.clone());
        let acknowledged = self.acknowledged();
        Some(Request::Command { session, sequence, acknowledged, command }.encode())
    }

    /// An answer has come. Only the first to a command counts. If the session is gone, so is all that waits in it.
    pub fn answered(&mut self, sequence: u64, answer: &Answer) {
        match answer {
            Answer::UnknownSession => *self = Self::default(),
            Answer::Done(_)
            | Answer::Opened(_)
            | Answer::Forgotten
            | Answer::TooFarAhead
            | Answer::Malformed => {
                self.waiting.remove(&sequence);
            }
        }
    }

    /// Up to where all are answered.
    fn acknowledged(&self) -> u64 {
        self.waiting.first_key_value().map_or(self.last, |(first, _)| first - 1)
    }
}

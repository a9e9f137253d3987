//! The table of sessions: who has a session, and what was answered to it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{codec::Reader, machine::fingerprint};
use crate::digest::Digest;

/// How far a command may be ahead of what its client has acknowledged: so many answers are kept for a session at most.
pub const AHEAD: u64 = 64;

/// A session.
#[derive(Clone, Debug, Default)]
struct Session {
    /// The index of the last entry that named it.
    used: u64,
    /// Up to which its answers are forgotten.
    acknowledged: u64,
    /// The others.
    replies: BTreeMap<u64, Bytes>,
}

/// What there is about a command.
#[derive(Debug)]
pub(super) enum Found {
    UnknownSession,
    Forgotten,
    TooFarAhead,
    /// It was applied, and answered so.
    Before(Bytes),
    /// It was never applied.
    Never,
}

/// All sessions. What is in it follows from the log alone, the order in which they expire included.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// How many there may be: then the one goes that was not used for longest, by positions in the log.
    limit: u32,
    sessions: BTreeMap<u64, Session>,
    /// Session by last use. An entry names one session at most, so that none is used last by two.
    by_use: BTreeMap<u64, u64>,
    /// The sum of the hashes of all there is.
    sum: u64,
}

impl Table {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit: limit.max(1), sessions: BTreeMap::new(), by_use: BTreeMap::new(), sum: 0 }
    }

    pub(super) fn digest(&self) -> u64 {
        fingerprint(&(self.limit, self.sum))
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The entry at `index` opens a session.
    pub(super) fn open(&mut self, index: u64) {
        while self.sessions.len() >= self.limit as usize {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.drop_session(oldest);
        }
        let session = Session { used: index, ..Session::default() };
        self.sum = self.sum.wrapping_add(head(index, &session));
        self.sessions.insert(index, session);
        self.by_use.insert(index, index);
    }

    /// The entry at `index` brings a command.
    pub(super) fn find(&mut self, index: u64, session: u64, sequence: u64, acknowledged: u64) -> Found {
        let Some(found) = self.sessions.get_mut(&session) else { return Found::UnknownSession };
        self.sum = self.sum.wrapping_sub(head(session, found));
        self.by_use.remove(&found.used);
        self.by_use.insert(index, session);
        found.used = index;
        if acknowledged > found.acknowledged {
            found.acknowledged = acknowledged;
            while let Some(first) = found.replies.first_entry().filter(|first| *first.key() <= acknowledged) {
                let (sequence, reply) = first.remove_entry();
                self.sum = self.sum.wrapping_sub(line(session, sequence, &reply));
            }
        }
        self.sum = self.sum.wrapping_add(head(session, found));
        if sequence <= found.acknowledged {
            return Found::Forgotten;
        }
        if sequence - found.acknowledged > AHEAD {
            return Found::TooFarAhead;
        }
        found.replies.get(&sequence).map_or(Found::Never, |reply| Found::Before(reply.clone()))
    }

    /// A command that was never applied was now, and answered so.
    pub(super) fn record(&mut self, session: u64, sequence: u64, reply: Bytes) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        self.sum = self.sum.wrapping_add(line(session, sequence, &reply));
        found.replies.insert(sequence, reply);
    }

    fn drop_session(&mut self, session: u64) {
        let Some(dropped) = self.sessions.remove(&session) else { return };
        self.sum = self.sum.wrapping_sub(head(session, &dropped));
        for (sequence, reply) in &dropped.replies {
            self.sum = self.sum.wrapping_sub(line(session, *sequence, reply));
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let short = |n: usize| (n as u32).to_le_bytes();
        out.extend_from_slice(&self.limit.to_le_bytes());
        out.extend_from_slice(&short(self.sessions.len()));
        for (name, Session { used, acknowledged, replies }) in &self.sessions {
            for number in [name, used, acknowledged] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&short(replies.len()));
            for (sequence, reply) in replies {
                out.extend_from_slice(&sequence.to_le_bytes());
                out.extend_from_slice(&short(reply.len()));
                out.extend_from_slice(reply);
            }
        }
    }

    /// `None` if it is no table that [`Table::encode`] could have written.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let limit = reader.u32().filter(|limit| *limit > 0)?;
        let mut table = Self::new(limit);
        let count = reader.u32().filter(|count| *count <= limit)?;
        let mut uses = BTreeSet::new();
        for _ in 0..count {
            let name = reader.u64()?;
            let mut session =
                Session { used: reader.u64()?, acknowledged: reader.u64()?, replies: BTreeMap::new() };
            let in_order = table.sessions.last_key_value().is_none_or(|(last, _)| *last < name);
            if !in_order || session.used < name || !uses.insert(session.used) {
                return None;
            }
            for _ in 0..reader.u32()? {
                let sequence = reader.u64()?;
                let len = reader.u32()?;
                let reply = Bytes::copy_from_slice(reader.bytes(len as usize)?);
                let in_order = session.replies.last_key_value().is_none_or(|(last, _)| *last < sequence);
                let open = sequence > session.acknowledged && sequence - session.acknowledged <= AHEAD;
                if !in_order || !open {
                    return None;
                }
                table.sum = table.sum.wrapping_add(line(name, sequence, &reply));
                session.replies.insert(sequence, reply);
            }
            table.sum = table.sum.wrapping_add(head(name, &session));
            table.by_use.insert(session.used, name);
            table.sessions.insert(name, session);
        }
        Some(table)
    }
}

fn head(name: u64, session: &Session) -> u64 {
    fingerprint(&(name, session.used, session.acknowledged))
}

fn line(name: u64, sequence: u64, reply: &[u8]) -> u64 {
    fingerprint(&(name, sequence, Digest::of(reply), true))
}

//! One number for all that was done.

use core::{
    hash::{Hash, Hasher},
    mem::discriminant,
};

use crate::{Action, Apply, Body, Few, Message, Run, Write};

/// A hash that is the same on every platform, whatever its byte order or word size. It guards against accidents, not against
/// anybody who wants two runs to look alike.
#[derive(Clone, Debug, Default)]
pub struct Digest(u64);

impl Digest {
    /// Takes up something more.
    #[inline]
    pub fn add(&mut self, item: &impl Hash) {
        item.hash(self);
    }

    /// Takes up an action. Payloads count by their lengths alone: the core never looks at them, and so a recording without them
    /// has the same digest. Memberships count whole.
    pub fn action(&mut self, action: &Action) {
        discriminant(action).hash(self);
        match action {
            Action::Send { to, message } => {
                self.add(to);
                self.message(message);
            }
            Action::Write(Write { hard_state, rebase, truncate, entries, receipt }) => {
                self.add(&(hard_state, rebase, truncate, receipt));
                self.runs(entries);
            }
            Action::Apply(Apply { entries, done }) => {
                self.runs(entries);
                self.add(done);
            }
            Action::SendSnapshot(send) => self.add(send),
            Action::Restore(snapshot) => self.add(snapshot),
            Action::Load(load) => self.add(load),
            Action::Resolve { tokens, outcome } => self.add(&(tokens, outcome)),
            Action::Event(event) => self.add(event),
        }
    }

    /// Takes up a message, with its payloads as in [`Digest::action`].
    pub fn message(&mut self, message: &Message) {
        let Message { term, body } = message;
        if let Body::Append { prev, commit, entries } = body {
            self.add(&(term, prev, commit));
            self.runs(entries);
        } else {
            self.add(&(term, body));
        }
    }

    fn runs(&mut self, runs: &Few<Run>) {
        self.word(runs.len() as u64);
        for run in runs {
            self.add(&(run.term(), run.first(), run.last()));
            if run.has_membership() {
                self.write(run.block());
            } else {
                self.word(run.bytes() as u64);
            }
        }
    }

    /// The value of bytes alone.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut digest = Self::default();
        digest.write(bytes);
        digest.value()
    }

    /// Its value so far.
    #[must_use]
    pub const fn value(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    #[inline]
    const fn word(&mut self, word: u64) {
        let (a, b) = (self.0.rotate_left(23) ^ word ^ 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB_u64);
        let product = (a as u128).wrapping_mul(b as u128);
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ word;
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.value()
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last) ^ (bytes.len() as u64).wrapping_shl(56));
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.word(u64::from(n));
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    #[inline]
    fn write_u128(&mut self, n: u128) {
        self.word(n as u64);
        self.word((n >> 64) as u64);
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    #[inline]
    fn write_i8(&mut self, n: i8) {
        self.word(n as u64);
    }

    #[inline]
    fn write_i16(&mut self, n: i16) {
        self.word(n as u64);
    }

    #[inline]
    fn write_i32(&mut self, n: i32) {
        self.word(n as u64);
    }

    #[inline]
    fn write_i64(&mut self, n: i64) {
        self.word(n as u64);
    }

    #[inline]
    fn write_isize(&mut self, n: isize) {
        self.word(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HardState, Index, Membership, NodeId, Term};

    fn of(item: &impl Hash) -> u64 {
        let mut digest = Digest::default();
        digest.add(item);
        digest.value()
    }

    #[test]
    fn every_bit_counts_and_the_order_too() {
        let state = |vote| HardState { term: Term(2), vote };
        assert_ne!(of(&state(None)), of(&state(Some(NodeId(0)))));
        assert_ne!(of(&state(Some(NodeId(1)))), of(&state(Some(NodeId(2)))));
        assert_ne!(of(&(1_u64, 2_u64)), of(&(2_u64, 1_u64)));
        assert_ne!(Digest::of(b"abc"), Digest::of(b"abc\0"));
        assert_ne!(Digest::of(b""), Digest::of(b"\0"));
    }

    #[test]
    fn payloads_count_by_their_lengths_and_memberships_whole() {
        let apply = |run: Run| {
            let mut digest = Digest::default();
            digest.action(&Action::Apply(Apply { entries: Few::one(run), done: Few::new() }));
            digest.value()
        };
        let command =
            |index, payload: &[u8]| apply(Run::commands(Term(1), Index(index), &[payload]).unwrap());
        assert_eq!(command(1, b"abc"), command(1, b"xyz"));
        assert_ne!(command(1, b"abc"), command(1, b"abcd"));
        assert_ne!(command(1, b"abc"), command(2, b"abc"));
        let of = |id| apply(Run::membership(Term(1), Index(1), &Membership::of_voters([NodeId(id)])));
        assert_ne!(of(1), of(2));
    }

    /// Recordings outlive a release: these may only change together with [`VERSION`](super::super::VERSION).
    #[test]
    fn is_the_same_on_every_platform_and_for_ever() {
        assert_eq!(of(&1_usize), of(&1_u64));
        assert_eq!(of(&-1_isize), of(&-1_i64));
        assert_eq!(of(&7_u64), 0x3E42_F3B4_5ED7_219A);
        assert_eq!(Digest::of(b"a recording"), 0x1233_6F13_F2AD_F238);
    }
}

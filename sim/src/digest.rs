//! One number for a whole run: a hash of every input and action, the same on every platform.

use std::hash::{Hash, Hasher};

use crate::rng::mix;

/// A [`Hasher`] whose result does not depend on the platform's byte order or word size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digest(u64);

impl Digest {
    /// Takes up something more.
    pub(crate) fn add(&mut self, item: &impl Hash) {
        item.hash(self);
    }

    /// Its value so far.
    pub(crate) fn value(&self) -> u64 {
        mix(self.0)
    }

    /// The value of bytes alone.
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut digest = Self::default();
        digest.write(bytes);
        digest.value()
    }

    fn word(&mut self, word: u64) {
        let product = u128::from(self.0.rotate_left(23) ^ word ^ 0xA076_1D64_78BD_642F)
            * u128::from(0xE703_7ED1_A0B4_28DB_u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ word;
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.value()
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes")));
        }
        let mut last = [0; 8];
        let rest = chunks.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.word(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    fn write_u128(&mut self, n: u128) {
        self.word(n as u64);
        self.word((n >> 64) as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn write_i8(&mut self, n: i8) {
        self.word(n as u64);
    }

    fn write_i16(&mut self, n: i16) {
        self.word(n as u64);
    }

    fn write_i32(&mut self, n: i32) {
        self.word(n as u64);
    }

    fn write_i64(&mut self, n: i64) {
        self.word(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.word(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{HardState, Input, NodeId, Term, Token};

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
    fn is_the_same_on_every_platform() {
        assert_eq!(of(&Input::read(Token(7))), of(&Input::read(Token(7))));
        // Known values: they must not depend on byte order, word size or build.
        assert_eq!(of(&1_usize), of(&1_u64));
        assert_eq!(of(&-1_isize), of(&-1_i64));
    }
}

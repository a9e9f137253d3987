//! How a run is recorded, so that it can be replayed step by step (contract, point 3): what a recorder and a replay harness
//! must agree on, and nothing of either.
//!
//! A recording is text, a line of JSON for each thing that happened. One life of a node is
//!
//! ```text
//! {"quorate-flight":1,"release":"0.1.0","unix_us":…,"now":…,"config":{…},"recovered":{…}}     a [`Start`]
//! [now,input]                                                                          a step
//! {"p":3,"n":1,"d":"00c0ffee00c0ffee"}                                                  a [`Polled`]
//! …
//! {"end":"stopped"}                                                                     an [`End`]
//! ```
//!
//! and several may follow one another. A life that has no end was cut off: its process was killed, or its machine lost power; the
//! last line may be torn then. Bytes (payloads) are a JSON string that begins with `=` and goes on in base64 without padding; no other
//! string in an input begins like that.

use alloc::{string::String, vec::Vec};
use core::hash::{Hash, Hasher};

use crate::{Action, Config, Instant, Recovered};

/// The version of the format that is written, and the only one that is known.
pub const VERSION: u32 = 1;

/// The key with which a recording, and each life in it, begins.
pub const MARK: &str = "quorate-flight";

/// A node starts: all that its core is made from.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Start {
    /// [`VERSION`].
    #[serde(rename = "quorate-flight")]
    pub version: u32,
    /// The release that recorded it: only the same core is bound to do the same.
    pub release: String,
    /// When, in µs since 1970, by the machine's wall clock: brings recordings of several machines together, roughly.
    pub unix_us: u64,
    /// The same moment, by the clock that the core goes by.
    pub now: Instant,
    /// What the core was told to be like.
    pub config: Config,
    /// What its store held.
    pub recovered: Recovered,
}

/// The queue of actions was polled: when that happens matters, for its bound does, and so does what is sent together.
#[derive(PartialEq, Eq, Debug, serde::Serialize)]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub struct Polled {
    /// So many actions came out.
    #[serde(rename = "p")]
    pub count: u64,
    /// The queue wasn't empty after that, as far as anybody looked.
    #[serde(rename = "more", default, skip_serializing_if = "core::ops::Not::not")]
    pub more: bool,
    /// The steps of this life so far: tells when a line is missing.
    #[serde(rename = "n")]
    pub steps: u64,
    /// The [`Digest`] of all actions of this life so far.
    #[serde(rename = "d", with = "hex")]
    pub digest: u64,
    /// The actions themselves, if the recorder was asked for them.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<Action>>,
}

/// Nothing follows in this life.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct End {
    /// Why.
    pub end: Ended,
}

/// Why a recording ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The node has stopped: this is all there was.
    Stopped,
    /// It has reached its bound. The node went on.
    Limit,
    /// The recorder couldn't keep up. The node went on.
    Gap,
}

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

/// A number as 16 hexadecimal digits: JSON's own numbers are not exact up to there in every reader.
mod hex {
    use alloc::{format, string::String};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{number:016x}"))
    }

    #[cfg_attr(not(feature = "replay"), expect(dead_code, reason = "only a replay harness reads"))]
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HardState, NodeId, Term};

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

    /// Recordings outlive a release: these may only change together with [`VERSION`].
    #[test]
    fn is_the_same_on_every_platform_and_for_ever() {
        assert_eq!(of(&1_usize), of(&1_u64));
        assert_eq!(of(&-1_isize), of(&-1_i64));
        assert_eq!(of(&7_u64), 0x3E42_F3B4_5ED7_219A);
        assert_eq!(Digest::of(b"a recording"), 0x1233_6F13_F2AD_F238);
    }
}

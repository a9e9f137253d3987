//! Lists that are only appended to: what is lost, doubled or out of order shows in every read after it.

use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::{
    Op, Random, Workload,
    codec::Reader,
    keyed::{self, Keyed, Object, number},
    machine::fingerprint,
};

/// The machine: 256 lists, all empty at first.
pub type Lists = Keyed<List>;

/// One list. Appending answers with the new length, a read with a [`Contents`].
#[derive(Clone, Copy, Debug)]
pub struct List;

/// How many of the last items are kept: a reply must not grow with the run.
pub const KEPT: usize = 8;

/// A list's contents: the last of its items, and for all of them together their number and a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Contents {
    /// How many items it has.
    pub len: u64,
    /// A hash of all its items in their order.
    pub hash: u64,
    /// The last ones: item *i*, counted from 0, is at *i* mod [`KEPT`].
    pub last: [u64; KEPT],
}

impl Contents {
    fn push(&mut self, item: u64) {
        self.last[self.len as usize % KEPT] = item;
        self.len = self.len.wrapping_add(1);
        self.hash = fingerprint(&(self.hash, item));
    }

    /// From a reply to a read; `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let mut contents = Self { len: reader.u64()?, hash: reader.u64()?, last: [0; KEPT] };
        for item in &mut contents.last {
            *item = reader.u64()?;
        }
        reader.end()?;
        Some(contents)
    }

    fn encode(&self) -> [u8; 8 * (2 + KEPT)] {
        let mut out = [0; 8 * (2 + KEPT)];
        let numbers = [self.len, self.hash].into_iter().chain(self.last);
        for (place, number) in out.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        out
    }
}

/// Number by number: an array of them would be hashed as the bytes that it has in memory, which depend on the platform.
impl Hash for Contents {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let numbers = [self.len, self.hash].into_iter().chain(self.last);
        numbers.for_each(|number| state.write_u64(number));
    }
}

/// The command that appends to a list.
#[must_use]
pub fn append(key: u8, item: u64) -> Bytes {
    keyed::command(key, &item.to_le_bytes())
}

/// The length in a reply to an append; `None` if it is none.
#[must_use]
pub fn length(reply: &[u8]) -> Option<u64> {
    reply.try_into().map(u64::from_le_bytes).ok()
}

impl Object for List {
    type State = Contents;

    fn apply(state: &mut Contents, command: &[u8]) -> Option<Bytes> {
        state.push(length(command)?);
        Some(number(state.len))
    }

    fn read(state: &Contents) -> Bytes {
        Bytes::copy_from_slice(&state.encode())
    }

    fn encode(state: &Contents, out: &mut Vec<u8>) {
        out.extend_from_slice(&state.encode());
    }

    fn decode(bytes: &[u8]) -> Option<Contents> {
        Contents::decode(bytes)
    }
}

/// Clients that append to a few lists, and read them.
#[derive(Clone, Copy, Debug)]
pub struct ListLoad {
    /// How many lists.
    pub keys: u8,
    /// How much of it is reads.
    pub reads: f64,
}

impl Workload for ListLoad {
    fn next(&self, _client: usize, rng: &mut Random) -> Op {
        let key = rng.below(u64::from(self.keys.max(1))) as u8;
        if rng.chance(self.reads) { Op::Read(keyed::query(key)) } else { Op::Write(append(key, rng.bits())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{
        Replicated as _,
        testing::{entry, holds_as_a_machine},
    };
    use quorate_core::StateMachine as _;

    #[test]
    fn keeps_the_last_items_and_a_hash_of_all() {
        let fill = |items: &[u64]| {
            let mut lists = Lists::default();
            for (i, item) in items.iter().enumerate() {
                assert_eq!(length(&lists.apply(&entry(1, &append(0, *item)))), Some(i as u64 + 1));
            }
            Contents::decode(&lists.read(&keyed::query(0))).unwrap()
        };
        let ten: Vec<u64> = (0..10).collect();
        let contents = fill(&ten);
        assert_eq!((contents.len, contents.last), (10, [8, 9, 2, 3, 4, 5, 6, 7]));
        let other = fill(&[1, 0, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(other.last, contents.last);
        assert_ne!(other.hash, contents.hash, "the order of items that are no longer kept counts");
    }

    #[test]
    fn holds() {
        holds_as_a_machine(Lists::default, &ListLoad { keys: 5, reads: 0.3 });
    }
}

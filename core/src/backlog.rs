//! What is under way, and how many bytes of it: the bookkeeping behind every bound on bytes.

use alloc::collections::VecDeque;

use crate::fifo::Fifo;

/// Parts that are under way, in order. Each has a key, an index or the number of a write, and is done once that is.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Backlog<K> {
    parts: Fifo<(K, usize)>,
    bytes: usize,
}

impl<K: Copy + Ord> Backlog<K> {
    pub(crate) const fn new() -> Self {
        Self { parts: Fifo::new(), bytes: 0 }
    }

    /// How many parts.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of all of them.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another part is under way, with a key above all others.
    #[inline]
    pub(crate) fn push(&mut self, key: K, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.parts.push((key, bytes));
    }

    /// All parts up to `key` are done.
    #[inline]
    pub(crate) fn done(&mut self, key: K) {
        while let Some((first, bytes)) = self.parts.first()
            && first <= key
        {
            self.bytes = self.bytes.saturating_sub(bytes);
            self.parts.pop_first();
        }
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn give_back(&mut self) {
        self.parts.give_back();
    }

    /// None of them will be.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

/// A queue at rest keeps room for as many.
const SPARE: usize = 4;

/// Gives back what a queue has left over from a burst: tens of thousands of groups may lie idle in one process.
pub(crate) fn spare<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > SPARE {
        queue.shrink_to(SPARE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_under_way() {
        let mut backlog = Backlog::new();
        for key in 1..=4_u64 {
            backlog.push(key, 10 * key as usize);
            assert_eq!(backlog.len(), key as usize);
        }
        assert_eq!(backlog.bytes(), 100);
        backlog.done(0);
        assert_eq!(backlog.bytes(), 100);
        backlog.done(2);
        assert_eq!((backlog.len(), backlog.bytes()), (2, 70));
        backlog.push(5, 1);
        backlog.done(4);
        assert_eq!((backlog.len(), backlog.bytes()), (1, 1));
        backlog.clear();
        assert!(backlog.is_empty() && backlog.bytes() == 0);
    }
}

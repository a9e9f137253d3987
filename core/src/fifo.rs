//! A queue that mostly holds one thing or none: that one is kept in place, and needs no ring.

use alloc::collections::VecDeque;

use crate::backlog::spare;

/// First in, first out.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Fifo<T> {
    first: Option<T>,
    /// Empty unless there is a first.
    rest: VecDeque<T>,
}

impl<T: Copy> Fifo<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, rest: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len().saturating_add(usize::from(self.first.is_some()))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) const fn first(&self) -> Option<T> {
        self.first
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<T> {
        self.rest.back().copied().or(self.first)
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.push_back(item);
        }
    }

    /// Another one takes the first one's place.
    pub(crate) const fn replace_first(&mut self, item: T) {
        self.first = Some(item);
    }

    /// Another one takes the last one's place.
    #[inline]
    pub(crate) fn replace_last(&mut self, item: T) {
        match self.rest.back_mut() {
            Some(last) => *last = item,
            None => self.first = Some(item),
        }
    }

    #[inline(always)]
    pub(crate) fn pop_first(&mut self) {
        self.first = if self.rest.is_empty() { None } else { self.rest.pop_front() };
    }

    pub(crate) fn pop_last(&mut self) -> Option<T> {
        self.rest.pop_back().or_else(|| self.first.take())
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn give_back(&mut self) {
        spare(&mut self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn keeps_the_order_at_both_ends() {
        let mut fifo = Fifo::new();
        assert_eq!((fifo.first(), fifo.last(), fifo.pop_last()), (None, None, None));
        for n in 1..=4 {
            fifo.push(n);
            assert_eq!((fifo.first(), fifo.last(), fifo.len()), (Some(1), Some(n), n));
        }
        fifo.replace_last(5);
        fifo.replace_first(0);
        assert_eq!(fifo.iter().copied().collect::<Vec<_>>(), [0, 2, 3, 5]);
        fifo.pop_first();
        assert_eq!((fifo.first(), fifo.pop_last()), (Some(2), Some(5)));
        fifo.pop_first();
        fifo.replace_last(9);
        assert_eq!((fifo.first(), fifo.last()), (Some(9), Some(9)));
        assert_eq!((fifo.pop_last(), fifo.is_empty()), (Some(9), true));
        fifo.push(7);
        fifo.clear();
        assert!(fifo.is_empty());
    }
}

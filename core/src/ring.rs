//! First in, first out, for what is too big to be moved about.

use alloc::vec::Vec;
use core::mem::forget;

/// A queue of big things. Each is built where it lies, in a slot that [`Ring::reserve`] has made sure of: were there a
/// call in between that could unwind, as there is in `VecDeque::push_back`, it would be built elsewhere and moved.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    /// Their number is a power of two, or none.
    slots: Vec<Option<T>>,
    /// How many were ever taken out, and put in; wrapping.
    head: usize,
    tail: usize,
}

/// A ring at rest keeps so many slots.
const SPARE: usize = 4;

impl<T> Ring<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), head: 0, tail: 0 }
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.tail == self.head
    }

    /// Makes room for one more.
    #[inline(always)]
    pub(crate) fn reserve(&mut self) {
        if self.len() == self.slots.len() {
            self.grow();
        }
    }

    /// Puts it in, after [`Ring::reserve`].
    #[inline(always)]
    pub(crate) fn put(&mut self, item: T) {
        debug_assert!(self.len() < self.slots.len(), "no room was made");
        let at = self.tail & self.mask();
        match self.slots.get_mut(at) {
            // The slot was empty, so there is nothing to drop; nor is there ever no slot.
            Some(slot) => forget(slot.replace(item)),
            None => forget(item),
        }
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let at = self.head & self.mask();
        self.head = self.head.wrapping_add(1);
        match self.slots.get_mut(at) {
            Some(slot) => slot.take(),
            None => None,
        }
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn give_back(&mut self) {
        if self.is_empty() && self.slots.len() > SPARE {
            self.slots.truncate(SPARE);
            self.slots.shrink_to_fit();
        }
    }

    const fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.slots.len();
        let oldest = self.head & self.mask();
        self.slots.rotate_left(oldest);
        (self.head, self.tail) = (0, len);
        self.slots.resize_with(len.saturating_mul(2).max(SPARE), || None);
    }
}

/// As what is in it, in order: how it is kept makes no difference.
#[cfg(feature = "serde")]
impl<T: serde::Serialize> serde::Serialize for Ring<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut seq = serializer.serialize_seq(Some(self.len()))?;
        for n in 0..self.len() {
            if let Some(Some(item)) = self.slots.get(self.head.wrapping_add(n) & self.mask()) {
                seq.serialize_element(item)?;
            }
        }
        seq.end()
    }
}

#[cfg(feature = "replay")]
impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Ring<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ring = Self::new();
        for item in Vec::deserialize(deserializer)? {
            ring.reserve();
            ring.put(item);
        }
        Ok(ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_while_it_wraps_grows_and_shrinks() {
        let mut ring = Ring::new();
        let (mut put, mut taken) = (0, 0);
        for (puts, takes) in [(0, 1), (3, 2), (3, 1), (2, 5), (9, 3), (20, 26), (0, 1), (5, 5), (40, 41)] {
            for _ in 0..puts {
                ring.reserve();
                ring.put(put);
                put += 1;
            }
            for _ in 0..takes {
                let expected = (taken < put).then_some(taken);
                assert_eq!(ring.pop(), expected);
                taken += usize::from(expected.is_some());
            }
            ring.give_back();
            assert_eq!((ring.len(), ring.is_empty()), (put - taken, put == taken));
            assert!(!ring.is_empty() || ring.slots.len() <= SPARE);
        }
    }
}

//! What is to happen, by time; what is due at the same time happens in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events to come, in µs of virtual time.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    planned: u64,
}

impl<E> Queue<E> {
    /// Nothing to happen.
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), planned: 0 }
    }

    /// `event` is to happen at `at`.
    pub(crate) fn push(&mut self, at: u64, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((at, self.planned, slot)));
        self.planned += 1;
    }

    /// What happens next, and when.
    pub(crate) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        let event = self.slots[slot as usize].take()?;
        self.free.push(slot);
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_by_time_then_in_the_order_planned() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            queue.push(at, event);
        }
        let mut out = String::new();
        while let Some((_, event)) = queue.pop() {
            out.push(event);
            if event == 'a' {
                queue.push(9, 'f');
            }
        }
        assert_eq!(out, "abcdef");
    }
}

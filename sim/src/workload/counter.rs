//! Counters: what is added twice shows in every total after it.

use bytes::Bytes;

use super::{
    Op, Random, Workload,
    keyed::{self, Keyed, Object, number},
};

/// The machine: 256 counters, all 0 at first.
pub type Counters = Keyed<Counter>;

/// One counter. Adding answers with the new total, and so does a read.
#[derive(Clone, Copy, Debug)]
pub struct Counter;

/// The command that adds to a counter. It wraps.
#[must_use]
pub fn add(key: u8, n: u64) -> Bytes {
    keyed::command(key, &n.to_le_bytes())
}

/// The total in a reply; `None` if it is no reply of a counter.
#[must_use]
pub fn total(reply: &[u8]) -> Option<u64> {
    reply.try_into().map(u64::from_le_bytes).ok()
}

impl Object for Counter {
    type State = u64;

    fn apply(state: &mut u64, command: &[u8]) -> Option<Bytes> {
        *state = state.wrapping_add(total(command)?);
        Some(number(*state))
    }

    fn read(state: &u64) -> Bytes {
        number(*state)
    }

    fn encode(state: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&state.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<u64> {
        total(bytes)
    }
}

/// Clients that add to a few counters, and read them.
#[derive(Clone, Copy, Debug)]
pub struct CounterLoad {
    /// How many counters.
    pub keys: u8,
    /// How much of it is reads.
    pub reads: f64,
}

impl Workload for CounterLoad {
    fn next(&self, _client: usize, rng: &mut Random) -> Op {
        let key = rng.below(u64::from(self.keys.max(1))) as u8;
        if rng.chance(self.reads) {
            Op::Read(keyed::query(key))
        } else {
            Op::Write(add(key, rng.between(1, 1000)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::testing::{entry, holds_as_a_machine};
    use quorate_core::StateMachine as _;

    #[test]
    fn adds_up() {
        let mut counters = Counters::default();
        let mut ask = |key, n| total(&counters.apply(&entry(1, &add(key, n)))).unwrap();
        assert_eq!((ask(0, 2), ask(1, 3), ask(0, 4), ask(0, u64::MAX)), (2, 3, 6, 5));
    }

    #[test]
    fn holds() {
        holds_as_a_machine(Counters::default, &CounterLoad { keys: 5, reads: 0.3 });
    }
}

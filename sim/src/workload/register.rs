//! Registers: each holds a number, and is written, or written only if it holds what was expected.

use bytes::Bytes;

use super::{
    Op, Random, Workload,
    codec::Reader,
    keyed::{self, Keyed, Object, number},
};

/// The machine: 256 registers, all 0 at first.
pub type Registers = Keyed<Register>;

/// One register. A read answers with its value.
#[derive(Clone, Copy, Debug)]
pub struct Register;

/// A change of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Sets it. Answers with what it was.
    Write {
        /// To this.
        value: u64,
    },
    /// Sets it if it is as expected. Answers with whether it did, and what it was.
    CompareAndSet {
        /// Only if it is this.
        expected: u64,
        /// To this.
        value: u64,
    },
}

/// What a change answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// A write: what was there before.
    Written {
        /// It.
        before: u64,
    },
    /// A comparison.
    Compared {
        /// It held what was expected, and was set.
        equal: bool,
        /// What was there before.
        before: u64,
    },
}

impl Change {
    /// As a command for the register of this key.
    #[must_use]
    pub fn encode(self, key: u8) -> Bytes {
        let (kind, numbers) = match self {
            Self::Write { value } => (1, [value, 0]),
            Self::CompareAndSet { expected, value } => (2, [value, expected]),
        };
        let mut own = vec![kind];
        let count = usize::from(kind);
        own.extend(numbers.iter().take(count).flat_map(|number| number.to_le_bytes()));
        keyed::command(key, &own)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let change = match reader.u8()? {
            1 => Self::Write { value: reader.u64()? },
            2 => {
                let value = reader.u64()?;
                Self::CompareAndSet { expected: reader.u64()?, value }
            }
            _ => return None,
        };
        reader.end()?;
        Some(change)
    }
}

impl Changed {
    /// From a reply; `None` if it is none of a register.
    #[must_use]
    pub fn decode(reply: &[u8]) -> Option<Self> {
        let mut reader = Reader(reply);
        let before = reader.u64()?;
        match reader.0 {
            [] => Some(Self::Written { before }),
            [equal @ (0 | 1)] => Some(Self::Compared { equal: *equal == 1, before }),
            _ => None,
        }
    }
}

impl Object for Register {
    type State = u64;

    fn apply(state: &mut u64, command: &[u8]) -> Option<Bytes> {
        match Change::decode(command)? {
            Change::Write { value } => Some(number(std::mem::replace(state, value))),
            Change::CompareAndSet { expected, value } => {
                let mut reply = [0; 9];
                reply[..8].copy_from_slice(&state.to_le_bytes());
                if *state == expected {
                    *state = value;
                    reply[8] = 1;
                }
                Some(Bytes::copy_from_slice(&reply))
            }
        }
    }

    fn read(state: &u64) -> Bytes {
        number(*state)
    }

    fn encode(state: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&state.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<u64> {
        bytes.try_into().map(u64::from_le_bytes).ok()
    }
}

/// Clients that read, write, and compare and set a few registers.
#[derive(Clone, Copy, Debug)]
pub struct RegisterLoad {
    /// How many registers.
    pub keys: u8,
    /// How much of it is reads.
    pub reads: f64,
}

impl Workload for RegisterLoad {
    fn next(&self, _client: usize, rng: &mut Random) -> Op {
        let key = rng.below(u64::from(self.keys.max(1))) as u8;
        if rng.chance(self.reads) {
            return Op::Read(keyed::query(key));
        }
        // Some values come again and again, so that a comparison has something to meet; the others are all different, so
        // that each tells which write it is from.
        let value = if rng.chance(0.5) { rng.below(FEW) } else { rng.bits() };
        let compares = rng.chance(0.4);
        Op::Write(if compares {
            Change::CompareAndSet { expected: rng.below(FEW), value }.encode(key)
        } else {
            Change::Write { value }.encode(key)
        })
    }
}

/// How many values come again.
const FEW: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::testing::{entry, holds_as_a_machine};
    use quorate_core::StateMachine as _;

    #[test]
    fn answers_with_what_was_there() {
        let mut registers = Registers::default();
        let mut ask =
            |change: Change| Changed::decode(&registers.apply(&entry(1, &change.encode(3)))).unwrap();
        assert_eq!(ask(Change::Write { value: 5 }), Changed::Written { before: 0 });
        assert_eq!(ask(Change::Write { value: 6 }), Changed::Written { before: 5 });
        let compare = Change::CompareAndSet { expected: 6, value: 7 };
        assert_eq!(ask(compare), Changed::Compared { equal: true, before: 6 });
        assert_eq!(ask(compare), Changed::Compared { equal: false, before: 7 });
        assert_eq!((*registers.object(3), *registers.object(4)), (7, 0));
    }

    #[test]
    fn holds() {
        holds_as_a_machine(Registers::default, &RegisterLoad { keys: 5, reads: 0.3 });
    }
}

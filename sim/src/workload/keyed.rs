//! Many small objects of one kind, each under a key of its own: the machines of the built-in workloads.

use std::{fmt, hash::Hash};

use bytes::Bytes;
use quorate_core::{Entry, StateMachine};

use super::{
    codec::{Reader, check_version},
    machine::{Replicated, State, fingerprint},
};

/// The layout of commands, queries and snapshots.
const VERSION: u8 = 1;

/// What a command answers that is none. No object answers with a single byte.
pub const MALFORMED: &[u8] = &[0xFF];

/// One kind of object, by what its operations do when they come one after another: its sequential specification. It is
/// the machine's heart, and what [`search`](super::search()) judges histories by.
pub trait Object: Send + Sync + 'static {
    /// An object's state; a new one's is the default.
    type State: Clone + Default + Ord + Hash + fmt::Debug + Send + 'static;

    /// Carries out a command and answers; `None`, with nothing changed, if it is none.
    fn apply(state: &mut Self::State, command: &[u8]) -> Option<Bytes>;

    /// Answers a read.
    fn read(state: &Self::State) -> Bytes;

    /// The state as bytes, added to these.
    fn encode(state: &Self::State, out: &mut Vec<u8>);

    /// The state from exactly these bytes; `None` if they are none.
    fn decode(bytes: &[u8]) -> Option<Self::State>;
}

/// A machine of 256 objects. Its commands are a version, a key and the object's own; its queries a version and a key.
pub struct Keyed<O: Object> {
    objects: Vec<O::State>,
    /// Of the hashes of all objects that were ever changed, less those of new ones: kept up to date with each change, where
    /// hashing all of them would take longer than applying.
    sum: u64,
}

impl<O: Object> Default for Keyed<O> {
    fn default() -> Self {
        Self { objects: vec![O::State::default(); usize::from(u8::MAX) + 1], sum: 0 }
    }
}

impl<O: Object> fmt::Debug for Keyed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.changed()).finish()
    }
}

impl<O: Object> Keyed<O> {
    /// An object's state.
    #[must_use]
    pub fn object(&self, key: u8) -> &O::State {
        &self.objects[usize::from(key)]
    }

    fn carry_out(&mut self, command: &[u8]) -> Option<Bytes> {
        let (key, command) = split(command)?;
        let state = &mut self.objects[usize::from(key)];
        let before = fingerprint(&(key, &*state));
        let reply = O::apply(state, command)?;
        let after = fingerprint(&(key, &*state));
        self.sum = self.sum.wrapping_sub(before).wrapping_add(after);
        Some(reply)
    }

    /// Those that are not as they were at first.
    fn changed(&self) -> impl Iterator<Item = (u8, &O::State)> {
        let new = O::State::default();
        (0..=u8::MAX).zip(&self.objects).filter(move |(_, state)| **state != new)
    }
}

impl<O: Object> StateMachine for Keyed<O> {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        self.carry_out(&entry.payload).unwrap_or(Bytes::from_static(MALFORMED))
    }
}

impl<O: Object> Replicated for Keyed<O> {
    fn snapshot(&self) -> State {
        let mut out = vec![VERSION];
        let mut encoded = Vec::new();
        for (key, state) in self.changed() {
            encoded.clear();
            O::encode(state, &mut encoded);
            out.push(key);
            out.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
            out.extend_from_slice(&encoded);
        }
        State::new(out)
    }

    fn restored(state: &State) -> Result<Self, String> {
        let mut reader = Reader(state.bytes());
        check_version("the snapshot of objects", reader.u8(), VERSION)?;
        let mut machine = Self::default();
        let mut next = 0;
        while !reader.0.is_empty() {
            let key = reader.u8().filter(|key| u16::from(*key) >= next);
            let key = key.ok_or("the snapshot's objects are not in the order of their keys")?;
            let bytes = reader.u32().and_then(|len| reader.bytes(len as usize));
            let decoded = bytes.and_then(O::decode);
            let decoded = decoded.ok_or_else(|| format!("the snapshot's object {key} is none"))?;
            next = u16::from(key) + 1;
            let state = &mut machine.objects[usize::from(key)];
            let grown = machine.sum.wrapping_sub(fingerprint(&(key, &*state)));
            machine.sum = grown.wrapping_add(fingerprint(&(key, &decoded)));
            *state = decoded;
        }
        Ok(machine)
    }

    fn digest(&self) -> u64 {
        self.sum
    }

    fn read(&self, query: &[u8]) -> Bytes {
        match split(query) {
            Some((key, [])) => O::read(self.object(key)),
            Some(_) | None => Bytes::from_static(MALFORMED),
        }
    }
}

/// A command for an object, from the object's own.
#[must_use]
pub fn command(key: u8, own: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(2 + own.len());
    out.extend_from_slice(&[VERSION, key]);
    out.extend_from_slice(own);
    out.into()
}

/// A query for an object.
#[must_use]
pub fn query(key: u8) -> Bytes {
    Bytes::copy_from_slice(&[VERSION, key])
}

/// The key, and the object's own.
pub(super) const fn split(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match bytes {
        [VERSION, key, rest @ ..] => Some((*key, rest)),
        _ => None,
    }
}

/// A number as a reply.
pub(super) fn number(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

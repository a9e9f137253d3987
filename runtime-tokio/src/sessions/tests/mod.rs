//! What sessions promise (X1).

mod client;
mod machine;
mod model;

use bytes::Bytes;
use quorate_core::{Entry, EntryKind, Frozen, Index, LogId, Sink, Source, StateError, StateMachine, Term};

use super::{Command, Limits, Reply, SessionId, Sessions};

/// Keeps every command, in order. The reply to one tells how often and when it was applied: `<command>#<place>`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Tally(pub(super) Vec<Bytes>);

impl StateMachine for Tally {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        self.0.push(entry.payload.clone());
        reply_to(&entry.payload, self.0.len())
    }

    fn state_hash(&self) -> Option<u64> {
        Some(self.0.iter().fold(7, |hash, word| u64::from(crc32c::crc32c(word)) ^ hash.wrapping_mul(31)))
    }

    fn freeze(&self) -> Option<Box<dyn Frozen>> {
        Some(Box::new(FrozenTally(self.0.join(&b"\n"[..]))))
    }

    fn restore(&mut self, state: &mut dyn Source) -> Result<(), StateError> {
        let (mut text, mut chunk) = (Vec::new(), [0; 5]);
        loop {
            match state.read(&mut chunk)? {
                0 => break,
                read => text.extend_from_slice(&chunk[..read]),
            }
        }
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        self.0 = lines.map(Bytes::copy_from_slice).collect();
        Ok(())
    }
}

pub(super) fn reply_to(command: &[u8], place: usize) -> Bytes {
    [command, b"#", place.to_string().as_bytes()].concat().into()
}

struct FrozenTally(Vec<u8>);

impl Frozen for FrozenTally {
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        out.put(&self.0)
    }
}

pub(super) fn small() -> Limits {
    Limits { sessions: 3, outstanding: 4, reply_bytes: 1000, idle: None }
}

pub(super) fn sessions(limits: Limits) -> Sessions<Tally> {
    Sessions::new(Tally::default(), limits).unwrap()
}

pub(super) fn entry(index: u64, command: impl Into<Bytes>) -> Entry {
    let id = LogId::new(Term(1), Index(index));
    Entry { id, kind: EntryKind::Command, payload: command.into() }
}

pub(super) fn apply(session: u64, seq: u64, acknowledged: u64, text: &'static str) -> Command {
    let command = Bytes::from_static(text.as_bytes());
    Command::Apply { session: SessionId(session), seq, acknowledged, time: 0, command }
}

pub(super) fn applied(text: &'static str) -> Reply {
    Reply::Applied(Bytes::from_static(text.as_bytes()))
}

/// Another replica, from this one's snapshot.
pub(super) fn replica(machine: &Sessions<Tally>) -> Sessions<Tally> {
    let mut bytes = Vec::new();
    machine.freeze().unwrap().write(&mut bytes).unwrap();
    // Its own limits are those of the snapshot then.
    let mut replica = sessions(Limits { sessions: 1, outstanding: 1, ..Limits::default() });
    replica.restore(&mut &bytes[..]).unwrap();
    replica
}

//! Client sessions: a command that is sent again is applied once (dissertation, section 6.3).

use bytes::Bytes;
use quorate_core::{Entry, LogId, Membership, StateMachine};

use super::{
    codec::{Reader, check_version},
    machine::{Replicated, State, fingerprint},
    request::{Answer, Request},
    table::{Found, Table},
};

/// The layout of snapshots.
const VERSION: u8 = 1;

/// A machine whose clients may send a command again when they don't know what has become of it.
///
/// Everything about sessions is decided by the log: they are called by the index of the entry that opens them, and when
/// there are too many, the one that no entry has named for longest goes. No clock has a say.
///
/// Differs from the paper: a client may have several commands under way, in any order, up to [`AHEAD`](super::AHEAD) of
/// them; therefore answers are kept until the client acknowledges them.
#[derive(Clone, Debug)]
pub struct Sessions<M> {
    machine: M,
    table: Table,
}

impl<M> Sessions<M> {
    /// Around a machine, for this many sessions at most (one at least).
    #[must_use]
    pub fn new(machine: M, limit: u32) -> Self {
        Self { machine, table: Table::new(limit) }
    }

    /// The machine within.
    #[must_use]
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.table.len()
    }
}

impl<M: Replicated> StateMachine for Sessions<M> {
    type Command = Bytes;
    type Reply = Answer;

    fn apply(&mut self, entry: &Entry) -> Answer {
        let index = entry.id.index.0;
        match Request::decode(&entry.payload) {
            Some(Request::Open) => {
                self.table.open(index);
                Answer::Opened(index)
            }
            Some(Request::Command { session, sequence, acknowledged, command }) => {
                match self.table.find(index, session, sequence, acknowledged) {
                    Found::UnknownSession => Answer::UnknownSession,
                    Found::Forgotten => Answer::Forgotten,
                    Found::TooFarAhead => Answer::TooFarAhead,
                    Found::Before(reply) => Answer::Done(reply),
                    Found::Never => {
                        let entry = Entry { payload: command, ..*entry };
                        let reply: Bytes = self.machine.apply(&entry).into();
                        self.table.record(session, sequence, reply.clone());
                        Answer::Done(reply)
                    }
                }
            }
            None => Answer::Malformed,
        }
    }

    fn membership(&mut self, id: LogId, membership: &Membership) {
        self.machine.membership(id, membership);
    }
}

/// A snapshot has the table in front of the machine's. Without it, a restored replica would apply a retry again.
impl<M: Replicated> Replicated for Sessions<M> {
    fn snapshot(&self) -> State {
        let inner = self.machine.snapshot();
        let mut out = vec![VERSION];
        self.table.encode(&mut out);
        out.extend_from_slice(inner.bytes());
        inner.with_bytes(out)
    }

    fn restored(state: &State) -> Result<Self, String> {
        let bytes = state.bytes();
        let mut reader = Reader(bytes);
        check_version("the snapshot of sessions", reader.u8(), VERSION)?;
        let table = Table::decode(&mut reader).ok_or("the snapshot's table of sessions is damaged")?;
        let machine = M::restored(&state.with_bytes(bytes.slice_ref(reader.0)))?;
        Ok(Self { machine, table })
    }

    fn digest(&self) -> u64 {
        fingerprint(&(self.table.digest(), self.machine.digest()))
    }

    fn read(&self, query: &[u8]) -> Bytes {
        self.machine.read(query)
    }
}

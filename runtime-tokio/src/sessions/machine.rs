//! The state machine around the caller's.

use bytes::Bytes;
use quorate_core::{Entry, Frozen, LogId, Membership, Sink, Source, StateError, StateMachine};

use super::{
    table::{Found, Limits, LimitsError, Table, mix},
    wire::{Command, Reply},
};

/// A state machine whose clients may send a command again when they don't know what has become of it: see the
/// [module](super).
///
/// Differs from the dissertation: a client may have several commands under way, in any order, up to
/// [`Limits::outstanding`]; therefore replies are kept until the client acknowledges them, not only the last one.
#[derive(Clone, Debug)]
pub struct Sessions<M> {
    machine: M,
    table: Table,
}

/// Why a state machine can't be given sessions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionsError {
    /// Its storage would be ahead of the table of sessions, which is in memory, and retries would be applied again.
    #[error(
        "the state machine keeps its state in storage of its own (applied up to {applied}): the table of \
         sessions, which is in memory, would be behind it"
    )]
    Durable {
        /// What it says that it has applied.
        applied: LogId,
    },
    /// The limits are none.
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

impl<M: StateMachine> Sessions<M> {
    /// Around a fresh state machine, with no sessions yet.
    ///
    /// # Errors
    /// If the machine is durable by itself, or a limit is out of its range.
    pub fn new(machine: M, limits: Limits) -> Result<Self, SessionsError> {
        limits.validate()?;
        let sessions = Self { machine, table: Table::new(limits) };
        sessions.check_memory()?;
        Ok(sessions)
    }

    fn check_memory(&self) -> Result<(), SessionsError> {
        match self.machine.applied() {
            LogId::ZERO => Ok(()),
            applied => Err(SessionsError::Durable { applied }),
        }
    }
}

impl<M> Sessions<M> {
    /// The machine within, to be read.
    #[must_use]
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.table.len()
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        self.table.limits()
    }
}

impl<M: StateMachine> StateMachine for Sessions<M> {
    type Command = Command;
    type Reply = Reply;

    fn apply(&mut self, entry: &Entry) -> Reply {
        let index = entry.id.index.0;
        let Ok(command) = Command::try_from(entry.payload.clone()) else { return Reply::Malformed };
        match command {
            Command::Register { time } => {
                self.table.advance(time);
                let session = self.table.register(index);
                Reply::Registered { session, outstanding: self.table.limits().outstanding }
            }
            Command::Expire { session, time } => {
                self.table.advance(time);
                self.table.end(session);
                Reply::Expired
            }
            Command::Apply { session, seq, acknowledged, time, command } => {
                self.table.advance(time);
                match self.table.find(index, session, seq, acknowledged) {
                    Found::UnknownSession => Reply::UnknownSession,
                    Found::Stale => Reply::Stale,
                    Found::TooFarAhead => Reply::TooFarAhead,
                    Found::Full => Reply::Full,
                    Found::Before(reply) => Reply::Applied(reply),
                    Found::Never => {
                        let entry = Entry { payload: command, ..*entry };
                        let reply: Bytes = self.machine.apply(&entry).into();
                        self.table.record(session, seq, reply.clone());
                        Reply::Applied(reply)
                    }
                }
            }
            Command::Configure(limits) => {
                self.table.configure(limits);
                Reply::Configured
            }
        }
    }

    fn membership(&mut self, id: LogId, membership: &Membership) {
        self.machine.membership(id, membership);
    }

    fn applied(&self) -> LogId {
        self.machine.applied()
    }

    fn flush(&mut self) -> Result<(), StateError> {
        self.machine.flush()?;
        // Found out now rather than at the next start, when what the table held is lost.
        Ok(self.check_memory()?)
    }

    fn state_hash(&self) -> Option<u64> {
        self.machine.state_hash().map(|machine| mix(&[machine, self.table.hash()]))
    }

    /// The table is copied: some 200 bytes a session, and references to its replies.
    fn freeze(&self) -> Option<Box<dyn Frozen>> {
        let machine = self.machine.freeze()?;
        Some(Box::new(FrozenSessions { table: self.table.clone(), machine }))
    }

    fn restore(&mut self, state: &mut dyn Source) -> Result<(), StateError> {
        let table = Table::read(state)?;
        self.machine.restore(state)?;
        self.table = table;
        Ok(())
    }
}

/// The table, in front of the machine's own state. Without it a restored replica would apply a retry again.
struct FrozenSessions {
    table: Table,
    machine: Box<dyn Frozen>,
}

impl Frozen for FrozenSessions {
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        self.table.write(out)?;
        self.machine.write(out)
    }
}

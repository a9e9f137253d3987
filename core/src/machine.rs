//! What a driver replicates. The protocol never calls it.

use alloc::boxed::Box;
use bytes::Bytes;
use core::{error::Error, fmt};

use crate::{Entry, LogId, Membership};

/// What went wrong while a state was written or put back.
pub type StateError = Box<dyn Error + Send + Sync>;

/// What is replicated: the same commands in the same order give the same state everywhere.
pub trait StateMachine: Send + 'static {
    /// What is proposed: only this can be. The log holds its byte form, which is what [`StateMachine::apply`] finds in
    /// [`Entry::payload`].
    type Command: Into<Bytes>;
    /// What a command answers to whoever proposed it. It has a byte form, so that an answer can travel to a node that
    /// forwarded the command.
    type Reply: Send + 'static + Into<Bytes> + TryFrom<Bytes, Error: fmt::Display>;

    /// Applies one command. Must depend on nothing but the state and the entry: no clock, no randomness.
    fn apply(&mut self, entry: &Entry) -> Self::Reply;

    /// A membership is committed at `id`. Of interest to few.
    fn membership(&mut self, _id: LogId, _membership: &Membership) {}

    /// The last entry that is durable in storage of the state machine's own, together with all that it led to: one that
    /// keeps its state on disk stores this with the data, in the same transaction. It is asked once, at the start; the log is
    /// applied from the entry after it, and no snapshot is restored unless the log begins later than that.
    /// [`LogId::ZERO`], the default: the state is in memory, and comes back from a snapshot and the log.
    fn applied(&self) -> LogId {
        LogId::ZERO
    }

    /// The entries that came together have been applied: a state machine with storage of its own may commit them
    /// together. Nothing has to be durable when this returns: what is lost by a crash is applied again, as far as
    /// [`StateMachine::applied`] is behind. Does nothing by default.
    ///
    /// # Errors
    /// If its storage has failed: the node stops.
    fn flush(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    /// A hash of the whole state, by which replicas find out that they differ: equal states have equal ones, and others
    /// almost surely not. It is called on the apply thread now and then, so it should be kept up to date rather than computed.
    /// `None`, the default: there is none.
    fn state_hash(&self) -> Option<u64> {
        None
    }

    /// The state as it is now, held still so that it can be written out on another thread while commands go on being
    /// applied here. `None`, the default: it takes no snapshots, and its log grows for ever.
    ///
    /// This is called between two commands, which wait for it: it should be cheap, a copy of references rather than of bytes.
    fn freeze(&self) -> Option<Box<dyn Frozen>> {
        None
    }

    /// Replaces the state by one that was [frozen](StateMachine::freeze) and written, by this release or an earlier one.
    /// Called on a fresh state machine, and whenever a leader has sent a snapshot.
    ///
    /// # Errors
    /// If these bytes are not a state that it knows, or can't be read. It is not used any more then.
    fn restore(&mut self, _state: &mut dyn Source) -> Result<(), StateError> {
        Err("this state machine takes no snapshots".into())
    }
}

/// A state that is held still.
pub trait Frozen: Send {
    /// Writes it out, in chunks of any size. The bytes say their own format and version.
    ///
    /// # Errors
    /// What `out` said; else if it can't be written.
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError>;
}

/// Where a state is written to.
pub trait Sink {
    /// Takes all these bytes.
    ///
    /// # Errors
    /// If it can't: nothing more is taken then.
    fn put(&mut self, bytes: &[u8]) -> Result<(), StateError>;
}

/// Where a state is read from.
pub trait Source {
    /// Fills `out` as far as there is something: fewer bytes than asked for only at the end, 0 after it.
    ///
    /// # Errors
    /// If they can't be read, or are damaged.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, StateError>;
}

impl Sink for alloc::vec::Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

impl Source for &[u8] {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, StateError> {
        let len = out.len().min(self.len());
        if let (Some((head, rest)), Some(out)) = (self.split_at_checked(len), out.get_mut(..len)) {
            out.copy_from_slice(head);
            *self = rest;
        }
        Ok(len)
    }
}

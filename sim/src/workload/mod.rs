//! What runs on the simulated nodes, what clients ask of it, and whether they were answered rightly.
//!
//! - A machine is [`Replicated`]: the user's own, or one of many small objects ([`Keyed`]): registers, counters, lists;
//!   with the feature `coord` the coordination engine's store. [`Sessions`] around any of them lets clients send a command
//!   again.
//! - A [`Workload`] draws what clients ask for. [`Service`] has machine and workload together, by name.
//! - Answers are judged by a [`Witness`], for which the log is the order; by a [`search()`] that doesn't ask the log; by a
//!   [`SessionOracle`] for what sessions promise; and by a [`Checker`] of the user's.

mod builtin;
mod client;
mod codec;
#[cfg(feature = "coord")]
pub mod coord;
pub mod counter;
mod history;
mod keyed;
pub mod list;
mod machine;
mod oracle;
mod random;
pub mod register;
mod request;
mod search;
mod sessions;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod witness;

use bytes::Bytes;

pub use builtin::{Search, Service};
pub use client::Client;
pub use history::{Completed, History};
pub use keyed::{Keyed, MALFORMED, Object, command, query};
pub use machine::{Machines, Replica, Replicated, State, machines, replica};
pub use oracle::SessionOracle;
pub use random::Random;
pub use request::{Answer, Request};
pub use search::{Bounds, Opinion, search};
pub use sessions::Sessions;
pub use table::AHEAD;
pub use witness::{Anomaly, Witness, witness};

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// A command, to be replicated.
    Write(Bytes),
    /// A query, to be answered from the state.
    Read(Bytes),
}

/// What clients ask for.
pub trait Workload: Send + Sync {
    /// The next operation of a client, counted from 0. It must follow from the arguments alone.
    fn next(&self, client: usize, rng: &mut Random) -> Op;
}

impl<F: Fn(usize, &mut Random) -> Op + Send + Sync> Workload for F {
    fn next(&self, client: usize, rng: &mut Random) -> Op {
        self(client, rng)
    }
}

/// A user's own judgement, in words if it is against. A closure over an answer is one.
pub trait Checker: Send {
    /// An operation is answered.
    ///
    /// # Errors
    /// If the answer can't be.
    fn answered(&mut self, completed: &Completed) -> Result<(), String>;

    /// The run is over, and all replicas have come to this state.
    ///
    /// # Errors
    /// If that can't be, after this history.
    fn after(&mut self, _history: &[Completed], _state: &dyn Replica) -> Result<(), String> {
        Ok(())
    }
}

impl<F: FnMut(&Completed) -> Result<(), String> + Send> Checker for F {
    fn answered(&mut self, completed: &Completed) -> Result<(), String> {
        self(completed)
    }
}

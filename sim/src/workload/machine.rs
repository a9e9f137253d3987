//! State machines as the simulator runs them: the user's own, on every node.

use std::{any::Any, any::type_name, fmt, hash::Hash, sync::Arc};

use bytes::Bytes;
use quorate_core::{Entry, LogId, Membership, StateMachine};

use crate::digest::Digest;

/// A state machine that whole clusters can be simulated with: it can be put into a snapshot and taken out again.
///
/// With a machine that can only be cloned, two lines do:
///
/// ```
/// use bytes::Bytes;
/// use quorate_core::{Entry, StateMachine};
/// use quorate_sim::workload::{Replicated, State};
///
/// #[derive(Clone, Hash, Default)]
/// struct Count(u64);
///
/// impl StateMachine for Count {
///     type Command = Bytes;
///     type Reply = Bytes;
///     fn apply(&mut self, _: &Entry) -> Bytes {
///         self.0 += 1;
///         Bytes::copy_from_slice(&self.0.to_le_bytes())
///     }
/// }
///
/// impl Replicated for Count {
///     fn snapshot(&self) -> State {
///         State::clone_of(self)
///     }
///     fn restored(state: &State) -> Result<Self, String> {
///         state.to_value()
///     }
/// }
///
/// let count = Count(3);
/// assert_eq!(Count::restored(&count.snapshot())?.digest(), count.digest());
/// # Ok::<(), String>(())
/// ```
pub trait Replicated: StateMachine + Sized {
    /// Everything that later commands and reads depend on.
    fn snapshot(&self) -> State;

    /// The machine that this is a snapshot of.
    ///
    /// # Errors
    /// In words, if it is no snapshot of such a machine.
    fn restored(state: &State) -> Result<Self, String>;

    /// Equal on replicas that have applied the same, and different, but for bad luck, on others. It is asked for after
    /// every entry: a machine with much state does well to keep it up to date as it applies. By default, a hash of the
    /// snapshot.
    fn digest(&self) -> u64 {
        self.snapshot().digest()
    }

    /// Answers a query from the state as it is. By default, with nothing.
    fn read(&self, _query: &[u8]) -> Bytes {
        Bytes::new()
    }
}

/// A machine's state as a snapshot holds it: bytes, and beside them, for a machine that can't be made from bytes, a value.
/// The bytes must stand for the whole state even then: they are what replicas are compared by, and what a fault damages.
#[derive(Clone)]
pub struct State {
    bytes: Bytes,
    value: Option<Arc<dyn Any + Send + Sync>>,
}

impl State {
    /// Of bytes alone.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), value: None }
    }

    /// A clone, for a machine without a byte form. In place of bytes it has its hash: whatever its [`Hash`] leaves out may
    /// differ between replicas unnoticed.
    #[must_use]
    pub fn clone_of<T: Clone + Hash + Send + Sync + 'static>(value: &T) -> Self {
        let bytes = Bytes::copy_from_slice(&fingerprint(value).to_le_bytes());
        Self { bytes, value: Some(Arc::new(value.clone())) }
    }

    /// The value that [`State::clone_of`] was given.
    ///
    /// # Errors
    /// If there is none, or one of another type, or the bytes are no longer those that stand for it.
    pub fn to_value<T: Clone + Hash + Send + Sync + 'static>(&self) -> Result<T, String> {
        let value = self.value.as_deref().and_then(|value| value.downcast_ref::<T>());
        let value = value.ok_or_else(|| format!("the snapshot holds no {}", type_name::<T>()))?;
        if self.bytes[..] != fingerprint(value).to_le_bytes() {
            return Err("the snapshot's bytes don't stand for the value that it holds".to_owned());
        }
        Ok(value.clone())
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Other bytes with the same value: for a machine around a machine, and for faults.
    #[must_use]
    pub fn with_bytes(&self, bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), value: self.value.clone() }
    }

    /// A hash of its bytes.
    #[must_use]
    pub fn digest(&self) -> u64 {
        Digest::of(&self.bytes)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, value } = self;
        write!(f, "State({} bytes, {:016x}", bytes.len(), self.digest())?;
        f.write_str(if value.is_some() { ", and a value)" } else { ")" })
    }
}

/// A [`Replicated`] machine whose type was forgotten, so that whoever runs it needn't know it.
pub trait Replica: Send {
    /// Applies a command, and gives its reply in bytes.
    fn apply(&mut self, entry: &Entry) -> Bytes;
    /// A membership is committed.
    fn membership(&mut self, id: LogId, membership: &Membership);
    /// As [`Replicated::snapshot`].
    fn snapshot(&self) -> State;
    /// Becomes the machine that this is a snapshot of.
    ///
    /// # Errors
    /// As [`Replicated::restored`]; nothing has changed then.
    fn restore(&mut self, state: &State) -> Result<(), String>;
    /// As [`Replicated::digest`].
    fn digest(&self) -> u64;
    /// As [`Replicated::read`].
    fn read(&self, query: &[u8]) -> Bytes;
}

impl fmt::Debug for dyn Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({:016x})", self.digest())
    }
}

/// Makes the machine of a new node, which has applied nothing yet.
pub type Machines = Arc<dyn Fn() -> Box<dyn Replica> + Send + Sync>;

/// Machines of one kind, for a run.
pub fn machines<M: Replicated>(new: impl Fn() -> M + Send + Sync + 'static) -> Machines {
    Arc::new(move || replica(new()))
}

/// A machine, its type forgotten.
pub fn replica<M: Replicated>(machine: M) -> Box<dyn Replica> {
    Box::new(Erased(machine))
}

/// Not a blanket implementation of [`Replica`]: calls on a machine would be ambiguous then.
struct Erased<M>(M);

impl<M: Replicated> Replica for Erased<M> {
    fn apply(&mut self, entry: &Entry) -> Bytes {
        self.0.apply(entry).into()
    }

    fn membership(&mut self, id: LogId, membership: &Membership) {
        self.0.membership(id, membership);
    }

    fn snapshot(&self) -> State {
        self.0.snapshot()
    }

    fn restore(&mut self, state: &State) -> Result<(), String> {
        self.0 = M::restored(state)?;
        Ok(())
    }

    fn digest(&self) -> u64 {
        self.0.digest()
    }

    fn read(&self, query: &[u8]) -> Bytes {
        self.0.read(query)
    }
}

/// The hash of something, the same on every platform.
pub(super) fn fingerprint(item: &impl Hash) -> u64 {
    let mut digest = Digest::default();
    digest.add(item);
    digest.value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::testing::entry;

    #[derive(Clone, Hash, Default, Debug, PartialEq)]
    struct Sum(u64);

    impl StateMachine for Sum {
        type Command = Bytes;
        type Reply = Bytes;

        fn apply(&mut self, entry: &Entry) -> Bytes {
            self.0 += entry.payload.len() as u64;
            Bytes::copy_from_slice(&self.0.to_le_bytes())
        }
    }

    impl Replicated for Sum {
        fn snapshot(&self) -> State {
            State::clone_of(self)
        }

        fn restored(state: &State) -> Result<Self, String> {
            state.to_value()
        }
    }

    #[test]
    fn a_machine_that_can_only_be_cloned_is_restored_from_its_clone() {
        let machines = machines(Sum::default);
        let mut one = machines();
        assert_eq!(one.apply(&entry(1, b"abc")), 3_u64.to_le_bytes()[..]);
        let mut other = machines();
        assert_ne!(one.digest(), other.digest());
        other.restore(&one.snapshot()).unwrap();
        assert_eq!(one.digest(), other.digest());
        assert_eq!(one.apply(&entry(2, b"d")), other.apply(&entry(2, b"d")));
        assert!(one.read(b"anything").is_empty());
    }

    #[test]
    fn a_snapshot_of_something_else_is_refused_and_changes_nothing() {
        let mut one = replica(Sum(7));
        let before = one.digest();
        let error = one.restore(&State::new(&b"\x07"[..])).unwrap_err();
        assert!(error.contains("holds no"), "{error}");
        assert!(one.restore(&State::clone_of(&7_u32)).is_err());
        let damaged = State::clone_of(&Sum(8)).with_bytes(&b"damaged!"[..]);
        let error = one.restore(&damaged).unwrap_err();
        assert!(error.contains("don't stand for"), "{error}");
        assert_eq!(one.digest(), before);
    }
}

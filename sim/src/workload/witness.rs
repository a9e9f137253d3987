//! Linearizability with a witness: the log says in which order operations took effect, so that no order need be searched.
//!
//! A history is linearizable if there is an order of its operations in which each answer is right and none comes before
//! one that had returned before it began. The log is the candidate: held against it is (i) that every answer is what a
//! reference replica gives at that index, and (ii) that the order of indexes is an order that the clients' clocks allow. What
//! fails here may still be linearizable in some other order; but then quorate has broken its word that the log is the order.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use bytes::Bytes;
use quorate_core::{Entry, EntryKind};

use super::{
    history::Completed,
    machine::{Machines, Replica},
};

/// An answer that can't be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anomaly {
    /// A command's answer is not the reference's.
    Reply {
        /// Where it took effect.
        index: u64,
        /// The answer.
        found: Bytes,
        /// What it must be.
        expected: Bytes,
    },
    /// A query's answer is not the reference's.
    Read {
        /// The last entry that it rests on.
        index: u64,
        /// The query.
        query: Bytes,
        /// The answer.
        found: Bytes,
        /// What it must be.
        expected: Bytes,
    },
    /// It began after something had returned, and took effect before that.
    Order {
        /// Where it took effect.
        index: u64,
        /// Where the latest of those had that had returned before it began.
        floor: u64,
        /// A command; else a query.
        write: bool,
    },
    /// It is answered, and took effect nowhere: the index is not in the log, or holds something else.
    Lost {
        /// Where it is said to have.
        index: Option<u64>,
    },
    /// An entry came out of turn.
    Gap {
        /// The one that was due.
        expected: u64,
        /// The one that came.
        found: u64,
    },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply { index, found, expected } => {
                write!(f, "the command at {index} is answered with {found:?}, and must be with {expected:?}")
            }
            Self::Read { index, query, found, expected } => {
                write!(f, "the query {query:?} at {index} is answered with {found:?}, ")?;
                write!(f, "and must be with {expected:?}")
            }
            Self::Order { index, floor, write } => {
                let what = if *write { "a command" } else { "a query" };
                write!(f, "{what} took effect at {index}, but began when {floor} had been answered")
            }
            Self::Lost { index: Some(index) } => {
                write!(f, "an operation is answered as of {index}, where it is not")
            }
            Self::Lost { index: None } => write!(f, "an operation is answered, and took effect nowhere"),
            Self::Gap { expected, found } => write!(f, "entry {found} is committed when {expected} is due"),
        }
    }
}

impl std::error::Error for Anomaly {}

/// Follows a run: it is told of each entry as it is committed, of each operation as it begins, and of each answer.
///
/// Its memory is bounded by its window: answers may be about entries so far back, and at most so many queries wait to be
/// looked at; an answer about something older is counted ([`Witness::unchecked`]) and its order alone is checked.
#[derive(Debug)]
pub struct Witness {
    window: usize,
    /// A replica that has applied all that is committed: it gives the replies.
    head: Box<dyn Replica>,
    at: u64,
    /// A replica that follows at the window's far end, for queries about what is in the window.
    tail: Box<dyn Replica>,
    /// What lies between: entries, and the head's replies to them.
    between: VecDeque<(Entry, Bytes)>,
    /// Queries and answers, by the index where the tail will check them.
    queries: BTreeMap<u64, Vec<(Bytes, Bytes)>>,
    waiting: usize,
    /// The latest effect of all that has returned.
    floor: u64,
    /// What that was when operations began that are open now.
    open: BTreeMap<u64, u64>,
    unchecked: u64,
}

impl Witness {
    /// At the log's beginning.
    #[must_use]
    pub fn new(machines: &Machines, window: usize) -> Self {
        Self {
            window: window.max(1),
            head: machines(),
            at: 0,
            tail: machines(),
            between: VecDeque::new(),
            queries: BTreeMap::new(),
            waiting: 0,
            floor: 0,
            open: BTreeMap::new(),
            unchecked: 0,
        }
    }

    /// The reference, as of the last committed entry.
    #[must_use]
    pub fn reference(&self) -> &dyn Replica {
        &*self.head
    }

    /// How many answers came too late to be checked.
    #[must_use]
    pub const fn unchecked(&self) -> u64 {
        self.unchecked
    }

    /// The next entry is committed, whatever its kind.
    ///
    /// # Errors
    /// If it isn't the next, or the tail in passing finds a query answered wrongly.
    pub fn commit(&mut self, entry: &Entry) -> Result<(), Anomaly> {
        let found = entry.id.index.0;
        if found != self.at + 1 {
            return Err(Anomaly::Gap { expected: self.at + 1, found });
        }
        let reply = apply(&mut *self.head, entry);
        self.at = found;
        self.between.push_back((entry.clone(), reply));
        while self.between.len() > self.window {
            self.advance()?;
        }
        Ok(())
    }

    /// The state that has applied all that is committed, as a digest.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.head.digest()
    }

    /// An operation begins. `op` is the caller's name for it.
    pub fn invoke(&mut self, op: u64) {
        self.open.insert(op, self.floor);
    }

    /// Nobody will hear any more what has become of it.
    pub fn abandon(&mut self, op: u64) {
        self.open.remove(&op);
    }

    /// A command is answered. `index`: where it took effect, which for a retry is where the command came first.
    ///
    /// # Errors
    /// If that can't be.
    pub fn wrote(&mut self, op: u64, index: u64, reply: &Bytes) -> Result<(), Anomaly> {
        self.order(op, index, true)?;
        self.check_reply(index, reply)
    }

    /// A linearizable query is answered from the state as of `index`.
    ///
    /// # Errors
    /// If that can't be.
    pub fn read(&mut self, op: u64, index: u64, query: &Bytes, reply: &Bytes) -> Result<(), Anomaly> {
        self.order(op, index, false)?;
        self.check_read(index, query, reply)
    }

    /// The reply that some node gives when it applies the entry at `index`: to a client or to none.
    ///
    /// # Errors
    /// If it isn't the reference's.
    pub fn check_reply(&mut self, index: u64, reply: &Bytes) -> Result<(), Anomaly> {
        let Some(behind) = self.at.checked_sub(index).filter(|_| index > 0) else {
            return Err(Anomaly::Lost { index: Some(index) });
        };
        let place = (self.between.len() as u64).checked_sub(behind + 1);
        let Some((_, expected)) = place.and_then(|place| self.between.get(place as usize)) else {
            self.unchecked += 1;
            return Ok(());
        };
        if reply != expected {
            let (found, expected) = (reply.clone(), expected.clone());
            return Err(Anomaly::Reply { index, found, expected });
        }
        Ok(())
    }

    /// What some node answers to a query from its state as of `index`, however old that is. If it is not the newest, it is
    /// checked later.
    ///
    /// # Errors
    /// If this, or another before it, isn't the reference's.
    pub fn check_read(&mut self, index: u64, query: &Bytes, reply: &Bytes) -> Result<(), Anomaly> {
        if index > self.at {
            return Err(Anomaly::Lost { index: Some(index) });
        }
        if index == self.at {
            return same(&*self.head, index, query, reply);
        }
        let tail = self.at - self.between.len() as u64;
        if index < tail {
            self.unchecked += 1;
            return Ok(());
        }
        if index == tail {
            return same(&*self.tail, index, query, reply);
        }
        self.queries.entry(index).or_default().push((query.clone(), reply.clone()));
        self.waiting += 1;
        while self.waiting > self.window {
            self.advance()?;
        }
        Ok(())
    }

    /// The run ends: what waits is checked.
    ///
    /// # Errors
    /// If a query was answered wrongly.
    pub fn finish(&mut self) -> Result<(), Anomaly> {
        while self.waiting > 0 {
            self.advance()?;
        }
        Ok(())
    }

    fn order(&mut self, op: u64, index: u64, write: bool) -> Result<(), Anomaly> {
        let floor = self.open.remove(&op).unwrap_or(0);
        if index < floor || (write && index == floor) {
            return Err(Anomaly::Order { index, floor, write });
        }
        self.floor = self.floor.max(index);
        Ok(())
    }

    /// The tail takes a step, and looks at the queries that waited for it there.
    fn advance(&mut self) -> Result<(), Anomaly> {
        let Some((entry, _)) = self.between.pop_front() else {
            self.waiting = 0;
            return Ok(());
        };
        apply(&mut *self.tail, &entry);
        let index = entry.id.index.0;
        let queries = self.queries.remove(&index).unwrap_or_default();
        self.waiting -= queries.len();
        queries.iter().try_for_each(|(query, reply)| same(&*self.tail, index, query, reply))
    }
}

/// Judges a whole history after the run, by its log from the first entry on.
///
/// # Errors
/// The first operation, in the order of time, that can't be.
pub fn witness(history: &[Completed], log: &[Entry], machines: &Machines) -> Result<(), Anomaly> {
    let mut witness = Witness::new(machines, usize::MAX);
    for entry in log {
        witness.commit(entry)?;
    }
    // What returns at the very moment at which something begins is taken to overlap it.
    let began = history.iter().enumerate().map(|(op, completed)| (completed.invoked, false, op));
    let ended = history.iter().enumerate();
    let ended = ended.filter_map(|(op, completed)| Some((completed.returned?, true, op)));
    let mut events: Vec<(u64, bool, usize)> = began.chain(ended).collect();
    events.sort_unstable();
    for (_, returns, op) in events {
        let Completed { op: bytes, write, index, reply, .. } = &history[op];
        let (op, reply) = (op as u64, reply.clone().unwrap_or_default());
        if !returns {
            witness.invoke(op);
            continue;
        }
        let index = index.ok_or(Anomaly::Lost { index: None })?;
        if !write {
            witness.read(op, index, bytes, &reply)?;
            continue;
        }
        // In front of it there may be a session's header.
        let entry = index.checked_sub(1).and_then(|place| log.get(place as usize));
        if !entry.is_some_and(|entry| entry.kind == EntryKind::Command && entry.payload.ends_with(bytes)) {
            return Err(Anomaly::Lost { index: Some(index) });
        }
        witness.wrote(op, index, &reply)?;
    }
    witness.finish()
}

fn apply(replica: &mut dyn Replica, entry: &Entry) -> Bytes {
    // As a driver does it: the machine sees commands alone.
    if entry.kind == EntryKind::Command { replica.apply(entry) } else { Bytes::new() }
}

fn same(replica: &dyn Replica, index: u64, query: &Bytes, found: &Bytes) -> Result<(), Anomaly> {
    let expected = replica.read(query);
    if *found != expected {
        return Err(Anomaly::Read { index, query: query.clone(), found: found.clone(), expected });
    }
    Ok(())
}

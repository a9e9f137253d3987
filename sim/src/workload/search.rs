//! Linearizability without a witness: is there any order at all in which the clients' answers are right?
//!
//! The log is not asked; that makes this a second opinion. Each object is looked at alone, which is enough, for a history
//! is linearizable if that of each object is (Herlihy and Wing, "Linearizability", 1990: locality).
//!
//! The search goes through an object's history in the order of time and keeps every *configuration* that is possible so
//! far: the object's state, and which of the operations that have begun and not returned have taken effect. When an
//! operation returns, those remain in which it has taken effect, or can, after some of the others that are open: later
//! than that it can't have (Lowe, "Testing for linearizability", 2017: just-in-time linearization). With none
//! left, there is no such order. At moments when nothing is open, a configuration is a state alone: the history falls
//! into parts there, without a cut having to be chosen.
//!
//! An operation of which nobody has heard stays open for ever, and may take effect late, or not at all. Of two
//! configurations with equal states, the one is dropped that has used up more of these, for the other can go on as it can.
//!
//! `porcupine-rs` 0.3 does not serve, by its source: a clock alone can stop it, it starts threads, it knows of no operation
//! that may not have happened, and it brings criterion along. This has bounds that mean the same on every machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;

use super::{
    history::Completed,
    keyed::{self, Object},
};

/// How much a search may take, for each object.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Operations at most.
    pub operations: usize,
    /// Commands at most of which it isn't known whether they took effect: each may double the configurations. More than 128
    /// operations are never open at once.
    pub unknown: usize,
    /// Configurations at most at any time: they bound the memory.
    pub configurations: usize,
    /// Operations at most that are tried on a configuration: they bound the time.
    pub steps: u64,
    /// Every command that took effect has its index, as after a run whose whole log is known: one that has none, and that
    /// nobody has heard of, is left out. Else it may have taken effect.
    pub effects_are_known: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            operations: 10_000,
            unknown: 64,
            configurations: 20_000,
            steps: 2_000_000,
            effects_are_known: true,
        }
    }
}

/// What a search has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opinion {
    /// There is such an order.
    Linearizable {
        /// How many objects were decided.
        objects: usize,
        /// How many were not, for they are beyond a bound.
        undecided: usize,
    },
    /// There is none.
    Impossible {
        /// The object.
        key: u8,
        /// The operation, by its place in the history, that returns when no order is left.
        op: usize,
        /// In words.
        what: String,
    },
}

/// Looks for an order of a history of one kind of objects.
#[must_use]
pub fn search<O: Object>(history: &[Completed], bounds: &Bounds) -> Opinion {
    let mut by_key: BTreeMap<u8, Vec<Operation<'_>>> = BTreeMap::new();
    for (place, completed) in history.iter().enumerate() {
        if let Some((key, operation)) = Operation::of(place, completed, bounds.effects_are_known) {
            by_key.entry(key).or_default().push(operation);
        }
    }
    let (mut objects, mut undecided) = (0, 0);
    for (key, operations) in &by_key {
        match Search::<O>::new(operations, bounds).run() {
            Ok(()) => objects += 1,
            Err(Stopped::Bound) => undecided += 1,
            Err(Stopped::Impossible { op, what }) => return Opinion::Impossible { key: *key, op, what },
        }
    }
    Opinion::Linearizable { objects, undecided }
}

#[derive(Clone, Copy, Debug)]
struct Operation<'a> {
    place: usize,
    /// The object's own command; `None` for a read.
    command: Option<&'a [u8]>,
    invoked: u64,
    /// When, and with which answer.
    returned: Option<(u64, &'a Bytes)>,
}

impl<'a> Operation<'a> {
    /// `None` if it tells nothing.
    fn of(place: usize, completed: &'a Completed, effects_are_known: bool) -> Option<(u8, Self)> {
        let (key, own) = keyed::split(&completed.op)?;
        let command = completed.write.then_some(own);
        let returned = completed.returned.zip(completed.reply.as_ref());
        let had_effect = completed.write && (completed.index.is_some() || !effects_are_known);
        let tells = returned.is_some() || had_effect;
        tells.then_some((key, Self { place, command, invoked: completed.invoked, returned }))
    }
}

/// One that is possible: which of the open operations have taken effect (by slot), and the state.
type Configuration<S> = (u128, S);

enum Stopped {
    Bound,
    Impossible { op: usize, what: String },
}

struct Search<'a, O: Object> {
    operations: &'a [Operation<'a>],
    bounds: &'a Bounds,
    steps: u64,
    possible: BTreeSet<Configuration<O::State>>,
    /// Those that are open, by slot.
    open: Vec<Option<&'a Operation<'a>>>,
}

impl<'a, O: Object> Search<'a, O> {
    fn new(operations: &'a [Operation<'a>], bounds: &'a Bounds) -> Self {
        let possible = BTreeSet::from([(0, O::State::default())]);
        Self { operations, bounds, steps: 0, possible, open: Vec::new() }
    }

    fn run(mut self) -> Result<(), Stopped> {
        let unknown = self.operations.iter().filter(|operation| operation.returned.is_none()).count();
        if self.operations.len() > self.bounds.operations || unknown > self.bounds.unknown {
            return Err(Stopped::Bound);
        }
        // What returns at the very moment at which something begins is taken to overlap it.
        let began = self.operations.iter().enumerate().map(|(i, operation)| (operation.invoked, false, i));
        let ended = self.operations.iter().enumerate();
        let ended = ended.filter_map(|(i, operation)| Some((operation.returned?.0, true, i)));
        let mut events: Vec<(u64, bool, usize)> = began.chain(ended).collect();
        events.sort_unstable();
        let mut slots = vec![0; self.operations.len()];
        for (_, returns, i) in events {
            if returns {
                self.returns(slots[i])?;
            } else {
                slots[i] = self.begins(&self.operations[i])?;
            }
        }
        Ok(())
    }

    fn begins(&mut self, operation: &'a Operation<'a>) -> Result<usize, Stopped> {
        let free = self.open.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        if slot >= u128::BITS as usize {
            return Err(Stopped::Bound);
        }
        self.open[slot] = Some(operation);
        Ok(slot)
    }

    /// What is in `slot` has taken effect by now.
    fn returns(&mut self, slot: usize) -> Result<(), Stopped> {
        let bit = 1_u128 << slot;
        let mut remain = BTreeSet::new();
        let before: Vec<Configuration<O::State>> = self.possible.iter().cloned().collect();
        let mut look: Vec<_> = before.into_iter().map(|one| self.with_reads(one)).collect();
        let mut seen: BTreeSet<Configuration<O::State>> = look.iter().cloned().collect();
        while let Some((done, state)) = look.pop() {
            self.steps += self.open.len() as u64;
            if self.steps > self.bounds.steps || seen.len() > self.bounds.configurations {
                return Err(Stopped::Bound);
            }
            if done & bit != 0 {
                remain.insert((done & !bit, state));
                continue;
            }
            for (other, operation) in self.open.iter().enumerate() {
                let Some(operation) = operation.filter(|_| done & (1 << other) == 0) else { continue };
                if operation.command.is_none() {
                    continue;
                }
                let Some(next) = step::<O>(&state, operation) else { continue };
                let wasted = operation.returned.is_none() && next == state;
                if wasted {
                    continue;
                }
                let next = self.with_reads((done | (1 << other), next));
                if seen.insert(next.clone()) {
                    look.push(next);
                }
            }
        }
        if remain.is_empty() {
            return Err(self.impossible(slot));
        }
        self.open[slot] = None;
        self.possible = self.without_dominated(remain);
        Ok(())
    }

    /// With every open read that is right now: it changes nothing, so that to have done it is never worse. Else each would
    /// double the configurations.
    fn with_reads(&self, (mut done, state): Configuration<O::State>) -> Configuration<O::State> {
        for (slot, operation) in self.open.iter().enumerate() {
            let reads = operation.filter(|operation| operation.command.is_none() && done & (1 << slot) == 0);
            if let Some(operation) = reads {
                done |= u128::from(step::<O>(&state, operation).is_some()) << slot;
            }
        }
        (done, state)
    }

    /// Of those with equal states that differ only in which of the unknown have taken effect, the ones with the fewest.
    fn without_dominated(&self, all: BTreeSet<Configuration<O::State>>) -> BTreeSet<Configuration<O::State>> {
        let unknown = self.open.iter().enumerate().fold(0_u128, |mask, (slot, operation)| {
            mask | u128::from(operation.is_some_and(|operation| operation.returned.is_none())) << slot
        });
        if unknown == 0 {
            return all;
        }
        let mut groups: BTreeMap<(u128, O::State), Vec<u128>> = BTreeMap::new();
        for (done, state) in all {
            groups.entry((done & !unknown, state)).or_default().push(done & unknown);
        }
        let mut kept = BTreeSet::new();
        for ((known, state), mut used) in groups {
            used.sort_unstable_by_key(|used| used.count_ones());
            let mut least: Vec<u128> = Vec::new();
            for used in used {
                if !least.iter().any(|less| less & !used == 0) {
                    least.push(used);
                    kept.insert((known | used, state.clone()));
                }
            }
        }
        kept
    }

    fn impossible(&self, slot: usize) -> Stopped {
        const SHOWN: usize = 4;
        let op = self.open[slot].map_or(0, |operation| operation.place);
        let states: BTreeSet<&O::State> = self.possible.iter().map(|(_, state)| state).collect();
        let shown: Vec<_> = states.iter().take(SHOWN).collect();
        let open: Vec<Shown<'_>> = self.open.iter().flatten().map(|operation| Shown(operation)).collect();
        let what = format!(
            "operation {op} fits nowhere: before it {} states are possible, such as {shown:?}; open: {open:?}",
            states.len()
        );
        Stopped::Impossible { op, what }
    }
}

/// The state after it, if its answer is right.
fn step<O: Object>(state: &O::State, operation: &Operation<'_>) -> Option<O::State> {
    let mut next = state.clone();
    let reply = match operation.command {
        Some(command) => O::apply(&mut next, command).unwrap_or_else(|| Bytes::from_static(keyed::MALFORMED)),
        None => O::read(state),
    };
    operation.returned.is_none_or(|(_, found)| reply == *found).then_some(next)
}

struct Shown<'a>(&'a Operation<'a>);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { place, command, invoked, returned } = self.0;
        let command = command.map(Bytes::copy_from_slice);
        write!(f, "{place} (from {invoked} on: {command:?} → {:?})", returned.map(|(_, reply)| reply))
    }
}

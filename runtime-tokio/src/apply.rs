//! The apply lane: it owns the state machine, applies what is committed, answers proposers and runs reads.
//!
//! On a thread for work that blocks, not in a task: a state machine is the user's code and may be slow, or wait for
//! something, and on a worker of the runtime it would hold up what else runs there, heartbeats included.

use std::{
    any::Any,
    collections::VecDeque,
    iter::Peekable,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
    vec,
};

use quorate_core::{
    Entry, EntryKind, Few, Index, Instant, LogId, Membership, Recovered, Run, Snapshot, Source, StateError,
    StateMachine, Term,
};
use tokio::sync::oneshot;

use crate::{
    builder::StartError,
    compare::Online,
    error::{Refusal, StopReason, chain, panic_message},
    inbox::Answer,
    lane::Worker,
    metrics::{SnapshotKind, SnapshotMeter},
    shared::Shared,
    snapshots::{AnySnapshots, AnySource, News},
    status::count,
    sync::atomic::AtomicUsize,
    thread::Alive,
};

/// Something for the state machine, in order. The queue is bounded by the core's `max_applying_bytes` and by the
/// driver's bound on reads.
pub(crate) enum Job<S: StateMachine> {
    /// Begin: the first of all.
    Begin(Box<Begin>),
    /// Apply these.
    Apply {
        /// Committed entries.
        entries: Few<Run>,
        /// Who waits for which of them, in order.
        waiting: Vec<(Index, Answer<S::Reply>)>,
        /// When they were handed over.
        handed: Instant,
    },
    /// Take on the state that this snapshot holds, which is in the store.
    Restore { snapshot: Box<Snapshot>, store: Arc<dyn AnySnapshots> },
    /// Look at the state: what was handed over before is applied by then.
    Read(Box<dyn Reading<S>>),
}

/// From where the state machine begins, and who waits to hear it.
pub(crate) struct Begin {
    pub(crate) recovered: Recovered,
    /// The bytes of the snapshot that `recovered` names.
    pub(crate) snapshot: Option<Box<dyn Source + Send>>,
    pub(crate) answer: oneshot::Sender<Result<Snapshot, StartError>>,
}

/// Who waits for which entry, in order, as far as not answered yet.
type Waiting<R> = Peekable<vec::IntoIter<(Index, Answer<R>)>>;

/// A read that waits, whatever it returns.
pub(crate) trait Reading<S>: Send {
    /// Runs it. `at` is how far the state machine is.
    fn run(self: Box<Self>, machine: &S, at: &Snapshot);
    /// Gives it back unread.
    fn refuse(self: Box<Self>, refusal: Refusal);
    /// Nobody waits any more.
    fn is_closed(&self) -> bool;
}

/// How a read ended.
pub(crate) enum Read<F, R> {
    /// With this.
    Done(R),
    /// Not at all: here it is again, to be tried once more.
    Refused(F, Refusal),
    /// With a panic.
    Panicked(String),
}

/// The usual [`Reading`]: a closure, and who waits for what it returns.
pub(crate) struct Closure<F, R> {
    pub(crate) read: F,
    pub(crate) answer: oneshot::Sender<Read<F, R>>,
    pub(crate) ticket: Ticket,
}

/// Counts a read, or the bytes of a command, for as long as it waits, wherever it is, also when nobody waits for it
/// any more.
pub(crate) struct Ticket {
    waiting: Arc<AtomicUsize>,
    weight: usize,
}

impl Ticket {
    /// As much more, if no more than `bound` waits then.
    pub(crate) fn take(waiting: &Arc<AtomicUsize>, weight: usize, bound: usize) -> Option<Self> {
        // Counted before it is looked at: two at once can't both be the last.
        let ticket = Self { waiting: waiting.clone(), weight };
        (waiting.fetch_add(weight, Relaxed).saturating_add(weight) <= bound).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.weight, Relaxed);
    }
}

impl<S, F, R> Reading<S> for Closure<F, R>
where
    F: FnOnce(&S, &Snapshot) -> R + Send,
    R: Send,
{
    fn run(self: Box<Self>, machine: &S, at: &Snapshot) {
        let Self { read, answer, ticket } = *self;
        if answer.is_closed() {
            return;
        }
        // A read can't leave the state half changed: it has a shared reference only.
        let read = match catch_unwind(AssertUnwindSafe(|| read(machine, at))) {
            Ok(result) => Read::Done(result),
            Err(panic) => Read::Panicked(panic_message(&*panic)),
        };
        // Who has the answer finds room for the next read.
        drop(ticket);
        let _gone = answer.send(read);
    }

    fn refuse(self: Box<Self>, refusal: Refusal) {
        let Self { read, answer, ticket } = *self;
        drop(ticket);
        let _gone = answer.send(Read::Refused(read, refusal));
    }

    fn is_closed(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Owns the state machine. `at` is where that is: the last entry that is in its state, and the membership in force there.
pub(crate) struct Applier<S: StateMachine> {
    machine: S,
    at: Snapshot,
    shared: Arc<Shared<S>>,
    /// Set when the driver doesn't want what waits to be done any more.
    quit: Arc<AtomicBool>,
    /// Jobs that the driver has not heard of yet.
    unreported: u32,
    _alive: Alive,
}

/// How many jobs are done before the driver hears of it, if more are waiting.
const REPORT_EVERY: u32 = 64;

impl<S: StateMachine> Worker<Job<S>> for Applier<S> {
    fn work(&mut self, jobs: &mut VecDeque<Job<S>>) -> ControlFlow<()> {
        for job in jobs.drain(..) {
            match job {
                Job::Begin(begin) => self.begin(*begin)?,
                Job::Read(read) => read.run(&self.machine, &self.at),
                Job::Apply { entries, waiting, handed } => self.apply(&entries, waiting, handed)?,
                Job::Restore { snapshot, store } => self.restore(*snapshot, &*store)?,
            }
        }
        // One report for all that was waiting: it makes room, and nobody is in a hurry for it.
        self.report()
    }
}

impl<S: StateMachine> Applier<S> {
    pub(crate) const fn new(
        machine: S,
        at: Snapshot,
        shared: Arc<Shared<S>>,
        quit: Arc<AtomicBool>,
        alive: Alive,
    ) -> Self {
        Self { machine, at, shared, quit, unreported: 0, _alive: alive }
    }

    fn begin(&mut self, Begin { recovered, snapshot, answer }: Begin) -> ControlFlow<()> {
        let begun = self.start_from(&recovered, snapshot);
        let go_on = begun.is_ok();
        if let Ok(at) = &begun {
            self.at = at.clone();
            self.shared.recent.restored(at.last);
        }
        if answer.send(begun).is_ok() && go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Brings the state machine to where the log can go on from, and says where that is.
    fn start_from(
        &mut self,
        recovered: &Recovered,
        snapshot: Option<Box<dyn Source + Send>>,
    ) -> Result<Snapshot, StartError> {
        let at = recovered.snapshot.as_ref().map_or(recovered.base, |snapshot| snapshot.last);
        let failed = |source: StateError| StartError::Restore { at, source };
        let applied = catch_unwind(AssertUnwindSafe(|| self.machine.applied()))
            .map_err(|panic| failed(panicked(&*panic)))?;
        let begins_in_log = applied.index > Index(0) && applied.index >= recovered.base.index;
        if begins_in_log {
            if term_at(recovered, applied.index) != Some(applied.term) {
                let last = LogId::new(
                    recovered.terms.last().map_or(recovered.base.term, |start| start.term),
                    recovered.last,
                );
                return Err(StartError::Foreign { applied, last });
            }
            let before = recovered.memberships.iter().rev().find(|(index, _)| *index <= applied.index);
            let membership = before.map_or(&recovered.base_membership, |(_, membership)| membership);
            return Ok(Snapshot { last: applied, membership: membership.clone() });
        }
        if let Some(source) = snapshot {
            let meter = self.shared.meter.snapshot(SnapshotKind::Restored, None);
            self.restore_from(Metered { source, meter }).map_err(failed)?;
        }
        // Without a snapshot the log is there from its beginning, which is its base.
        let begin = || Snapshot { last: recovered.base, membership: recovered.base_membership.clone() };
        Ok(recovered.snapshot.clone().unwrap_or_else(begin))
    }

    fn apply(
        &mut self,
        entries: &Few<Run>,
        waiting: Vec<(Index, Answer<S::Reply>)>,
        handed: Instant,
    ) -> ControlFlow<()> {
        // Dropped after a panic was told, so that those in it learn why they have no answer.
        let mut waiting = waiting.into_iter().peekable();
        let Self { machine, at, quit, shared, .. } = self;
        let online = shared.online.get();
        // If it panics the state machine is never used again.
        match catch_unwind(AssertUnwindSafe(|| apply(machine, entries, &mut waiting, quit, at, online))) {
            Ok(Some(applied)) => {
                let after = Duration::from_micros(self.shared.host.clock.now().since(handed));
                self.shared.recent.push(entries);
                self.shared.meter.applied(after, applied);
                count(&self.shared.counters.applied, applied);
            }
            Ok(None) => return ControlFlow::Break(()),
            Err(panic) => {
                let message = panic_message(&*panic).into();
                self.shared.inbox.stop(StopReason::Panicked { at: self.at.last, message });
                return ControlFlow::Break(());
            }
        }
        self.unreported += 1;
        if self.unreported == REPORT_EVERY { self.report() } else { ControlFlow::Continue(()) }
    }

    /// A leader's snapshot takes the place of the state.
    fn restore(&mut self, snapshot: Snapshot, store: &dyn AnySnapshots) -> ControlFlow<()> {
        if self.quit.load(Relaxed) {
            return ControlFlow::Break(());
        }
        let (group, at) = (self.shared.group, snapshot.last);
        let restored = match store.open(group, at) {
            Ok(Some(reader)) => {
                let bytes = reader.info().bytes;
                let meter = self.shared.meter.snapshot(SnapshotKind::Restored, Some(bytes));
                let source = Box::new(AnySource::new(reader));
                self.restore_from(Metered { source, meter }).map(|()| bytes)
            }
            Ok(None) => Err("the store does not have it".into()),
            Err(error) => Err(error),
        };
        match restored {
            Ok(bytes) => {
                self.at = snapshot;
                self.shared.recent.restored(at);
                if let Some(online) = self.shared.online.get() {
                    online.restored(at.index, self.at.membership.members());
                }
                self.unreported += 1;
                self.shared.inbox.news(News::Restored { at: at.index, bytes });
                self.report()
            }
            Err(error) => {
                // Half restored, maybe: it is never used again.
                let message = chain(&*error).into();
                self.shared.inbox.stop(StopReason::Restore { at, message });
                ControlFlow::Break(())
            }
        }
    }

    /// Puts what a snapshot holds into the state machine.
    fn restore_from(&mut self, mut snapshot: Metered) -> Result<(), StateError> {
        let Self { machine, shared, .. } = self;
        let name = format!("quorate-{}-restore", shared.id());
        shared.host.desk.runner.giving_way(&name, || {
            let restore = AssertUnwindSafe(|| machine.restore(&mut snapshot));
            catch_unwind(restore).unwrap_or_else(|panic| Err(panicked(&*panic)))
        })?;
        snapshot.meter.done();
        Ok(())
    }

    /// Tells the driver how far the state machine is.
    fn report(&mut self) -> ControlFlow<()> {
        if self.unreported == 0 {
            return ControlFlow::Continue(());
        }
        self.unreported = 0;
        let machine = &mut self.machine;
        let flushed =
            catch_unwind(AssertUnwindSafe(|| machine.flush())).unwrap_or_else(|panic| Err(panicked(&*panic)));
        match flushed {
            Ok(()) => {
                self.shared.inbox.applied(self.at.last.index);
                ControlFlow::Continue(())
            }
            Err(error) => {
                let message = chain(&*error).into();
                self.shared.inbox.stop(StopReason::StateMachine { at: self.at.last, message });
                ControlFlow::Break(())
            }
        }
    }
}

/// A snapshot that is being read.
struct Metered {
    source: Box<dyn Source + Send>,
    meter: SnapshotMeter,
}

impl Source for Metered {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, StateError> {
        self.source.read(out).inspect(|read| self.meter.add(*read))
    }
}

fn panicked(panic: &(dyn Any + Send)) -> StateError {
    format!("it panicked: {}", panic_message(panic)).into()
}

/// The term of an entry that was recovered.
fn term_at(recovered: &Recovered, index: Index) -> Option<Term> {
    if index == recovered.base.index {
        return Some(recovered.base.term);
    }
    let before = recovered.terms.iter().rev().find(|start| start.first <= index);
    before.filter(|_| index <= recovered.last).map(|start| start.term)
}

/// Applies `runs` and says how many entries that were; `None` if it was told to quit.
fn apply<S: StateMachine>(
    machine: &mut S,
    runs: &Few<Run>,
    waiting: &mut Waiting<S::Reply>,
    quit: &AtomicBool,
    at: &mut Snapshot,
    online: Option<&Arc<Online>>,
) -> Option<usize> {
    let mut applied = 0;
    for entry in runs.iter().flat_map(Run::entries) {
        if quit.load(Relaxed) {
            return None;
        }
        at.last = entry.id;
        applied += 1;
        let mut one = || apply_one(machine, &entry, &mut at.membership);
        let reply = match waiting.peek() {
            Some((index, answer)) if *index == entry.id.index => answer.stages.within(one),
            Some(_) | None => one(),
        };
        if let Some(reply) = reply
            && let Some((_, answer)) = waiting.next_if(|(index, _)| *index == entry.id.index)
        {
            answer.send(Ok(reply));
        }
        if let Some(online) = online {
            compare(machine, &entry, &at.membership, online);
        }
    }
    Some(applied)
}

/// Has the state compared with that of the others, where all do that.
fn compare<S: StateMachine>(machine: &S, applied: &Entry, in_force: &Membership, online: &Arc<Online>) {
    if applied.kind == EntryKind::Membership {
        online.members(in_force.members());
    }
    let index = applied.id.index;
    if online.is_due(index)
        && let Some(hash) = machine.state_hash()
    {
        online.own(index, hash);
    }
}

fn apply_one<S: StateMachine>(machine: &mut S, entry: &Entry, in_force: &mut Membership) -> Option<S::Reply> {
    match entry.kind {
        EntryKind::Noop => {}
        EntryKind::Command => return Some(machine.apply(entry)),
        EntryKind::Membership => {
            // Whatever made the run has looked at its memberships, so this is one.
            if let Ok(membership) = Membership::decode(&entry.payload) {
                machine.membership(entry.id, &membership);
                *in_force = membership;
            }
        }
    }
    None
}

#[cfg(all(test, feature = "shuttle"))]
mod races;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_core::NodeId;

    use crate::trace::Stages;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Notes(Vec<String>);

    impl StateMachine for Notes {
        type Command = Bytes;
        type Reply = Bytes;

        fn apply(&mut self, entry: &Entry) -> Bytes {
            self.0.push(format!("{:?} at {}", entry.payload, entry.id));
            Bytes::from(self.0.len().to_string())
        }

        fn membership(&mut self, id: LogId, membership: &Membership) {
            self.0.push(format!("{:?} at {id}", membership.voters()));
        }
    }

    fn start() -> Snapshot {
        Snapshot { last: LogId::ZERO, membership: Membership::of_voters([NodeId(1)]) }
    }

    fn runs() -> Few<Run> {
        let membership = Membership::of_voters([NodeId(1), NodeId(2)]);
        [
            Run::noop(Term(1), Index(1)),
            Run::commands(Term(1), Index(2), &["a", "b", "c"]).unwrap(),
            Run::membership(Term(2), Index(5), &membership),
            Run::commands(Term(2), Index(6), &["d"]).unwrap(),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn applies_each_kind_in_order_and_answers_whom_it_concerns() {
        let mut notes = Notes::default();
        let (waiting, mut answers): (Vec<_>, Vec<_>) = [3, 4, 6]
            .map(|index| {
                let (answer, outcome) = oneshot::channel();
                ((Index(index), Answer::new(answer, Stages::none())), outcome)
            })
            .into_iter()
            .unzip();
        let gone = answers.remove(1);
        drop(gone);
        let mut at = start();
        let mut waiting = waiting.into_iter().peekable();
        let applied = apply(&mut notes, &runs(), &mut waiting, &AtomicBool::new(false), &mut at, None);
        let (last, membership) =
            (LogId::new(Term(2), Index(6)), Membership::of_voters([NodeId(1), NodeId(2)]));
        assert_eq!((applied, at), (Some(6), Snapshot { last, membership }));
        assert_eq!(
            notes.0,
            ["b\"a\" at 2@T1", "b\"b\" at 3@T1", "b\"c\" at 4@T1", "[n1, n2] at 5@T2", "b\"d\" at 6@T2"]
        );
        let replies: Vec<_> = answers.into_iter().map(|mut answer| answer.try_recv()).collect();
        assert_eq!(replies, [Ok(Ok(Bytes::from("2"))), Ok(Ok(Bytes::from("5")))]);
    }

    #[test]
    fn stops_between_two_entries_when_told_to() {
        let mut notes = Notes::default();
        let mut at = start();
        let mut nobody = Vec::new().into_iter().peekable();
        assert_eq!(apply(&mut notes, &runs(), &mut nobody, &AtomicBool::new(true), &mut at, None), None);
        assert_eq!((notes.0, at), (Vec::new(), start()));
    }
}
